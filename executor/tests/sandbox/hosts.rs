//! Other hosts than this one, made by taking cgroup hierarchies away in a mount namespace: a copy of this program runs there.

use std::process::{Command, ExitCode};

use rbuild_executor::{MountSource, Resources, SpawnError, Warning};

use crate::world::{Test, World, chain, mount};

pub(crate) const TESTS: &[Test] = &[
    ("hosts::with_cgroup_v2_only_devices_are_confined_by_a_program", |_| elsewhere("v2", "umount -a -t cgroup")),
    ("hosts::without_cgroups_devices_do_not_work_and_limits_are_refused", |_| {
        elsewhere("none", "umount -a -t cgroup,cgroup2");
    }),
];

const INNER: &str = "RBUILD_TEST_HOST=";

fn elsewhere(name: &str, prepare: &str) {
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{prepare}; exec \"$0\" {INNER}{name}")])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// What the copy does.
pub(crate) fn be_elsewhere() -> Option<ExitCode> {
    let name = std::env::args().find_map(|argument| argument.strip_prefix(INNER).map(str::to_owned))?;
    let world = World::new();
    match name.as_str() {
        "v2" => unified(&world),
        _ => nothing(&world),
    }
    Some(ExitCode::SUCCESS)
}

const DEVICES: &str = "grep CapBnd /proc/self/status; mknod /mem c 1 1 && echo made; cat /mem; mknod /null c 1 3; \
                       cat /null && echo null works; echo x > /dev/null && cat /data/file";

fn unified(world: &World) {
    let spec = world.upper().spec(&["sh", "-c", DEVICES]);
    let (mut process, mut output) = world.start(&spec).unwrap();
    let unconfined = process.warnings().iter().any(|warning| matches!(warning, Warning::NoDeviceConfinement { .. }));
    assert!(!unconfined, "{:?}", process.warnings());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    assert!(process.wait().unwrap().success(), "{text}");
    let want = "CapBnd:\t00000000a80425fb\nmade\ncat: can't open '/mem': Operation not permitted\nnull works\nlower\n";
    assert_eq!(text, want);
    let text = world.sh("grep -v ':/$' /proc/self/cgroup | grep -v '^[1-9]'; ls /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x").text;
    assert!(text.starts_with("/sys/fs/cgroup/cgroup.procs\n") && text.contains("Read-only"), "{text}");
}

fn nothing(world: &World) {
    let upper = world.upper();
    let mut spec = upper.spec(&["sh", "-c", &format!("{DEVICES}; cat /host/zero")]);
    let host = world.path("devices");
    std::fs::create_dir(&host).unwrap();
    assert!(Command::new("mknod").arg(host.join("zero")).args(["c", "1", "5"]).status().unwrap().success());
    spec.mounts = vec![mount("/host", MountSource::Bind { path: host }, rbuild_executor::Access::ReadOnly)];
    let output = world.run(&spec);
    assert!(output.text.starts_with("CapBnd:\t00000000a00425fb\n"), "{}", output.text);
    assert!(!output.text.contains("made") && !output.text.contains("null works"), "{}", output.text);
    assert!(
        output.text.contains("lower\n") && output.text.ends_with("can't open '/host/zero': Permission denied\n"),
        "{}",
        output.text
    );
    spec.id = crate::world::next_id();
    spec.resources = Resources { memory: Some(1 << 30), ..Resources::default() };
    let error = world.try_run(&spec).unwrap_err();
    assert!(matches!(&error, SpawnError::Limit { limit, .. } if limit == "memory"), "{}", chain(&error));
}
