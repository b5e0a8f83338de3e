//! Overlayfs, fuse-overlayfs and copying: one suite, and what they leave must be the same.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rbuild_executor::{Access, DirFd, MountSource, SpawnError, Spawner, Stacking, StackingChoice};
use rbuild_image::ContainerPath;

use crate::world::{Test, Upper, World, chain, mount};

pub(crate) const TESTS: &[Test] = &[
    ("stacking::all_three_leave_the_same_layer", same_layers),
    ("stacking::a_second_run_goes_on_where_the_first_ended", second_run),
    ("stacking::mounted_stages_and_mount_points_leave_nothing", mounts),
    ("stacking::what_is_forced_and_impossible_is_refused", refused),
    ("stacking::where_nothing_works_every_reason_is_told", other_file_system),
    ("stacking::kill_9_leaves_no_mount_and_no_process", killed),
    ("stacking::many_layers_and_odd_names", many),
];

fn choice(kind: Stacking) -> StackingChoice {
    let fuse = Path::new("/usr/bin/fuse-overlayfs");
    StackingChoice { forced: Some(kind), fuse_program: fuse.exists().then(|| fuse.to_owned()) }
}

fn spawner(kind: Stacking) -> Spawner {
    Spawner::start().unwrap().with_stacking(choice(kind))
}

/// Those that can be tried here; overlayfs, which is what the others are compared with, is the first.
fn kinds() -> Vec<Stacking> {
    let fuse = choice(Stacking::FuseOverlayfs).fuse_program.is_some() && Path::new("/dev/fuse").exists();
    if !fuse {
        println!("without fuse-overlayfs, which is not installed");
    }
    Stacking::ALL.into_iter().filter(|kind| *kind != Stacking::FuseOverlayfs || fuse).collect()
}

fn run(spawner: &Spawner, upper: &Upper, script: &str) -> String {
    let mut spec = upper.spec(&["sh", "-c", script]);
    spec.process.argv = vec!["sh".into(), "-ec".into(), script.into()];
    run_spec(spawner, &spec)
}

fn run_spec(spawner: &Spawner, spec: &rbuild_executor::SandboxSpec) -> String {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let fd = |fd: &std::os::fd::OwnedFd| rbuild_executor::StdioFd::Fd(fd.try_clone().unwrap());
    let stdio =
        rbuild_executor::Stdio { stdin: rbuild_executor::StdioFd::Null, stdout: fd(&write), stderr: fd(&write) };
    drop(write);
    let mut process = spawner.spawn(spec, stdio).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(read), &mut text).unwrap();
    let status = process.wait().unwrap();
    assert!(status.success(), "{status:?}: {text}");
    text
}

/// Everything that makes a layer, as text; times only where the script set them, long ago.
fn layer(upper: &Path) -> String {
    let mut text = String::new();
    describe(upper, upper, &mut text);
    text
}

fn describe(base: &Path, dir: &Path, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let handle = DirFd::from_fd(fs::File::open(dir).unwrap().into());
    for path in entries {
        let stat = path.symlink_metadata().unwrap();
        let name = path.file_name().unwrap();
        let kind = stat.file_type();
        let shown = path.strip_prefix(base).unwrap().display();
        let whiteout = kind.is_char_device() && stat.rdev() == 0;
        if whiteout {
            writeln!(text, "{shown} gone").unwrap();
            continue;
        }
        write!(text, "{shown} {:o} {}:{}", stat.mode(), stat.uid(), stat.gid()).unwrap();
        if stat.mtime() < 1_100_000_000 {
            write!(text, " {}.{:09}", stat.mtime(), stat.mtime_nsec()).unwrap();
        }
        if kind.is_symlink() {
            write!(text, " -> {}", fs::read_link(&path).unwrap().display()).unwrap();
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            write!(
                text,
                " {} bytes {} links={}",
                content.len(),
                content.escape_ascii().to_string().replace(r"\x00", ""),
                stat.nlink()
            )
            .unwrap();
        }
        for attribute in ["trusted.overlay.opaque", "user.overlay.opaque", "security.capability", "user.note"] {
            let value = if kind.is_symlink() { None } else { handle.get_xattr(name, OsStr::new(attribute)).unwrap() };
            if let Some(value) = value {
                write!(text, " {attribute}={}", value.escape_ascii()).unwrap();
            }
        }
        text.push('\n');
        if kind.is_dir() {
            describe(base, &path, text);
        }
    }
}

