//! A sandbox that was prepared before it was asked for is no other than one that was not.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use rbuild_executor::{Access, ExitStatus, MountSource, NetworkMode, Process, SandboxSpec, Spawner, Stdio};

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[
    ("ahead::one_that_was_prepared_is_the_same", same),
    ("ahead::what_is_of_another_kind_is_started_anew", other_kinds),
    ("ahead::one_that_nobody_asks_for_goes", impatient),
    ("ahead::one_that_was_killed_is_not_missed", killed),
    ("ahead::nothing_of_it_outlives_the_spawner", ended),
];

/// What a program can see of its sandbox, without numbers that differ each time.
const LOOK: &str = r#"
id; hostname; pwd; umask; env | sort
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Sig[^Q]|Speculation|CoreDumping|NSpid)' /proc/self/status
awk '{ dash = 7; while ($dash != "-") dash++; print $5, $6, $(dash + 1) }' /proc/self/mountinfo | sort
ls -ln /dev /dev/pts /dev/shm | awk '{ print $1, $3, $4, $5, $NF }'
find /sys/fs/cgroup -maxdepth 1 | sort; cat /proc/self/cgroup
cat /proc/1/comm /proc/1/cmdline
ls -l /proc/self/fd | awk '{ print $9, $11 }' | grep -v pipe; cat /proc/self/oom_score_adj
cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net | grep -vE '^(r[bv]-|veth)'
cat /new/file; echo x 2>&1 > /new/file; head -c 1 /proc/timer_list | wc -c; ls /sys/firmware
echo 1 2>&1 > /proc/sys/kernel/core_uses_pid; df /dev/shm | tail -1 | awk '{ print $2 }'
"#;

fn spec(world: &World, script: &str) -> SandboxSpec {
    let mut spec = world.upper().spec(&["sh", "-c", script]);
    let content = b"content\n".to_vec();
    let file = MountSource::File { content, mode: 0o640, uid: 0, gid: 0 };
    spec.mounts = vec![mount("/new/file", file, Access::ReadOnly)];
    spec
}

/// The processes below the one that started this sandbox.
fn siblings(process: &Process) -> BTreeSet<i32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    children(&parent)
}

fn children(parent: &str) -> BTreeSet<i32> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The process that waits for its plan while this sandbox runs.
fn waiting(process: &Process) -> i32 {
    let begin = Instant::now();
    loop {
        let others: Vec<i32> = siblings(process).into_iter().filter(|pid| *pid != process.pid()).collect();
        if let [one] = others[..] {
            return one;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "nothing is prepared: {others:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sandbox that runs until it is killed, and the process that waits meanwhile.
fn sleeper(world: &World) -> (Process, i32) {
    world.spawner.expect_another(true);
    let (process, _output) = world.start(&spec(world, "sleep 100")).unwrap();
    let next = waiting(&process);
    world.spawner.expect_another(false);
    (process, next)
}

fn same(world: &World) {
    let usual = world.run(&spec(world, LOOK));
    let mut tries = 0;
    let (first, mut second, mut output) = loop {
        let (first, next) = sleeper(world);
        let (second, output) = world.start(&spec(world, LOOK)).unwrap();
        if second.pid() == next {
            break (first, second, output);
        }
        // It does not wait for long, and machines are busy.
        tries += 1;
        assert!(tries < 10, "never the one that waited");
    };
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(second.wait().unwrap(), ExitStatus::Exited(0), "{text}");
    assert!(second.usage().memory_peak > 0);
    assert!(usual.text.contains("rbuild-init") && usual.text.contains("overlay"), "{}", usual.text);
    assert_eq!(text, usual.text);
    drop(first);
}

fn other_kinds(world: &World) {
    type Change = fn(&mut SandboxSpec);
    let changes: [(&str, Change); 4] = [
        ("shm", |spec| spec.shm_size = 1 << 20),
        ("network", |spec| spec.network = NetworkMode::Host),
        ("memory", |spec| spec.resources.memory = Some(64 << 20)),
        ("paths", |spec| spec.confinement.kernel_paths = rbuild_executor::KernelPaths::Open),
    ];
    for (what, change) in changes {
        let mut changed = spec(world, LOOK);
        change(&mut changed);
        let usual = world.run(&SandboxSpec { rootfs: world.upper().rootfs(), ..changed.clone() });
        let (first, next) = sleeper(world);
        let (mut process, mut output) = world.start(&changed).unwrap();
        assert_ne!(process.pid(), next, "{what}");
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        process.wait().unwrap();
        assert_eq!(text, usual.text, "{what}");
        drop(first);
    }
}

fn impatient(world: &World) {
    let (process, next) = sleeper(world);
    let begin = Instant::now();
    while siblings(&process).contains(&next) {
        assert!(begin.elapsed() < Duration::from_secs(60), "it waits for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(siblings(&process), BTreeSet::from([process.pid()]));
}

fn killed(world: &World) {
    // A spawner of its own, which prepares no more.
    let own = World::new();
    let (first, next) = sleeper(&own);
    rustix::process::kill_process(rustix::process::Pid::from_raw(next).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    // It may be gone already: it does not wait for long.
    let state = || fs::read_to_string(format!("/proc/{next}/stat")).unwrap_or_else(|_| ") Z ".to_owned());
    while !state().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    own.spawner.expect_another(true);
    for _ in 0..3 {
        let output = own.run(&spec(&own, "echo started"));
        assert_eq!((output.status, output.text.as_str()), (ExitStatus::Exited(0), "started\n"));
    }
    drop(first);
    assert_eq!(world.sh("true").status, ExitStatus::Exited(0));
}

fn ended(world: &World) {
    let spawner = Spawner::start().unwrap();
    spawner.expect_another(true);
    let stdio = || Stdio { stdin: rbuild_executor::StdioFd::Null, ..Stdio::null() };
    let mut process = spawner.spawn(&spec(world, "sleep 0.2"), stdio()).unwrap();
    let next = waiting(&process);
    let groups = fs::read_to_string(format!("/proc/{next}/cgroup")).unwrap();
    assert!(groups.contains("ahead-"), "{groups}");
    process.wait().unwrap();
    drop(spawner);
    assert!(!Path::new(&format!("/proc/{next}")).exists(), "it is still there");
    for line in groups.lines().filter(|line| line.contains("ahead-")) {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap(), fields.next().unwrap());
        let base = if controllers.is_empty() { "unified" } else { controllers };
        let below = |base: &str| Path::new("/sys/fs/cgroup").join(base).join(group.trim_start_matches('/'));
        assert!(!below(base).exists() && !below("").exists(), "{line} is left");
    }
}
