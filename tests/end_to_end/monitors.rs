//! Monitors that are killed, or whose container disappears: it is noticed, and nothing is orphaned.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::Bench;

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose command line has this text.
fn running(text: &str) -> Vec<i32> {
    let found = Command::new("pgrep").args(["-f", text]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().filter_map(|line| line.parse().ok()).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn state(bench: &Bench, name: &str) -> String {
    bench.rbuild(["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"]).run().ok().stdout
}

#[test]
fn a_killed_monitor_is_noticed_at_every_moment_and_leaves_nothing() {
    let Some(bench) = Bench::with_busybox() else { return };
    // So many milliseconds after the monitor was seen.
    for (number, after) in [0, 5, 20, 60, 150, 400].into_iter().enumerate() {
        let name = format!("m{number}");
        let mark = format!("sleep 61{number:02}3");
        let id = bench.rbuild([
            "create",
            "--name",
            &name,
            "--network=none",
            "busybox",
            "sh",
            "-c",
            &format!("{mark}; true"),
        ]);
        let id = id.run().ok().stdout.trim().to_owned();
        let starting = bench.rbuild(["start", &name]).start();
        let monitor = format!("container-monitor {id}");
        until("there is a monitor", || !running(&monitor).is_empty());
        std::thread::sleep(Duration::from_millis(after));
        running(&monitor).into_iter().for_each(kill);
        drop(starting.wait_with_output().unwrap());
        until("its processes are gone", || running(&mark).is_empty());
        let shown = state(&bench, &name);
        assert!(shown.starts_with("Exited (255)") || shown == "Created\n", "{after}: {shown}");
        // It starts again as if nothing had happened, and is removed.
        let _ran = bench.rbuild(["start", &name]).run().ok();
        assert!(state(&bench, &name).starts_with("Up "), "{after}: {}", state(&bench, &name));
        let _ran = bench.rbuild(["rm", "-f", &name]).run().ok();
        assert!(running(&mark).is_empty() && running(&monitor).is_empty());
    }
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout, "");
}

#[test]
fn a_killed_monitor_ends_its_clients_its_restarts_and_its_health() {
    let Some(bench) = Bench::with_busybox() else { return };
    let flags = ["--restart=always", "--health-cmd=true", "--health-interval=100ms", "--network=none"];
    let run = bench.rbuild(["run", "-d", "--name=web"]).args(flags).args(["busybox", "sh", "-c", "sleep 6299"]).run();
    let id = run.ok().stdout.trim().to_owned();
    until("it is healthy", || state(&bench, "web").contains("(healthy)"));
    let client = bench.rbuild(["attach", "web"]).start();
    std::thread::sleep(Duration::from_millis(300));
    running(&format!("container-monitor {id}")).into_iter().for_each(kill);
    let told = crate::bench::Ran::new(client.wait_with_output().unwrap()).fails(125);
    assert!(told.stderr.contains("the process that runs the container was killed"), "{}", told.stderr);
    assert!(state(&bench, "web").starts_with("Exited (255)"), "{}", state(&bench, "web"));
    until("its process is gone", || running("sleep 6299").is_empty());
    let health = bench.rbuild(["inspect", "-f", "{{.State.Health.Status}}", "web"]).run().ok().stdout;
    assert_eq!(health, "unhealthy\n");
    let _ran = bench.rbuild(["rm", "web"]).run().ok();
}

#[test]
fn a_monitor_ends_when_its_container_disappears() {
    let Some(bench) = Bench::with_busybox() else { return };
    let id = bench.rbuild(["run", "-d", "--network=none", "busybox", "sleep", "6388"]).run().ok().stdout;
    let id = id.trim();
    std::fs::remove_dir_all(bench.store().join("containers").join(id)).ok();
    until("its process is gone", || running("sleep 6388").is_empty());
    until("the monitor is gone", || running(&format!("container-monitor {id}")).is_empty());
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout, "");
}
