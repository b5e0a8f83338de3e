//! Hosts on which something is missing: what works without it works, and the rest says in one sentence what is missing (R-47).
//!
//! What is taken away is taken away from the program alone, in a mount or user namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::{Bench, Ran};
use crate::networks::{on, scene};

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
    let ran = after(&bench, NONE, ["pause", "web"]).fails(1);
    assert!(error(&ran).contains("control groups") && error(&ran).contains("/sys/fs/cgroup"), "{}", ran.stderr);
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

/// Takes the kernel's packet filter away: to open a socket to it fails as where the kernel has none.
const WITHOUT_NETFILTER: &str = r#"
import ctypes, os, struct, sys
socket = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
word = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
load, equal, give = 0x20, 0x15, 0x06
program = b"".join([word(load, 0, 0, 0), word(equal, 0, 5, socket), word(load, 0, 0, 16), word(equal, 0, 3, 16),
                    word(load, 0, 0, 32), word(equal, 0, 1, 12), word(give, 0, 0, 0x00050000 | 93), word(give, 0, 0, 0x7fff0000)])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"#;
const WITHOUT_TUN: &str = "[ ! -e /dev/net ] || mount -t tmpfs none /dev/net; exec \"$@\"";

#[test]
fn without_packet_filter_or_tun_device_networks_work_or_say_what_is_missing() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let unfiltered = |args: &[&str]| on(&host, bench.through(["python3", "-c", WITHOUT_NETFILTER], []).args(args));
    let alone = |args: &[&str]| {
        let by = ["unshare", "--mount", "--", "sh", "-c", WITHOUT_TUN, "sh", "python3", "-c", WITHOUT_NETFILTER];
        on(&host, bench.through(by, []).args(args))
    };
    let look = ["run", "--rm", "busybox", "ls", "/sys/class/net"];
    let ran = unfiltered(&look);
    match ran.code {
        // Through a process.
        0 => assert_eq!(ran.stdout, "eth0\nlo\n"),
        _ => assert!(ran.code == 125 && error(&ran).contains("nftables"), "{}", ran.stderr),
    }
    let ran = alone(&look).fails(125);
    let said = error(&ran);
    assert!(said.contains("nftables") && (said.contains("/dev/net/tun") || said.contains("slirp4netns")), "{said}");
    let _made = on(&host, bench.rbuild(["network", "create", "front"])).ok();
    let ran = alone(&["run", "--rm", "--network=front", "busybox", "true"]).fails(125);
    assert!(
        error(&ran).contains("network front cannot be used here") && error(&ran).contains("nftables"),
        "{}",
        ran.stderr
    );
    for network in ["none", "host"] {
        let _ran = alone(&["run", "--rm", "--network", network, "busybox", "true"]).ok();
    }
    // Who publishes a port is reached all the same.
    let serve =
        ["run", "-d", "--name=web", "-p", "8080:80", "busybox", "sh", "-c", "busybox nc -ll -p 80 -e echo inside"];
    let _ran = alone(&serve).ok().says("nothing leads out of it").says("nftables");
    // It listens a moment after it was started.
    let ask = "for i in $(seq 100); do said=$(nc -w 5 127.0.0.1 8080 < /dev/null); [ -z \"$said\" ] || break; sleep 0.1; done; echo $said";
    let call = ["run", "--rm", "--network=host", "busybox", "sh", "-c", ask];
    assert_eq!(alone(&call).ok().stdout, "inside\n");
    let _ran = alone(&["rm", "-f", "web"]).ok();
    host.becomes(&before);
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
