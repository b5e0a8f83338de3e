//! Which numbers system calls have on the architectures that this machine can run.

#[cfg(any(target_arch = "aarch64", test))]
mod aarch64;
#[cfg(any(target_arch = "aarch64", test))]
mod arm;
#[cfg(any(target_arch = "x86_64", test))]
mod x32;
#[cfg(any(target_arch = "x86_64", test))]
mod x86;
#[cfg(any(target_arch = "x86_64", test))]
mod x86_64;

/// An architecture as the kernel's audit numbers it (`AUDIT_ARCH_*`), with its tables.
#[derive(Debug)]
pub(super) struct Architecture {
    pub(super) audit: u32,
    pub(super) tables: &'static [Table],
}

/// The system calls of one ABI.
#[derive(Debug)]
pub(super) struct Table {
    /// The ABI as libseccomp and users' profiles name it.
    pub(super) libseccomp: &'static str,
    /// What is added to the numbers.
    pub(super) offset: u32,
    /// Numbers and names.
    pub(super) calls: &'static [(u32, &'static str)],
}

/// Marks calls of the x32 ABI, which share x86-64's audit number.
#[cfg(any(target_arch = "x86_64", test))]
const X32_BIT: u32 = 0x4000_0000;

#[cfg(any(target_arch = "x86_64", test))]
pub(super) const X86: &[Architecture] = &[
    Architecture {
        audit: 0xc000_003e,
        tables: &[
            Table { libseccomp: "SCMP_ARCH_X86_64", offset: 0, calls: x86_64::TABLE },
            Table { libseccomp: "SCMP_ARCH_X32", offset: X32_BIT, calls: x32::TABLE },
        ],
    },
    Architecture { audit: 0x4000_0003, tables: &[Table { libseccomp: "SCMP_ARCH_X86", offset: 0, calls: x86::TABLE }] },
];

#[cfg(any(target_arch = "aarch64", test))]
pub(super) const ARM: &[Architecture] = &[
    Architecture {
        audit: 0xc000_00b7,
        tables: &[Table { libseccomp: "SCMP_ARCH_AARCH64", offset: 0, calls: aarch64::TABLE }],
    },
    Architecture { audit: 0x4000_0028, tables: &[Table { libseccomp: "SCMP_ARCH_ARM", offset: 0, calls: arm::TABLE }] },
];

/// This machine's architectures, the native one first (rule S-02); none where there is no table.
pub(super) fn native() -> &'static [Architecture] {
    #[cfg(target_arch = "x86_64")]
    return X86;
    #[cfg(target_arch = "aarch64")]
    return ARM;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return &[];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order_and_agree_with_the_c_library() {
        for architecture in X86.iter().chain(ARM) {
            for table in architecture.tables {
                assert!(table.calls.is_sorted_by(|a, b| a.0 < b.0));
                assert!(table.calls.iter().any(|(_, name)| *name == "execve"));
            }
        }
        let number = |name| native()[0].tables[0].calls.iter().find(|(_, n)| *n == name).map(|(n, _)| *n);
        for (name, want) in [
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("bpf", libc::SYS_bpf),
        ] {
            assert_eq!(number(name).map(i64::from), Some(want), "{name}");
        }
    }
}
