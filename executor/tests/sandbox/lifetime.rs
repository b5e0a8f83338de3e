//! Nothing outlives a sandbox, and no sandbox its owner.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio as ChildStdio};
use std::time::{Duration, Instant};

use rbuild_executor::{Access, ExitStatus, Init, MountSource};

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[
    ("lifetime::nothing_is_left_after_every_kind_of_end", census_is_equal),
    ("lifetime::files_are_still_when_it_is_said", still),
    ("lifetime::dropping_a_process_kills_it", dropped),
    ("lifetime::kill_9_of_the_owner_kills_every_sandbox", owner_killed),
    ("lifetime::kill_9_at_any_moment_leaves_nothing", killed_anywhere),
    ("lifetime::the_spawners_death_is_noticed", spawner_killed),
    ("lifetime::many_at_once_from_several_threads", parallel),
];

/// The victim that starts sandboxes without end.
const RESTLESS: &str = "4646";

fn still(world: &World) {
    for (script, code) in [("true", 0), ("exit 3", 3), ("(while :; do echo more >> /log; done) & sleep 0.1", 0)] {
        let upper = world.upper();
        let mut spec = upper.spec(&["sh", "-c", script]);
        spec.mounts = vec![mount("/new/m", MountSource::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite)];
        let (mut process, _output) = world.start(&spec).unwrap();
        let status = process.wait_still(Duration::from_secs(60)).unwrap();
        assert_eq!(status, Some(ExitStatus::Exited(code)), "{script}");
        assert!(!upper.upper.join("new").exists(), "{script}: the mount point is still there");
        let length = || fs::metadata(upper.upper.join("log")).map_or(0, |file| file.len());
        let before = length();
        assert_eq!(before > 0, script.contains("log"));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(before, length(), "{script}: something still writes");
        assert_eq!(process.wait().unwrap(), ExitStatus::Exited(code));
        assert!(process.usage().memory_peak > 0);
    }
}

/// Set for the copy of this program that is killed.
const VICTIM: &str = "RBUILD_TEST_VICTIM";

/// Mounts, cgroups, processes below us and our descriptors.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    mounts: usize,
    cgroups: BTreeSet<String>,
    descriptors: usize,
    sleepers: usize,
}

fn census(world: &World, marker: &str) -> Census {
    // Others on this machine mount and unmount meanwhile.
    let own = world.path("").display().to_string();
    let mut cgroups = BTreeSet::new();
    find_groups(Path::new("/sys/fs/cgroup"), 0, &mut cgroups);
    // The spawner's own group for devices stays until it ends.
    cgroups.retain(|path| path.contains("/test-"));
    Census {
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(&own)).count(),
        cgroups,
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        sleepers: sleepers(marker),
    }
}

fn find_groups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 8 {
            found.insert(entry.path().display().to_string());
            find_groups(&entry.path(), depth + 1, found);
        }
    }
}

/// Processes anywhere whose command line ends in the marker.
fn sleepers(marker: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.strip_suffix(&[0]).is_some_and(|line| line.ends_with(marker.as_bytes()))).count()
}

fn census_is_equal(world: &World) {
    assert!(world.sh("true").status.success());
    let before = census(world, "4242");
    for round in 0..120 {
        let upper = world.upper();
        let script = ["exit 3", "kill -9 $$", "sleep 4242 & sleep 4242 & exit 0", "sleep 4242"][round % 4];
        let mut spec = upper.spec(&["sh", "-c", script]);
        spec.init = if round % 3 == 0 { Init::Process } else { Init::Reaper };
        spec.mounts = vec![mount("/new/m", MountSource::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite)];
        match round % 5 {
            0 => spec.process.argv = vec!["no-such-program".into()],
            1 => spec.process.cwd = rbuild_image::ContainerPath::new("/absent"),
            2 => spec.mounts.push(mount("/x", MountSource::Bind { path: "/no/such".into() }, Access::ReadOnly)),
            _ => {}
        }
        if let Ok((mut process, _output)) = world.start(&spec) {
            if script == "sleep 4242" {
                process.kill_all().unwrap();
            }
            process.wait().unwrap();
        }
        assert!(!upper.upper.join("new").exists() && !upper.upper.join("x").exists(), "round {round}");
        fs::remove_dir_all(upper.upper.parent().unwrap()).unwrap();
    }
    assert_eq!(census(world, "4242"), before);
}

