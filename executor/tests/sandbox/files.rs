//! Mounts, and what they leave in the root: nothing but what BuildKit leaves.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rbuild_executor::{Access, MountPoint, MountSource, Rootfs, SpawnError};
use rbuild_image::ContainerPath;

use crate::world::{Test, World, chain, mount};

pub(crate) const TESTS: &[Test] = &[
    ("files::mount_points_leave_nothing_in_the_layer", no_leftovers),
    ("files::a_directory_the_step_changed_stays", changed_directory_stays),
    ("files::a_mount_point_that_was_replaced_stays", replaced_stays),
    ("files::an_empty_root_keeps_the_kernels_directories", scratch),
    ("files::every_kind_of_mount_shows_what_it_should", kinds),
    ("files::read_only_is_recursive_and_writable_is_writable", access),
    ("files::mounts_follow_symlinks_inside_the_root_only", symlinks),
    ("files::a_source_cannot_lead_out_of_its_tree", source_confined),
    ("files::kernel_file_systems_never_go_over_a_symlink", kernel_symlink),
    ("files::deleted_and_changed_files_are_whiteouts_and_copies", layer),
    ("files::a_plain_directory_is_left_as_it_was", plain_directory),
    ("files::kept_mount_points_stay", kept),
    ("files::many_layers_and_strange_names", many_layers),
    ("files::a_store_on_an_overlay_is_named_as_the_cause", nested),
    ("files::sync_means_what_was_asked", durability),
    ("files::a_read_only_root_cannot_be_written", read_only_root),
    ("files::a_link_that_swaps_while_mounting_never_shows_the_host", swapping_link),
];

fn tmpfs() -> MountSource {
    MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 }
}

fn file(content: &str) -> MountSource {
    MountSource::File { content: content.as_bytes().to_vec(), mode: 0o640, uid: 7, gid: 8 }
}

fn no_leftovers(world: &World) {
    let upper = world.upper();
    let mut spec = upper.spec(&["sh", "-c", "echo t > /tmp/t; echo x > /dev/shm/x; mkdir /dev/made; touch /t1/x"]);
    spec.mounts = vec![
        mount("/etc/resolv.conf", file("nameserver 10.0.0.1\n"), Access::ReadOnly),
        mount("/etc/hosts", file("127.0.0.1 localhost\n"), Access::ReadOnly),
        mount("/new/deep/point", MountSource::Bind { path: world.path("top") }, Access::ReadOnly),
        mount("/t1", tmpfs(), Access::ReadWrite),
        mount("/t1/inner/dir", tmpfs(), Access::ReadWrite),
        mount("/data/s1/s2", tmpfs(), Access::ReadWrite),
    ];
    let output = world.run(&spec);
    assert!(output.status.success(), "{}", output.text);
    // `/tmp` is a copy because the step wrote there; `/dev` and `/sys` are missing in the image and stay, as in BuildKit.
    assert_eq!(upper.census(), ["dev 40755", "sys 40755", "tmp 41777", "tmp/t 100644"]);
}

fn changed_directory_stays(world: &World) {
    let upper = world.upper();
    let mut spec = upper.spec(&["sh", "-c", "chmod 700 /etc; echo new > /data/new"]);
    spec.mounts = vec![
        mount("/etc/hosts", file("x"), Access::ReadOnly),
        mount("/data/point", tmpfs(), Access::ReadWrite),
        mount("/srv/point", tmpfs(), Access::ReadWrite),
    ];
    let before = fs::metadata(world.path("top/srv")).unwrap().mtime_nsec();
    assert!(world.run(&spec).status.success());
    assert_eq!(upper.census(), ["data 40755", "data/new 100644", "dev 40755", "etc 40700", "sys 40755"]);
    assert_eq!(fs::metadata(world.path("top/srv")).unwrap().mtime_nsec(), before);
}

fn replaced_stays(world: &World) {
    let upper = world.upper();
    // Mount points are busy inside; what can be done is to fill the directories above them.
    let mut spec =
        upper.spec(&["sh", "-c", "rm -rf /new 2>/dev/null; echo kept > /new/kept; rmdir /point 2>/dev/null; true"]);
    spec.mounts = vec![mount("/new/point", tmpfs(), Access::ReadWrite), mount("/point", tmpfs(), Access::ReadWrite)];
    assert!(world.run(&spec).status.success());
    assert_eq!(upper.census(), ["dev 40755", "new 40755", "new/kept 100644", "sys 40755"]);
}

