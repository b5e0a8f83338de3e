//! Every flag of `docker run`: it works, which a run shows or a test elsewhere, or it is refused by its name.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::bench::Bench;

/// What becomes of a flag.
enum Fate {
    /// With these arguments (the flag among them) this script in busybox writes this.
    Shows(&'static [&'static str], &'static str, &'static str),
    /// With these arguments `inspect` of the container has this at this place.
    Inspected(&'static [&'static str], &'static str, &'static str),
    /// The test of this name shows it.
    Elsewhere(&'static str),
    /// Refused with these arguments, and this in the error.
    Refused(&'static [&'static str], &'static str),
    /// It works where the kernel has the setting, which the error says where it has not.
    KernelWilling(&'static [&'static str], &'static str, &'static str),
}

use Fate::{Elsewhere, Inspected, KernelWilling, Refused, Shows};

const NAMES: &str = "names_aliases_and_addresses_are_those_of_the_network";

#[rustfmt::skip]
const FLAGS: [(&str, Fate); 98] = [
    ("--add-host", Shows(&["--add-host=other:10.1.2.3"], "grep other /etc/hosts | tr '\\t' ' '", "10.1.2.3 other\n")),
    ("--annotation", Inspected(&["--annotation=a=b"], "{{.HostConfig.Annotations}}", "map[a:b]")),
    ("--attach", Elsewhere("only_the_chosen_streams_are_connected")),
    ("--blkio-weight", KernelWilling(&["--blkio-weight=300"], "true", "")),
    ("--blkio-weight-device", Refused(&["--blkio-weight-device=/dev/null:300"], "blkio-weight-device")),
    ("--cap-add", Shows(&["--cap-add=SYS_TIME"], "grep CapEff /proc/self/status | tail -c 9", "aa0425fb\n")),
    ("--cap-drop", Shows(&["--cap-drop=ALL"], "grep CapEff /proc/self/status | tail -c 9", "00000000\n")),
    ("--cgroup-parent", Elsewhere("a_cgroup_parent_is_where_it_was_asked_for")),
    ("--cgroupns", Refused(&["--cgroupns=host"], "--cgroupns is not supported")),
    ("--cidfile", Elsewhere("the_id_is_written_where_it_was_asked_for")),
    ("--cpu-count", Refused(&["--cpu-count=1"], "--cpu-count is not supported")),
    ("--cpu-percent", Refused(&["--cpu-percent=1"], "--cpu-percent is not supported")),
    ("--cpu-period", Inspected(&["--cpu-period=50000", "--cpu-quota=25000"], "{{.HostConfig.NanoCpus}}", "500000000")),
    ("--cpu-quota", Inspected(&["--cpu-quota=50000"], "{{.HostConfig.NanoCpus}}", "500000000")),
    ("--cpu-rt-period", Refused(&["--cpu-rt-period=1000"], "--cpu-rt-period is not supported")),
    ("--cpu-rt-runtime", Refused(&["--cpu-rt-runtime=1000"], "--cpu-rt-runtime is not supported")),
    ("--cpu-shares", Inspected(&["--cpu-shares=512"], "{{.HostConfig.CpuShares}}", "512")),
    ("--cpus", Inspected(&["--cpus=0.5"], "{{.HostConfig.NanoCpus}}", "500000000")),
    ("--cpuset-cpus", Shows(&["--cpuset-cpus=0"], "grep Cpus_allowed_list /proc/self/status | tail -c 2", "0\n")),
    ("--cpuset-mems", Shows(&["--cpuset-mems=0"], "grep Mems_allowed_list /proc/self/status | tail -c 2", "0\n")),
    ("--detach", Elsewhere("a_container_in_the_background_is_listed_read_stopped_and_started_again")),
    ("--detach-keys", Elsewhere("keys_detach_by_flag_and_by_dockers_configuration")),
    ("--device", Elsewhere("devices_are_there_usable_as_asked_and_no_others")),
    ("--device-cgroup-rule", Elsewhere("devices_are_there_usable_as_asked_and_no_others")),
    ("--device-read-bps", Refused(&["--device-read-bps=/dev/null:1m"], "device-read-bps: /dev/null is no block device")),
    ("--device-read-iops", Refused(&["--device-read-iops=/dev/null:1"], "device-read-iops: /dev/null is no block device")),
    ("--device-write-bps", Refused(&["--device-write-bps=/dev/null:1m"], "device-write-bps: /dev/null is no block device")),
    ("--device-write-iops", Refused(&["--device-write-iops=/dev/null:1"], "device-write-iops: /dev/null is no block device")),
    ("--disable-content-trust", Refused(&["--disable-content-trust=false"], "--disable-content-trust=false is not supported")),
    ("--dns", Inspected(&["--dns=192.0.2.9"], "{{.HostConfig.Dns}}", "[192.0.2.9]")),
    ("--dns-option", Inspected(&["--dns-option=ndots:3"], "{{.HostConfig.DnsOptions}}", "[ndots:3]")),
    ("--dns-search", Shows(&["--dns-search=example.org"], "grep search /etc/resolv.conf", "search example.org\n")),
    ("--domainname", Shows(&["--domainname=example.org"], "cat /proc/sys/kernel/domainname", "example.org\n")),
    ("--entrypoint", Elsewhere("exit_codes_are_the_containers_or_dockers")),
    ("--env", Shows(&["--env=A=b"], "echo $A", "b\n")),
    ("--env-file", Elsewhere("files_of_variables_and_labels_are_read")),
    ("--expose", Inspected(&["--expose=81"], "{{.Config.ExposedPorts}}", "map[81/tcp:{}]")),
    ("--gpus", Refused(&["--gpus=all"], "--gpus is not supported")),
    ("--group-add", Shows(&["--group-add=staff"], "id -G", "0 50\n")),
    ("--health-cmd", Elsewhere("health_is_dockers")),
    ("--health-interval", Elsewhere("health_is_dockers")),
    ("--health-retries", Elsewhere("health_is_dockers")),
    ("--health-start-interval", Elsewhere("checks_come_more_often_while_the_container_starts")),
    ("--health-start-period", Elsewhere("results_make_it_healthy_and_enough_failures_unhealthy")),
    ("--health-timeout", Elsewhere("a_check_that_takes_too_long_is_killed_with_what_it_started")),
    ("--help", Elsewhere("every_flag_of_dockers_help_is_in_this_table")),
    ("--hostname", Shows(&["--hostname=me"], "hostname", "me\n")),
    ("--init", Shows(&["--init"], "cat /proc/1/comm", "rbuild-init\n")),
    ("--interactive", Elsewhere("streams_environment_user_and_directory_arrive")),
    ("--io-maxbandwidth", Refused(&["--io-maxbandwidth=1"], "--io-maxbandwidth is not supported")),
    ("--io-maxiops", Refused(&["--io-maxiops=1"], "--io-maxiops is not supported")),
    ("--ip", Elsewhere(NAMES)),
    ("--ip6", Elsewhere(NAMES)),
    ("--ipc", Elsewhere("memory_is_shared_with_whom_it_was_asked_for")),
    ("--isolation", Refused(&["--isolation=hyperv"], "--isolation is not supported")),
    ("--kernel-memory", Refused(&["--kernel-memory=1g"], "--kernel-memory is not supported")),
    ("--label", Inspected(&["--label=a=b"], "{{.Config.Labels}}", "map[a:b]")),
    ("--label-file", Elsewhere("files_of_variables_and_labels_are_read")),
    ("--link", Refused(&["--link=web:db"], "--link is not supported")),
    ("--link-local-ip", Refused(&["--link-local-ip=169.254.1.1"], "--link-local-ip is not supported")),
    ("--log-driver", Elsewhere("logs_rotate_by_size_and_may_be_none")),
    ("--log-opt", Elsewhere("logs_rotate_by_size_and_may_be_none")),
    ("--mac-address", Elsewhere(NAMES)),
    ("--memory", Inspected(&["--memory=32m"], "{{.HostConfig.Memory}}", "33554432")),
    ("--memory-reservation", Inspected(&["--memory-reservation=8m"], "{{.HostConfig.MemoryReservation}}", "8388608")),
    ("--memory-swap", KernelWilling(&["--memory=32m", "--memory-swap=64m"], "true", "")),
    ("--memory-swappiness", KernelWilling(&["--memory-swappiness=7"], "true", "")),
    ("--mount", Shows(&["--mount=type=tmpfs,target=/t"], "grep -c ' /t tmpfs' /proc/mounts", "1\n")),
    ("--name", Inspected(&["--name=inspected"], "{{.Name}}", "/inspected")),
    ("--network", Shows(&["--network=none"], "ls /sys/class/net", "lo\n")),
    ("--network-alias", Elsewhere(NAMES)),
    ("--no-healthcheck", Elsewhere("output_is_limited_and_failures_to_run_are_told")),
    ("--oom-kill-disable", KernelWilling(&["--oom-kill-disable"], "true", "")),
    ("--oom-score-adj", Shows(&["--oom-score-adj=321"], "cat /proc/self/oom_score_adj", "321\n")),
    ("--pid", Elsewhere("processes_are_those_of_whom_it_was_asked_for_and_all_end")),
    ("--pids-limit", Inspected(&["--pids-limit=-1"], "{{.HostConfig.PidsLimit}}", "-1")),
    ("--platform", Refused(&["--platform=plan9/mips", "--pull=never"], "no such image")),
    ("--privileged", Shows(&["--privileged"], "grep -c loop0 /proc/partitions >/dev/null; ls /dev/kmsg", "/dev/kmsg\n")),
    ("--publish", Elsewhere("published_ports_are_shown_as_they_were_asked_for")),
    ("--publish-all", Inspected(&["--publish-all"], "{{.HostConfig.PublishAllPorts}}", "true")),
    ("--pull", Refused(&["--pull=sometimes"], "sometimes")),
    ("--quiet", Shows(&["--quiet"], "echo x", "x\n")),
    ("--read-only", Shows(&["--read-only"], "touch /x 2>/dev/null || echo no", "no\n")),
    ("--restart", Elsewhere("policies_start_a_container_again_until_it_is_stopped")),
    ("--rm", Elsewhere("what_a_container_writes_goes_with_it")),
    ("--runtime", Refused(&["--runtime=runc"], "--runtime is not supported")),
    ("--security-opt", Shows(&["--security-opt=no-new-privileges"], "grep NoNewPrivs /proc/self/status | tail -c 2", "1\n")),
    ("--shm-size", Shows(&["--shm-size=1m"], "df /dev/shm | tail -n 1 | awk '{print $2}'", "1024\n")),
    ("--sig-proxy", Elsewhere("an_interrupt_reaches_the_container")),
    ("--stop-signal", Inspected(&["--stop-signal=SIGQUIT"], "{{.Config.StopSignal}}", "SIGQUIT")),
    ("--stop-timeout", Inspected(&["--stop-timeout=3"], "{{.Config.StopTimeout}}", "3")),
    ("--storage-opt", Refused(&["--storage-opt=size=1g"], "--storage-opt is not supported")),
    ("--sysctl", Elsewhere("settings_of_own_namespaces_are_made_and_others_refused")),
    ("--tmpfs", Shows(&["--tmpfs=/t"], "grep -c ' /t tmpfs' /proc/mounts", "1\n")),
    ("--tty", Shows(&["--tty"], "tty", "/dev/pts/0\r\n")),
    ("--ulimit", Shows(&["--ulimit=nofile=77:77"], "ulimit -n", "77\n")),
    ("--use-api-socket", Refused(&["--use-api-socket"], "--use-api-socket is not supported")),
    ("--user", Shows(&["--user=app"], "id -u", "1000\n")),
];

