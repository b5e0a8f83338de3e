//! `rbuild exec`: a command in a container that runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::bench::{Bench, Ran};

/// A container that runs until it is dropped.
struct Resident {
    child: Child,
}

impl Resident {
    /// `run` with these arguments; the container says when it is up.
    fn new(bench: &Bench, args: &[&str]) -> Self {
        Self::of(bench.rbuild(["run", "--rm"]).args(args).args(["busybox", "sh", "-c", UP]).start())
    }

    fn of(mut child: Child) -> Self {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self { child }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        drop(self.child.wait());
    }
}

const UP: &str = "trap 'exit 0' TERM; echo mark > /tmp/mark; echo up; while :; do sleep 0.05; done";

#[test]
fn a_command_sees_the_container_and_gets_its_defaults() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _resident = Resident::new(
        &bench,
        &["--name", "web", "--network=none", "-e", "A=1", "-w", "/tmp", "-u", "app", "-h", "host"],
    );
    let exec = |args: &[&str]| bench.rbuild(["exec"]).args(args).run();
    assert_eq!(
        exec(&["web", "sh", "-c", "cat mark; pwd; id -u; echo $A $HOME; hostname"]).ok().stdout,
        "mark\n/tmp\n1000\n1 /home/app\nhost\n"
    );
    let file = bench.context("env", [("vars", "# comment\nA=2\nB=3\n")]).join("vars");
    let script = "pwd; id -u; id -g; echo $A $B $C; echo err >&2";
    let ran = exec(&[
        "-u",
        "root:staff",
        "-w",
        "/etc",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "C=4",
        "-e",
        "B=5",
        "web",
        "sh",
        "-c",
        script,
    ])
    .ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("/etc\n0\n50\n2 5 4\n", "err\n"));
    let ran = bench.rbuild(["container", "exec", "-i", "web", "cat"]).input("typed").run().ok();
    assert_eq!(ran.stdout, "typed");
    assert_eq!(exec(&["web", "cat"]).ok().stdout, "", "without -i there is nothing to read");
    let all = exec(&["-u", "0", "--privileged", "web", "grep", "CapEff", "/proc/self/status"]).ok().stdout;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    assert_eq!(all.trim_start_matches("CapEff:").trim(), bounding.trim());
}

#[test]
fn exit_codes_and_refusals_are_dockers() {
    let Some(bench) = Bench::with_busybox() else { return };
    let resident = Resident::new(&bench, &["--name", "web", "--network=none"]);
    let exec = |args: &[&str]| bench.rbuild(["exec"]).args(args).run();
    for (args, code) in [
        (&["web", "sh", "-c", "exit 3"][..], 3),
        (&["web", "sh", "-c", "kill -TERM $$"], 143),
        (&["web", "/no/such/program"], 127),
        (&["web", "no-such-program"], 127),
        (&["web", "/etc/passwd"], 126),
        (&["-w", "/no/such/directory", "web", "true"], 126),
        (&["-w", "/proc/self/fd/3", "web", "true"], 126),
        (&["-u", "nobody-of-that-name", "web", "true"], 126),
        (&["-w", "relative", "web", "true"], 126),
    ] {
        let ran = exec(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    }
    let _ran = exec(&["nothing", "true"]).fails(1).says("no such container: nothing");
    let _ran = exec(&["--detach-keys=ctrl-1", "web", "true"]).fails(125).says("invalid detach keys (ctrl-1)");
    let _ran = exec(&["--badflag", "web", "true"]).fails(125);
    let _ran = exec(&["-dt", "web", "true"]).fails(1).says("a terminal");
    let _ran = exec(&["-it", "web", "true"]).fails(1).says("the input device is not a TTY");
    let _ran = exec(&["web"]).fails(1);
    drop(resident);
    let _ran = bench.rbuild(["create", "--name", "idle", "--network=none", "busybox"]).run().ok();
    let idle = exec(&["idle", "true"]).fails(1);
    let id = bench.rbuild(["ps", "-aq", "--no-trunc"]).run().ok().stdout;
    assert!(idle.stderr.contains(&format!("container {} is not running", id.trim())), "{}", idle.stderr);
}

#[test]
fn a_command_ends_with_its_container_or_with_its_caller() {
    let Some(bench) = Bench::with_busybox() else { return };
    let resident = Resident::new(&bench, &["--name", "web", "--network=none"]);
    let mut caller = bench.rbuild(["exec", "web", "sleep", "4821"]).start();
    let _ran = bench.rbuild(["exec", "-d", "web", "sleep", "4822"]).run().ok();
    wait_for("both to run", || sleepers("4821") == 1 && sleepers("4822") == 1);
    caller.kill().unwrap();
    caller.wait().unwrap();
    wait_for("the first to end", || sleepers("4821") == 0);
    assert_eq!(sleepers("4822"), 1, "nobody's but the container's");
    let _ran = bench.rbuild(["exec", "-d", "web", "no-such-program"]).run().fails(127);
    let last = bench.rbuild(["exec", "web", "sleep", "4823"]).start();
    wait_for("the third to run", || sleepers("4823") == 1);
    drop(resident);
    let _ran = Ran::new(last.wait_with_output().unwrap()).fails(137);
    assert_eq!(sleepers("4822") + sleepers("4823"), 0);
}

#[test]
fn an_interrupt_reaches_the_command() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _resident = Resident::new(&bench, &["--name", "web", "--network=none"]);
    let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = bench.rbuild(["exec", "web", "sh", "-c", script]).start();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    out.read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), child.wait().unwrap().code()), ("ready\ncaught\n", Some(5)));
}

#[test]
fn a_terminal_is_one_of_the_containers() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _resident = Resident::new(&bench, &["--name", "web", "--network=none"]);
    // `script` gives the caller a terminal of its own.
    let call = |args: &str| {
        let program = env!("CARGO_BIN_EXE_rbuild");
        let line = format!("stty rows 31 cols 77; {program} --root {} exec {args}", bench.store().display());
        // Its input stays open: at the end of it `script` would type a character, which the terminal shows anywhere.
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let _open = script.stdin.take();
        Ran::new(script.wait_with_output().unwrap())
    };
    let ran = call("-it web sh -c 'tty; stty size; test -t 1 && echo terminal; exit 9'").fails(9);
    let screen = ran.stdout.replace("\r\n", "\n");
    assert!(screen.ends_with("/dev/pts/0\n31 77\nterminal\n"), "{screen:?}");
}

/// Processes anywhere that sleep for so long; those that asked them to are not meant.
fn sleepers(seconds: &str) -> usize {
    let line = format!("sleep\0{seconds}\0").into_bytes();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|own| own == line)).count()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited for {what}");
}