/// A layer with something of every kind, over the harness's.
fn rich(world: &World) -> Vec<std::path::PathBuf> {
    let base = world.path(&crate::world::next_id());
    let script = "mkdir -p $1/t/a/b $1/t/keep $1/t/swap1 $1/t/swap2 $1/t/gone/deep $1/t/opaque && cd $1/t && \
        echo 1 > a/one && echo 2 > a/b/two && ln -s one a/link && mkfifo a/pipe && echo x > keep/x && echo 1 > swap1/f && \
        echo 2 > swap2/f && echo d > gone/deep/f && echo o > opaque/old && echo same > same && ln same twin && \
        dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000 2>/dev/null && chown 7:8 keep/x && chmod 4755 keep/x && \
        touch -d 2001-02-03T04:05:06.789 keep/x a/one same && setfattr -n user.note -v kept keep/x && mknod null c 1 3";
    fs::create_dir(&base).unwrap();
    let made = Command::new("sh").args(["-ec", script, "sh"]).arg(&base).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let keep = DirFd::from_fd(fs::File::open(base.join("t/a")).unwrap().into());
    keep.set_xattr(OsStr::new("one"), OsStr::new("security.capability"), &capability).unwrap();
    let mut layers = vec![base];
    layers.extend(world.layers());
    layers
}

const SCRIPT: &str = "\
cd /t; chmod 600 a/one; echo new > a/new; touch -d '2002-01-01 00:00:00' a/new; rm a/link; rm -r gone; \
rm -r opaque; mkdir opaque; echo n > opaque/n; mkdir -p fresh/in/side; echo f > fresh/in/side/f; \
mv swap1 tmp; mv swap2 swap1; mv tmp swap2; echo other > same; ln a/b/two hard; chown 5:6 keep; \
rm keep/x; mkdir keep/x; rm -r a/pipe; mkfifo a/pipe; ln -s /nowhere dangling; echo more >> sparse; \
touch born; rm born; mkdir /top; chmod 1777 /top; cat /data/file a/one > /top/copy; rm /etc/group; \
chmod 644 /etc/passwd; touch -d '2003-01-01 00:00:00' dated; mkdir -m 700 /etc/private; rm null; mkdir null";

/// Fails with the lines that differ.
fn same(kind: Stacking, found: &str, expected: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    assert!(found == expected, "{kind}: {:#?} instead of {:#?}", only(found, expected), only(expected, found));
}

