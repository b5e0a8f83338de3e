//! Where the kernel's overlayfs does not do it, fuse-overlayfs or copies do: images are the same to the last bit.

use std::fs;
use std::path::Path;

use crate::bench::Bench;

/// Every way that can be tried here; overlayfs is the first.
pub(crate) fn kinds() -> Vec<&'static str> {
    let fuse = Path::new("/usr/bin/fuse-overlayfs").exists() && Path::new("/dev/fuse").exists();
    if !fuse {
        eprintln!("SKIPPED with fuse-overlayfs: it is not installed");
    }
    ["overlayfs", "fuse-overlayfs", "copy"].into_iter().filter(|kind| fuse || *kind != "fuse-overlayfs").collect()
}

const DOCKERFILE: &str = "\
FROM busybox AS base
RUN mkdir -p /d/old /e && echo 1 > /d/old/f && echo 2 > /d/g && chmod 4755 /d/g && ln -s g /d/link && ln /d/g /d/hard
FROM base
RUN rm -r /d/old && mkdir /d/old && echo 3 > /d/old/new && rm /d/link && chown 7:8 /d/hard
RUN --mount=type=bind,from=base,source=/d,target=/m,rw --mount=type=tmpfs,target=/t/t cat /m/old/f && echo x > /m/old/f && mv /e /f
WORKDIR /d/old
COPY f /d/
RUN cat new ../f && rmdir /f && mkfifo pipe
CMD [\"cat\", \"/d/old/new\"]
";

/// The diff ids of the one image in a layout.
fn layers(layout: &Path) -> serde_json::Value {
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &serde_json::Value| {
        let (algorithm, hex) = digest.as_str().unwrap().split_once(':').unwrap();
        read(&layout.join("blobs").join(algorithm).join(hex))
    };
    let manifest = blob(&read(&layout.join("index.json"))["manifests"][0]["digest"]);
    blob(&manifest["config"]["digest"])["rootfs"]["diff_ids"].clone()
}

#[test]
fn images_are_the_same_whatever_puts_their_layers_together() {
    let Some(bench) = Bench::new() else { return };
    let context = bench.context("context", [("Dockerfile", DOCKERFILE), ("f", "content\n")]);
    let tar = bench.busybox_tar();
    let mut images: Vec<(&str, serde_json::Value)> = Vec::new();
    for kind in kinds() {
        let store = bench.path(format!("store-{kind}"));
        let _ran = bench.rbuild_at(&store, ["import", "-c", "ENV PATH=/bin"]).arg(&tar).arg("busybox").run().ok();
        let output = format!("type=oci,dest={kind},tar=false,name=x:t,rewrite-timestamp=true");
        let args = [
            "--overlay",
            kind,
            "build",
            "--progress=plain",
            "--network=none",
            "-t",
            "x",
            "-o",
            &output,
            "-o",
            "type=store",
        ];
        let ran = bench.rbuild_at(&store, args).arg(&context).env("SOURCE_DATE_EPOCH", "1000000000").run();
        let _ran = ran.ok();
        images.push((kind, layers(&bench.path(kind))));
        // A container keeps its changes from one run to the next.
        let rbuild = |args: &[&str]| bench.rbuild_at(&store, ["--overlay", kind]).args(args).run();
        let _ran = rbuild(&[
            "create",
            "--name=cc",
            "--network=none",
            "x",
            "sh",
            "-c",
            "ls -A /n 2>/dev/null; mkdir -p /n; touch /n/$(ls /n | wc -l)",
        ])
        .ok();
        assert_eq!(rbuild(&["start", "-a", "cc"]).ok().stdout, "", "{kind}");
        assert_eq!(rbuild(&["start", "-a", "cc"]).ok().stdout, "0\n", "{kind}");
        assert_eq!(rbuild(&["start", "-a", "cc"]).ok().stdout, "0\n1\n", "{kind}");
        let _ran = rbuild(&["rm", "cc"]).ok();
        assert_eq!(rbuild(&["run", "--rm", "--network=none", "x"]).ok().stdout, "3\n", "{kind}");
    }
    assert!(images.iter().all(|(_, layers)| *layers == images[0].1), "{images:#?}");
}

#[test]
fn what_was_asked_for_is_shown_and_what_cannot_be_is_refused() {
    let Some(bench) = Bench::with_busybox() else { return };
    let check = |args: &[&str]| -> serde_json::Value {
        let text = bench.rbuild(args).args(["doctor", "--format=json"]).run().ok().stdout;
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        all["checks"].as_array().unwrap().iter().find(|check| check["name"] == "overlay").unwrap().clone()
    };
    assert_eq!(check(&[])["state"], "works");
    let copied = check(&["--overlay=copy"]);
    assert_eq!(copied["state"], "degraded");
    assert!(copied["found"].as_str().unwrap().starts_with("layers are copied"), "{copied}");
    let _ran = bench.rbuild(["images"]).env("RBUILD_OVERLAY", "aufs").run().fails(1).says("is no kind of overlay");
    // Without the device nothing serves such a mount.
    let script = "mount -t tmpfs t /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; \
                  mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/random c 1 8; mknod -m 666 /dev/full c 1 7; \
                  mknod -m 666 /dev/tty c 5 0; exec \"$@\"";
    let run = ["--overlay=fuse-overlayfs", "run", "--rm", "--network=none", "busybox", "true"];
    let ran = bench.through(["unshare", "-m", "sh", "-ec", script, "sh"], run).run().fails(125);
    let _ran = ran
        .says("fuse-overlayfs was asked for and does not work")
        .says(if kinds().contains(&"fuse-overlayfs") { "/dev/fuse" } else { "not installed" });
}
