//! Processes that enter a sandbox which runs: they are what its own process is, and leave nothing open.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rbuild_executor::{
    ExecSpec, ExitStatus, Ids, Init, NotExecutable, Process, Resources, SandboxSpec, SpawnError, Spawner, Stdio,
    StdioFd, WindowSize,
};
use rbuild_image::ContainerPath;

use crate::world::{Output, Test, World, chain};

pub(crate) const TESTS: &[Test] = &[
    ("exec::it_is_where_the_sandboxs_own_process_is", same_place),
    ("exec::it_may_do_what_the_sandboxs_own_process_may", same_confinement),
    ("exec::exit_codes_signals_and_streams", ends_and_streams),
    ("exec::a_program_that_cannot_start_says_why", cannot_start),
    ("exec::the_working_directory_must_be_there_and_inside", cwd),
    ("exec::a_terminal_is_one_of_the_sandboxs", terminal),
    ("exec::it_ends_with_the_sandbox", ends_with_sandbox),
    ("exec::it_ends_with_whoever_started_it", ends_with_caller),
    ("exec::a_sandbox_that_has_ended_is_not_entered", gone),
    ("exec::a_sandbox_that_dies_on_the_way_in_takes_it_along", dies_meanwhile),
    ("exec::nobody_inside_gets_hold_of_the_host_meanwhile", watched),
    ("exec::our_binary_cannot_be_written_from_inside", binary_protected),
    ("exec::limits_of_the_sandbox_hold", limits),
];

/// A sandbox that does nothing until it is killed.
fn resident(world: &World, change: impl FnOnce(&mut SandboxSpec)) -> (SandboxSpec, Process) {
    let mut spec = world.upper().spec(&["sh", "-c", "while :; do sleep 1000; done"]);
    change(&mut spec);
    let process = world.spawner.spawn(&spec, Stdio::null()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    (spec, process)
}

/// What a sandbox's own process was, with another program.
pub(crate) fn exec_spec(sandbox: &SandboxSpec, argv: &[&str]) -> ExecSpec {
    let mut process = sandbox.process.clone();
    process.argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    ExecSpec {
        id: sandbox.id.clone(),
        process,
        capabilities: sandbox.confinement.capabilities.clone(),
        sandbox_capabilities: sandbox.confinement.capabilities.clone(),
        no_new_privileges: sandbox.confinement.no_new_privileges,
        seccomp: sandbox.confinement.seccomp.clone(),
        apparmor: sandbox.confinement.apparmor.clone(),
        limits: sandbox.resources.clone(),
    }
}

/// Runs a program in a sandbox to its end.
pub(crate) fn exec(spawner: &Spawner, sandbox: &Process, spec: &ExecSpec) -> Result<Output, SpawnError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio =
        Stdio { stdin: StdioFd::Null, stdout: StdioFd::Fd(write.try_clone().unwrap()), stderr: StdioFd::Fd(write) };
    let mut process = spawner.exec(sandbox.pidfd(), spec, stdio, None)?;
    let mut bytes = Vec::new();
    File::from(read).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output { status: process.wait().unwrap(), text })
}

fn sh(world: &World, spec: &SandboxSpec, sandbox: &Process, script: &str) -> Output {
    exec(&world.spawner, sandbox, &exec_spec(spec, &["sh", "-c", script])).unwrap_or_else(|e| panic!("{}", chain(&e)))
}

const PLACE: &str = "for n in user mnt pid ipc uts net time cgroup; do readlink /proc/self/ns/$n; done; \
                     cat /proc/self/cgroup; hostname; pwd; ls /; cat /proc/mounts; umask; env | sort; id; \
                     grep -E 'open files' /proc/self/limits";

fn same_place(world: &World) {
    for init in [Init::Process, Init::Reaper] {
        let script = format!("{PLACE}; echo end; sleep 1000");
        let mut spec = world.upper().spec(&["sh", "-c", &script]);
        spec.init = init;
        spec.process.user = Ids { uid: 1000, gid: 1000, groups: vec![1000, 50] };
        let (process, mut output) = world.start(&spec).unwrap();
        let mut own = Vec::new();
        let mut buffer = [0; 4096];
        while !own.ends_with(b"end\n") {
            let read = output.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&own));
            own.extend_from_slice(&buffer[..read]);
        }
        let inside = sh(world, &spec, &process, PLACE);
        assert_eq!(format!("{}end\n", inside.text), String::from_utf8(own).unwrap());
        let groups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let spec_of_sleeper = exec_spec(&spec, &["sleep", "1000"]);
        let sleeper = world.spawner.exec(process.pidfd(), &spec_of_sleeper, Stdio::null(), None).unwrap();
        assert_eq!(groups(&sleeper.pid().to_string()), groups(&process.pid().to_string()));
        assert!(groups(&sleeper.pid().to_string()).contains(&spec.id));
        drop(sleeper);
    }
}