#[rustfmt::skip]
const MORE_FLAGS: [(&str, Fate); 6] = [
    ("--userns", Refused(&["--userns=private"], "--userns is not supported")),
    ("--uts", Elsewhere("the_hosts_name_is_seen_when_asked_for")),
    ("--volume", Elsewhere("mounts_are_seen_both_ways_and_read_only_ones_hold")),
    ("--volume-driver", Refused(&["--volume-driver=nfs"], "--volume-driver is not supported")),
    ("--volumes-from", Elsewhere("volumes_of_others_are_shared_and_outlive_neither_name")),
    ("--workdir", Shows(&["--workdir=/tmp"], "pwd", "/tmp\n")),
];

fn flags() -> impl Iterator<Item = &'static (&'static str, Fate)> {
    FLAGS.iter().chain(&MORE_FLAGS)
}

#[test]
fn every_flag_of_dockers_help_is_in_this_table() {
    let Ok(help) = Command::new("docker").args(["run", "--help"]).output() else { return };
    let help = String::from_utf8(help.stdout).unwrap();
    let flag = |line: &str| {
        let word = line.trim_start().split(' ').find(|word| word.starts_with("--"))?;
        // Continued descriptions are further right than any flag.
        (line.find("--")? < 8).then(|| word.trim_end_matches(',').to_owned())
    };
    let theirs: BTreeSet<String> = help.lines().filter_map(flag).collect();
    assert!(theirs.len() > 90, "{theirs:?}");
    let ours: BTreeSet<String> = flags().map(|(flag, _)| (*flag).to_owned()).collect();
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "flags that the table lacks");
}

