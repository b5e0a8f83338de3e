//! What a sandboxed program is, sees and may do.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use rbuild_executor::{
    ALL_CAPABILITIES, Access, Ids, Init, KernelPaths, MountSource, NetworkMode, SandboxSpec, Seccomp,
};

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[
    ("confinement::capabilities_are_dockers", capabilities),
    ("confinement::file_systems_have_dockers_options", mounts),
    ("confinement::dev_has_exactly_the_standard_nodes", dev),
    ("confinement::masked_paths_are_empty_and_read_only_ones_refuse", masks),
    ("confinement::no_descriptor_leaks", descriptors),
    ("confinement::the_network_is_loopback_only", network),
    ("confinement::cgroups_show_the_sandbox_only", cgroups),
    ("confinement::the_init_and_its_binary_are_out_of_reach", init_protected),
    ("confinement::privileged_opens_what_it_should", privileged),
    ("confinement::our_binary_cannot_be_written_from_inside", binary_protected),
    ("confinement::no_new_privileges_is_set_when_asked", no_new_privileges),
    ("confinement::every_escape_probe_meets_its_verdict", probes),
];

fn capabilities(world: &World) {
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";
    let root = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    let user = root.replace(
        "CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb",
        "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000",
    );
    for init in [Init::Reaper, Init::Process] {
        let mut spec = world.upper().spec(&["sh", "-c", script]);
        spec.init = init;
        assert_eq!(world.run(&spec).text, root);
        spec.process.user = Ids { uid: 1000, gid: 1000, groups: vec![1000] };
        assert_eq!(world.run(&spec).text, user);
    }
}

fn mounts(world: &World) {
    let script = "awk '$2 !~ /^.proc.[a-z]/ && $2 !~ /^.sys.[a-z]/ {print $2, $3, $4}' /proc/mounts | sort";
    let text = world.sh(script).text;
    let options: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    for (target, want) in [
        ("/proc", "proc rw,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs rw,nosuid,noexec,relatime,size=65536k,mode=755"),
        ("/dev/pts", "devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666"),
        ("/dev/shm", "tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k"),
        ("/dev/mqueue", "mqueue rw,nosuid,nodev,noexec,relatime"),
        ("/sys", "sysfs ro,nosuid,nodev,noexec,relatime"),
    ] {
        let got = options.get(target).copied().unwrap_or_default();
        assert!(got.starts_with(want), "{target}: {got}");
    }
    assert_eq!(options.len(), 7, "{text}");
    assert!(options["/"].contains("redirect_dir=off") || !options["/"].contains("redirect_dir=on"), "{text}");
}

fn dev(world: &World) {
    let text = world
        .sh("cd /dev; ls; stat -c '%n %F %t:%T %a' null zero full random urandom tty; for l in ptmx fd stdin; do readlink $l; done")
        .text;
    assert_eq!(
        text,
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
         null character special file 1:3 666\nzero character special file 1:5 666\n\
         full character special file 1:7 666\nrandom character special file 1:8 666\n\
         urandom character special file 1:9 666\ntty character special file 5:0 666\n\
         pts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n"
    );
    let nodes = world.sh("mknod /mem c 1 1 && echo made; cat /mem; echo x > /dev/null; head -c 4 /dev/zero | wc -c");
    assert!(nodes.text.contains("made") && nodes.text.contains("Operation not permitted"), "{}", nodes.text);
    assert!(nodes.text.ends_with("4\n"), "{}", nodes.text);
}

