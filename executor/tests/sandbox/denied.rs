//! Every system call that the default filter refuses is made, natively, by the x32 bit and through `int 0x80` (rule S-08).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rbuild_executor::{Access, MountSource, Seccomp};

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[("denied::every_refused_call_is_refused_in_every_abi", refused)];

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;

/// Number on x86-64 (and x32, where it has the call), number on i386, answer.
const CALLS: &[(&str, Option<i64>, Option<i64>, i32)] = &[
    ("mount", Some(libc::SYS_mount), Some(21), EPERM),
    ("umount2", Some(libc::SYS_umount2), Some(52), EPERM),
    ("umount", None, Some(22), EPERM),
    ("pivot_root", Some(libc::SYS_pivot_root), Some(217), EPERM),
    ("fsopen", Some(430), Some(430), EPERM),
    ("fsconfig", Some(431), Some(431), EPERM),
    ("fsmount", Some(432), Some(432), EPERM),
    ("fspick", Some(433), Some(433), EPERM),
    ("move_mount", Some(429), Some(429), EPERM),
    ("open_tree", Some(428), Some(428), EPERM),
    ("mount_setattr", Some(442), Some(442), EPERM),
    ("open_tree_attr", Some(467), Some(467), EPERM),
    ("setns", Some(libc::SYS_setns), Some(346), EPERM),
    ("unshare", Some(libc::SYS_unshare), Some(310), EPERM),
    ("bpf", Some(libc::SYS_bpf), Some(357), EPERM),
    ("perf_event_open", Some(libc::SYS_perf_event_open), Some(336), EPERM),
    ("fanotify_init", Some(libc::SYS_fanotify_init), Some(338), EPERM),
    ("lookup_dcookie", Some(212), Some(253), EPERM),
    ("quotactl", Some(libc::SYS_quotactl), Some(131), EPERM),
    ("sethostname", Some(libc::SYS_sethostname), Some(74), EPERM),
    ("setdomainname", Some(libc::SYS_setdomainname), Some(121), EPERM),
    ("syslog", Some(libc::SYS_syslog), Some(103), EPERM),
    ("add_key", Some(libc::SYS_add_key), Some(286), EPERM),
    ("request_key", Some(libc::SYS_request_key), Some(287), EPERM),
    ("keyctl", Some(libc::SYS_keyctl), Some(288), EPERM),
    ("userfaultfd", Some(libc::SYS_userfaultfd), Some(374), EPERM),
    ("io_uring_setup", Some(425), Some(425), EPERM),
    ("io_uring_enter", Some(426), Some(426), EPERM),
    ("io_uring_register", Some(427), Some(427), EPERM),
    ("kexec_load", Some(libc::SYS_kexec_load), Some(283), EPERM),
    ("kexec_file_load", Some(libc::SYS_kexec_file_load), None, EPERM),
    ("nfsservctl", Some(180), Some(169), EPERM),
    ("swapon", Some(libc::SYS_swapon), Some(87), EPERM),
    ("swapoff", Some(libc::SYS_swapoff), Some(115), EPERM),
    ("move_pages", Some(libc::SYS_move_pages), Some(317), EPERM),
    ("migrate_pages", Some(libc::SYS_migrate_pages), Some(294), EPERM),
    ("mbind", Some(libc::SYS_mbind), Some(274), EPERM),
    ("set_mempolicy", Some(libc::SYS_set_mempolicy), Some(276), EPERM),
    ("open_by_handle_at", Some(libc::SYS_open_by_handle_at), Some(342), EPERM),
    ("init_module", Some(libc::SYS_init_module), Some(128), EPERM),
    ("finit_module", Some(libc::SYS_finit_module), Some(350), EPERM),
    ("delete_module", Some(libc::SYS_delete_module), Some(129), EPERM),
    ("reboot", Some(libc::SYS_reboot), Some(88), EPERM),
    ("acct", Some(libc::SYS_acct), Some(51), EPERM),
    ("clock_settime", Some(libc::SYS_clock_settime), Some(264), EPERM),
    ("clock_settime64", None, Some(404), EPERM),
    ("settimeofday", Some(libc::SYS_settimeofday), Some(79), EPERM),
    ("stime", None, Some(25), EPERM),
    ("iopl", Some(libc::SYS_iopl), Some(110), EPERM),
    ("ioperm", Some(libc::SYS_ioperm), Some(101), EPERM),
    ("vhangup", Some(libc::SYS_vhangup), Some(111), EPERM),
    ("kcmp", Some(libc::SYS_kcmp), Some(349), EPERM),
    ("pidfd_getfd", Some(438), Some(438), EPERM),
    ("vm86", None, Some(166), EPERM),
    ("clone3", Some(435), Some(435), ENOSYS),
    ("no such call", Some(460 + 100), Some(460 + 100), ENOSYS),
];

