//! Layer truth: what RUN, COPY and ADD did to the files is what other tools see in the layers, to the last attribute.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench::Bench;

/// `CAP_NET_BIND_SERVICE` permitted and effective, as the kernel keeps it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Everything that a layer says of the files below a directory, one line each.
fn listing(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, first: &mut BTreeMap<u64, String>, out: &mut BTreeMap<String, String>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let stat = path.symlink_metadata().unwrap();
            let kind = stat.file_type();
            let detail = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().into_os_string().into_vec().escape_ascii())
            } else if kind.is_dir() {
                "dir".to_owned()
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {:x}", stat.rdev())
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                let bytes = fs::read(&path).unwrap();
                let sum: u64 = bytes.iter().enumerate().map(|(at, byte)| at as u64 ^ u64::from(*byte)).sum();
                let link = match stat.nlink() {
                    1 => String::new(),
                    _ => format!(" is {}", first.entry(stat.ino()).or_insert_with(|| name.clone())),
                };
                format!("{} bytes {sum:x}{link}", bytes.len())
            };
            let capability = xattr(&path, "security.capability").map(|value| format!(" {value:?}")).unwrap_or_default();
            let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
            let time = format!("{}.{:09}", stat.mtime(), stat.mtime_nsec());
            out.insert(name, format!("{mode:o} {uid}:{gid} {time} {detail}{capability}"));
            if kind.is_dir() {
                walk(root, &path, first, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut BTreeMap::new(), &mut out);
    out
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn has_umoci() -> bool {
    let found = Command::new("umoci").arg("--version").stdout(Stdio::null()).status().is_ok_and(|done| done.success());
    if !found {
        assert!(std::env::var_os("RBUILD_TEST_ROOT_REQUIRED").is_none(), "umoci is not installed");
        eprintln!("SKIPPED: umoci is not installed");
    }
    found
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The files of a build as umoci unpacks them from the layers, and as they are written out at once.
fn both(bench: &Bench, context: &Path) -> [BTreeMap<String, String>; 2] {
    let ran = bench.rbuild(["build", "-o", "type=oci,dest=oci,tar=false,name=x:t", "-o", "out"]).arg(context).run();
    let _ran = ran.ok();
    let unpack = ["unpack", "--image"];
    run(Command::new("umoci").args(unpack).arg(format!("{}:t", bench.path("oci").display())).arg(bench.path("b")));
    [listing(&bench.path("b/rootfs")), listing(&bench.path("out"))]
}

#[test]
fn others_see_in_the_layers_what_steps_did() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has_umoci() {
        return;
    }
    // Deletes, opaque directories, every replacement of one type by another, links, ids, devices, holes, odd names.
    let dockerfile = "FROM busybox\n\
        RUN mkdir -p /w/del /w/opaque/in /w/d2f /w/d2l /w/moved && cd /w && echo 1 > del/a && echo 1 > opaque/old && echo 1 > opaque/in/old \
            && echo 1 > f2d && echo 1 > f2l && ln -s del l2d && ln -s del l2f && echo 1 > d2f/x && echo 1 > d2l/x && echo 1 > n2f \
            && mkfifo p2f && echo h > h1 && ln h1 h2 && ln h1 moved/h3 && echo 1 > moved/f\n\
        RUN cd /w && rm -r del && rm -r opaque && mkdir opaque && echo 2 > opaque/new && rm f2d && mkdir f2d && echo 2 > f2d/x \
            && rm f2l && ln -s nowhere f2l && rm l2d && mkdir l2d && rm l2f && echo 2 > l2f && rm -r d2f && echo 2 > d2f \
            && rm -r d2l && ln -s /etc d2l && rm n2f && mknod n2f c 1 3 && rm p2f && echo 2 > p2f && rm h2 && mv moved renamed \
            && touch -d '2001-02-03 04:05:06' n2f\n\
        RUN cd /w && echo s > suid && chown 1000:50 suid && chmod 6755 suid && mkdir -m 2775 sgid && mkdir -m 1777 sticky \
            && mknod blk b 7 200 && mkfifo -m 620 fifo && dd if=/dev/zero of=holes bs=1 count=1 seek=5000000 2>/dev/null \
            && printf x > \"$(printf 'odd\\n\\377\\t name')\" && ln -s \"$(printf 'to\\n\\376')\" \"$(printf 'link\\001')\" \
            && printf x > $(printf '%0200d' 0) && mkdir -p $(printf '%0120d/%0120d' 1 2) && echo y > $(printf '%0120d/%0120d/y' 1 2) \
            && chmod 0 fifo\n\
        COPY --chown=33:33 --chmod=4711 f /c/suid\n\
        COPY tree/ /c/tree/\n\
        ADD a.tar /added/\n\
        RUN mkdir /added/d/more && rm -r /c/tree/gone\n";
    let files = [("Dockerfile", dockerfile), ("f", "f"), ("tree/x", "x"), ("tree/gone/y", "y"), ("tree/deep/z", "z")];
    let context = bench.context("ctx", files);
    fs::hard_link(context.join("tree/x"), context.join("tree/deep/x-too")).unwrap();
    std::os::unix::fs::symlink("../x", context.join("tree/deep/up")).unwrap();
    run(Command::new("touch").args(["-h", "-d", "@1234567890.123456789"]).arg(context.join("tree/deep/up")));
    run(Command::new("touch").args(["-d", "@1000000000.987654321"]).arg(context.join("tree/x")));
    // An archive with a capability, owners, a hole and a device.
    let tree = bench.path("tar-tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/cap"), "c").unwrap();
    fs::set_permissions(tree.join("d/cap"), fs::Permissions::from_mode(0o755)).unwrap();
    rustix::fs::setxattr(tree.join("d/cap"), "security.capability", &CAPABILITY, rustix::fs::XattrFlags::empty())
        .unwrap();
    fs::hard_link(tree.join("d/cap"), tree.join("d/linked")).unwrap();
    fs::File::create(tree.join("hole")).unwrap().set_len(3_000_000).unwrap();
    run(Command::new("mknod").arg(tree.join("zero")).args(["c", "1", "5"]));
    run(Command::new("touch").args(["-d", "@77.5"]).arg(tree.join("d")));
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&tree).args([
        "--xattrs",
        "--xattrs-include=*",
        "--format=pax",
        "--sparse",
        "--owner=5",
        "--group=6",
    ]);
    run(tar.arg("-cf").arg(context.join("a.tar")).arg("."));

    let [unpacked, written] = both(&bench, &context);
    // What a later step changed in a directory shows in its time; of the root itself neither tool says anything.
    assert_eq!(
        unpacked.len(),
        written.len(),
        "{:?}",
        unpacked.keys().filter(|name| !written.contains_key(*name)).collect::<Vec<_>>()
    );
    for (name, what) in &written {
        assert_eq!(Some(what), unpacked.get(name), "{name}");
    }
    let of = |name: &str| written.get(name).map(String::as_str);
    for gone in ["w/del", "w/opaque/old", "w/opaque/in", "w/h2", "w/moved", "c/tree/gone"] {
        assert_eq!(of(gone), None, "{gone} is there");
    }
    for (name, ends) in [
        ("w/f2l", "-> nowhere"),
        ("w/d2l", "-> /etc"),
        ("w/n2f", "device 103"),
        ("w/blk", "device 7c8"),
        ("w/link\\x01", "-> to\\n\\xfe"),
        ("c/tree/x", "is c/tree/deep/x-too"),
        ("added/d/linked", &format!("is added/d/cap {CAPABILITY:?}")),
        ("added/zero", "device 105"),
    ] {
        assert!(of(name).is_some_and(|what| what.ends_with(ends)), "{name}: {:?}", of(name));
    }
    for (name, begins) in [
        ("w/suid", "6755 1000:50 "),
        ("w/sgid", "2775 0:0 "),
        ("w/sticky", "1777 0:0 "),
        ("w/fifo", "0 0:0 "),
        ("w/n2f", "644 0:0 981173106.000000000 "),
        ("w/holes", "644 0:0 "),
        ("w/odd\\n\\xff\\t name", "644 0:0 "),
        ("c/suid", "4711 33:33 "),
        ("c/tree/x", "644 0:0 1000000000.987654321 "),
        ("c/tree/deep/up", "777 0:0 1234567890.123456789 "),
        ("added/hole", "644 5:6 "),
    ] {
        assert!(of(name).is_some_and(|what| what.starts_with(begins)), "{name}: {:?}", of(name));
    }
}

