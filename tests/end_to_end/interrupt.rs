//! Stopping a build: the first signal stops and cleans up, the second kills; a failing step stops the others. What had
//! succeeded is cached, and no sandbox is left: the steps' command lines name the bench, so the census finds them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::Bench;
use crate::sharing::{Watched, go, runs, wait_until, waiting_step};

/// A Dockerfile with a quick step and one that ends for nothing but `SIGKILL`.
fn stubborn(bench: &Bench) -> String {
    let step = waiting_step(bench, "runs").replacen(": ", "trap '' TERM INT HUP; : ", 1);
    format!("FROM busybox\nRUN echo quick > /quick\n{step}\n")
}

fn is_cached(bench: &Bench, context: &std::path::Path) {
    go(bench, "runs");
    let again = bench.build("again", context).ok();
    assert!(again.stderr.contains("CACHED"), "what had succeeded was lost: {}", again.stderr);
    assert_eq!(runs(bench, "runs"), 2, "what was stopped counted as done");
}

#[test]
fn the_first_signal_stops_and_cleans_up() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let Some(bench) = Bench::with_busybox() else { return };
        let context = bench.context("ctx", [("Dockerfile", &stubborn(&bench))]);
        let build = Watched::start(&bench, "x", &context);
        wait_until("the step runs", || runs(&bench, "runs") == 1);
        build.signal(signal);
        let (code, said) = build.end();
        assert_eq!(code, 130, "{said}");
        assert!(said.contains("CANCELED"), "{said}");
        assert_eq!(
            fs::read_dir(bench.store().join("tmp"))
                .unwrap()
                .filter(|entry| { entry.as_ref().is_ok_and(|entry| entry.file_name() != "ingest") })
                .count(),
            0,
            "something unfinished is left"
        );
        is_cached(&bench, &context);
    }
}

#[test]
fn the_second_signal_kills() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", &stubborn(&bench))]);
    let build = Watched::start(&bench, "x", &context);
    wait_until("the step runs", || runs(&bench, "runs") == 1);
    build.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(50));
    build.signal(Signal::INT);
    let (code, said) = build.end();
    assert_eq!(code, 130, "{said}");
    is_cached(&bench, &context);
}

#[test]
fn ctrl_c_in_a_terminal_stops_the_build_and_the_second_kills_it() {
    for times in [1, 2] {
        let Some(bench) = Bench::with_busybox() else { return };
        let context = bench.context("ctx", [("Dockerfile", &stubborn(&bench))]);
        let (socket, code) = (bench.path("tmux"), bench.path("code"));
        let tmux = |args: &[&str]| {
            let done = Command::new("tmux").arg("-S").arg(&socket).args(args).status().expect("tmux is installed");
            assert!(done.success(), "tmux {args:?}");
        };
        let script = format!(
            "RBUILD_NETWORK_LINGER=1s {} --root {} build -t x {}; echo $? > {}; sleep 100",
            env!("CARGO_BIN_EXE_rbuild"),
            bench.store().display(),
            context.display(),
            code.display()
        );
        tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &script]);
        wait_until("the step runs", || runs(&bench, "runs") == 1);
        for _ in 0..times {
            tmux(&["send-keys", "C-c"]);
        }
        wait_until("the build ends", || fs::read_to_string(&code).is_ok_and(|text| text.ends_with('\n')));
        let screen = Command::new("tmux").arg("-S").arg(&socket).args(["capture-pane", "-p"]).output().unwrap();
        assert_eq!(fs::read_to_string(&code).unwrap(), "130\n", "{}", String::from_utf8_lossy(&screen.stdout));
        tmux(&["kill-server"]);
        is_cached(&bench, &context);
    }
}

#[test]
fn the_first_failure_ends_the_other_sandboxes() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!(
        "FROM busybox AS good\nRUN echo good > /good\n\
         FROM busybox AS slow\n{}\n\
         FROM busybox AS bad\nCOPY --from=good /good /good\n\
         RUN --mount=type=cache,target=/count,id=count while [ ! -e /count/runs ]; do sleep 0.05; done; exit 7\n\
         FROM busybox\nCOPY --from=slow / /slow\nCOPY --from=bad / /bad\n",
        waiting_step(&bench, "runs").replacen(": ", "trap '' TERM; : ", 1)
    );
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let ran = bench.build("x", &context).fails(1).says("exit code: 7");
    assert!(ran.stderr.contains("CANCELED"), "{}", ran.stderr);
    let again = bench.build("x", &context).fails(1);
    assert!(again.stderr.contains("CACHED"), "what had succeeded was lost: {}", again.stderr);
}