/// Calls whose arguments decide: ABI and numbers, and the answer.
const ARGUMENTS: &[(&str, i32)] = &[
    ("native:56:0x10000000", EPERM),
    ("native:56:0x00020000", EPERM),
    ("x32:56:0x40000000", EPERM),
    ("i386:120:0x02000000", EPERM),
    ("native:41:38:5", EPERM),
    ("native:41:40:1", EPERM),
    ("x32:41:40:1", EPERM),
    ("i386:359:38:5", EPERM),
    ("native:41:2:1", 0),
    ("native:135:0x400000", EPERM),
    ("native:135:0xffffffff", 0),
    ("i386:136:0x400000", EPERM),
];

fn refused(world: &World) {
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED denied::every_refused_call_is_refused_in_every_abi: it is about x86-64");
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/denied/calls.c");
    let binary = world.path("calls");
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&binary).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("SKIPPED denied::every_refused_call_is_refused_in_every_abi: it needs a C compiler");
        return;
    }
    let mut want: BTreeMap<String, i32> =
        ARGUMENTS.iter().map(|(call, answer)| ((*call).to_owned(), *answer)).collect();
    for (_, native, i386, answer) in CALLS {
        if let Some(number) = native {
            want.insert(format!("native:{number}"), *answer);
            want.insert(format!("x32:{number}"), *answer);
        }
        want.extend(i386.map(|number| (format!("i386:{number}"), *answer)));
    }
    // x32 has numbers of its own for these, and does not know x86-64's.
    for number in [246, 279, 180, 212] {
        want.remove(&format!("x32:{number}"));
    }
    want.insert("x32:528".to_owned(), EPERM);
    want.insert("x32:533".to_owned(), EPERM);
    let mut spec = world.upper().spec(&["/calls"]);
    spec.process.argv.extend(want.keys().cloned());
    spec.mounts = vec![mount("/calls", MountSource::Bind { path: binary }, Access::ReadOnly)];
    let answers = |text: &str| -> BTreeMap<String, i32> {
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        lines.map(|(call, answer)| (call.to_owned(), answer.parse().unwrap())).collect()
    };
    let got = answers(&world.run(&spec).text);
    assert_eq!(got.len(), want.len());
    // The filter is asked before the kernel looks the call up, so its answer counts also where the kernel lacks the ABI.
    let wrong: Vec<_> = want.iter().filter(|(call, answer)| got.get(*call) != Some(*answer)).collect();
    assert!(
        wrong.is_empty(),
        "{:?}",
        wrong.iter().map(|(call, answer)| (call, answer, got.get(*call))).collect::<Vec<_>>()
    );

    // The same calls without a filter give other answers, or the test above would prove nothing.
    spec.id = crate::world::next_id();
    spec.confinement.seccomp = Seccomp::Unconfined;
    spec.process.argv = vec!["/calls".to_owned(), "native:425".to_owned(), "native:135:0x400000".to_owned()];
    let free = answers(&world.run(&spec).text);
    assert!(free.values().all(|answer| *answer != EPERM), "{free:?}");
}