fn scratch(world: &World) {
    let upper = world.upper_on(Vec::new());
    fs::create_dir(upper.upper.join("bin")).unwrap();
    fs::copy("/bin/busybox", upper.upper.join("bin/sh")).unwrap();
    let mut spec = upper.spec(&["/bin/sh", "-c", "echo hi > /hi"]);
    spec.mounts =
        vec![mount("/etc/hosts", file(""), Access::ReadOnly), mount("/etc/resolv.conf", file(""), Access::ReadOnly)];
    let output = world.run(&spec);
    assert!(output.status.success(), "{}", output.text);
    let mut want =
        ["bin 40755", "bin/sh 100755", "dev 40755", "hi 100644", "proc 40755", "sys 40755"].map(str::to_owned);
    want.sort();
    assert_eq!(upper.census(), want);
}

fn kinds(world: &World) {
    let host = world.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(host.join("sub/file"), "bound\n").unwrap();
    let other = world.upper();
    let overlay = |subpath: &str| MountSource::Overlay {
        lowers: other.lowers.clone(),
        upper: other.upper.clone(),
        work: other.work.clone(),
        subpath: ContainerPath::new(subpath),
    };
    let inside = |subpath: &str| MountSource::BindInside { root: host.clone(), subpath: ContainerPath::new(subpath) };
    for (source, access, script, want) in [
        (
            tmpfs(),
            Access::ReadWrite,
            "ls -A /m; stat -f -c %T /m; stat -c %a /m; touch /m/x && echo ok",
            "tmpfs\n1777\nok\n",
        ),
        (MountSource::Bind { path: host.clone() }, Access::ReadOnly, "cat /m/sub/file", "bound\n"),
        (MountSource::Bind { path: host.join("sub/file") }, Access::ReadOnly, "cat /m", "bound\n"),
        (inside("/sub"), Access::ReadOnly, "cat /m/file", "bound\n"),
        (inside("/sub/file"), Access::ReadOnly, "cat /m", "bound\n"),
        (file("secret\n"), Access::ReadOnly, "cat /m; stat -c '%a %u %g %F' /m", "secret\n640 7 8 regular file\n"),
        (
            overlay("/"),
            Access::ReadWrite,
            "cat /m/data/file; echo changed > /m/data/file; cat /m/data/file",
            "lower\nchanged\n",
        ),
        (overlay("/data"), Access::ReadWrite, "cat /m/file", "changed\n"),
        (overlay("/data/file"), Access::ReadOnly, "cat /m", "changed\n"),
    ] {
        let upper = world.upper();
        let mut spec = upper.spec(&["sh", "-c", script]);
        let text = format!("{source:?}");
        spec.mounts = vec![mount("/m", source, access)];
        assert_eq!(world.run(&spec).text, want, "{text}");
        assert!(!upper.upper.join("m").exists(), "{text}");
    }
    assert_eq!(fs::read_to_string(world.path("middle/data/file")).unwrap(), "lower\n");
}