/// What of a process's status says what it may do.
const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|CoreDumping|THP)' /proc/self/status; \
                      cat /proc/self/oom_score_adj /proc/self/attr/current /proc/self/personality 2>&1";

fn same_confinement(world: &World) {
    let user = Ids { uid: 1000, gid: 1000, groups: vec![1000] };
    for (user, no_new_privileges) in [(Ids::default(), false), (user, false), (Ids::default(), true)] {
        let change = |spec: &mut SandboxSpec| {
            spec.process.user = user.clone();
            spec.confinement.no_new_privileges = no_new_privileges;
        };
        let mut spec = world.upper().spec(&["sh", "-c", STATUS]);
        change(&mut spec);
        let own = world.run(&spec).text;
        let (spec, process) = resident(world, change);
        assert_eq!(sh(world, &spec, &process, STATUS).text, own);
        assert!(own.contains("CapInh:\t0000000000000000") && own.contains("Seccomp:\t2"), "{own}");
        let denied =
            "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; mknod /mem c 1 1 && cat /mem 2>&1; ls /proc/self/fd";
        let text = sh(world, &spec, &process, denied).text;
        assert!(!text.contains("3\n4\n"), "a descriptor too many: {text}");
    }
    // More capabilities do not widen the filter, as in Docker.
    let (spec, process) = resident(world, |_| {});
    let mut more = exec_spec(&spec, &["sh", "-c", "grep CapEff /proc/self/status; mount -t tmpfs x /tmp 2>&1"]);
    more.capabilities.push("SYS_ADMIN".to_owned());
    let text = exec(&world.spawner, &process, &more).unwrap().text;
    assert!(text.contains("CapEff:\t00000000a82425fb") && text.contains("denied"), "{text}");
}

fn ends_and_streams(world: &World) {
    let (spec, process) = resident(world, |_| {});
    let run = |script: &str| sh(world, &spec, &process, script);
    assert_eq!(run("exit 0").status, ExitStatus::Exited(0));
    assert_eq!(run("exit 77").status, ExitStatus::Exited(77));
    assert_eq!(run("kill -TERM $$").status, ExitStatus::Signaled(15));
    assert_eq!(run("echo out; echo err >&2; cat").text, "out\nerr\n");
    let (input, mut typed) = pipe();
    let (mut written, output) = pipe();
    let stdio = Stdio { stdin: StdioFd::Fd(input.into()), stdout: StdioFd::Fd(output.into()), stderr: StdioFd::Null };
    let mut cat = world.spawner.exec(process.pidfd(), &exec_spec(&spec, &["cat"]), stdio, None).unwrap();
    typed.write_all(b"typed").unwrap();
    drop(typed);
    let mut text = String::new();
    written.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), cat.wait().unwrap()), ("typed", ExitStatus::Exited(0)));
    let mut trap = exec_spec(&spec, &["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.02; done"]);
    trap.process.env.push("X=1".to_owned());
    let (mut up, output) = pipe();
    let stdio = Stdio { stdin: StdioFd::Null, stdout: StdioFd::Fd(output.into()), stderr: StdioFd::Null };
    let mut trap = world.spawner.exec(process.pidfd(), &trap, stdio, None).unwrap();
    up.read_exact(&mut [0; 3]).unwrap();
    trap.signal(libc::SIGUSR1).unwrap();
    assert_eq!(trap.wait().unwrap(), ExitStatus::Exited(9));
}

