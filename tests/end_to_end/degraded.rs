//! Hosts on which something is missing: what works without it works, and the rest says in one sentence what is missing.
//!
//! What is taken away is taken away from the program alone, in a mount or user namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::{Bench, Ran};

/// Runs `rbuild` where this shell script has changed what is mounted.
fn after<const N: usize>(bench: &Bench, change: &str, args: [&str; N]) -> Ran {
    let script = format!("set -e; {change}; exec \"$@\"");
    bench.through(["unshare", "--mount", "--", "sh", "-c", &script, "sh"], args).run()
}

/// The one line that says what is wrong.
#[track_caller]
fn error(ran: &Ran) -> &str {
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors.as_slice() else { panic!("not one error:\n{}", ran.stderr) };
    error
}

const READ_ONLY: &str =
    "for m in $(grep ' /sys/fs/cgroup' /proc/self/mountinfo | cut -d' ' -f5); do mount -o remount,bind,ro $m; done";
const NONE: &str = "mount -t tmpfs none /sys/fs/cgroup";

#[test]
fn without_control_groups_containers_run_and_limits_are_refused() {
    let Some(bench) = Bench::with_busybox() else { return };
    for change in [READ_ONLY, NONE] {
        let run = ["run", "--rm", "--network=none", "busybox", "echo", "works"];
        let ran = after(&bench, change, run).ok();
        assert_eq!(ran.stdout, "works\n", "{change}");
        let ran = after(&bench, change, ["run", "--rm", "--network=none", "-m=64m", "busybox", "true"]).fails(125);
        assert!(error(&ran).starts_with("error: cannot apply the limit memory: "), "{change}: {}", ran.stderr);
        assert!(error(&ran).contains("controller") || error(&ran).contains("cgroup"), "{change}: {}", ran.stderr);
    }
    let ran = after(&bench, READ_ONLY, ["run", "--rm", "--network=none", "busybox", "true"]).ok();
    assert!(ran.stderr.contains("Read-only file system") && ran.stderr.contains("cgroup"), "{}", ran.stderr);
    let _ran = bench.rbuild(["run", "-d", "--name=web", "--network=none", "busybox", "sleep", "1000"]).run().ok();
    let ran = after(&bench, READ_ONLY, ["pause", "web"]).fails(1);
    assert!(error(&ran).contains("control group") && error(&ran).contains("Read-only"), "{}", ran.stderr);
    let _ran = after(&bench, NONE, ["rm", "-f", "web"]).ok();
}

#[test]
fn without_the_program_nft_networks_work_or_say_so() {
    let Some(bench) = Bench::with_busybox() else { return };
    let path = std::env::var("PATH").unwrap_or_default();
    let without = bench.path("programs");
    fs::create_dir(&without).unwrap();
    for program in path.split(':').filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten() {
        if program.file_name() != "nft" {
            let _there_already = std::os::unix::fs::symlink(program.path(), without.join(program.file_name()));
        }
    }
    let ran = bench.rbuild(["run", "--rm", "-p=127.0.0.1::80", "busybox", "echo", "works"]);
    let ran = ran.env("PATH", without.to_str().unwrap()).run();
    match ran.code {
        0 => assert_eq!(ran.stdout, "works\n"),
        _ => assert!(ran.code == 125 && error(&ran).contains("nft"), "{}", ran.stderr),
    }
}

#[test]
fn without_user_namespaces_an_ordinary_user_is_told_so() {
    let Some(bench) = Bench::new() else { return };
    let home = bench.path("person");
    fs::create_dir(&home).unwrap();
    for (path, mode) in [(bench.path(""), 0o755), (home.clone(), 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), home.join("rbuild")).unwrap();
    // Powers come with the program that is started once there is a root.
    let inside = "set -e; echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --reuid 1000 --regid 1000 --clear-groups -- ./rbuild --root ./store run --rm x true";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--", "sh", "-c", "read mapped; exec sh -c \"$1\"", "sh", inside])
        .current_dir(&home)
        .env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &home);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let start = Instant::now();
    while fs::read_link(format!("/proc/{}/ns/user", child.id())).is_ok_and(|namespace| namespace == own) {
        assert!(start.elapsed() < Duration::from_secs(60), "unshare makes no namespace");
        std::thread::sleep(Duration::from_millis(10));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_ne!(ran.code, 0);
    assert!(error(&ran).contains("user namespace"), "{}", ran.stderr);
}
