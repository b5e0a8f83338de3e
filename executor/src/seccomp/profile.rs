//! What a sandboxed program may ask of the kernel, by the names of system calls.
//!
//! An allow list, as Moby's. Beyond it: a call that is known and not listed gets EPERM; one that the tables do not know is
//! newer than them and gets ENOSYS, so that the C library falls back (rule S-01); nothing kills a program. Some calls depend
//! on a capability, some on an argument. `socketcall` of 32-bit x86 hides its arguments behind a pointer, which a filter
//! cannot read: the address families refused by [`Condition::Socket`] are reachable there by 32-bit programs.

use std::collections::HashSet;

use crate::capability::Capabilities;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Fail(u16),
    /// It depends on its arguments.
    When(Condition),
}

/// A test of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// `clone` without new namespaces, else EPERM.
    NoNamespaces,
    /// One of the harmless personalities, else EPERM.
    Personality,
    /// Not AF_ALG nor AF_VSOCK (EPERM), and netlink's audit protocol only when `audit` (else EINVAL).
    Socket {
        /// Whether the program has CAP_AUDIT_WRITE.
        audit: bool,
    },
}

pub(super) const EPERM: Verdict = Verdict::Fail(libc::EPERM as u16);
pub(super) const ENOSYS: Verdict = Verdict::Fail(libc::ENOSYS as u16);

/// Allowed to everybody.
const ALLOWED: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 bind
    breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64
    fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area get_tls
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
    io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr
    lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
    mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readdir
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat
    rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
    select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
    setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair
    splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs
    syscall sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
    truncate truncate64 ugetrlimit umask uname unlink unlinkat uprobe uretprobe utime utimensat utimensat_time64 utimes
    vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed to a program that has one of the capabilities.
const PRIVILEGED: &[(&[&str], &str)] = &[
    (
        &["SYS_ADMIN"],
        "clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree
         open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns umount umount2 unshare",
    ),
    (&["SYS_ADMIN", "BPF"], "bpf"),
    (&["SYS_ADMIN", "PERFMON"], "perf_event_open"),
    (&["SYS_ADMIN", "SYSLOG"], "syslog"),
    (&["DAC_READ_SEARCH"], "open_by_handle_at"),
    (&["SYS_BOOT"], "reboot"),
    (&["SYS_CHROOT"], "chroot"),
    (&["SYS_MODULE"], "delete_module finit_module init_module"),
    (&["SYS_NICE"], "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (&["SYS_PACCT"], "acct"),
    (&["SYS_PTRACE"], "kcmp pidfd_getfd process_madvise"),
    (&["SYS_RAWIO"], "ioperm iopl"),
    (&["SYS_TIME"], "clock_settime clock_settime64 settimeofday stime"),
    (&["SYS_TTY_CONFIG"], "vhangup"),
];

/// Refused so that the C library uses what came before. `clone3` has its flags behind a pointer.
const PRETEND_ABSENT: &[&str] = &["clone3", "file_getattr", "file_setattr"];

/// What a program with certain capabilities may ask for.
pub(super) struct Profile {
    /// By its capabilities, whatever else is said.
    privileged: HashSet<&'static str>,
    allowed: HashSet<&'static str>,
    audit: bool,
}

impl Profile {
    /// For a program with these capabilities.
    pub(super) fn new(capabilities: Capabilities) -> Self {
        let has = |any: &[&str]| any.iter().any(|capability| capabilities.contains(capability));
        let granted = PRIVILEGED.iter().filter(|(any, _)| has(any));
        Self {
            privileged: granted.flat_map(|(_, names)| names.split_ascii_whitespace()).collect(),
            allowed: ALLOWED.split_ascii_whitespace().collect(),
            audit: capabilities.contains("AUDIT_WRITE"),
        }
    }

    /// What happens to the call of this name.
    pub(super) fn verdict(&self, name: &str) -> Verdict {
        match name {
            _ if self.privileged.contains(name) => Verdict::Allow,
            "clone" => Verdict::When(Condition::NoNamespaces),
            "personality" => Verdict::When(Condition::Personality),
            "socket" => Verdict::When(Condition::Socket { audit: self.audit }),
            _ if self.allowed.contains(name) => Verdict::Allow,
            _ if PRETEND_ABSENT.contains(&name) => ENOSYS,
            _ => EPERM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DEFAULT_CAPABILITIES;

    fn by_default(name: &str) -> Verdict {
        Profile::new(Capabilities::from_names(&DEFAULT_CAPABILITIES).unwrap()).verdict(name)
    }

    #[test]
    fn dangerous_calls_are_refused_by_default() {
        for name in [
            "mount",
            "umount",
            "umount2",
            "pivot_root",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "setns",
            "unshare",
            "bpf",
            "perf_event_open",
            "fanotify_init",
            "lookup_dcookie",
            "quotactl",
            "sethostname",
            "setdomainname",
            "syslog",
            "add_key",
            "keyctl",
            "request_key",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "kexec_load",
            "kexec_file_load",
            "nfsservctl",
            "swapon",
            "swapoff",
            "move_pages",
            "migrate_pages",
            "mbind",
            "set_mempolicy",
            "open_by_handle_at",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "acct",
            "clock_settime",
            "settimeofday",
            "iopl",
            "ioperm",
            "vhangup",
            "kcmp",
            "pidfd_getfd",
            "vm86",
            "uselib",
            "sysfs",
            "ustat",
        ] {
            assert_eq!(by_default(name), EPERM, "{name}");
        }
        assert_eq!(by_default("clone3"), ENOSYS);
        assert_eq!(by_default("clone"), Verdict::When(Condition::NoNamespaces));
        assert_eq!(by_default("chroot"), Verdict::Allow);
    }

    #[test]
    fn capabilities_open_what_they_stand_for() {
        let with =
            |capability: &str, name| Profile::new(Capabilities::from_names(&[capability]).unwrap()).verdict(name);
        for (capability, name) in [
            ("SYS_ADMIN", "mount"),
            ("SYS_ADMIN", "clone3"),
            ("SYS_ADMIN", "clone"),
            ("BPF", "bpf"),
            ("SYSLOG", "syslog"),
            ("PERFMON", "perf_event_open"),
            ("SYS_TIME", "clock_settime"),
            ("SYS_NICE", "mbind"),
        ] {
            assert_eq!(with(capability, name), Verdict::Allow, "{capability} {name}");
        }
        assert_eq!(with("SYS_ADMIN", "keyctl"), EPERM);
        assert_eq!(with("SYS_ADMIN", "chroot"), EPERM);
        assert_eq!(with("AUDIT_WRITE", "socket"), Verdict::When(Condition::Socket { audit: true }));
    }

    #[test]
    fn every_listed_name_is_a_system_call_of_some_architecture() {
        // Of architectures without a table here, and of kernels before every table.
        const ELSEWHERE: &[&str] = &["clock_adjtime64", "futimesat", "epoll_ctl_old", "syscall", "timerfd", "stime"];
        let tables = super::super::table::X86.iter().chain(super::super::table::ARM).flat_map(|a| a.tables);
        let known: std::collections::BTreeSet<&str> =
            tables.flat_map(|table| table.calls.iter().map(|(_, name)| *name)).collect();
        let names = PRIVILEGED.iter().flat_map(|(_, names)| names.split_ascii_whitespace());
        for name in ALLOWED.split_ascii_whitespace().chain(names) {
            assert!(known.contains(name) || ELSEWHERE.contains(&name), "{name}");
        }
    }
}