#[test]
fn tests_that_are_named_exist() {
    let mut sources = String::new();
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut todo = vec![here.join("tests"), here.join("container"), here.join("src")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    for (flag, fate) in flags() {
        if let Elsewhere(name) = fate {
            assert!(sources.contains(&format!("fn {name}()")), "{flag}: there is no test {name}");
        }
    }
}

#[test]
fn flags_do_what_they_say_or_are_refused_by_name() {
    let Some(bench) = Bench::with_busybox() else { return };
    for (flag, fate) in flags() {
        let run = |args: &[&str], script: &str| {
            let network =
                if args.iter().any(|arg| arg.starts_with("--network")) { None } else { Some("--network=none") };
            bench.rbuild(["run", "--rm"]).args(network).args(args).args(["busybox", "sh", "-c", script]).run()
        };
        match fate {
            Shows(args, script, want) => {
                // Lines of files below /etc need a network that has them.
                let ran = if ["--add-host", "--dns-search"].contains(flag) {
                    bench
                        .rbuild(["run", "--rm", "--network=host"])
                        .args(*args)
                        .args(["busybox", "sh", "-c", script])
                        .run()
                } else {
                    run(args, script)
                };
                assert_eq!(ran.stdout, *want, "{flag}: {}", ran.stderr);
                assert_eq!(ran.code, 0, "{flag}");
            }
            Inspected(args, template, want) => {
                let network = ["--network=none"]
                    .iter()
                    .filter(|_| !["--dns", "--dns-option", "--expose", "--publish-all"].contains(flag));
                let id = bench.rbuild(["create"]).args(network).args(*args).args(["busybox", "true"]).run().ok().stdout;
                let _ran = bench.rbuild(["start", "-a", id.trim()]).run().ok();
                let shown = bench.rbuild(["inspect", "-f", template, id.trim()]).run().ok().stdout;
                assert_eq!(shown.trim(), *want, "{flag}");
                let _ran = bench.rbuild(["rm", id.trim()]).run().ok();
            }
            Refused(args, gist) => {
                let ran = run(args, "true");
                assert!(ran.code == 125 || ran.code == 2, "{flag}: {} {}", ran.code, ran.stderr);
                assert!(ran.stderr.contains(gist), "{flag}: {}", ran.stderr);
            }
            KernelWilling(args, script, want) => {
                let ran = run(args, script);
                if ran.code == 0 {
                    assert_eq!(ran.stdout, *want, "{flag}");
                } else {
                    let limit = format!("cannot apply the limit {}", flag.trim_start_matches("--"));
                    assert!(ran.code == 125 && ran.stderr.contains(&limit), "{flag}: {} {}", ran.code, ran.stderr);
                }
            }
            Elsewhere(_) => {}
        }
    }
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout, "", "nothing stays behind a refusal");
}

