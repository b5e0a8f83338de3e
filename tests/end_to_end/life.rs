//! Containers in the background: their monitors, logs, ends and new beginnings.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::Bench;

/// Waits until something is so; fails the test when it never is.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn background(bench: &Bench, name: &str, options: &[&str], script: &str) -> String {
    let ran = bench.rbuild(["run", "-d", "--network=none", "--name", name]).args(options);
    let ran = ran.args(["busybox", "sh", "-c", script]).run().ok();
    assert_eq!(ran.stdout.trim().len(), 64, "{}", ran.stdout);
    ran.stdout.trim().to_owned()
}

fn status(bench: &Bench, name: &str) -> String {
    let ran = bench.rbuild(["ps", "-a", "--format", "json"]).run().ok();
    let mut rows = ran.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.find(|row| row["Names"] == name);
    row.map_or_else(String::new, |row| row["Status"].as_str().unwrap().to_owned())
}

#[test]
fn a_container_in_the_background_is_listed_read_stopped_and_started_again() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "trap 'echo bye; exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.1; done";
    let id = background(&bench, "web", &[], script);
    let listed = bench.rbuild(["ps"]).run().ok().stdout;
    assert!(listed.contains(&id[..12]) && listed.contains("Up ") && listed.trim().ends_with("web"), "{listed}");
    until("the output is logged", || bench.rbuild(["logs", "web"]).run().ok().stdout == "out\n");
    let ran = bench.rbuild(["logs", "web"]).run().ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(bench.rbuild(["start", "web"]).run().ok().stdout, "web\n", "to start what runs is no mistake");
    assert_eq!(bench.rbuild(["stop", "web"]).run().ok().stdout, "web\n");
    assert!(status(&bench, "web").starts_with("Exited (7)"), "{}", status(&bench, "web"));
    let _ran = bench.rbuild(["start", &id[..4]]).run().ok();
    assert!(status(&bench, "web").starts_with("Up "));
    let _ran = bench.rbuild(["rm", "web"]).run().fails(1).says("running");
    let _ran = bench.rbuild(["rm", "-f", "web"]).run().ok();
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout, "");
}

#[test]
fn logs_are_windows_with_times_and_can_be_followed() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "count", &[], "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done");
    let followed = bench.rbuild(["logs", "-f", "count"]).run().ok();
    assert_eq!(followed.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(bench.rbuild(["logs", "-n", "2", "count"]).run().ok().stdout, "line 4\nline 5\n");
    let dated = bench.rbuild(["logs", "-t", "--tail=1", "count"]).run().ok().stdout;
    let (time, text) = dated.split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "line 5\n"), "{dated}");
    let all = bench.rbuild(["logs", "-t", "count"]).run().ok().stdout;
    let third = all.lines().nth(2).unwrap().split_once(' ').unwrap().0;
    let since = bench.rbuild(["logs", "--since", third, "count"]).run().ok().stdout;
    assert_eq!(since, "line 3\nline 4\nline 5\n");
    let before = bench.rbuild(["logs", "--until", third, "count"]).run().ok().stdout;
    assert_eq!(before, "line 1\nline 2\nline 3\n");
    assert_eq!(bench.rbuild(["logs", "--since", "1ns", "count"]).run().ok().stdout, "");
}

#[test]
fn logs_rotate_by_size_and_may_be_none() {
    let Some(bench) = Bench::with_busybox() else { return };
    let id = background(&bench, "talk", &["--log-opt", "max-size=2k", "--log-opt", "max-file=2"], "seq 1 200");
    let _ran = bench.rbuild(["wait", "talk"]).run().ok();
    let directory = bench.store().join("containers").join(&id);
    let mut logs = 0;
    for entry in std::fs::read_dir(&directory).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains("-json.log") {
            logs += 1;
            assert!(entry.metadata().unwrap().len() <= 2048);
        }
    }
    assert_eq!(logs, 2);
    let kept = bench.rbuild(["logs", "talk"]).run().ok().stdout;
    assert!(kept.ends_with("199\n200\n") && !kept.starts_with("1\n"), "{kept}");
    background(&bench, "mute", &["--log-driver", "none"], "echo x");
    let _ran = bench.rbuild(["wait", "mute"]).run().ok();
    let _ran = bench.rbuild(["logs", "mute"]).run().fails(1).says("does not support reading");
    let _ran = bench.rbuild(["run", "-d", "--log-driver=syslog", "busybox"]).run().fails(125).says("syslog");
}

#[test]
fn policies_start_a_container_again_until_it_is_stopped() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "fails", &["--restart=on-failure:2"], "echo run; exit 3");
    assert_eq!(bench.rbuild(["wait", "fails"]).run().ok().stdout, "3\n");
    until("it has ended for good", || status(&bench, "fails").starts_with("Exited (3)"));
    assert_eq!(bench.rbuild(["logs", "fails"]).run().ok().stdout, "run\nrun\nrun\n");
    background(&bench, "always", &["--restart=always"], "echo run; sleep 0.1");
    until("it ran three times", || bench.rbuild(["logs", "always"]).run().ok().stdout.lines().count() >= 3);
    let _ran = bench.rbuild(["stop", "always"]).run().ok();
    assert!(status(&bench, "always").starts_with("Exited (0)"), "{}", status(&bench, "always"));
    let runs = bench.rbuild(["logs", "always"]).run().ok().stdout;
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(bench.rbuild(["logs", "always"]).run().ok().stdout, runs, "it was stopped");
    let _ran = bench.rbuild(["run", "--rm", "--restart=always", "busybox"]).run().fails(125).says("conflicting");
}