fn masks(world: &World) {
    let script = "for f in kcore keys timer_list interrupts kallsyms slabinfo kpagecount sched_debug latency_stats; do \
                  test -e /proc/$f && cat /proc/$f | wc -c; done | sort -u; ls -A /sys/firmware /proc/acpi 2>/dev/null | grep -v :; \
                  for f in sys/kernel/hostname irq/default_smp_affinity; do echo x > /proc/$f; done";
    let text = world.sh(script).text;
    assert!(text.starts_with("0\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert_eq!(text.lines().filter(|l| !l.is_empty()).count(), 3, "{text}");
}

fn descriptors(world: &World) {
    for init in [Init::Reaper, Init::Process] {
        let mut spec = world.upper().spec(&["ls", "/proc/self/fd"]);
        spec.init = init;
        // The fourth is the directory being listed.
        assert_eq!(world.run(&spec).text, "0\n1\n2\n3\n");
    }
}

fn network(world: &World) {
    let text = world.sh("ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start").text;
    assert_eq!(text, "lo\n1\n0\t2147483647\n0\n");
    let mut spec = world.upper().spec(&["readlink", "/proc/self/ns/net"]);
    spec.network = NetworkMode::Host;
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(world.run(&spec).text.trim(), host.to_str().unwrap());
    spec.network = NetworkMode::Path("/proc/self/ns/net".into());
    assert_eq!(world.run(&spec).text.trim(), host.to_str().unwrap());
    spec.network = NetworkMode::Path("/no/such/ns".into());
    assert!(world.try_run(&spec).is_err());
    let own = world.sh("for n in mnt pid ipc uts net time cgroup; do readlink /proc/self/ns/$n; done").text;
    for (line, name) in own.lines().zip(["mnt", "pid", "ipc", "uts", "net", "time", "cgroup"]) {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, host.to_str().unwrap(), "{name}");
    }
    assert_eq!(own.lines().count(), 7, "{own}");
}

fn cgroups(world: &World) {
    let text = world.sh("grep -v ':/$' /proc/self/cgroup; cat /sys/fs/cgroup/*/cgroup.procs | wc -l; mkdir /sys/fs/cgroup/memory/x; cat /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/pids.max 2>/dev/null").text;
    assert!(text.contains("Read-only file system") || text.contains("No such file"), "{text}");
    assert!(text.contains("2048"), "{text}");
    assert!(!text.contains(":/"), "{text}");
}

fn init_protected(world: &World) {
    let script = "cat /proc/1/environ; readlink /proc/1/exe; cat /proc/1/fd/*; ls /proc/1/root/; cat /proc/1/maps; \
                  echo x > /proc/1/exe; echo x > /proc/self/exe; grep CapEff /proc/1/status";
    let output = world.sh(script);
    assert_eq!(output.text.matches("Permission denied").count(), 5, "{}", output.text);
    assert!(output.text.contains("CapEff:\t0000000000000020"), "{}", output.text);
    assert!(!output.text.contains("memfd"), "{}", output.text);
}

fn privileged_spec(world: &World, argv: &[&str]) -> SandboxSpec {
    let mut spec = world.upper().spec(argv);
    spec.confinement.capabilities = ALL_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    spec.confinement.seccomp = Seccomp::Unconfined;
    spec.confinement.kernel_paths = KernelPaths::Open;
    spec
}

fn privileged(world: &World) {
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo mounted; \
                  ls /dev/kmsg /dev/fuse /dev/loop0 /dev/net/tun; head -c 1 /proc/interrupts | wc -c; ls /proc/self/fd | wc -l";
    let text = world.run(&privileged_spec(world, &["sh", "-c", script])).text;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert!(text.starts_with(&format!("CapEff:\t{bounding}\nSeccomp:\t0\nmounted\n")), "{text}");
    assert!(text.ends_with("/dev/fuse\n/dev/kmsg\n/dev/loop0\n/dev/net/tun\n1\n4\n"), "{text}");
}

/// Rule S-10. A privileged program may look at our init, and even so finds nothing there to write to.
fn binary_protected(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let own = std::fs::metadata("/proc/self/exe").unwrap();
    let script = "for f in /proc/1/exe /proc/self/exe; do chmod 777 $f; echo x >> $f; dd if=/dev/zero of=$f count=1; done; \
                  readlink /proc/1/exe > /dev/null && echo seen";
    let output = world.run(&privileged_spec(world, &["sh", "-c", script]));
    assert!(output.text.ends_with("seen\n"), "{}", output.text);
    assert_eq!(output.text.matches("/proc/1/exe: Read-only file system").count(), 1, "{}", output.text);
    let mut spec = world.upper().spec(&["/proc/self/exe", "--list"]);
    for init in [Init::Process, Init::Reaper] {
        spec.init = init;
        spec.id = crate::world::next_id();
        // Ours is no program of the image's: it may run there, or lack its loader, but not be changed.
        drop(world.try_run(&spec));
    }
    let now = std::fs::metadata("/proc/self/exe").unwrap();
    assert_eq!((now.len(), now.permissions().mode()), (own.len(), own.permissions().mode()));
    assert_eq!(now.modified().unwrap(), own.modified().unwrap());
}

fn no_new_privileges(world: &World) {
    let mut spec = world.upper().spec(&["grep", "NoNewPrivs", "/proc/self/status"]);
    spec.confinement.no_new_privileges = true;
    assert_eq!(world.run(&spec).text, "NoNewPrivs:\t1\n");
}

/// The probes of the attack kit beside this repository, when it is there, against the verdicts they must meet.
fn probes(world: &World) {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/attacks/escape_probes");
    let Ok(expected) = std::fs::read_to_string(kit.join("expected.json")) else {
        println!("SKIPPED confinement::every_escape_probe_meets_its_verdict: no {}", kit.display());
        return;
    };
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let binary = world.path("probes");
    let built = Command::new("cc").args(["-static", "-O1", "-w", "-o"]).arg(&binary).arg(kit.join("probes.c")).status();
    assert!(built.is_ok_and(|status| status.success()), "cannot compile the probes");

    let abstract_name = format!("rbuild-probe-{}", std::process::id());
    let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let host_file = world.path("only-on-the-host");
    std::fs::write(&host_file, "").unwrap();
    let env = [
        format!("PROBE_ABSTRACT={abstract_name}"),
        format!("PROBE_TCP={}", tcp.local_addr().unwrap().port()),
        format!("PROBE_HOSTFILE={}", host_file.display()),
    ];
    let resolv = MountSource::File { content: b"nameserver 127.0.0.1\n".to_vec(), mode: 0o644, uid: 0, gid: 0 };
    let mut wrong = Vec::new();
    for (mode, init) in [
        ("build-default", Init::Reaper),
        ("build-none", Init::Reaper),
        ("run-default", Init::Process),
        ("run-none", Init::Reaper),
        ("run-user", Init::Process),
        ("build-insecure", Init::Reaper),
        ("run-insecure", Init::Process),
    ] {
        let mut spec = world.upper().spec(&["/probes"]);
        if mode.ends_with("insecure") {
            spec = privileged_spec(world, &["/probes"]);
        }
        if mode == "run-user" {
            spec.process.user = Ids { uid: 1234, gid: 1234, groups: vec![1234] };
        }
        spec.init = init;
        spec.process.env.extend(env.clone());
        spec.mounts = vec![
            mount("/probes", MountSource::Bind { path: binary.clone() }, Access::ReadOnly),
            mount("/etc/resolv.conf", resolv.clone(), Access::ReadOnly),
        ];
        let mut outputs = vec![("its own process", world.run(&spec))];
        if mode.starts_with("run") {
            // The same through `exec`, in a sandbox that does nothing else.
            let mut resident = SandboxSpec { rootfs: world.upper().rootfs(), ..spec.clone() };
            resident.id = crate::world::next_id();
            resident.process.argv = vec!["sleep".to_owned(), "1000".to_owned()];
            let (process, _output) = world.start(&resident).unwrap();
            let inside = crate::exec::exec_spec(&resident, &["/probes"]);
            outputs.push(("exec", crate::exec::exec(&world.spawner, &process, &inside).unwrap()));
        }
        for (how, output) in outputs {
            let found = verdicts(&output.text);
            assert!(found.len() > 90, "{mode}: {}", output.text);
            for (probe, want) in expected["must"][mode].as_object().unwrap() {
                let have = found.get(probe).map_or("missing", String::as_str);
                if !meets(have, want) {
                    wrong.push(format!("{mode}, {how}: {probe} is {have}, must be {want}"));
                }
            }
        }
    }
    drop((unix, tcp));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Probe to verdict, or to the value where it is one.
fn verdicts(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines
        .map(|line| {
            let verdict = field(&line, "verdict");
            (field(&line, "probe"), if verdict == "info" { field(&line, "detail") } else { verdict })
        })
        .collect()
}

/// "blocked" also accepts "absent"; a list gives all answers that are right; blocked beats open.
fn meets(have: &str, want: &serde_json::Value) -> bool {
    let one = |want: &serde_json::Value| {
        let want = want.as_str().unwrap_or_default();
        have == want || (matches!(want, "blocked" | "open") && matches!(have, "blocked" | "absent"))
    };
    want.as_array().map_or_else(|| one(want), |all| all.iter().any(one))
}
