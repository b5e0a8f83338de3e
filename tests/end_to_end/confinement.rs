//! What steps and containers may use and do, asked for on the command line.

use std::fs;

use crate::bench::Bench;

#[test]
fn limits_of_a_build_hold_in_each_step() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "limited",
        [(
            "Dockerfile",
            "FROM busybox\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
             cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true\n",
        )],
    );
    let args = ["build", "--progress=plain", "--network=none", "--memory=67108864", "--pids-limit=77"];
    let _ran = bench.rbuild(args).arg(&context).run().ok().says("67108864").says("77");
    // Limits decide how fast a step is, or whether it fails: its result is the same.
    let _ran = bench.rbuild(["build", "--progress=plain", "--network=none"]).arg(&context).run().ok().says("CACHED");
    let hungry = bench.context("hungry", [("Dockerfile", "FROM busybox\nRUN tail /dev/zero\n")]);
    let _ran = bench
        .rbuild(["build", "--progress=plain", "--network=none", "--memory=16m"])
        .arg(&hungry)
        .run()
        .fails(1)
        .says("out of memory: killed by the kernel");
    let _ran = bench.rbuild(["build", "--memory=1k"]).arg(&hungry).run().fails(2).says("minimum memory limit");
}

#[test]
fn a_users_seccomp_profile_is_applied_or_refused() {
    let Some(bench) = Bench::with_busybox() else { return };
    let profile = bench.path("no-chmod.json");
    fs::write(
        &profile,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#,
    )
    .unwrap();
    let run = |option: &str, command: &str| {
        let args = ["run", "--rm", "--network=none", "--security-opt", option, "busybox", "sh", "-c", command];
        bench.rbuild(args).run()
    };
    let with_profile = format!("seccomp={}", profile.display());
    let _ran = run(&with_profile, "chmod 700 /tmp").fails(1).says("Permission denied");
    // Beyond the built-in profile, and within this one.
    let _ran = run(&with_profile, "unshare -U true 2>/dev/null; umask 022; true").ok();
    fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#).unwrap();
    let _ran = run(&with_profile, "true").fails(125).says("SCMP_ACT_MAYBE is not supported");
    let _ran = run("seccomp=/no/such/profile", "true").fails(125).says("cannot read /no/such/profile");
}

#[test]
fn an_apparmor_profile_that_cannot_be_applied_is_an_error() {
    let Some(bench) = Bench::with_busybox() else { return };
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let ran = bench
        .rbuild(["run", "--rm", "--network=none", "--security-opt", "apparmor=no-such-profile", "busybox", "true"])
        .run()
        .fails(125);
    let _ran = ran.says(if enabled { "is not loaded on this host" } else { "this host lacks AppArmor" });
}