fn pipe() -> (File, File) {
    let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

fn cannot_start(world: &World) {
    let (spec, process) = resident(world, |_| {});
    let run = |argv: &[&str]| exec(&world.spawner, &process, &exec_spec(&spec, argv)).unwrap_err();
    assert!(matches!(run(&["no-such-program"]), SpawnError::NotFound { .. }));
    assert!(matches!(run(&["/etc"]), SpawnError::NotExecutable { reason: NotExecutable::Permission, .. }));
    assert!(matches!(run(&[""]), SpawnError::Invalid { .. }));
    let mut gone = exec_spec(&spec, &["true"]);
    gone.process.user = Ids { uid: 1000, gid: 1000, groups: vec![1000] };
    assert_eq!(exec(&world.spawner, &process, &gone).unwrap().status, ExitStatus::Exited(0));
}

fn cwd(world: &World) {
    let (spec, process) = resident(world, |_| {});
    let run = |cwd: &str| {
        let mut spec = exec_spec(&spec, &["pwd"]);
        spec.process.cwd = ContainerPath::new(cwd);
        exec(&world.spawner, &process, &spec)
    };
    assert_eq!(run("/data").unwrap().text, "/data\n");
    assert!(matches!(run("/absent"), Err(SpawnError::Cwd { .. })));
    assert!(matches!(run("/etc/passwd"), Err(SpawnError::Cwd { .. })));
    for fd in 0..64 {
        assert!(run(&format!("/proc/self/fd/{fd}")).is_err(), "{fd}");
        assert!(run(&format!("/proc/self/fd/{fd}/../../../..")).is_ok_and(|o| o.text == "/\n"), "{fd}");
    }
    assert!(run("/proc/self/cwd").is_err() && run("/proc/1/root").is_err());
}

fn terminal(world: &World) {
    let (spec, process) = resident(world, |_| {});
    let script = r#"tty; stty size; test -t 0 && echo in; read x; echo "<$x>"; echo x >/dev/tty"#;
    let mut spec = exec_spec(&spec, &["sh", "-c", script]);
    spec.process.terminal = true;
    let window = WindowSize { rows: 33, columns: 99 };
    let mut program = world.spawner.exec(process.pidfd(), &spec, Stdio::terminal(), Some(window)).unwrap();
    let mut ours = File::from(program.take_terminal().unwrap());
    ours.write_all(b"hello\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(n @ 1..) = ours.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..n]);
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    for want in ["/dev/pts/0", "33 99", "in", "<hello>", "x\r\n"] {
        assert!(seen.contains(want), "{want}: {seen}");
    }
    assert_eq!(program.wait().unwrap(), ExitStatus::Exited(0), "{seen}");
}

fn sleeper(spec: &SandboxSpec, marker: &str) -> ExecSpec {
    exec_spec(spec, &["sh", "-c", &format!("setsid sleep {marker} & sleep {marker}")])
}

fn ends_with_sandbox(world: &World) {
    for init in [Init::Process, Init::Reaper] {
        let (spec, mut process) = resident(world, |spec| spec.init = init);
        let stdio = Stdio::null();
        let mut inside = world.spawner.exec(process.pidfd(), &sleeper(&spec, "4747"), stdio, None).unwrap();
        wait_for("sleepers to run", || sleepers("4747") >= 2);
        process.kill_all().unwrap();
        assert_eq!(inside.wait().unwrap(), ExitStatus::Signaled(9));
        process.wait().unwrap();
        assert_eq!(sleepers("4747"), 0);
    }
}

fn ends_with_caller(world: &World) {
    let (spec, mut process) = resident(world, |_| {});
    let other = Spawner::start().unwrap();
    let _inside = other.exec(process.pidfd(), &exec_spec(&spec, &["sleep", "4848"]), Stdio::null(), None).unwrap();
    wait_for("a sleeper to run", || sleepers("4848") == 1);
    drop(other);
    wait_for("it to end", || sleepers("4848") == 0);
    assert_eq!(process.try_wait().unwrap(), None, "the sandbox goes on");
}

fn gone(world: &World) {
    let (spec, mut process) = resident(world, |_| {});
    let pidfd = process.pidfd().try_clone_to_owned().unwrap();
    process.kill_all().unwrap();
    process.wait().unwrap();
    let entered = world.spawner.exec(pidfd.as_fd(), &exec_spec(&spec, &["true"]), Stdio::null(), None);
    assert!(matches!(entered, Err(SpawnError::SandboxGone)), "{entered:?}");
}

fn dies_meanwhile(world: &World) {
    for round in 0..40 {
        let (spec, process) = resident(world, |spec| {
            spec.init = if round % 2 == 0 { Init::Process } else { Init::Reaper };
        });
        let signaller = process.signaller().unwrap();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 150));
            signaller.kill_all().unwrap();
        });
        loop {
            match exec(&world.spawner, &process, &exec_spec(&spec, &["sleep", "0.001"])) {
                Ok(Output { status: ExitStatus::Exited(0), .. }) => {}
                Ok(Output { status, .. }) => {
                    assert_eq!(status, ExitStatus::Signaled(9));
                    break;
                }
                Err(SpawnError::SandboxGone | SpawnError::Died) => break,
                Err(error) => panic!("round {round}: {}", chain(&error)),
            }
        }
        killer.join().unwrap();
    }
}

