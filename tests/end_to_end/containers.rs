//! `rbuild run` in the foreground.

use crate::bench::Bench;

#[test]
fn exit_codes_are_the_containers_or_dockers() {
    let Some(bench) = Bench::with_busybox() else { return };
    for (args, code) in [
        (vec!["busybox", "sh", "-c", "exit 3"], 3),
        (vec!["busybox", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
        (vec!["busybox", "/no/such/program"], 127),
        (vec!["busybox", "/etc/passwd"], 126),
        (vec!["--entrypoint", "echo", "busybox", "x"], 0),
    ] {
        let ran = bench.rbuild(["run", "--rm", "--network=none"]).args(&args).run();
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn streams_environment_user_and_directory_arrive() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran = bench
        .rbuild(["run", "--rm", "-i", "--network=none", "-e", "A=b", "-w", "/tmp", "-u", "app", "busybox"])
        .args(["sh", "-c", "cat; echo $A; pwd; id -u; echo err >&2"])
        .input("from outside\n")
        .run()
        .ok();
    assert_eq!(ran.stdout, "from outside\nb\n/tmp\n1000\n");
    assert!(ran.stderr.ends_with("err\n"), "{}", ran.stderr);
}

#[test]
fn mounts_are_seen_both_ways_and_read_only_ones_hold() {
    let Some(bench) = Bench::with_busybox() else { return };
    let data = bench.context("data", [("in", "in\n")]);
    let mount = format!("{}:/data", data.display());
    let ran = bench
        .rbuild([
            "run",
            "--rm",
            "--network=none",
            "-v",
            &mount,
            "busybox",
            "sh",
            "-c",
            "cat /data/in; echo out > /data/out",
        ])
        .run()
        .ok();
    assert_eq!(ran.stdout, "in\n");
    assert_eq!(std::fs::read_to_string(data.join("out")).unwrap(), "out\n");
    let ran = bench
        .rbuild(["run", "--rm", "--network=none", "-v", &format!("{mount}:ro"), "busybox", "touch", "/data/x"])
        .run();
    assert_eq!(ran.code, 1);
    assert!(!data.join("x").exists());
}

#[test]
fn what_a_container_writes_goes_with_it() {
    let Some(bench) = Bench::with_busybox() else { return };
    assert_eq!(bench.shell("busybox", "echo x > /x; cat /x"), "x\n");
    assert_eq!(bench.shell("busybox", "cat /x 2>/dev/null || echo clean"), "clean\n");
}

#[test]
fn an_interrupt_reaches_the_container() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done";
    // A shell's `&` may have made whoever runs the tests deaf to interrupts, and rbuild with them.
    let child = bench
        .through(["env", "--default-signal=INT"], ["run", "--rm", "--network=none", "busybox", "sh", "-c", script])
        .start();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\ncaught\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_killed_engine_takes_its_container_along() {
    let Some(bench) = Bench::with_busybox() else { return };
    let mut child = bench.rbuild(["run", "--rm", "--network=none", "busybox", "sleep", "4711"]).start();
    std::thread::sleep(std::time::Duration::from_millis(1000));
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let left = std::process::Command::new("pgrep").args(["-f", "sleep 4711"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "the container outlived its engine");
    // The next command sweeps what the dead one held.
    assert_eq!(bench.shell("busybox", "echo fine"), "fine\n");
}
