//! Plans of typical sandboxes, pinned step by step.

use super::*;
use crate::spec::{Confinement, DEFAULT_CAPABILITIES, DeviceAccess, Exceptions, ExecSpec, Lower, ProcessSpec, Rlimit};

fn host() -> HostFacts {
    HostFacts {
        bounding: Capabilities::from_names(crate::capability::ALL_CAPABILITIES).expect("known names"),
        throttled_cpus: vec![0, 1],
        time_namespaces: true,
        default_pids: Some(2048),
        apparmor: None,
        user_namespace: None,
        open_files: None,
    }
}

#[test]
fn apparmor_is_dockers_where_it_is_loaded_and_never_skipped_when_asked_for() {
    let loaded = HostFacts { apparmor: Some(vec!["docker-default".to_owned(), "mine".to_owned()]), ..host() };
    let other = HostFacts { apparmor: Some(vec!["mine".to_owned()]), ..host() };
    let with = |apparmor: AppArmor, host: &HostFacts| {
        let mut spec = spec();
        spec.confinement.apparmor = apparmor;
        plan(&spec, host).map(|plan| plan.process.apparmor).map_err(|error| error.to_string())
    };
    let named = |name: &str| AppArmor::Profile(name.to_owned());
    assert_eq!(with(AppArmor::HostDefault, &loaded), Ok(Some("docker-default".to_owned())));
    assert_eq!(with(AppArmor::HostDefault, &other), Ok(None));
    assert_eq!(with(AppArmor::HostDefault, &host()), Ok(None));
    assert_eq!(with(AppArmor::Unconfined, &loaded), Ok(None));
    assert_eq!(with(named("mine"), &other), Ok(Some("mine".to_owned())));
    assert!(with(named("absent"), &other).unwrap_err().contains("is not loaded on this host"));
    assert!(with(named("mine"), &host()).unwrap_err().contains("this host lacks AppArmor"));
}

fn nested(uid_map: &str) -> HostFacts {
    HostFacts { user_namespace: Some(IdMap::parse(uid_map, uid_map)), ..host() }
}

#[test]
fn root_of_a_user_namespace_shows_devices_and_marks_layers_in_user_attributes() {
    let mut spec = spec();
    spec.network = NetworkMode::Host;
    let host = nested("0 1000 1\n1 100000 65536\n");
    let plan = plan(&spec, &host).expect("a valid specification");
    assert_eq!(plan.overlay_marks, OverlayMarks::User);
    assert!(!plan.cgroup.confine_devices, "no device file made there can be opened");
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Dev { origin: DeviceOrigin::Host, .. })));
    assert!(plan.steps.contains(&Step::HostSys));
    assert_eq!(plan.process.groups, Groups::Set);
    spec.network = NetworkMode::None;
    let plan = super::plan(&spec, &host).expect("a valid specification");
    assert!(plan.steps.contains(&Step::Sys(Access::ReadOnly)));
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Sysctl { name, .. } if name.contains("ping"))));
}

#[test]
fn users_that_cannot_exist_are_refused_before_anything_starts() {
    let mut spec = spec();
    spec.process.user = Ids { uid: 1000, gid: 0, groups: vec![0, 1000] };
    let error = plan(&spec, &nested("0 1000 1\n")).expect_err("one id only");
    assert_eq!(
        error.to_string(),
        "user 1000 is not among the ids that this user may use; /etc/subuid and /etc/subgid can give it more"
    );
    spec.process.user.uid = 0;
    let single = plan(&spec, &nested("0 1000 1\n")).expect("groups mean nothing there");
    assert_eq!(single.process.groups, Groups::Kept);
    spec.process.user.groups = vec![70_000];
    assert!(plan(&spec, &nested("0 1000 1\n1 100000 65536\n")).is_err());
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        id: "step-1".to_owned(),
        rootfs: Rootfs::Overlay {
            lowers: ["/l1", "/l0"].map(|path| Lower::Directory(path.into())).to_vec(),
            upper: "/u".into(),
            work: "/w".into(),
        },
        durability: Durability::AtCommit,
        root_access: Access::ReadWrite,
        mounts: vec![
            Mount {
                target: ContainerPath::new("/etc/hosts"),
                source: MountSource::File { content: b"abc".to_vec(), mode: 0o644, uid: 0, gid: 0 },
                access: Access::ReadOnly,
                mount_point: MountPoint::Removed,
            },
            Mount {
                target: ContainerPath::new("/run/secrets/x"),
                source: MountSource::File { content: b"de".to_vec(), mode: 0o400, uid: 0, gid: 0 },
                access: Access::ReadOnly,
                mount_point: MountPoint::Removed,
            },
        ],
        process: ProcessSpec {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "true".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: ContainerPath::root(),
            user: Ids { uid: 0, gid: 0, groups: vec![0] },
            rlimits: vec![Rlimit { name: "NOFILE".to_owned(), soft: 1, hard: 2 }],
            terminal: false,
        },
        hostname: "buildkitsandbox".to_owned(),
        network: NetworkMode::None,
        confinement: Confinement {
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            apparmor: AppArmor::HostDefault,
            kernel_paths: KernelPaths::Masked,
        },
        resources: Resources::default(),
        shm_size: 64 << 20,
        init: Init::Reaper,
        exceptions: Exceptions::default(),
    }
}