fn same_layers(world: &World) {
    let lowers = rich(world);
    let mut expected: Option<String> = None;
    for kind in kinds() {
        let spawner = spawner(kind);
        let upper = world.upper_on(lowers.clone());
        run(&spawner, &upper, SCRIPT);
        let left = layer(&upper.upper);
        match &expected {
            None => {
                assert!(left.contains("t/gone gone\n") && left.contains("trusted.overlay.opaque=y"), "{left}");
                expected = Some(left);
            }
            Some(expected) => same(kind, &left, expected),
        }
        let around: Vec<_> =
            fs::read_dir(upper.upper.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(around.len(), 2, "{kind}: {around:?}");
    }
}

fn second_run(world: &World) {
    let lowers = rich(world);
    let mut expected: Option<(String, String)> = None;
    for kind in kinds() {
        let spawner = spawner(kind);
        let upper = world.upper_on(lowers.clone());
        run(&spawner, &upper, SCRIPT);
        let script = "cd /t; test ! -e gone; test -e opaque/n; test ! -e opaque/old; rm -r fresh; mkdir gone; echo g > gone/g; \
            rm opaque/n; rm hard a/new; cat a/b/two keep/../sparse | wc -c; find /t | sort";
        let shown = run(&spawner, &upper, script);
        let left = layer(&upper.upper);
        match &expected {
            None => expected = Some((shown, left)),
            Some((before, layer)) => {
                same(kind, &shown, before);
                same(kind, &left, layer);
            }
        }
    }
}

fn mounts(world: &World) {
    for kind in kinds() {
        let spawner = spawner(kind);
        let (upper, stage, part) = (world.upper(), world.upper(), world.upper());
        let source = |place: &Upper, subpath: &str| MountSource::Overlay {
            lowers: place.lowers.clone(),
            upper: place.upper.clone(),
            work: place.work.clone(),
            subpath: ContainerPath::new(subpath),
        };
        let mut spec =
            upper.spec(&["sh", "-ec", "cat /stage/data/file /file; echo x > /stage/data/file; echo done > /out"]);
        spec.mounts = vec![
            mount("/stage", source(&stage, "/"), Access::ReadWrite),
            mount("/file", source(&part, "/data/file"), Access::ReadOnly),
            mount("/new/point", MountSource::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite),
        ];
        assert_eq!(run_spec(&spawner, &spec), "lower\nlower\n", "{kind}");
        assert_eq!(
            layer(&upper.upper),
            "dev 40755 0:0\nout 100644 0:0 5 bytes done\\n links=1\nsys 40755 0:0\n",
            "{kind}"
        );
        assert_eq!(fs::read_to_string(world.path("middle/data/file")).unwrap(), "lower\n", "{kind}");
    }
}

fn refused(world: &World) {
    let spawner = Spawner::start()
        .unwrap()
        .with_stacking(StackingChoice { forced: Some(Stacking::FuseOverlayfs), fuse_program: None });
    let error = spawner.spawn(&world.upper().spec(&["true"]), rbuild_executor::Stdio::null()).unwrap_err();
    assert!(matches!(error, SpawnError::Stacking { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot put layers over each other: fuse-overlayfs was asked for and does not work: fuse-overlayfs is not installed"
    );
    let broken = StackingChoice { forced: Some(Stacking::FuseOverlayfs), fuse_program: Some("/bin/false".into()) };
    let spawner = Spawner::start().unwrap().with_stacking(broken);
    let error = spawner.spawn(&world.upper().spec(&["true"]), rbuild_executor::Stdio::null()).unwrap_err();
    assert!(error.to_string().contains("fuse-overlayfs was asked for and does not work"), "{error}");
}

/// The kernel takes no overlay as the upper directory of another one, and makes no whiteouts there: nothing works, and all of
/// it is said.
fn other_file_system(world: &World) {
    const PREPARE: &str = "mkdir $1 && mount -t tmpfs t $1 && cd $1 && mkdir l u w m && \
        mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m && exec \"$0\" RBUILD_TEST_STACKING=$1/m";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", PREPARE])
        .arg(std::env::current_exe().unwrap())
        .arg(world.path(&crate::world::next_id()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// What copies of this program do.
pub(crate) fn be_elsewhere() -> Option<std::process::ExitCode> {
    let asked = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    if let Some(place) = asked("RBUILD_TEST_STACKING=") {
        refusing(Path::new(&place));
    } else if let Some(kind) = asked(VICTIM) {
        let kind = Stacking::ALL.into_iter().find(|known| known.name() == kind).unwrap();
        let world = World::new();
        println!("{}", world.path("").display());
        run(&spawner(kind), &world.upper(), "echo up > /up; sleep 600");
    } else {
        return None;
    }
    Some(std::process::ExitCode::SUCCESS)
}

fn refusing(place: &Path) {
    let choice = StackingChoice { forced: None, ..choice(Stacking::FuseOverlayfs) };
    let report = rbuild_executor::examine_stacking(&choice, place, rbuild_executor::plan::OverlayMarks::Trusted);
    assert!(report.overlayfs.as_ref().is_err_and(|why| why.contains("itself on an overlay")), "{report:?}");
    assert!(report.fuse_overlayfs.is_err() && !report.reflinks, "{report:?}");
    let world = World::new();
    let upper = Upper { upper: place.join("s/u"), work: place.join("s/w"), lowers: world.upper().lowers };
    fs::create_dir_all(&upper.upper).unwrap();
    fs::create_dir_all(&upper.work).unwrap();
    let spawner = Spawner::start().unwrap().with_stacking(choice);
    let error = spawner.spawn(&upper.spec(&["true"]), rbuild_executor::Stdio::null()).unwrap_err().to_string();
    assert!(error.contains("nothing works here: overlayfs: ") && error.contains("; copy: no whiteout"), "{error}");
    assert_eq!(fs::read_dir(place.join("s")).unwrap().count(), 2, "a trial is left");
}

/// Asks a copy of this program to start a sandbox and wait to be killed.
const VICTIM: &str = "RBUILD_TEST_STACKED=";

fn killed(_world: &World) {
    for kind in kinds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(format!("{VICTIM}{kind}"))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut told = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        let place = Path::new(line.trim());
        let up = || find(place, "up");
        until(|| up().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        // Nobody works below that place any more, the process of a mount included.
        until(|| {
            let links =
                fs::read_dir("/proc").unwrap().flatten().filter_map(|pid| fs::read_link(pid.path().join("cwd")).ok());
            links.filter(|cwd| cwd.starts_with(place)).count() == 0
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(line.trim()), "{kind}: {mounts}");
        fs::remove_dir_all(place).unwrap();
    }
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.ends_with(name)).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir() && !path.is_symlink()).find_map(|path| find(path, name)))
}

fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not come to be");
}

fn many(world: &World) {
    let base = world.path(&crate::world::next_id());
    let mut lowers = Vec::new();
    for number in 0..60 {
        let layer = base.join(format!("{number}:odd, name\\"));
        fs::create_dir_all(layer.join("many")).unwrap();
        fs::write(layer.join("many").join(number.to_string()), number.to_string()).unwrap();
        lowers.push(layer);
    }
    lowers.extend(world.layers());
    for kind in kinds() {
        let spawner = spawner(kind);
        let upper = world.upper_on(lowers.clone());
        assert_eq!(run(&spawner, &upper, "ls /many | wc -l; cat /many/59; rm /many/0"), "60\n59", "{kind}");
        assert!(layer(&upper.upper).contains("many/0 gone\n"), "{kind}");
    }
}