/// Programs in the sandbox look at every process that appears, with every power they can have, and look for a way out.
fn watched(world: &World) {
    let mark = world.path("only-on-the-host-for-exec");
    fs::write(&mark, "").unwrap();
    for powerful in [false, true] {
        let look = format!(
            "while :; do for p in /proc/[0-9]*; do \
               test -e $p/root{mark} && echo ESCAPE root; test -e $p/cwd{mark} && echo ESCAPE cwd; \
               for f in $p/fd/*; do test -e $f{mark} && echo ESCAPE $f; test -e $f/../../../../../../..{mark} && echo ESCAPE up; done; \
               for f in $p/exe; do test -w $f && echo x >> $f && echo ESCAPE exe; done; \
             done; done 2>/dev/null",
            mark = mark.display()
        );
        let mut spec = world.upper().spec(&["sh", "-c", &look]);
        if powerful {
            spec.confinement.capabilities = rbuild_executor::ALL_CAPABILITIES.map_to_owned();
            spec.confinement.seccomp = rbuild_executor::Seccomp::Unconfined;
        }
        let before = fs::metadata("/proc/self/exe").unwrap().len();
        let (mut process, mut output) = world.start(&spec).unwrap();
        for round in 0..150 {
            let inside = exec_spec(&spec, &["sh", "-c", "ls -l /proc/self/fd"]);
            let output = exec(&world.spawner, &process, &inside).unwrap();
            assert!(!output.text.contains("socket:") && !output.text.contains("/work"), "{round}: {}", output.text);
        }
        process.kill_all().unwrap();
        process.wait().unwrap();
        let mut seen = String::new();
        output.read_to_string(&mut seen).unwrap();
        assert!(!seen.contains("ESCAPE"), "{seen}");
        assert_eq!(fs::metadata("/proc/self/exe").unwrap().len(), before);
    }
}

/// Names as a specification has them.
trait MapToOwned {
    fn map_to_owned(&self) -> Vec<String>;
}

impl MapToOwned for &[&str] {
    fn map_to_owned(&self) -> Vec<String> {
        self.iter().map(|name| (*name).to_owned()).collect()
    }
}

/// Rule S-10, for a program that is our own binary while it starts.
fn binary_protected(world: &World) {
    let own = fs::metadata("/proc/self/exe").unwrap();
    let (spec, process) = resident(world, |spec| {
        spec.confinement.capabilities = rbuild_executor::ALL_CAPABILITIES.map_to_owned();
        spec.confinement.seccomp = rbuild_executor::Seccomp::Unconfined;
    });
    let script = "printf '#!/proc/self/exe\\n' > /loader; chmod 755 /loader; \
                  for p in /proc/[0-9]*; do echo x >> $p/exe; chmod 777 $p/exe; done; true";
    assert_eq!(sh(world, &spec, &process, script).status, ExitStatus::Exited(0));
    for argv in [&["/proc/self/exe", "--list"][..], &["/loader"]] {
        // Ours is no program of the image's: it may run there, or lack its loader, but not be changed.
        drop(exec(&world.spawner, &process, &exec_spec(&spec, argv)));
    }
    let now = fs::metadata("/proc/self/exe").unwrap();
    let facts = |m: &fs::Metadata| (m.len(), m.permissions(), m.modified().unwrap());
    assert_eq!(facts(&now), facts(&own));
}

fn limits(world: &World) {
    let (spec, process) = resident(world, |spec| {
        spec.resources = Resources { pids: Some(12), memory: Some(32 << 20), ..Resources::default() };
    });
    let bomb = sh(world, &spec, &process, "for i in $(seq 40); do sleep 5 & done; echo all");
    assert!(!bomb.text.contains("all"), "{bomb:?}");
    let (spec, process) = resident(world, |spec| {
        spec.resources = Resources { memory: Some(32 << 20), ..Resources::default() };
    });
    let hungry = sh(world, &spec, &process, "x=$(yes | head -c 200000000); echo survived");
    assert!(!hungry.text.contains("survived"), "{hungry:?}");
}

/// Processes anywhere whose command line ends in the marker.
fn sleepers(marker: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.strip_suffix(&[0]).is_some_and(|line| line.ends_with(marker.as_bytes()))).count()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