/// One line a step.
fn steps(plan: &SetupPlan) -> String {
    plan.steps.iter().map(|step| format!("{step:?}\n")).collect()
}

#[test]
fn a_run_step_is_set_up_in_this_order() {
    let plan = plan(&spec(), &host()).expect("a valid specification");
    assert_eq!(plan.blob, b"abcde");
    insta::assert_snapshot!(steps(&plan), @r#"
    Root(Overlay { lowers: [Directory("/l1"), Directory("/l0")], upper: "/u", work: "/w" }, AtCommit)
    Proc
    LoopbackUp
    Sysctl { name: "net/ipv4/ping_group_range", value: "0 2147483647" }
    Sysctl { name: "net/ipv4/ip_unprivileged_port_start", value: "0" }
    Dev { nodes: [DeviceNode { name: "null", block: false, major: 1, minor: 3 }, DeviceNode { name: "zero", block: false, major: 1, minor: 5 }, DeviceNode { name: "full", block: false, major: 1, minor: 7 }, DeviceNode { name: "random", block: false, major: 1, minor: 8 }, DeviceNode { name: "urandom", block: false, major: 1, minor: 9 }, DeviceNode { name: "tty", block: false, major: 5, minor: 0 }], origin: Made }
    DevPts
    DevShm { size: 67108864 }
    DevMqueue
    Sys(ReadOnly)
    SysCgroup(ReadOnly)
    Mount(MountStep { target: "/etc/hosts", source: File { offset: 0, length: 3, mode: 420, uid: 0, gid: 0 }, access: ReadOnly, mount_point: Removed })
    Mount(MountStep { target: "/run/secrets/x", source: File { offset: 3, length: 2, mode: 256, uid: 0, gid: 0 }, access: ReadOnly, mount_point: Removed })
    Mask("/proc/acpi")
    Mask("/proc/asound")
    Mask("/proc/interrupts")
    Mask("/proc/kcore")
    Mask("/proc/keys")
    Mask("/proc/latency_stats")
    Mask("/proc/sched_debug")
    Mask("/proc/scsi")
    Mask("/proc/timer_list")
    Mask("/proc/timer_stats")
    Mask("/proc/kpagecount")
    Mask("/proc/kpageflags")
    Mask("/proc/kpagecgroup")
    Mask("/proc/slabinfo")
    Mask("/proc/kallsyms")
    Mask("/sys/firmware")
    Mask("/sys/devices/virtual/powercap")
    Mask("/sys/devices/system/cpu/cpu0/thermal_throttle")
    Mask("/sys/devices/system/cpu/cpu1/thermal_throttle")
    ReadOnlyPath("/proc/bus")
    ReadOnlyPath("/proc/fs")
    ReadOnlyPath("/proc/irq")
    ReadOnlyPath("/proc/sys")
    ReadOnlyPath("/proc/sysrq-trigger")
    Pivot
    Hostname("buildkitsandbox")
    "#);
    insta::assert_snapshot!(format!("{:?}\n{:?}\n{:?}", plan.namespaces, plan.cgroup, plan.process), @r#"
    [Mount, Pid, Ipc, Uts, Net, Time, Cgroup]
    CgroupPlan { limits: Resources { memory: None, memory_swap: None, cpu_millis: None, cpu_shares: None, cpuset_cpus: None, cpuset_mems: None, memory_reservation: None, memory_swappiness: None, oom_kill_disable: false, disks: DiskLimits { weight: None, device_weights: [], read_bytes: [], write_bytes: [], reads: [], writes: [] }, pids: None, cgroup_parent: None }, default_pids: Some(2048), confine_devices: true, devices: [], kill_leftovers: false }
    ProcessPlan { argv: ["/bin/sh", "-c", "true"], env: ["PATH=/bin"], cwd: "/", missing_cwd: Make, user: Ids { uid: 0, gid: 0, groups: [0] }, groups: Set, capabilities: Capabilities(2818844155), no_new_privileges: false, seccomp: Default, apparmor: None, rlimits: [Planned { index: 9, soft: 1, hard: 2 }], init: Reaper }
    "#);
}

#[test]
fn a_privileged_container_with_a_terminal_sees_everything() {
    let mut spec = spec();
    spec.mounts.clear();
    spec.process.terminal = true;
    spec.network = NetworkMode::Host;
    spec.root_access = Access::ReadOnly;
    spec.confinement.kernel_paths = KernelPaths::Open;
    spec.resources.pids = Some(10);
    let plan = plan(&spec, &host()).expect("a valid specification");
    assert!(!plan.cgroup.confine_devices && plan.cgroup.default_pids.is_none());
    insta::assert_snapshot!(steps(&plan), @r#"
    Root(Overlay { lowers: [Directory("/l1"), Directory("/l0")], upper: "/u", work: "/w" }, AtCommit)
    Proc
    Dev { nodes: [DeviceNode { name: "null", block: false, major: 1, minor: 3 }, DeviceNode { name: "zero", block: false, major: 1, minor: 5 }, DeviceNode { name: "full", block: false, major: 1, minor: 7 }, DeviceNode { name: "random", block: false, major: 1, minor: 8 }, DeviceNode { name: "urandom", block: false, major: 1, minor: 9 }, DeviceNode { name: "tty", block: false, major: 5, minor: 0 }, DeviceNode { name: "kmsg", block: false, major: 1, minor: 11 }, DeviceNode { name: "fuse", block: false, major: 10, minor: 229 }, DeviceNode { name: "net/tun", block: false, major: 10, minor: 200 }, DeviceNode { name: "loop-control", block: false, major: 10, minor: 237 }, DeviceNode { name: "loop0", block: true, major: 7, minor: 0 }, DeviceNode { name: "loop1", block: true, major: 7, minor: 1 }, DeviceNode { name: "loop2", block: true, major: 7, minor: 2 }, DeviceNode { name: "loop3", block: true, major: 7, minor: 3 }, DeviceNode { name: "loop4", block: true, major: 7, minor: 4 }, DeviceNode { name: "loop5", block: true, major: 7, minor: 5 }, DeviceNode { name: "loop6", block: true, major: 7, minor: 6 }, DeviceNode { name: "loop7", block: true, major: 7, minor: 7 }], origin: Made }
    DevPts
    Terminal
    DevShm { size: 67108864 }
    DevMqueue
    Sys(ReadWrite)
    SysCgroup(ReadWrite)
    RootReadOnly
    Pivot
    Hostname("buildkitsandbox")
    "#);
}

fn exec_spec() -> ExecSpec {
    let sandbox = spec();
    ExecSpec {
        id: "box".to_owned(),
        process: sandbox.process,
        capabilities: vec!["CHOWN".to_owned(), "SYS_ADMIN".to_owned()],
        sandbox_capabilities: vec!["CHOWN".to_owned()],
        no_new_privileges: false,
        seccomp: Seccomp::Default,
        apparmor: AppArmor::HostDefault,
        limits: Resources::default(),
    }
}

#[test]
fn a_sandbox_is_entered_in_this_order() {
    let mut spec = exec_spec();
    spec.process.terminal = true;
    let host = HostFacts { apparmor: Some(vec!["docker-default".to_owned()]), ..host() };
    let plan = exec(&spec, &host).expect("a valid specification");
    let steps: String = plan.steps.iter().map(|step| format!("{step:?}\n")).collect();
    insta::assert_snapshot!(steps, @r#"
    JoinCgroups(Stay)
    SessionKeyring
    AppArmor("docker-default")
    Enter([User, Mount, Pid, Ipc, Uts, Net, Time, Cgroup])
    Terminal
    CloseHost
    "#);
    insta::assert_snapshot!(format!("{:?}\n{:?}", plan.process, plan.filter_for), @r#"
    ProcessPlan { argv: ["/bin/sh", "-c", "true"], env: ["PATH=/bin"], cwd: "/", missing_cwd: Refuse, user: Ids { uid: 0, gid: 0, groups: [0] }, groups: Set, capabilities: Capabilities(2097153), no_new_privileges: false, seccomp: Default, apparmor: None, rlimits: [Planned { index: 9, soft: 1, hard: 2 }], init: Process }
    Capabilities(1)
    "#);
}

#[test]
fn a_process_escapes_no_limits_and_is_given_nothing_that_its_caller_does_not_have() {
    let mut spec = exec_spec();
    spec.limits.memory = Some(1 << 20);
    let host = HostFacts {
        bounding: Capabilities::from_names(&["CHOWN"]).expect("known names"),
        time_namespaces: false,
        ..host()
    };
    let plan = exec(&spec, &host).expect("a valid specification");
    assert_eq!(plan.process.capabilities, host.bounding);
    let steps: String = plan.steps.iter().map(|step| format!("{step:?}\n")).collect();
    insta::assert_snapshot!(steps, @"
    JoinCgroups(Refuse)
    SessionKeyring
    Enter([User, Mount, Pid, Ipc, Uts, Net, Cgroup])
    CloseHost
    ");
    for change in [
        &(|s: &mut ExecSpec| s.id = "/".to_owned()) as &dyn Fn(&mut ExecSpec),
        &|s| s.process.argv.clear(),
        &|s| s.sandbox_capabilities.push("FLY".to_owned()),
        &|s| s.process.env.push("A=\0".to_owned()),
    ] {
        let mut spec = exec_spec();
        change(&mut spec);
        assert!(matches!(exec(&spec, &host), Err(SpawnError::Invalid { .. })));
    }
    let nested = nested("0 1000 1\n");
    spec.process.user.uid = 7;
    assert!(matches!(exec(&spec, &nested), Err(SpawnError::UnmappedId { id: 7, .. })));
}

#[test]
fn nothing_is_given_that_the_caller_does_not_have() {
    let mut spec = spec();
    spec.confinement.capabilities = crate::capability::ALL_CAPABILITIES.iter().map(|n| (*n).to_owned()).collect();
    let host = HostFacts { bounding: Capabilities::from_names(&["CHOWN", "KILL"]).expect("known names"), ..host() };
    let plan = plan(&spec, &host).expect("a valid specification");
    assert_eq!(plan.process.capabilities, host.bounding);
}

#[test]
fn a_plan_survives_the_wire() {
    let plan = plan(&spec(), &host()).expect("a valid specification");
    let text = serde_json::to_string(&plan).expect("plans are plain data");
    assert!(!text.contains("abc"), "bytes of files travel beside the text");
    let mut back: SetupPlan = serde_json::from_str(&text).expect("what was written can be read");
    back.blob.clone_from(&plan.blob);
    assert_eq!(back, plan);
}

#[test]
fn contradictions_are_refused_with_their_subject() {
    let refused = |change: &dyn Fn(&mut SandboxSpec), want: &str| {
        let mut spec = spec();
        change(&mut spec);
        let text = plan(&spec, &host()).expect_err(want).to_string();
        assert!(text.contains(want), "{text}");
    };
    refused(&|s| s.id = "../x".to_owned(), "the id \"../x\"");
    refused(&|s| s.id = "x".repeat(65), "the id");
    refused(&|s| s.process.argv.clear(), "no program");
    refused(&|s| s.process.argv = vec![String::new()], "no program");
    refused(&|s| s.process.env.push("A=\0".to_owned()), "NUL");
    refused(&|s| s.mounts[0].target = ContainerPath::new("/.."), "nothing can be mounted at /");
    refused(&|s| s.confinement.capabilities.push("FLY".to_owned()), "no capability \"FLY\"");
    refused(&|s| s.process.rlimits[0].name = "nofile".to_owned(), "no resource limit \"nofile\"");
    refused(&|s| s.hostname = "x".repeat(65), "longer than 64");
}

#[test]
fn programs_get_the_limit_on_open_files_that_the_engine_was_given() {
    let host = HostFacts { open_files: Some((1024, 4096)), ..host() };
    let mut spec = spec();
    let own = plan(&spec, &host).expect("a plan").process.rlimits;
    assert_eq!(own.len(), 1, "an own limit counts");
    spec.process.rlimits.clear();
    let kept = plan(&spec, &host).expect("a plan").process.rlimits;
    let wanted = rlimit::plan(&Rlimit { name: "NOFILE".to_owned(), soft: 1024, hard: 4096 });
    assert_eq!(kept.first(), wanted.as_ref());
}

#[test]
fn what_is_asked_for_beside_the_defaults_is_planned_and_nothing_else() {
    let mut spec = spec();
    spec.mounts.clear();
    let device = HostDevice {
        name: "mine/one".into(),
        path: "/dev/host".into(),
        block: true,
        major: 7,
        minor: 3,
        mode: 0o660,
        uid: 0,
        gid: 6,
        access: DeviceAccess { read: true, write: false, mknod: false },
    };
    spec.exceptions = Exceptions {
        processes: ProcessNamespace::Path("/p".into()),
        ipc: IpcNamespace::Of { ipc: "/i".into(), mounts: "/m".into() },
        names: NameNamespace::Own,
        domainname: Some("home".into()),
        sysctls: [("kernel/shmmax".to_owned(), "5".to_owned())].into(),
        oom_score_adj: Some(7),
        devices: vec![device.clone()],
        device_rules: vec!["c 10:* rw".parse().unwrap()],
    };
    let asked =
        |step: &&Step| !matches!(step, Step::Mask(_) | Step::ReadOnlyPath(_) | Step::Sysctl { .. } | Step::Dev { .. });
    let listed =
        |plan: &SetupPlan| plan.steps.iter().filter(asked).map(|step| format!("{step:?}\n")).collect::<String>();
    let planned = plan(&spec, &host()).unwrap();
    insta::assert_snapshot!(listed(&planned), @r#"
    Root(Overlay { lowers: [Directory("/l1"), Directory("/l0")], upper: "/u", work: "/w" }, AtCommit)
    Proc
    OomScoreAdj(7)
    LoopbackUp
    AskedSysctl { name: "kernel/shmmax", value: "5" }
    HostDevices([HostDevice { name: "mine/one", path: "/dev/host", block: true, major: 7, minor: 3, mode: 432, uid: 0, gid: 6, access: DeviceAccess { read: true, write: false, mknod: false } }])
    DevPts
    SharedShm
    DevMqueue
    Sys(ReadOnly)
    SysCgroup(ReadOnly)
    Pivot
    Hostname("buildkitsandbox")
    Domainname("home")
    "#);
    assert_eq!(format!("{:?}", planned.namespaces), "[Mount, Uts, Net, Time, Cgroup]");
    let joins = Joins { processes: Some("/p".into()), ipc: Some("/i".into()), mounts: Some("/m".into()) };
    assert_eq!(planned.joins, joins);
    let rules: Vec<String> = planned.cgroup.devices.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["b 7:3 r", "c 10:* rw"]);
    assert!(planned.cgroup.kill_leftovers && planned.cgroup.confine_devices);

    spec.exceptions.processes = ProcessNamespace::Host;
    spec.exceptions.ipc = IpcNamespace::Host;
    spec.exceptions.names = NameNamespace::Host;
    let planned = plan(&spec, &host()).unwrap();
    assert_eq!(format!("{:?}", planned.namespaces), "[Mount, Net, Time, Cgroup]");
    assert!(planned.cgroup.kill_leftovers && planned.joins == Joins::default());
    assert!(!planned.steps.iter().any(|step| matches!(step, Step::Hostname(_) | Step::DevShm { .. })));

    spec.exceptions = Exceptions { ipc: IpcNamespace::WithoutShm, ..Exceptions::default() };
    let planned = plan(&spec, &host()).unwrap();
    assert!(planned.namespaces.contains(&Namespace::Ipc) && !planned.cgroup.kill_leftovers);
    assert!(!planned.steps.iter().any(|step| matches!(step, Step::DevShm { .. } | Step::SharedShm)));

    for name in ["../x", "", "a//b", "a/./b"] {
        spec.exceptions.devices = vec![HostDevice { name: name.into(), ..device.clone() }];
        assert!(plan(&spec, &host()).is_err(), "{name:?}");
    }
}
