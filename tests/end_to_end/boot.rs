//! Containers that come up with the machine, by their restart policies, and the unit that says when.

use std::process::Command;

use crate::bench::Bench;

const SERVE: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// As after the power was cut: whoever ran containers is gone, and the kernel has another boot id.
fn cut_the_power(bench: &Bench) {
    let store = bench.store().display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&store) && command.contains("container-monitor") {
            let pid: i32 = entry.file_name().to_string_lossy().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            // One that ends by itself at this moment is as good.
            let _killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    std::fs::write(bench.store().join("containers.boot"), "another boot\n").unwrap();
}

fn running(bench: &Bench) -> Vec<String> {
    let ran = bench.rbuild(["ps", "--format", "{{.Names}}"]).run().ok();
    let mut names: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn policies_hold_across_a_restart_of_the_machine() {
    let Some(bench) = Bench::with_busybox() else { return };
    for (name, policy) in [
        ("always", "always"),
        ("stopped-always", "always"),
        ("unless", "unless-stopped"),
        ("stopped-unless", "unless-stopped"),
        ("failing", "on-failure"),
        ("plain", "no"),
    ] {
        let args = ["run", "-d", "--network=none", "--name", name, "--restart", policy, "busybox", "sh", "-c", SERVE];
        let _ran = bench.rbuild(args).run().ok();
    }
    let _ran = bench.rbuild(["create", "--network=none", "--name", "new", "--restart", "always", "busybox"]).run().ok();
    let _ran = bench.rbuild(["stop", "stopped-always", "stopped-unless"]).run().ok();
    cut_the_power(&bench);
    assert_eq!(running(&bench), Vec::<String>::new(), "nobody starts anything unasked");
    let ran = bench.rbuild(["system", "start-containers"]).run().ok();
    let expected = ["always", "failing", "stopped-always", "unless"];
    assert_eq!(ran.stdout, "always\nstopped-always\nunless\nfailing\n", "the oldest first");
    assert_eq!(running(&bench), expected);
    // Once a boot.
    let _ran = bench.rbuild(["stop", "always"]).run().ok();
    let again = bench.rbuild(["system", "start-containers"]).run().ok().says("--again");
    assert_eq!(again.stdout, "");
    assert_eq!(running(&bench), ["failing", "stopped-always", "unless"]);
    // The machine goes down in order: that is nobody's wish for the containers.
    let ran = bench.rbuild(["system", "stop-containers"]).run().ok();
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    assert_eq!(running(&bench), Vec::<String>::new());
    cut_the_power(&bench);
    let ran = bench.rbuild(["system", "start-containers"]).run().ok();
    assert_eq!(ran.stdout, "always\nstopped-always\nunless\n", "`failing` ended well when it was stopped");
    let ids = bench.rbuild(["ps", "-aq"]).run().ok().stdout;
    let _ran = bench.rbuild(["rm", "-f"]).args(ids.split_whitespace()).run().ok();
}

#[test]
fn systemd_takes_the_unit() {
    let Some(bench) = Bench::new() else { return };
    let unit = bench.rbuild(["system", "service"]).run().ok().stdout;
    assert!(unit.contains("system start-containers"), "{unit}");
    let path = bench.path("rbuild.service");
    std::fs::write(&path, &unit).unwrap();
    let Ok(checked) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() else {
        eprintln!("SKIPPED: needs systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    // It also complains of other units of this machine.
    assert!(!said.contains("rbuild.service"), "{said}\n{unit}");
}