#[test]
fn capabilities_survive_copies_and_chown() {
    let Some(bench) = Bench::new() else { return };
    let files = [(
        "Dockerfile",
        "FROM scratch AS a\nADD a.tar /\nFROM scratch\nCOPY --from=a --chown=9:9 /cap /copied\nCOPY --link --from=a /cap /linked\n",
    )];
    let context = bench.context("ctx", files);
    let cap = bench.path("cap");
    fs::write(&cap, "c").unwrap();
    fs::set_permissions(&cap, fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::setxattr(&cap, "security.capability", &CAPABILITY, rustix::fs::XattrFlags::empty()).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bench.path("")).args(["--xattrs", "--xattrs-include=*", "-cf"]);
    run(tar.arg(context.join("a.tar")).arg("cap"));
    let _ran = bench.rbuild(["build", "-o", "out"]).arg(&context).run().ok();
    for (name, owner) in [("copied", 9), ("linked", 0)] {
        let path = bench.path("out").join(name);
        let stat = path.metadata().unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (owner, 0o4755), "{name}");
        assert_eq!(xattr(&path, "security.capability").as_deref(), Some(&CAPABILITY[..]), "{name}");
    }
}

#[test]
fn an_epoch_dates_every_output() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dockerfile =
        "FROM busybox\nRUN echo x > /new && touch -d @5 /old\nCOPY f /f\nADD <<E /doc\nhi\nE\nWORKDIR /made/here\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile), ("f", "f")]);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000"];
    let output = [
        "-o",
        "out",
        "-o",
        "type=tar,dest=out.tar",
        "-o",
        "type=oci,dest=a.oci,tar=false,name=x:t,rewrite-timestamp=true",
    ];
    let ran = bench.rbuild(["build", "-o", "type=oci,dest=plain,tar=false,name=x:t"]).args(epoch).args(output);
    let _ran = ran.arg(&context).run().ok();
    for name in ["new", "old", "f", "doc", "made", "made/here", "bin"] {
        assert_eq!(bench.path("out").join(name).metadata().unwrap().mtime(), 1000, "{name}");
    }
    let mut list = Command::new("tar");
    let listed =
        list.args(["--full-time", "-tvf"]).arg(bench.path("out.tar")).env("TZ", "UTC").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().count() > 20 && listed.lines().all(|line| line.contains("1970-01-01 00:16:40")), "{listed}");
    if !has_umoci() {
        return;
    }
    for (layout, clamped) in [("a.oci", true), ("plain", false)] {
        let into = bench.path(format!("bundle-{layout}"));
        let image = format!("{}:t", bench.path(layout).display());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&into));
        let time = |name: &str| into.join("rootfs").join(name).metadata().unwrap().mtime();
        assert_eq!(time("old"), 5, "earlier times stay");
        for name in ["new", "f", "doc", "made/here"] {
            assert_eq!(time(name) == 1000, clamped, "{layout} {name}");
        }
    }
    let _ran = bench
        .rbuild(["build", "-o", "type=oci,dest=no.oci,rewrite-timestamp=true"])
        .arg(&context)
        .run()
        .fails(2)
        .says("rewrite-timestamp needs SOURCE_DATE_EPOCH");
}

