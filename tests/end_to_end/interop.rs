//! Docker, Podman and buildah at the other end: what they push is pulled, runs, and keeps its digest when it is pushed elsewhere;
//! what is saved and pushed here, they take.

use std::process::Command;

use serde_json::Value;

use crate::bench::Bench;
use crate::outputs::Dockerd;
use crate::peers::{has, run};
use crate::registry::Registry;

fn digest(name: &str) -> String {
    let args = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    run(Command::new("skopeo").args(args).arg(format!("docker://{name}"))).trim().to_owned()
}

/// Pulls an image, runs it, and pushes it to another registry under the same digest, by way of the store and by a copy.
fn comes_and_goes(bench: &Bench, from: &str, other: &Registry, what: &str) {
    let want = digest(from);
    let store = bench.path("between");
    let _pulled = bench.rbuild_at(&store, ["pull", from]).run().ok();
    let ran = bench.rbuild_at(&store, ["run", "--rm", "--network=none", from]).run().ok();
    assert_eq!(ran.stdout, "hello\n", "{what}");
    let name = other.name(&format!("pushed/{what}:1"));
    let _tagged = bench.rbuild_at(&store, ["tag", from, &name]).run().ok();
    let _pushed = bench.rbuild_at(&store, ["push", &name]).run().ok();
    assert_eq!(digest(&name), want, "{what}, pushed");
    let copied = other.name(&format!("copied/{what}:1"));
    let ran = bench.rbuild_at(&store, ["image", "copy", "-q", from, &copied]).run().ok();
    assert_eq!((ran.stdout.trim(), digest(&copied).as_str()), (want.as_str(), want.as_str()), "{what}, copied");
    let stored = other.name(&format!("stored/{what}:1"));
    let ran = bench.rbuild_at(&store, ["image", "copy", "-q", &format!("store:{from}"), &stored]).run().ok();
    assert_eq!(
        (ran.stdout.trim(), digest(&stored).as_str()),
        (want.as_str(), want.as_str()),
        "{what}, out of the store"
    );
    let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
    std::fs::remove_dir_all(&store).unwrap();
}

/// An image that says hello, as an archive that `docker load` reads and as an OCI layout in a tar.
fn archives(bench: &Bench) {
    let text =
        "FROM busybox\nRUN mkdir /d && echo hello > /d/f && ln /d/f /d/g\nRUN rm /d/g\nCMD [\"cat\", \"/d/f\"]\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let _built = bench.build("localhost/app:1", &context).ok();
    for kind in ["docker", "oci"] {
        let place = format!("{kind}-archive:{}:localhost/app:1", bench.path(format!("app.{kind}")).display());
        let _copied = bench.rbuild(["image", "copy", "-q", "store:localhost/app:1", &place]).run().ok();
    }
    let _saved = bench.rbuild(["save", "-o", "app.saved", "localhost/app:1"]).run().ok();
}

#[test]
fn what_docker_pushes_comes_and_goes_and_docker_takes_what_is_saved_and_pushed() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let Some(daemon) = Dockerd::start(&bench) else { return };
    let [one, two] = ["one", "two"].map(|dir| Registry::start(&bench.path(dir)));
    archives(&bench);
    let id = bench.rbuild(["images", "-q", "--no-trunc", "localhost/app:1"]).run().ok().stdout;
    for archive in ["app.docker", "app.saved"] {
        let loaded = run(daemon.docker(["load", "-i"]).arg(bench.path(archive)));
        assert!(loaded.contains("localhost/app:1"), "{archive}: {loaded}");
        assert_eq!(
            run(&mut daemon.docker(["image", "inspect", "--format={{.Id}}", "localhost/app:1"])),
            id,
            "{archive}"
        );
        assert_eq!(
            run(&mut daemon.docker(["run", "--rm", "--network=none", "localhost/app:1"])),
            "hello\n",
            "{archive}"
        );
    }
    // Its manifest is of Docker's own kind.
    let name = one.name("docker/app:1");
    run(daemon.docker(["tag", "localhost/app:1"]).arg(&name));
    run(daemon.docker(["push", "-q"]).arg(&name));
    let raw: Value = serde_json::from_str(&bench.rbuild(["manifest", "inspect", &name]).run().ok().stdout).unwrap();
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    comes_and_goes(&bench, &name, &two, "docker");
    // And it pulls what we push, by its digest.
    let ours = two.name("ours/app:1");
    let _tagged = bench.rbuild(["tag", "localhost/app:1", &ours]).run().ok();
    let _pushed = bench.rbuild(["push", &ours]).run().ok();
    let by_digest = format!("{}@{}", two.name("ours/app"), digest(&ours));
    run(daemon.docker(["rmi", "-f", "localhost/app:1"]).arg(&name));
    run(daemon.docker(["pull", "-q"]).arg(&by_digest));
    assert_eq!(run(daemon.docker(["run", "--rm", "--network=none"]).arg(&by_digest)), "hello\n");
    run(daemon.docker(["save", "-o"]).arg(bench.path("back.tar")).arg(&by_digest));
}

#[test]
fn what_podman_and_buildah_push_comes_and_goes_and_they_run_what_is_saved() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") || !has("podman") || !has("buildah") || !has("runc") {
        return;
    }
    let [one, two] = ["one", "two"].map(|dir| Registry::start(&bench.path(dir)));
    archives(&bench);
    std::fs::write(bench.path("containers.conf"), "[containers]\ndefault_ulimits = []\n").unwrap();
    let peer = |program: &str| {
        let mut command = Command::new(program);
        let dir = bench.path("peer");
        command.env("CONTAINERS_CONF", bench.path("containers.conf"));
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    for archive in ["app.docker", "app.oci", "app.saved"] {
        let loaded = run(peer("podman").args(["load", "-q", "-i"]).arg(bench.path(archive)));
        assert!(loaded.contains("localhost/app:1"), "{archive}: {loaded}");
        let args = ["--cgroup-manager=cgroupfs", "run", "--rm", "--network=none", "--runtime=runc", "localhost/app:1"];
        assert_eq!(run(peer("podman").args(args)), "hello\n", "{archive}");
    }
    for (what, program, more) in [
        ("podman", "podman", &[][..]),
        ("buildah", "buildah", &[]),
        ("schema2", "buildah", &["--format=v2s2"]),
        ("zstd", "podman", &["--compression-format=zstd"]),
    ] {
        let name = one.name(&format!("{what}/app:1"));
        let mut push = peer(program);
        push.args(["push", "-q", "--tls-verify=false"])
            .args(more)
            .arg("localhost/app:1")
            .arg(format!("docker://{name}"));
        run(&mut push);
        comes_and_goes(&bench, &name, &two, what);
    }
    // A name with both a tag and a digest is the digest's image.
    let (name, digest) = (one.name("podman/app"), digest(&one.name("podman/app:1")));
    let both = format!("{name}:other@{digest}");
    let pulled = bench.rbuild_at(&bench.path("both"), ["pull", "-q", &both]).run().ok().stdout;
    assert!(pulled.contains(&digest), "{pulled}");
    let wrong = format!("{name}:1@sha256:{}", "0".repeat(64));
    let _absent = bench.rbuild_at(&bench.path("both"), ["pull", "-q", &wrong]).run().fails(1);
}
