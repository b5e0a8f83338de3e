//! How programs start and end.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rbuild_executor::{ExitStatus, Init, NotExecutable, Resources, Rlimit, SpawnError, Stdio};
use rbuild_image::ContainerPath;

use crate::world::{Test, World, chain};

pub(crate) const TESTS: &[Test] = &[
    ("process::exit_codes_and_signals_are_told_apart", exit_codes),
    ("process::a_program_that_cannot_start_says_why", cannot_start),
    ("process::the_working_directory_must_be_inside", cwd),
    ("process::memory_limit_is_reported_as_oom", oom),
    ("process::pids_limit_stops_a_fork_bomb", pids),
    ("process::every_limit_is_in_force_or_refused", limits),
    ("process::signals_are_forwarded_by_the_init", forward),
    ("process::the_init_reaps_and_its_end_kills_what_is_left", reaps),
    ("process::environment_umask_ids_and_stdin", environment),
    ("process::a_terminal_is_a_terminal", terminal),
    ("process::rlimits_are_set_and_an_impossible_one_is_refused", rlimits),
    ("process::usage_is_measured", usage),
];

fn exit_codes(world: &World) {
    for init in [Init::Reaper, Init::Process] {
        let run = |script: &str| {
            let mut spec = world.upper().spec(&["sh", "-c", script]);
            spec.init = init;
            world.run(&spec).status
        };
        assert_eq!(run("exit 0"), ExitStatus::Exited(0));
        assert_eq!(run("exit 137"), ExitStatus::Exited(137));
        assert_eq!(run("exit 255"), ExitStatus::Exited(255));
    }
    assert_eq!(world.sh("kill -9 $$").status, ExitStatus::Signaled(9));
    assert_eq!(world.sh("kill -TERM $$").status, ExitStatus::Signaled(15));
    assert_eq!(world.sh("sh -c 'kill -9 $$'; exit $?").status, ExitStatus::Exited(137));
}

fn cannot_start(world: &World) {
    let try_argv = |argv: &[&str]| world.try_run(&world.upper().spec(argv)).map(|o| o.status).unwrap_err();
    let error = try_argv(&["no-such-program", "x"]);
    assert!(matches!(&error, SpawnError::NotFound { program } if program == "no-such-program"), "{error}");
    assert_eq!(error.exit_code(), 127);
    assert!(matches!(try_argv(&["/nowhere/x"]), SpawnError::NotFound { .. }));
    assert!(matches!(try_argv(&["/bin/sh/x"]), SpawnError::NotFound { .. }));

    let upper = world.upper();
    std::fs::write(upper.upper.join("text"), "not a program\n").unwrap();
    std::fs::write(upper.upper.join("script"), "#!/no/interpreter\n").unwrap();
    for (name, mode) in [("text", 0o755), ("script", 0o755)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(upper.upper.join(name), permissions).unwrap();
    }
    std::fs::write(upper.upper.join("plain"), "x").unwrap();
    for (program, want) in [
        ("/text", NotExecutable::Format),
        ("/script", NotExecutable::Interpreter),
        ("/plain", NotExecutable::Permission),
        ("/etc", NotExecutable::Permission),
    ] {
        match world.try_run(&upper.spec(&[program])) {
            Err(SpawnError::NotExecutable { reason, .. }) => assert_eq!(reason, want, "{program}"),
            other => panic!("{program}: {other:?}"),
        }
    }
}

fn cwd(world: &World) {
    let run = |cwd: &str| {
        let mut spec = world.upper().spec(&["pwd"]);
        spec.process.cwd = ContainerPath::new(cwd);
        world.try_run(&spec)
    };
    assert_eq!(run("/data").unwrap().text, "/data\n");
    assert_eq!(run("/absent/deep").unwrap().text, "/absent/deep\n", "made, as by runc");
    assert!(matches!(run("/etc/passwd"), Err(SpawnError::Cwd { .. })));
    for fd in 0..64 {
        assert!(run(&format!("/proc/self/fd/{fd}")).is_err(), "{fd}");
        assert!(run(&format!("/proc/self/fd/{fd}/../../../..")).is_ok_and(|o| o.text == "/\n"), "{fd}");
    }
    assert!(run("/proc/self/cwd").is_err());
    assert!(run("/proc/1/root").is_err());
}

fn oom(world: &World) {
    let mut spec = world.upper().spec(&["sh", "-c", "x=$(yes | head -c 200000000); echo survived"]);
    spec.resources = Resources { memory: Some(32 << 20), ..Resources::default() };
    let output = world.run(&spec);
    assert_eq!(output.status, ExitStatus::OomKilled, "{}", output.text);
}

fn pids(world: &World) {
    let mut spec = world.upper().spec(&["sh", "-c", "for i in $(seq 40); do sleep 5 & done; echo all"]);
    spec.resources = Resources { pids: Some(10), ..Resources::default() };
    let output = world.run(&spec);
    assert!(!output.text.contains("all"), "{output:?}");
}

