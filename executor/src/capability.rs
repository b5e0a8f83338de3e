//! Capabilities by name, and as the bit sets the kernel takes.

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// All capabilities of Linux 6.x in bit order, without `CAP_` (`capabilities(7)`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of every capability this build knows, without `CAP_`, in the kernel's order.
pub const ALL_CAPABILITIES: &[&str] = &NAMES;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The one that is needed to load a filter without `no_new_privs`.
    pub(crate) const SYS_ADMIN: Self = Self(1 << 21);
    /// The one to make device files.
    pub(crate) const MKNOD: Self = Self(1 << 27);
    /// The one to signal processes of other users.
    pub(crate) const KILL: Self = Self(1 << 5);

    /// The set of the given names; the first unknown one as an error. A leading `CAP_` is accepted.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        names.iter().try_fold(Self::default(), |set, name| {
            let name = name.as_ref();
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            let bit = NAMES.iter().position(|known| *known == bare).ok_or_else(|| name.to_owned())?;
            Ok(Self(set.0 | 1 << bit))
        })
    }

    /// The caller's own bounding set: nothing beyond it can be given to a sandbox.
    pub fn caller_bounding() -> Self {
        let held = |bit: &usize| {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false)
        };
        Self((0..NAMES.len()).filter(held).fold(0, |set, bit| set | 1 << bit))
    }

    /// What both sets have.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What this set has and the other has not.
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What either set has.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `name` (without `CAP_`) is in the set.
    pub fn contains(self, name: &str) -> bool {
        NAMES.iter().position(|known| *known == name).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }

    /// As `/proc/PID/status` shows the set.
    pub fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn kernel_set(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }

    /// Every single capability that is not in the set, those of newer kernels included.
    pub(crate) fn absent(self) -> impl Iterator<Item = CapabilitySet> {
        (0..64).map(|bit| 1 << bit).filter(move |bit| self.0 & bit == 0).map(CapabilitySet::from_bits_retain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DEFAULT_CAPABILITIES;

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(
            format!("{:016x}", Capabilities::from_names(&DEFAULT_CAPABILITIES).unwrap().bits()),
            "00000000a80425fb"
        );
    }

    #[test]
    fn names_are_checked() {
        let set = Capabilities::from_names(&["CAP_SYS_ADMIN", "BPF"]).unwrap();
        assert!(set.contains("SYS_ADMIN") && set.contains("BPF") && !set.contains("CHOWN"));
        assert_eq!(Capabilities::from_names(&["sys_admin"]), Err("sys_admin".to_owned()));
        assert_eq!(set.absent().count(), 62);
        for (set, name) in
            [(Capabilities::SYS_ADMIN, "SYS_ADMIN"), (Capabilities::KILL, "KILL"), (Capabilities::MKNOD, "MKNOD")]
        {
            assert_eq!(Ok(set), Capabilities::from_names(&[name]));
        }
    }
}
