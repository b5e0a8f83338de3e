//! Variants of known attacks: the same holes by other ways in.

use std::fs;
use std::os::unix::fs::symlink;

use rbuild_executor::{Access, MountSource, Spawner, Stacking, StackingChoice};
use rbuild_image::ContainerPath;

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[
    ("variants::no_working_directory_leads_out_whatever_link_names_it", directories),
    ("variants::magic_links_of_an_image_are_no_mount_points", magic_targets),
    ("variants::magic_links_of_a_tree_are_no_mount_sources", magic_sources),
    ("variants::our_program_started_by_an_image_is_nobody_in_particular", own_program),
    ("variants::no_descriptor_leaks_whatever_puts_layers_together", descriptors),
];

/// Links that the kernel resolves by what a process has, not by what a path says.
const MAGIC: &[&str] = &[
    "/proc/self/root",
    "/proc/1/root",
    "/proc/thread-self/root",
    "/proc/self/cwd",
    "/proc/1/cwd",
    "/proc/self/exe/..",
    "/proc/self/task/1/root",
    "/proc/self/ns/mnt",
    "/dev/fd/3",
    "/proc/self/map_files/..",
];

fn directories(world: &World) {
    let outside = world.path(&format!("{}-outside", crate::world::next_id()));
    fs::create_dir(&outside).unwrap();
    let mut names: Vec<String> = MAGIC.iter().map(|name| (*name).to_owned()).collect();
    names.extend((0..64).map(|number| format!("/proc/self/fd/{number}")));
    names.extend((3..16).map(|number| format!("/proc/1/fd/{number}/../../..")));
    for (number, name) in names.iter().enumerate() {
        // By itself, and behind a link of the image.
        let upper = world.upper();
        symlink(name, upper.upper.join("way")).unwrap();
        for cwd in [name.as_str(), "/way", "/way/../../../made"] {
            if cwd == name && number > 30 {
                continue;
            }
            let mut spec =
                upper.spec(&["sh", "-c", "pwd; cat only-on-the-host ../only-on-the-host 2>/dev/null; ls / | wc -l"]);
            spec.process.cwd = ContainerPath::new(cwd);
            if let Ok(output) = world.try_run(&spec) {
                assert!(output.text.starts_with('/') && !output.text.contains("unreachable"), "{cwd}: {}", output.text);
                assert!(!output.text.contains("secret"), "{cwd} by {name}: {}", output.text);
            }
        }
    }
    // A directory is made where the link leads inside, never outside.
    let upper = world.upper();
    symlink(&outside, upper.upper.join("out")).unwrap();
    symlink("../../../../../../..", upper.upper.join("up")).unwrap();
    for cwd in ["/out/made".to_owned(), format!("/up{}/made", outside.display())] {
        let mut spec = upper.spec(&["pwd"]);
        spec.process.cwd = ContainerPath::new(&cwd);
        drop(world.try_run(&spec));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{cwd}");
    }
}

fn magic_targets(world: &World) {
    let mounted_in_proc =
        |text: &str| text.lines().any(|line| line.contains(" /proc") && line.ends_with(" tmpfs rw,mode=755"));
    for name in MAGIC.iter().chain(&["/proc", "/proc/self", "/proc/sys", "/proc/self/attr", "proc/1/../sys/kernel"]) {
        let upper = world.upper();
        symlink(name, upper.upper.join("way")).unwrap();
        for target in ["/way/bin", "/way/etc/passwd", "/way", "/way/../way"] {
            let mut spec = upper.spec(&["sh", "-c", "cat /proc/self/mountinfo"]);
            spec.mounts = vec![mount(target, MountSource::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite)];
            if let Ok(output) = world.try_run(&spec) {
                assert!(!mounted_in_proc(&output.text), "{target} by {name}: {}", output.text);
            }
        }
        assert!(fs::exists("/bin/busybox").unwrap() && fs::read("/etc/passwd").unwrap().len() > 10);
    }
    // What imitates the kernel's numbers may.
    let mut spec = world.upper().spec(&["cat", "/proc/uptime"]);
    let file = MountSource::File { content: b"1.00 2.00\n".to_vec(), mode: 0o444, uid: 0, gid: 0 };
    spec.mounts = vec![mount("/proc/uptime", file, Access::ReadOnly)];
    assert_eq!(world.run(&spec).text, "1.00 2.00\n");
}