fn limits(world: &World) {
    let script = "cat /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/cpu.cfs_quota_us /sys/fs/cgroup/*/cpu.shares \
                  /sys/fs/cgroup/*/cpuset.cpus /sys/fs/cgroup/*/pids.max; grep Cpus_allowed_list /proc/self/status";
    let mut spec = world.upper().spec(&["sh", "-c", script]);
    spec.resources = Resources {
        memory: Some(64 << 20),
        cpu_millis: Some(500),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".into()),
        pids: Some(77),
        cgroup_parent: Some("/rbuild-test/deep".into()),
        ..Resources::default()
    };
    match world.try_run(&spec) {
        Ok(output) if output.text.contains("67108864") => {
            assert_eq!(output.text, "67108864\n50000\n512\n0\n77\nCpus_allowed_list:\t0\n");
        }
        // On cgroup v2 the files have other names.
        Ok(output) => assert!(output.text.ends_with("Cpus_allowed_list:\t0\n"), "{}", output.text),
        Err(error) => panic!("{}", chain(&error)),
    }
    for (limit, resources) in [
        ("cpuset-cpus", Resources { cpuset_cpus: Some("9999".into()), ..Resources::default() }),
        ("cgroup-parent", Resources { cgroup_parent: Some("../up".into()), ..Resources::default() }),
    ] {
        spec.id = crate::world::next_id();
        spec.resources = resources;
        let error = world.try_run(&spec).unwrap_err();
        assert!(matches!(&error, SpawnError::Limit { limit: name, .. } if name == limit), "{}", chain(&error));
    }
    remove_parents();
}

/// A parent that the caller named is the caller's to remove.
fn remove_parents() {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for name in ["rbuild-test/deep", "rbuild-test"] {
            drop(std::fs::remove_dir(hierarchy.path().join(name)));
        }
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controller), Some(path)) = (fields.next(), fields.next()) else { continue };
        for name in ["rbuild-test/deep", "rbuild-test"] {
            drop(std::fs::remove_dir(format!("/sys/fs/cgroup/{controller}{path}/{name}")));
        }
    }
}

fn forward(world: &World) {
    let script = "trap 'echo got; exit 7' USR1; echo ready; while true; do sleep 0.05; done";
    let (mut process, mut output) = world.start(&world.upper().spec(&["sh", "-c", script])).unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    assert_eq!(process.try_wait().unwrap(), None);
    process.signal(libc::SIGUSR1).unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Exited(7));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    process.signal(libc::SIGTERM).unwrap();
}

fn reaps(world: &World) {
    let script =
        "(setsid sh -c 'sleep 0.1' &) ; sleep 0.4; ps -o pid,stat,comm; setsid sleep 1000 >/dev/null 2>&1 & exit 3";
    let begin = Instant::now();
    let output = world.sh(script);
    assert_eq!(output.status, ExitStatus::Exited(3));
    assert!(!output.text.contains(" Z "), "{}", output.text);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

fn environment(world: &World) {
    let output = world.sh("env | sort; umask; id; hostname; cat | wc -c; pwd");
    assert_eq!(
        output.text,
        "PATH=/usr/bin:/bin\nPWD=/\nSHLVL=1\n0022\nuid=0(root) gid=0(root) groups=0(root)\nbuildkitsandbox\n0\n/\n"
    );
    let mut spec =
        world.upper().spec(&["sh", "-c", "id; touch /tmp/mine; stat -c %u:%g /tmp/mine; echo x > /dev/stdout"]);
    spec.process.user = rbuild_executor::Ids { uid: 1000, gid: 1000, groups: vec![1000, 50] };
    assert_eq!(world.run(&spec).text, "uid=1000(app) gid=1000 groups=50(staff),1000\n1000:1000\nx\n");
}

fn terminal(world: &World) {
    for init in [Init::Reaper, Init::Process] {
        let script =
            r#"tty; test -t 0 && echo in; read x; echo "<$x>"; test -c /dev/console && echo con; echo x >/dev/tty"#;
        let mut spec = world.upper().spec(&["sh", "-c", script]);
        spec.process.terminal = true;
        spec.init = init;
        let mut process = world.spawner.spawn(&spec, Stdio::terminal()).unwrap();
        let mut ours = std::fs::File::from(process.take_terminal().unwrap());
        ours.write_all(b"hello\n").unwrap();
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = ours.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..n]);
        }
        let seen = String::from_utf8_lossy(&seen).into_owned();
        for want in ["/dev/pts/0", "in", "<hello>", "con", "x\r\n"] {
            assert!(seen.contains(want), "{want}: {seen}");
        }
        assert_eq!(process.wait().unwrap(), ExitStatus::Exited(0), "{seen}");
    }
}

fn rlimits(world: &World) {
    let mut spec = world.upper().spec(&["sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    spec.process.rlimits = vec![Rlimit { name: "NOFILE".into(), soft: 512, hard: 1024 }];
    assert_eq!(world.run(&spec).text, "512\n1024\n");
    spec.id = crate::world::next_id();
    spec.process.rlimits = vec![Rlimit { name: "NOFILE".into(), soft: 512, hard: 256 }];
    let error = world.try_run(&spec).unwrap_err();
    assert!(matches!(&error, SpawnError::Limit { limit, .. } if limit == "ulimit nofile"), "{}", chain(&error));
    spec.process.rlimits = vec![Rlimit { name: "BANANAS".into(), soft: 1, hard: 1 }];
    assert!(matches!(world.try_run(&spec), Err(SpawnError::Invalid { .. })));
}

fn usage(world: &World) {
    let (mut process, mut output) =
        world.start(&world.upper().spec(&["sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"])).unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(process.usage(), rbuild_executor::Usage::default());
    assert!(process.wait().unwrap().success());
    let usage = process.usage();
    assert!(usage.user + usage.system > Duration::ZERO, "{usage:?}");
    assert!(usage.memory_peak > 64 << 10 && usage.memory_peak < 1 << 30, "{usage:?}");
}