fn shell(bench: &Bench, args: &[&str], script: &str) -> crate::bench::Ran {
    bench.rbuild(["run", "--rm", "--network=none"]).args(args).args(["busybox", "sh", "-c", script]).run()
}

fn background(bench: &Bench, name: &str, args: &[&str], script: &str) {
    let ran = bench.rbuild(["run", "-d", "--network=none", "--name", name]).args(args);
    let _ran = ran.args(["busybox", "sh", "-c", script]).run().ok();
}

#[test]
fn only_the_chosen_streams_are_connected() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran = shell(&bench, &["-a", "stderr"], "echo out; echo err >&2").ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "err\n"));
    let ran = shell(&bench, &["-a", "stdout"], "echo out; echo err >&2").ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", ""));
    let _ran = shell(&bench, &["-a", "stdlog"], "true").fails(125).says("invalid argument \"stdlog\" for --attach");
}

#[test]
fn the_id_is_written_where_it_was_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let file = bench.path("id");
    let flag = format!("--cidfile={}", file.display());
    let id = bench.rbuild(["create", &flag, "busybox", "true"]).run().ok().stdout;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id.trim());
    let _ran = bench.rbuild(["create", &flag, "busybox", "true"]).run().fails(1).says("File exists");
    let _ran = bench.rbuild(["run", &flag, "busybox", "true"]).run().fails(125).says("File exists");
    let _ran = bench.rbuild(["rm", id.trim()]).run().ok();
}

