//! What containers see of the host, what outlives them, and what is exported.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rbuild_container::{
    AnonymousVolumes, MountRequest, RemoveOptions, RunRequest, VolumeError, parse_mount_flag, parse_tmpfs_flag,
    parse_volume_flag,
};
use rbuild_image::layer::{EntryKind, TarReader};

use crate::world::{Test, World, kept, request};

pub(crate) const TESTS: &[Test] = &[
    ("bind_mounts_are_seen_both_ways", bind_mounts_are_seen_both_ways),
    ("a_working_directory_below_a_mount_is_made", a_working_directory_below_a_mount_is_made),
    ("bind_sources_that_are_missing", bind_sources_that_are_missing),
    ("volumes_of_the_image_are_filled_and_go_with_rm", volumes_of_the_image_are_filled_and_go_with_rm),
    ("a_named_volume_outlives_its_containers", a_named_volume_outlives_its_containers),
    ("tmpfs_is_empty_and_bounded", tmpfs_is_empty_and_bounded),
    ("changes_stay_between_starts_and_are_exported", changes_stay_between_starts_and_are_exported),
];

fn volume(text: &str) -> MountRequest {
    parse_volume_flag(text, Path::new("/")).unwrap()
}

fn bind_mounts_are_seen_both_ways(world: &World) {
    let host = world.host_directory("shared");
    fs::write(host.join("from-host"), "host").unwrap();
    let bind = |options: &str| volume(&format!("{}:/mnt/in{options}", host.display()));
    let script = "cat /mnt/in/from-host; echo container > /mnt/in/from-container && echo written";
    let written = world.run(&RunRequest { mounts: vec![bind("")], ..request(&["sh", "-c", script]) }).unwrap();
    assert_eq!(written.out, "hostwritten\n");
    assert_eq!(fs::read_to_string(host.join("from-container")).unwrap(), "container\n");
    let refused = world.run(&RunRequest { mounts: vec![bind(":ro")], ..request(&["sh", "-c", script]) }).unwrap();
    assert_eq!(refused.out, "host");
    let file = volume(&format!("{}:/etc/one:ro", host.join("from-host").display()));
    let one = world.run(&RunRequest { mounts: vec![file], ..request(&["cat", "/etc/one"]) }).unwrap();
    assert_eq!(one.out, "host");
    let link = world.host_directory("links").join("link");
    drop(fs::remove_file(&link));
    std::os::unix::fs::symlink(&host, &link).unwrap();
    let followed = volume(&format!("{}:/mnt/in", link.display()));
    let followed = world.run(&RunRequest { mounts: vec![followed], ..request(&["cat", "/mnt/in/from-host"]) }).unwrap();
    assert_eq!(followed.out, "host");
}

fn a_working_directory_below_a_mount_is_made(world: &World) {
    let host = world.host_directory("work");
    let asked = RunRequest {
        mounts: vec![volume(&format!("{}:/mnt", host.display()))],
        working_dir: Some("/mnt/a/b".into()),
        ..request(&["sh", "-c", "pwd; stat -c %a,%u ."])
    };
    assert_eq!(world.run(&asked).unwrap().out, "/mnt/a/b\n755,0\n");
    assert!(host.join("a/b").is_dir());
    let read_only = RunRequest { mounts: vec![volume(&format!("{}:/mnt:ro", host.display()))], ..asked.clone() };
    assert_eq!(world.run(&read_only).unwrap().code, 0, "it is there now");
    let refused = RunRequest { working_dir: Some("/mnt/c".into()), ..read_only };
    assert!(world.run(&refused).unwrap_err().starts_with("cannot enter the working directory /mnt/c"));
}

fn bind_sources_that_are_missing(world: &World) {
    let missing = world.host_directory("missing").join("a/b");
    let made = RunRequest { mounts: vec![volume(&format!("{}:/mnt", missing.display()))], ..request(&["true"]) };
    assert_eq!(world.run(&made).unwrap().code, 0);
    assert!(missing.is_dir(), "-v makes it");
    let text = format!("type=bind,src={},dst=/mnt", missing.join("c").display());
    let refused = RunRequest { mounts: vec![parse_mount_flag(&text, Path::new("/")).unwrap()], ..request(&["true"]) };
    let error = world.run(&refused).unwrap_err();
    assert!(error.starts_with("bind source path does not exist: "), "{error}");
}