fn dropped(world: &World) {
    let (process, mut output) = world.start(&world.upper().spec(&["sh", "-c", "echo up; sleep 4343"])).unwrap();
    output.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(sleepers("4343"), 1);
    let begin = Instant::now();
    drop(process);
    assert_eq!(sleepers("4343"), 0);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// What the copy of this program does that is killed: starts sandboxes, and waits or starts more.
pub(crate) fn be_victim() -> Option<std::process::ExitCode> {
    let marker = std::env::args().find_map(|argument| argument.strip_prefix(VICTIM).map(str::to_owned))?;
    let world = World::new();
    if marker == RESTLESS {
        println!("up");
        world.spawner.expect_another(true);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let mut spec = world.upper().spec(&["sh", "-c", &format!("sleep {marker} & usleep 3000")]);
                        spec.mounts =
                            vec![mount("/m", MountSource::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite)];
                        drop(world.run(&spec));
                    }
                });
            }
        });
    }
    let mut processes = Vec::new();
    for init in [Init::Reaper, Init::Process] {
        let mut spec = world.upper().spec(&["sh", "-c", &format!("setsid sleep {marker} & sleep {marker}")]);
        spec.init = init;
        processes.push(world.start(&spec).unwrap());
    }
    println!("up");
    for (process, _) in &mut processes {
        process.wait().unwrap();
    }
    Some(std::process::ExitCode::SUCCESS)
}

fn owner_killed(world: &World) {
    let mut child = Command::new("/proc/self/exe")
        .arg(format!("{VICTIM}4444"))
        .env("TMPDIR", scratch(world))
        .stdout(ChildStdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    wait_for("sleepers to run", || sleepers("4444") >= 4);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("every sandbox to die", || sleepers("4444") == 0);
    let mark = format!("test-{}-", child.id());
    wait_for("its cgroups to go", || {
        let mut groups = BTreeSet::new();
        find_groups(Path::new("/sys/fs/cgroup"), 0, &mut groups);
        !groups.iter().any(|group| group.contains(&mark))
    });
}

fn killed_anywhere(world: &World) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = mounts();
    for round in 0..12 {
        let mut child = Command::new("/proc/self/exe")
            .arg(format!("{VICTIM}{RESTLESS}"))
            .env("TMPDIR", scratch(world))
            .stdout(ChildStdio::piped())
            .stderr(ChildStdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        std::thread::sleep(Duration::from_millis(5 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("every sandbox to die", || sleepers(RESTLESS) == 0);
        let mark = format!("test-{}-", child.id());
        wait_for("its cgroups to go", || {
            let mut groups = BTreeSet::new();
            find_groups(Path::new("/sys/fs/cgroup"), 0, &mut groups);
            !groups.iter().any(|group| group.contains(&mark))
        });
    }
    assert_eq!(mounts(), before);
}

fn spawner_killed(world: &World) {
    let own = rbuild_executor::Spawner::start().unwrap();
    let mut spec = world.upper().spec(&["sh", "-c", "setsid sleep 4545 & sleep 4545"]);
    spec.init = Init::Process;
    let mut process = own.spawn(&spec, rbuild_executor::Stdio::null()).unwrap();
    wait_for("sleepers to run", || sleepers("4545") >= 2);
    let parent = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let parent: i32 = parent.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(parent).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Signaled(9));
    wait_for("every sandbox to die", || sleepers("4545") == 0);
    assert!(own.spawn(&world.upper().spec(&["true"]), rbuild_executor::Stdio::null()).is_err());
    drop(own);
    // The next spawner removes what the dead one could not.
    drop(rbuild_executor::Spawner::start().unwrap());
    let mut groups = BTreeSet::new();
    find_groups(Path::new("/sys/fs/cgroup"), 0, &mut groups);
    assert!(!groups.iter().any(|group| group.contains(&spec.id)), "{groups:?}");
}

fn parallel(world: &World) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..5 {
                    let code = thread * 5 + round;
                    let output = world.sh(&format!("echo {code}; exit {code}"));
                    assert_eq!((output.status, output.text), (ExitStatus::Exited(code), format!("{code}\n")));
                }
            });
        }
    });
}

/// Where a victim keeps its files, which it will not remove itself.
fn scratch(world: &World) -> std::path::PathBuf {
    let path = world.path("victims");
    fs::create_dir_all(&path).unwrap();
    path
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