#[test]
fn files_of_variables_and_labels_are_read() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dir = bench.context("files", [("env", "# c\nA=1\nB= two \n"), ("labels", "# c\na=1\nb=2\n")]);
    let (env, labels) = (dir.join("env"), dir.join("labels"));
    let args = ["--env-file", env.to_str().unwrap(), "-e", "A=3"];
    assert_eq!(shell(&bench, &args, "echo \"$A$B\"").ok().stdout, "3 two \n");
    let id = bench.rbuild(["create", "--label-file"]).arg(&labels).args(["-l", "a=3", "busybox"]).run().ok().stdout;
    let shown = bench.rbuild(["inspect", "-f", "{{.Config.Labels}}", id.trim()]).run().ok().stdout;
    assert_eq!(shown, "map[a:3 b:2]\n");
    let _ran = bench.rbuild(["rm", id.trim()]).run().ok();
}

#[test]
fn published_ports_are_shown_as_they_were_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let id = bench.rbuild(["create", "-p", "127.0.0.1:8123:80", "-p", "53/udp", "busybox"]).run().ok().stdout;
    let shown = bench.rbuild(["inspect", "-f", "{{json .HostConfig.PortBindings}}", id.trim()]).run().ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["80/tcp"][0]["HostIp"], "127.0.0.1");
    assert_eq!(shown["80/tcp"][0]["HostPort"], "8123");
    assert_eq!(shown["53/udp"][0]["HostPort"], "");
    let _ran = bench.rbuild(["rm", id.trim()]).run().ok();
}

#[test]
fn a_cgroup_parent_is_where_it_was_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let parent = format!("rbuild-test-{}", std::process::id());
    background(&bench, "child", &["--cgroup-parent", &parent], "sleep 1000");
    let pid = bench.rbuild(["inspect", "-f", "{{.State.Pid}}", "child"]).run().ok().stdout;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    assert!(groups.contains(&format!("/{parent}/")), "{groups}");
    let _ran = bench.rbuild(["rm", "-f", "child"]).run().ok();
    let _ran = shell(&bench, &["--cgroup-parent=../x"], "true").fails(125).says("cgroup-parent");
    // The parent is the user's, and stays; here it is the test's.
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(controllers), Some(path)) = (fields.nth(1), fields.next()) else { continue };
        let Some((above, _)) = path.split_once(&parent) else { continue };
        let root =
            if controllers.is_empty() { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controllers}") };
        std::fs::remove_dir(format!("{root}{above}{parent}")).unwrap();
    }
}

