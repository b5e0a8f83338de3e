//! The processes of a container: which is the first, what reaches it, what becomes of the others.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Bench;

/// Lists the zombies that a process of the container sees.
const ZOMBIES: &str = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z'";

fn background(bench: &Bench, name: &str, options: &[&str], words: &[&str]) {
    let args = ["run", "-d", "--network=none", "--name", name];
    let _started = bench.rbuild(args).args(options).arg("busybox").args(words).run().ok();
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_command_is_the_first_process_unless_an_init_is_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    // Children whose parent has ended are somebody's: the init's, or the command's own.
    let script = format!("echo $$; sh -c '(exec sleep 0.05) & (exec true) &'; sleep 0.5; {ZOMBIES}; exit 7");
    let run = |init: &[&str]| {
        let run = bench.rbuild(["run", "--rm", "--network=none"]).args(init);
        run.args(["busybox", "sh", "-c", &script]).run().fails(7).stdout
    };
    assert!(run(&[]).starts_with("1\n"), "{}", run(&[]));
    let said = run(&["--init"]);
    let (own, zombies) = said.trim().split_once('\n').unwrap();
    assert_ne!(own, "1");
    assert_eq!(zombies, "0");
    for (init, code) in [("--init=true", 137), ("--init=false", 0)] {
        // The kernel protects the first process of a namespace from what it sends itself.
        let ran = bench.rbuild(["run", "--rm", "--network=none", init, "busybox", "sh", "-c", "kill -KILL $$"]).run();
        assert_eq!(ran.code, code, "{init}");
    }
}

#[test]
fn steps_have_a_reaper_and_end_with_their_command() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!(
        "FROM busybox\nRUN sh -c '(exec true) & (exec sleep 0.05) &'; sleep 0.5; echo zombies $({ZOMBIES})\n\
         RUN sleep 4713 & echo begun\n"
    );
    let context = bench.context("context", [("Dockerfile", &text)]);
    let ran = bench.rbuild(["build", "--progress=plain", "--network=none"]).arg(&context).run().ok();
    let _said = ran.says("zombies 0").says("begun");
    let left = std::process::Command::new("pgrep").args(["-f", "sleep 4713"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "it outlived its step");
}

#[test]
fn what_is_executed_in_the_background_leaves_no_zombies() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "box", &[], &["sleep", "1000"]);
    for _ in 0..3 {
        let _begun = bench.rbuild(["exec", "-d", "box", "sh", "-c", "echo x >> /ran"]).run().ok();
    }
    let seen = |script: &str| bench.rbuild(["exec", "box", "sh", "-c", script]).run().stdout;
    until("three commands to run", || seen("cat /ran") == "x\nx\nx\n");
    until("their ends to be taken note of", || seen(ZOMBIES) == "0\n");
    assert_eq!(bench.rbuild(["exec", "-d", "box", "no-such-program"]).run().code, 127);
    let _removed = bench.rbuild(["rm", "-f", "box"]).run().ok();
}

#[test]
fn every_signal_is_passed_on_to_the_first_process() {
    let Some(bench) = Bench::with_busybox() else { return };
    let signals = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
        ("TERM", Signal::TERM),
    ];
    let traps: String = signals.iter().map(|(name, _)| format!("trap 'echo {name}' {name}; ")).collect();
    let script = format!("{traps} trap 'echo TERM; exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    for init in ["--init=false", "--init=true"] {
        // A shell's `&` may have made whoever runs the tests deaf to some of them, and rbuild with them.
        let args = ["run", "--rm", "--network=none", init, "busybox", "sh", "-c", &script];
        let mut child = bench.through(["env", "--default-signal=INT,QUIT,HUP"], args).start();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready", "{init}");
        for (name, signal) in signals {
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), name, "{init}");
        }
        assert_eq!(child.wait().unwrap().code(), Some(5), "{init}");
    }
}

#[test]
fn a_stop_ends_every_process_within_the_grace() {
    let Some(bench) = Bench::with_busybox() else { return };
    // Its first process ignores the signal by default, its second one by choice.
    background(&bench, "deaf", &[], &["sh", "-c", "(trap '' TERM; exec sleep 4714) & exec sleep 4714"]);
    until("both processes", || sleeping() == 2);
    let begin = Instant::now();
    let _stopped = bench.rbuild(["stop", "-t", "1", "deaf"]).run().ok();
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!(sleeping(), 0);
    let state = bench.rbuild(["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", "deaf"]).run().ok().stdout;
    assert_eq!(state, "137 false\n");
    let _removed = bench.rbuild(["rm", "deaf"]).run().ok();
}

fn sleeping() -> usize {
    let found = std::process::Command::new("pgrep").args(["-xf", "sleep 4714"]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().count()
}

#[test]
fn a_container_without_memory_left_is_reported_as_such() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "exec tail -c 200000000 /dev/zero";
    let run = bench.rbuild(["run", "--name=hungry", "--network=none", "-m=24m", "busybox", "sh", "-c", script]).run();
    if run.stderr.contains("cannot apply the limit memory") {
        eprintln!("SKIPPED: no memory controller");
        return;
    }
    assert_eq!(run.code, 137, "{}", run.stderr);
    let state = bench.rbuild(["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", "hungry"]).run().ok().stdout;
    assert_eq!(state, "137 true\n");
    let told =
        bench.rbuild(["events", "--since=1h", "--until=0s", "-f", "event=oom", "--format={{.Action}}"]).run().ok();
    assert_eq!(told.stdout, "oom\n");
    let _removed = bench.rbuild(["rm", "hungry"]).run().ok();
}
