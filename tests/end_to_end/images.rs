//! Images in and out of the store.

use crate::bench::Bench;

#[test]
fn an_empty_tar_is_an_image() {
    let Some(bench) = Bench::new() else { return };
    let tar = std::process::Command::new("tar").args(["c", "--files-from", "/dev/null"]).output().unwrap().stdout;
    let _imported = bench.rbuild(["import", "-", "empty"]).input(tar).run().ok();
    let listed = bench.rbuild(["images"]).run().ok().stdout;
    assert!(listed.lines().any(|line| line.starts_with("empty ") && line.contains("latest")), "{listed}");
}

#[test]
fn images_are_named_listed_and_removed() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _tagged = bench.rbuild(["tag", "busybox", "other:1"]).run().ok();
    let header = bench.rbuild(["images"]).run().ok().stdout;
    assert!(header.starts_with("REPOSITORY"), "{header}");
    let ids = bench.rbuild(["images", "-q"]).run().ok().stdout;
    assert_eq!(ids.lines().count(), 2, "{ids}");
    let ran = bench.rbuild(["rmi", "other:1"]).run().ok();
    assert!(ran.stdout.contains("Untagged: other:1"), "{}", ran.stdout);
    assert_eq!(bench.shell("busybox", "echo still here"), "still here\n");
    let ran = bench.rbuild(["rmi", "busybox"]).run().ok();
    assert!(ran.stdout.contains("Deleted: sha256:"), "{}", ran.stdout);
    let _gone = bench.rbuild(["image", "inspect", "busybox"]).run().fails(1).says("busybox");
}

#[test]
fn saved_images_load_again_with_the_same_id() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN mkdir /d && echo x > /d/x && rm /bin/vi\n")]);
    let _built = bench.build("app:1", &context).ok();
    let id = bench.rbuild(["images", "-q", "--no-trunc", "app:1"]).run().ok().stdout;
    for format in ["oci", "docker"] {
        let file = bench.path(format!("{format}.tar"));
        let _saved = bench.rbuild(["save", "--format", format, "-o"]).arg(&file).arg("app:1").run().ok();
        let _removed = bench.rbuild(["rmi", "app:1"]).run().ok();
        let loaded = bench.rbuild(["load", "-i"]).arg(&file).run().ok();
        assert!(loaded.stdout.contains("Loaded image: app:1"), "{}", loaded.stdout);
        assert_eq!(bench.rbuild(["images", "-q", "--no-trunc", "app:1"]).run().ok().stdout, id, "{format}");
        assert_eq!(bench.shell("app:1", "cat /d/x; ls /bin/vi 2>/dev/null || echo gone"), "x\ngone\n");
    }
}

#[test]
fn a_name_without_a_tag_saves_all_its_tags() {
    let Some(bench) = Bench::with_busybox() else { return };
    for name in ["app:1", "app:2", "other:1"] {
        let context = bench.context("ctx", [("Dockerfile", &format!("FROM busybox\nLABEL is={}\n", &name[..4]))]);
        let _built = bench.build(name, &context).ok();
    }
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nLABEL is=three\n")]);
    let _built = bench.build("app:3", &context).ok();
    let file = bench.path("app.tar");
    let _saved = bench.rbuild(["save", "-o"]).arg(&file).arg("app").run().ok();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o7777, 0o600, "what is saved is for its owner, as with Docker");
    let store = bench.path("other-store");
    let loaded = bench.rbuild_at(&store, ["load", "-i"]).arg(&file).run().ok().stdout;
    assert_eq!(loaded, "Loaded image: app:1\nLoaded image: app:2\nLoaded image: app:3\n");
    // An id is no name.
    let id = bench.rbuild(["images", "-q", "app:3"]).run().ok().stdout.trim().to_owned();
    let _saved = bench.rbuild(["save", "-o"]).arg(&file).arg(&id).run().ok();
    let loaded = bench.rbuild_at(&store, ["load", "-i"]).arg(&file).run().ok().stdout;
    assert!(loaded.starts_with("Loaded image ID: sha256:"), "{loaded}");
}

#[test]
fn what_says_what_an_image_is_cannot_be_its_name() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\n")]);
    let _container = bench.rbuild(["create", "--name", "used", "busybox"]).run().ok();
    let by_digest = format!("x@sha256:{}", "0".repeat(64));
    for (name, message) in
        [("sha256:2a24", "as a digest's algorithm is"), (&by_digest, "a name with a digest cannot be given")]
    {
        for command in [&["tag", "busybox", name][..], &["commit", "used", name], &["import", "busybox.tar", name]] {
            let _refused = bench.rbuild(command).run().fails(1).says(message);
        }
        let _refused = bench.build(name, &context).fails(2).says(message);
    }
    assert_eq!(bench.rbuild(["images", "-q"]).run().ok().stdout.lines().count(), 1);
    let _removed = bench.rbuild(["rm", "used"]).run().ok();
}

#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let Some(bench) = Bench::with_busybox() else { return };
    let file = bench.path("a.tar");
    let _saved = bench.rbuild(["save", "-o"]).arg(&file).arg("busybox").run().ok();
    let _removed = bench.rbuild(["rmi", "busybox"]).run().ok();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&file, &bytes).unwrap();
    let _refused = bench.rbuild(["load", "-i"]).arg(&file).run().fails(1);
    std::fs::write(&file, &bytes[..middle]).unwrap();
    let _cut = bench.rbuild(["load", "-i"]).arg(&file).run().fails(1);
    assert_eq!(bench.rbuild(["images", "-q"]).run().ok().stdout, "");
    let _sound = bench.rbuild(["cache", "verify"]).run().ok();
}

#[test]
fn outputs_are_whole_files_or_nothing() {
    let Some(bench) = Bench::with_busybox() else { return };
    let good = bench.context("good", [("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f\n")]);
    let bad = bench.context("bad", [("Dockerfile", "FROM busybox\nRUN false\n")]);
    let _tar = bench.rbuild(["build", "-o", "type=tar,dest=out.tar"]).arg(&good).run().ok();
    let names = std::process::Command::new("tar").arg("-tf").arg(bench.path("out.tar")).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&names), "f\n");
    let _local = bench.rbuild(["build", "-o", "out"]).arg(&good).run().ok();
    assert_eq!(std::fs::read_to_string(bench.path("out/f")).unwrap(), "f\n");
    let _failed = bench.rbuild(["build", "-o", "type=oci,dest=bad.tar"]).arg(&bad).run().fails(1);
    assert!(!bench.path("bad.tar").exists());
    let _id = bench.rbuild(["build", "-q", "--iidfile=id", "-t", "good"]).arg(&good).run().ok();
    assert!(std::fs::read_to_string(bench.path("id")).unwrap().starts_with("sha256:"));
}