#[test]
fn devices_are_there_usable_as_asked_and_no_others() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "stat -c '%F %t:%T' /dev/mine; head -c 3 /dev/mine | wc -c; echo x > /dev/mine && echo written";
    let ran = shell(&bench, &["--device=/dev/zero:/dev/mine"], script).ok();
    assert_eq!(ran.stdout, "character special file 1:5\n3\nwritten\n");
    // A device that the standard rules do not allow: kmsg can be opened only when it was asked for, and only as asked.
    let open = "mknod /tmp/k c 1 11; (exec 3</tmp/k) 2>/dev/null && echo read; (exec 3>/tmp/k) 2>/dev/null && echo write; true";
    assert_eq!(shell(&bench, &[], open).ok().stdout, "");
    let kmsg = ["--user=0", "--cap-add=SYSLOG", "--cap-add=SYS_ADMIN"];
    let with = |more: &str| shell(&bench, &[&kmsg[..], &[more]].concat(), open);
    assert_eq!(with("--device-cgroup-rule=c 1:11 w").ok().stdout, "write\n");
    assert_eq!(with("--device=/dev/null:/dev/mine:r").ok().stdout, "");
    let dir = shell(&bench, &["--device=/dev/pts/../net:/dev/net"], "ls /dev/net");
    assert!(dir.code == 125 || dir.stdout.contains("tun"), "{}", dir.stderr);
    for (flag, gist) in [
        ("--device=/dev/no-such", "/dev/no-such"),
        ("--device=/etc/passwd:/dev/x", "not a device node"),
        ("--device=/dev/null:/opt/x", "devices appear below /dev, nowhere else"),
        ("--device=/dev/null:/dev/x:rz", "invalid device mode: rz"),
        ("--device-cgroup-rule=x", "invalid device cgroup format 'x'"),
    ] {
        let ran = shell(&bench, &[flag], "true");
        assert!(ran.code != 0 && ran.stderr.contains(gist), "{flag}: {}", ran.stderr);
    }
    background(&bench, "dev", &["--device=/dev/zero:/dev/mine"], "sleep 1000");
    let ran = bench.rbuild(["exec", "dev", "sh", "-c", "head -c 2 /dev/mine | wc -c"]).run().ok();
    assert_eq!(ran.stdout, "2\n", "exec is under the same rules");
    let shown = bench.rbuild(["inspect", "-f", "{{json .HostConfig.Devices}}", "dev"]).run().ok().stdout;
    let want = r#"[{"CgroupPermissions":"rwm","PathInContainer":"/dev/mine","PathOnHost":"/dev/zero"}]"#;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), serde_json::from_str::<Value>(want).unwrap());
    let _ran = bench.rbuild(["rm", "-f", "dev"]).run().ok();
}

#[test]
fn settings_of_own_namespaces_are_made_and_others_refused() {
    let Some(bench) = Bench::with_busybox() else { return };
    let args = ["--sysctl=kernel.shmmni=123", "--sysctl", "net.ipv4.ip_default_ttl=42"];
    let ran = shell(&bench, &args, "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_default_ttl").ok();
    assert_eq!(ran.stdout, "123\n42\n");
    let host = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_ne!(host, "123\n", "the host's is untouched (R-48)");
    for (args, gist) in [
        (&["--sysctl=vm.swappiness=1"][..], "is not in a separate kernel namespace"),
        (&["--sysctl=kernel.shmmni=1", "--ipc=host"], "no IPC namespace of its own"),
        (&["--sysctl=net.ipv4.no_such_setting=1"], "net.ipv4.no_such_setting"),
        (&["--sysctl=net.ipv4"], "NAME=VALUE is wanted"),
    ] {
        let _ran = shell(&bench, args, "true").fails(125).says(gist);
    }
    let ran = bench.rbuild(["run", "--rm", "--network=host", "--sysctl=net.core.somaxconn=1", "busybox", "true"]).run();
    let _ran = ran.fails(125).says("no network namespace of its own");
}