fn volumes_of_the_image_are_filled_and_go_with_rm(world: &World) {
    let shown =
        world.sh("cat /data/seed; echo; stat -c %a /data/seed; echo x > /data/new; grep -c ' /data ' /proc/mounts");
    assert_eq!(shown.out, "from the image\n640\n1\n");
    assert_eq!(world.containers.volumes().unwrap(), [], "--rm removes it");

    let lease = world.store.lease("test").unwrap();
    let record = world.create(&kept(&["true"]), &lease).unwrap();
    let volumes = world.containers.volumes().unwrap();
    assert_eq!(volumes.len(), 1);
    let error = world.containers.remove_volume(&volumes[0].name, &lease).unwrap_err();
    assert!(matches!(error, VolumeError::InUse { .. }), "{error}");
    world.containers.remove(&record.id, RemoveOptions::default(), &lease).unwrap();
    assert_eq!(world.containers.volumes().unwrap().len(), 1, "rm without -v keeps it");
    world.containers.remove_volume(&volumes[0].name, &lease).unwrap();
}

fn a_named_volume_outlives_its_containers(world: &World) {
    let with = |script: &str| RunRequest { mounts: vec![volume("kept-data:/data")], ..request(&["sh", "-c", script]) };
    assert_eq!(world.run(&with("cat /data/seed; echo more > /data/more")).unwrap().out, "from the image");
    assert_eq!(world.run(&with("cat /data/more; rm /data/seed")).unwrap().out, "more\n");
    assert_eq!(world.run(&with("ls /data")).unwrap().out, "more\nsub\n", "not filled again");
    let lease = world.store.lease("test").unwrap();
    world.containers.remove_volume(&"kept-data".parse().unwrap(), &lease).unwrap();
}

fn tmpfs_is_empty_and_bounded(world: &World) {
    let script = "ls /data; stat -c %a /data; dd if=/dev/zero of=/data/big bs=1k count=2000 2>/dev/null || echo full";
    let tmpfs = parse_tmpfs_flag("/data:size=1m,mode=700").unwrap();
    let shown = world.run(&RunRequest { mounts: vec![tmpfs], ..request(&["sh", "-c", script]) }).unwrap();
    assert_eq!(shown.out, "700\nfull\n");
}

fn changes_stay_between_starts_and_are_exported(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let script = "cat /made-before 2>/dev/null; echo again > /made-before; rm -f /not-executable; mkdir -p /dir; echo x > /dir/f";
    let record = world.create(&kept(&["sh", "-c", script]), &lease).unwrap();
    assert_eq!(world.start(&record, b"").unwrap().out, "");
    assert_eq!(world.start(&record, b"").unwrap().out, "again\n", "a second start sees the first one's changes");
    let record = world.containers.find(record.id.short()).unwrap();
    assert_eq!(record.state.exit.as_ref().map(rbuild_container::ContainerExit::code), Some(0));

    let mut tar = Vec::new();
    world.containers.export(&record, &mut tar, &lease).unwrap();
    let mut reader = TarReader::new(tar.as_slice());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let kind = match entry.kind {
            EntryKind::Directory => "/",
            EntryKind::Symlink { .. } => "@",
            _ => "",
        };
        names.push(format!("{}{kind}", entry.path));
    }
    for wanted in ["/bin/", "/bin/busybox", "/bin/sh@", "/dir/", "/dir/f", "/made-before", "/made/deep/", "/data/seed"]
    {
        assert!(names.iter().any(|name| name == wanted), "{wanted} in {names:?}");
    }
    for unwanted in ["/not-executable", "/etc/hosts", "/etc/resolv.conf"] {
        assert!(!names.iter().any(|name| name == unwanted), "{unwanted} in {names:?}");
    }
    let place = world.store_root().join("containers").join(record.id.as_str());
    assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
    let volumes = AnonymousVolumes::Remove;
    world.containers.remove(&record.id, RemoveOptions { volumes, ..RemoveOptions::default() }, &lease).unwrap();
    assert!(!place.exists());
}