fn access(world: &World) {
    let host = world.path("access");
    fs::create_dir_all(host.join("below")).unwrap();
    rustix::mount::mount("none", host.join("below"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mut spec =
        world.upper().spec(&["sh", "-c", "touch /ro/x; touch /ro/below/x; touch /rw/x /rw/below/x && echo done"]);
    spec.mounts = vec![
        mount("/ro", MountSource::Bind { path: host.clone() }, Access::ReadOnly),
        mount("/rw", MountSource::Bind { path: host.clone() }, Access::ReadWrite),
    ];
    let output = world.run(&spec);
    rustix::mount::unmount(host.join("below"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(output.text.matches("Read-only file system").count(), 2, "{}", output.text);
    assert!(output.text.ends_with("done\n"), "{}", output.text);
}

fn symlinks(world: &World) {
    let upper = world.upper();
    let outside = world.path("outside");
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, upper.upper.join("absolute")).unwrap();
    symlink("../../../../../../etc", upper.upper.join("up")).unwrap();
    symlink("../run/stub.conf", upper.upper.join("dangling")).unwrap();
    let mut spec = upper.spec(&["sh", "-c", "cat /up/mounted /run/stub.conf; ls -d /absolute/."]);
    spec.mounts = vec![
        mount("/absolute/point", tmpfs(), Access::ReadWrite),
        mount("/up/mounted", file("inside etc\n"), Access::ReadOnly),
        mount("/dangling", file("stub\n"), Access::ReadOnly),
    ];
    let output = world.run(&spec);
    assert_eq!(output.text, "inside etc\nstub\n/absolute/.\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!upper.upper.join("run").exists());
    assert!(fs::symlink_metadata(upper.upper.join("dangling")).unwrap().is_symlink());
}

fn source_confined(world: &World) {
    let tree = world.path("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(world.path("secret"), "outside\n").unwrap();
    symlink("../secret", tree.join("relative")).unwrap();
    symlink(world.path("secret"), tree.join("absolute")).unwrap();
    for subpath in ["/relative", "/absolute", "/../secret", "/absent"] {
        let mut spec = world.upper().spec(&["cat", "/m"]);
        let source = MountSource::BindInside { root: tree.clone(), subpath: ContainerPath::new(subpath) };
        spec.mounts = vec![mount("/m", source, Access::ReadOnly)];
        let error = world.try_run(&spec).unwrap_err();
        assert!(matches!(error, SpawnError::MountSource { .. }), "{subpath}: {}", chain(&error));
    }
    let mut spec = world.upper().spec(&["cat", "/m"]);
    spec.mounts = vec![mount("/m", MountSource::Bind { path: tree.join("relative") }, Access::ReadOnly)];
    assert!(world.try_run(&spec).is_err());
}

fn kernel_symlink(world: &World) {
    for name in ["dev", "sys", "proc"] {
        let upper = world.upper();
        let victim = world.path("victim");
        fs::create_dir_all(&victim).unwrap();
        if name == "proc" {
            // The image has the directory; the layer above replaces it.
            symlink(&victim, upper.upper.join("proc")).unwrap();
        } else {
            symlink(&victim, upper.upper.join(name)).unwrap();
        }
        let error = world.try_run(&upper.spec(&["true"])).unwrap_err();
        assert!(matches!(error, SpawnError::MountOverSymlink { .. }), "{name}: {}", chain(&error));
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    }
}

fn layer(world: &World) {
    let upper = world.upper();
    let script =
        "rm /data/file; echo more >> /etc/passwd; chmod 4755 /bin/busybox; mkdir -p /a/b; rm -rf /srv; mkdir /srv";
    assert!(world.run(&upper.spec(&["sh", "-c", script])).status.success());
    let whiteout = fs::symlink_metadata(upper.upper.join("data/file")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    assert!(fs::read_to_string(upper.upper.join("etc/passwd")).unwrap().ends_with("more\n"));
    // A mode change must copy the file's data up, not only its metadata.
    let copied = fs::metadata(upper.upper.join("bin/busybox")).unwrap();
    assert_eq!(copied.permissions().mode() & 0o7777, 0o4755);
    assert_eq!(fs::read(upper.upper.join("bin/busybox")).unwrap(), fs::read("/bin/busybox").unwrap());
    assert!(upper.upper.join("a/b").is_dir() && upper.upper.join("srv").is_dir());
}

fn plain_directory(world: &World) {
    let root = world.path("plain");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/sh")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(root.join("etc")).unwrap().set_modified(old).unwrap();
    let mut spec = world.upper().spec(&["/bin/sh", "-c", "true"]);
    spec.rootfs = Rootfs::Directory(root.clone());
    spec.mounts = vec![mount("/etc/hosts", file("x"), Access::ReadOnly), mount("/x/y", tmpfs(), Access::ReadOnly)];
    assert!(world.run(&spec).status.success());
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
    assert!(!root.join("x").exists());
    assert_eq!(fs::metadata(root.join("etc")).unwrap().modified().unwrap(), old);
}

fn kept(world: &World) {
    let upper = world.upper();
    let mut spec = upper.spec(&["true"]);
    spec.mounts = vec![mount("/kept/dir", tmpfs(), Access::ReadWrite), mount("/gone/dir", tmpfs(), Access::ReadWrite)];
    spec.mounts[0].mount_point = MountPoint::Kept;
    assert!(world.run(&spec).status.success());
    assert_eq!(upper.census(), ["dev 40755", "kept 40755", "kept/dir 40755", "sys 40755"]);
}

fn many_layers(world: &World) {
    let mut lowers = Vec::new();
    for index in 0..130 {
        let layer = world.path(&format!("many/{index}-:,\\ é{}", "x".repeat(180)));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("layer{index}")), "").unwrap();
        lowers.push(layer);
    }
    lowers.extend(world.layers());
    let output = world.run(&world.upper_on(lowers).spec(&["sh", "-c", "ls -d /layer* | wc -l"]));
    assert_eq!(output.text, "130\n");
}

fn nested(world: &World) {
    let mut spec = world.upper().spec(&["true"]);
    let outer = world.upper();
    let merged = world.path("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        world.path("top").display(),
        outer.upper.display(),
        outer.work.display()
    );
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("o", &merged, "overlay", rustix::mount::MountFlags::empty(), options.as_c_str()).unwrap();
    for dir in ["upper", "work"] {
        fs::create_dir(merged.join(dir)).unwrap();
    }
    let lowers = outer.lowers.clone();
    spec.rootfs = Rootfs::Overlay { lowers, upper: merged.join("upper"), work: merged.join("work") };
    let error = world.try_run(&spec).unwrap_err();
    rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(chain(&error).contains("is itself on an overlay file system"), "{}", chain(&error));
}

fn durability(world: &World) {
    use rbuild_executor::Durability;
    let options = |durability| {
        let mut spec = world.upper().spec(&["grep", " / overlay", "/proc/mounts"]);
        spec.durability = durability;
        world.run(&spec).text
    };
    assert!(options(Durability::AtCommit).contains("volatile"));
    assert!(!options(Durability::EachSync).contains("volatile"));
    // What syncs as always can be mounted again.
    let mut spec = world.upper().spec(&["sh", "-c", "echo x >> /x; cat /x | wc -l"]);
    spec.durability = Durability::EachSync;
    for count in ["1\n", "2\n", "3\n"] {
        if count == "3\n" {
            spec.durability = Durability::AtCommit;
        }
        assert_eq!(world.run(&spec).text, count);
    }
}

fn read_only_root(world: &World) {
    let mut spec = world.upper().spec(&["sh", "-c", "touch /x; touch /dev/shm/x && touch /t/x && echo ok"]);
    spec.root_access = Access::ReadOnly;
    spec.mounts = vec![mount("/t", tmpfs(), Access::ReadWrite)];
    let output = world.run(&spec);
    assert!(output.text.contains("Read-only file system") && output.text.ends_with("ok\n"), "{}", output.text);
}

/// Rule S-17: something swaps a directory of a shared tree for a link to the host while mounts are made in it.
fn swapping_link(world: &World) {
    let shared = world.path("shared");
    fs::create_dir_all(shared.join("swap/point")).unwrap();
    let secret = world.path("host-secret");
    fs::create_dir_all(secret.join("point")).unwrap();
    fs::write(secret.join("point/file"), "HOST\n").unwrap();
    symlink(&secret, shared.join("other")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (shared.join("swap"), shared.join("other"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let here = rustix::fs::CWD;
                rustix::fs::renameat_with(here, &a, here, &b, rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..40 {
            let mut spec =
                world.upper().spec(&["sh", "-c", "cat /shared/swap/point/file /m/file; ls /shared/swap/point"]);
            let inside = MountSource::BindInside { root: shared.clone(), subpath: ContainerPath::new("/swap/point") };
            spec.mounts = vec![
                mount("/shared", MountSource::Bind { path: shared.clone() }, Access::ReadWrite),
                mount("/shared/swap/point", tmpfs(), Access::ReadWrite),
                mount("/m", inside, Access::ReadOnly),
            ];
            if let Ok(output) = world.try_run(&spec) {
                assert!(!output.text.contains("HOST"), "{}", output.text);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(secret.join("point")).unwrap().count(), 1);
}