#[test]
fn the_hosts_name_is_seen_when_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let own = rustix::system::uname();
    let own = own.nodename().to_string_lossy();
    assert_eq!(shell(&bench, &["--uts=host"], "hostname; echo $HOSTNAME").ok().stdout, format!("{own}\n{own}\n"));
    assert_ne!(shell(&bench, &[], "hostname").ok().stdout.trim(), own);
    let _ran = shell(&bench, &["--uts=host", "--hostname=x"], "true").fails(125).says("hostname and the UTS mode");
}

#[test]
fn memory_is_shared_with_whom_it_was_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "donor", &["--ipc=shareable"], "echo shared > /dev/shm/it; sleep 1000");
    background(&bench, "closed", &[], "sleep 1000");
    let namespace = |args: &[&str]| shell(&bench, args, "readlink /proc/self/ns/ipc").ok().stdout;
    let donors = bench.rbuild(["exec", "donor", "readlink", "/proc/self/ns/ipc"]).run().ok().stdout;
    assert_eq!(namespace(&["--ipc=container:donor"]), donors);
    let script = "cat /dev/shm/it; echo back > /dev/shm/mine";
    assert_eq!(shell(&bench, &["--ipc=container:donor"], script).ok().stdout, "shared\n");
    assert_eq!(bench.rbuild(["exec", "donor", "cat", "/dev/shm/mine"]).run().ok().stdout, "back\n");
    let _ran = shell(&bench, &["--ipc=container:closed"], "true").fails(125).says("non-shareable IPC");
    let _ran = shell(&bench, &["--ipc=container:nobody"], "true").fails(125).says("no such container: nobody");
    let host = std::fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    assert_eq!(namespace(&["--ipc=host"]).trim(), host);
    assert_ne!(namespace(&["--ipc=none"]).trim(), host);
    assert_ne!(namespace(&[]).trim(), host);
    let mounted = |args: &[&str]| shell(&bench, args, "grep -c ' /dev/shm ' /proc/mounts").stdout;
    assert_eq!((mounted(&["--ipc=none"]).as_str(), mounted(&[]).as_str()), ("0\n", "1\n"));
    let _ran = bench.rbuild(["rm", "-f", "donor", "closed"]).run().ok();
}

#[test]
fn processes_are_those_of_whom_it_was_asked_for_and_all_end() {
    let Some(bench) = Bench::with_busybox() else { return };
    let namespace = |args: &[&str]| shell(&bench, args, "readlink /proc/self/ns/pid").ok().stdout;
    let host = std::fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    assert_eq!(namespace(&["--pid=host"]).trim(), host);
    assert_ne!(namespace(&[]).trim(), host);
    background(&bench, "donor", &[], "sleep 1000");
    let donors = bench.rbuild(["exec", "donor", "readlink", "/proc/self/ns/pid"]).run().ok().stdout;
    assert_eq!(namespace(&["--pid=container:donor"]), donors);
    let seen = shell(&bench, &["--pid=container:donor"], "cat /proc/1/cmdline | tr '\\0' ' '").ok().stdout;
    assert!(seen.contains("sleep 1000"), "{seen}");
    let _ran = shell(&bench, &["--pid=container:nobody"], "true").fails(125).says("no such container: nobody");
    // What would outlive the first process ends with the container, though its namespace does not.
    for (mode, mark) in [("--pid=host", "7771"), ("--pid=container:donor", "7772")] {
        let script = format!("setsid sleep {mark} & sleep 0.2; echo started");
        assert_eq!(shell(&bench, &[mode], &script).ok().stdout, "started\n");
        assert!(!is_running(mark), "{mode}: a process was left");
        background(&bench, "stays", &[mode], &format!("setsid sleep {mark} & sleep 1000"));
        let ran = bench.rbuild(["exec", "stays", "sh", "-c", "readlink /proc/self/ns/pid; echo ok"]).run().ok();
        assert!(ran.stdout.ends_with("ok\n"), "{}", ran.stdout);
        let _ran = bench.rbuild(["rm", "-f", "stays"]).run().ok();
        assert!(!is_running(mark), "{mode}: a process was left by rm -f");
    }
    let _ran = bench.rbuild(["stop", "-t", "0", "donor"]).run().ok();
    let ran = shell(&bench, &["--pid=container:donor"], "true").fails(125);
    assert!(ran.stderr.contains("cannot join PID of a non running container"), "{}", ran.stderr);
    let _ran = bench.rbuild(["rm", "-f", "donor"]).run().ok();
}