fn magic_sources(world: &World) {
    for name in MAGIC {
        let tree = world.path(&crate::world::next_id());
        fs::create_dir_all(tree.join("sub")).unwrap();
        symlink(name, tree.join("way")).unwrap();
        symlink("../../../../../../../../etc", tree.join("sub/up")).unwrap();
        for subpath in ["/way", "/way/etc", "/way/etc/passwd", "/sub/up/passwd", "/sub/../../../etc/passwd"] {
            let mut spec = world.upper().spec(&["sh", "-c", "cat /m/passwd /m 2>/dev/null; ls /m"]);
            let source = MountSource::BindInside { root: tree.clone(), subpath: ContainerPath::new(subpath) };
            spec.mounts = vec![mount("/m", source, Access::ReadOnly)];
            match world.try_run(&spec) {
                Err(_) => {}
                Ok(output) => panic!("{subpath} by {name} shows {}", output.text),
            }
        }
    }
}

/// An image may name our own program, even by the names under which it does other things for us.
fn own_program(world: &World) {
    let before = fs::read("/proc/self/exe").unwrap();
    for argv in [
        vec!["/proc/self/exe", "--list"],
        vec!["sh", "-c", "exec -a rbuild-spawner /proc/self/exe"],
        vec!["sh", "-c", "(exec -a rbuild-id-map /proc/1/exe /bin/sh); cat /proc/1/exe > /copy; exec /copy --list"],
        vec!["/script"],
    ] {
        let upper = world.upper();
        fs::write(upper.upper.join("script"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(upper.upper.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let spec = upper.spec(&argv);
        drop(world.try_run(&spec));
        let script = "for e in /proc/1/exe /proc/self/exe; do (: > $e) 2>/dev/null && echo open; chmod 777 $e 2>/dev/null && echo mode; done";
        let text = world.sh(script).text;
        // The shell is the image's own file; PID 1 is ours.
        assert!(!text.starts_with("open"), "{text}");
    }
    assert!(fs::read("/proc/self/exe").unwrap() == before);
}

fn descriptors(world: &World) {
    let fuse = std::path::Path::new("/usr/bin/fuse-overlayfs");
    for kind in Stacking::ALL {
        if kind == Stacking::FuseOverlayfs && !fuse.exists() {
            println!("without fuse-overlayfs, which is not installed");
            continue;
        }
        let choice = StackingChoice { forced: Some(kind), fuse_program: Some(fuse.to_owned()) };
        let spawner = Spawner::start().unwrap().with_stacking(choice);
        let spec = world.upper().spec(&[
            "sh",
            "-c",
            "ls /proc/self/fd | wc -l; ls /proc/1/fd 2>/dev/null | wc -l; ls /.. | sort",
        ]);
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let fd = |fd: &std::os::fd::OwnedFd| rbuild_executor::StdioFd::Fd(fd.try_clone().unwrap());
        let stdio =
            rbuild_executor::Stdio { stdin: rbuild_executor::StdioFd::Null, stdout: fd(&write), stderr: fd(&write) };
        drop(write);
        let mut process = spawner.spawn(&spec, stdio).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut fs::File::from(read), &mut text).unwrap();
        assert!(process.wait().unwrap().success(), "{kind}: {text}");
        // Three, and the one that lists them.
        assert!(text.starts_with("4\n"), "{kind}: {text}");
        assert!(!text.contains("upper") && !text.contains("work") && text.contains("\nproc\n"), "{kind}: {text}");
    }
}