#[test]
fn a_restart_keeps_the_container_even_with_rm() {
    let Some(bench) = Bench::with_busybox() else { return };
    let id = background(&bench, "again", &["--rm"], "echo begin; sleep 1000");
    until("it began", || bench.rbuild(["logs", "again"]).run().ok().stdout == "begin\n");
    assert_eq!(bench.rbuild(["restart", "-t", "0", "again"]).run().ok().stdout, "again\n");
    until("it began again", || bench.rbuild(["logs", "again"]).run().ok().stdout == "begin\nbegin\n");
    assert_eq!(bench.rbuild(["ps", "-q", "--no-trunc"]).run().ok().stdout.trim(), id);
    let _ran = bench.rbuild(["kill", "again"]).run().ok();
    until("it is gone", || bench.rbuild(["ps", "-aq"]).run().ok().stdout.is_empty());
    assert!(!bench.store().join("containers").join(&id).exists());
}

#[test]
fn a_killed_monitor_takes_its_container_along_and_is_noticed() {
    let Some(bench) = Bench::with_busybox() else { return };
    let id = background(&bench, "orphan", &["--restart=always"], "sleep 1000");
    let mark = format!("container-monitor {id}");
    let pgrep = || Command::new("pgrep").args(["-f", &mark]).output().unwrap().stdout;
    let pid: i32 = String::from_utf8(pgrep()).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid, "a session of its own");
    for fd in std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().flatten() {
        let Ok(target) = std::fs::read_link(fd.path()) else { continue };
        let target = target.display().to_string();
        let own = target.starts_with(&bench.store().display().to_string());
        assert!(
            own || !target.starts_with('/') || ["/dev/null", "/dev/urandom"].contains(&target.as_str()),
            "leaked: {target}"
        );
    }
    let process = bench.rbuild(["inspect", "-f", "{{.State.Pid}}", "orphan"]).run().ok().stdout;
    let process = format!("/proc/{}", process.trim());
    assert!(std::path::Path::new(&process).exists());
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("it is noticed", || status(&bench, "orphan").starts_with("Exited (255)"));
    until("its process is gone", || !std::path::Path::new(&process).exists());
    let _ran = bench.rbuild(["start", "orphan"]).run().ok();
    assert!(status(&bench, "orphan").starts_with("Up "));
    let _ran = bench.rbuild(["rm", "-f", "orphan"]).run().ok();
}

#[test]
fn input_goes_to_whoever_asked_for_it_and_ends_when_it_should() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran = bench.rbuild(["run", "-i", "--name=once", "--network=none", "busybox", "cat"]).input("words\n").run();
    assert_eq!(ran.ok().stdout, "words\n");
    let ran = bench.rbuild(["start", "-ai", "once"]).input("again\n").run();
    assert_eq!(ran.ok().stdout, "again\n");
    let ran = bench.rbuild(["run", "-d", "-i", "--name=open", "--network=none", "busybox", "sh"]).run();
    let _ran = ran.ok();
    // The input of one that was started in the background stays open.
    let mut first = bench.rbuild(["attach", "open"]).start_typing();
    first.stdin.as_mut().unwrap().write_all(b"echo first\n").unwrap();
    until("it read", || bench.rbuild(["logs", "open"]).run().ok().stdout == "first\n");
    first.kill().unwrap();
    first.wait().unwrap();
    let ran = bench.rbuild(["attach", "open"]).input("echo second; exit 4\n").run().fails(4);
    assert_eq!(ran.stdout, "second\n");
    let _ran = bench.rbuild(["attach", "open"]).run().fails(1).says("cannot attach to a stopped container");
}

#[test]
fn a_closed_reader_is_told_to_the_container() {
    let Some(bench) = Bench::with_busybox() else { return };
    let store = bench.store();
    let line = format!(
        "{} --root {} run --rm --network=none busybox yes | head -n 2",
        env!("CARGO_BIN_EXE_rbuild"),
        store.display()
    );
    let ran = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "y\ny\n");
}

#[test]
fn a_name_is_given_once_however_many_ask() {
    let Some(bench) = Bench::with_busybox() else { return };
    let asking: Vec<_> =
        (0..6).map(|_| bench.rbuild(["create", "--name", "only", "busybox", "true"]).start()).collect();
    let won = asking.into_iter().filter_map(|child| child.wait_with_output().ok()).filter(|o| o.status.success());
    assert_eq!(won.count(), 1);
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout.lines().count(), 1);
}

#[test]
fn a_start_that_fails_is_told_and_kept() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran = bench.rbuild(["run", "-d", "--network=none", "--name=bad", "busybox", "/no/such"]).run().fails(127);
    assert!(ran.stderr.contains("/no/such"), "{}", ran.stderr);
    assert_eq!(status(&bench, "bad"), "Created");
    let _ran = bench.rbuild(["start", "bad"]).run().fails(1);
    let _ran = bench.rbuild(["start", "-a", "bad"]).run().fails(127);
    let _ran = bench.rbuild(["run", "-d", "--rm", "--network=none", "busybox", "/no/such"]).run().fails(127);
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout.lines().count(), 1, "--rm leaves nothing");
}