#[test]
fn platforms_get_a_directory_each() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /f\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile), ("amd64", "a"), ("arm", "b")]);
    let output = ["-o", "out", "-o", "type=tar,dest=out.tar"];
    let ran = bench.rbuild(["build", "--platform=linux/amd64,linux/arm/v7"]).args(output).arg(&context).run();
    let _ran = ran.ok();
    let read = |name: &str| fs::read_to_string(bench.path("out").join(name)).unwrap();
    assert_eq!((read("linux_amd64/f").as_str(), read("linux_arm_v7/f").as_str()), ("a", "b"));
    let listed = Command::new("tar").arg("-tf").arg(bench.path("out.tar")).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed, "linux_amd64/\nlinux_amd64/f\nlinux_arm_v7/\nlinux_arm_v7/f\n");
    let _ran = bench.rbuild(["build", "--platform=linux/arm/v7", "-o", "single"]).arg(&context).run().ok();
    assert!(bench.path("single/f").exists());
}

#[test]
fn a_blob_is_read_even_where_its_layer_is_known() {
    let Some(bench) = Bench::new() else { return };
    let noise: String = (0..20_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY noise /\n"), ("noise", &noise)]);
    let _ran = bench.rbuild(["build", "-o", "type=oci,dest=oci,tar=false,name=x:t"]).arg(&context).run().ok();
    let load = |tag: &str| bench.rbuild(["load", "--oci", "oci", "-t", tag]).run();
    let _ran = load("whole").ok();
    // The same config, and so the same diff id, with a blob that ends early or is another one.
    let blobs = bench.path("oci/blobs/sha256");
    let read = |digest: &serde_json::Value| fs::read(blobs.join(&digest.as_str().unwrap()[7..])).unwrap();
    let write = |bytes: &[u8]| {
        let digest = rbuild_image::Digest::sha256(bytes).to_string();
        fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        digest
    };
    let index_path = bench.path("oci/index.json");
    let index: serde_json::Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&read(&index["manifests"][0]["digest"])).unwrap();
    let layer = read(&manifest["layers"][0]["digest"]);
    let mut other = Command::new("sh");
    let other = other.args(["-c", "head -c 4096 /dev/zero | gzip -n"]).output().unwrap().stdout;
    for bad in [&layer[..layer.len() - 4], &layer[..layer.len() / 2], &other] {
        let (mut index, mut manifest) = (index.clone(), manifest.clone());
        manifest["layers"][0]["digest"] = write(bad).into();
        manifest["layers"][0]["size"] = bad.len().into();
        let bytes = serde_json::to_vec(&manifest).unwrap();
        index["manifests"][0]["digest"] = write(&bytes).into();
        index["manifests"][0]["size"] = bytes.len().into();
        fs::write(&index_path, serde_json::to_vec(&index).unwrap()).unwrap();
        let _ran = load("bad").fails(1).says("invalid layer");
    }
    let _ran = bench.rbuild(["image", "inspect", "bad"]).run().fails(1);
}