/// Whether `sleep MARK` runs somewhere.
fn is_running(mark: &str) -> bool {
    let found = Command::new("pgrep").args(["-f", &format!("sleep {mark}$")]).output().unwrap();
    !found.stdout.is_empty()
}

#[test]
fn volumes_of_others_are_shared_and_outlive_neither_name() {
    let Some(bench) = Bench::with_busybox() else { return };
    let data = bench.context("data", [("f", "host\n")]);
    let bind = format!("{}:/bind", data.display());
    let create =
        bench.rbuild(["create", "--name=donor", "-v", "named:/named", "-v", "/own", "-v", &bind, "busybox", "true"]);
    let _ran = create.run().ok();
    let from = |spec: &str, script: &str| shell(&bench, &["--volumes-from", spec], script);
    let _ran = from("donor", "echo a > /named/x; echo b > /own/x; echo c > /bind/x").ok();
    assert_eq!(from("donor:ro", "cat /named/x /own/x /bind/x").ok().stdout, "a\nb\nc\n", "--rm has not removed them");
    assert_eq!(std::fs::read_to_string(data.join("x")).unwrap(), "c\n");
    let _ran = from("donor:ro", "echo d > /named/x").fails(1).says("Read-only file system");
    let both = ["--volumes-from=donor", "-v", "/named"];
    assert_eq!(shell(&bench, &both, "cat /named/x 2>/dev/null || echo mine; cat /own/x").ok().stdout, "mine\nb\n");
    let _ran = from("nobody", "true").fails(125).says("no such container: nobody");
    let _ran = from("donor:rx", "true").fails(125).says("invalid mode: rx");
    let _ran = bench.rbuild(["rm", "-v", "donor"]).run().ok();
    let _ran = bench.rbuild(["volume", "rm", "named"]).run().ok();
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).run().ok().stdout, "");
}

#[test]
fn names_aliases_and_addresses_are_those_of_the_network() {
    let Some(bench) = Bench::with_busybox() else { return };
    let create = ["network", "create", "--subnet=10.213.7.0/24", "--ipv6", "--subnet=fd00:213:7::/64", "flagged"];
    let made = bench.rbuild(create).run();
    if made.code != 0 {
        eprintln!("SKIPPED: no bridge here: {}", made.stderr);
        return;
    }
    let args = [
        "run",
        "--rm",
        "--network=flagged",
        "--network-alias=nick",
        "--ip=10.213.7.9",
        "--ip6=fd00:213:7::9",
        "--mac-address=02:00:00:00:00:09",
        "busybox",
        "sh",
        "-c",
        "ip -o addr show eth0 | awk '{print $4}' | grep -v fe80; cat /sys/class/net/eth0/address; ping -c 1 -W 2 nick >/dev/null 2>&1; true",
    ];
    let ran = bench.rbuild(args).run();
    if ran.code == 125 {
        let _ran = bench.rbuild(["network", "rm", "flagged"]).run();
        eprintln!("SKIPPED: no bridge here: {}", ran.stderr);
        return;
    }
    let ran = ran.ok();
    assert_eq!(ran.stdout, "10.213.7.9/24\nfd00:213:7::9/64\n02:00:00:00:00:09\n");
    let _ran = bench.rbuild(["network", "rm", "flagged"]).run().ok();
}
