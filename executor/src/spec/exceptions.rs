//! Where a sandbox differs from the standard one because somebody asked for it by name: namespaces that are not its own, settings
//! of the kernel, devices of the host. Empty by default; most of it widens what the sandbox can do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceptions {
    /// Whose processes it sees.
    pub processes: ProcessNamespace,
    /// With whom it shares memory and messages.
    pub ipc: IpcNamespace,
    /// Whose host name it has.
    pub names: NameNamespace,
    /// NIS domain name, where the names are its own.
    pub domainname: Option<String>,
    /// Values for files below `/proc/sys`, by their names with slashes. Who asks for them knows that they belong to the
    /// sandbox's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// How readily the kernel kills it for lack of memory (-1000 to 1000).
    pub oom_score_adj: Option<i32>,
    /// Devices of the host in its `/dev`.
    pub devices: Vec<HostDevice>,
    /// Devices that it may use beside the standard ones and those in its `/dev`.
    pub device_rules: Vec<DeviceRule>,
}

/// The process namespace of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessNamespace {
    /// Its own.
    #[default]
    Own,
    /// The caller's: it sees, and as root signals, every process of the machine.
    Host,
    /// Somebody else's, by the path of its `ns` file.
    Path(PathBuf),
}

/// The IPC namespace of a sandbox, and its `/dev/shm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcNamespace {
    /// Its own.
    #[default]
    Own,
    /// Its own, without a `/dev/shm`.
    WithoutShm,
    /// The caller's, with the host's `/dev/shm`.
    Host,
    /// Another sandbox's.
    Of {
        /// The path of its `ns` file.
        ipc: PathBuf,
        /// The path of the mount namespace whose `/dev/shm` is shared.
        mounts: PathBuf,
    },
}

/// The UTS namespace of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameNamespace {
    /// Its own.
    #[default]
    Own,
    /// The caller's.
    Host,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// Where it appears, below `/dev`.
    pub name: String,
    /// Where it is on the host.
    pub path: PathBuf,
    /// Block instead of character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits of its file.
    pub mode: u32,
    /// Owner of its file.
    pub uid: u32,
    /// Group of its file.
    pub gid: u32,
    /// What may be done to it.
    pub access: DeviceAccess,
}

impl HostDevice {
    /// The rule that lets it be used.
    pub(crate) fn rule(&self) -> DeviceRule {
        let kind = Some(if self.block { DeviceKind::Block } else { DeviceKind::Character });
        DeviceRule { kind, major: Some(self.major), minor: Some(self.minor), access: self.access }
    }
}

/// Devices that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Of which kind; of both when not given.
    pub kind: Option<DeviceKind>,
    /// Major number; any when not given.
    pub major: Option<u32>,
    /// Minor number; any when not given.
    pub minor: Option<u32>,
    /// What may be done to them.
    pub access: DeviceAccess,
}

/// The two kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Disks and their like.
    Block,
    /// All others.
    Character,
}

/// What may be done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// Its file may be made.
    pub mknod: bool,
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// Reads letters out of `rwm`, each at most once; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut access = Self { read: false, write: false, mknod: false };
        for letter in text.chars() {
            let part = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.mknod,
                _ => return None,
            };
            if std::mem::replace(part, true) {
                return None;
            }
        }
        (!text.is_empty()).then_some(access)
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (given, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if given {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// As the kernel writes it: `c 10:200 rwm`.
impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            None => "a",
            Some(DeviceKind::Block) => "b",
            Some(DeviceKind::Character) => "c",
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

impl std::str::FromStr for DeviceRule {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
        let kind = match kind {
            "a" => None,
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Character),
            _ => return Err(()),
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            number => number.parse().map(Some).map_err(drop),
        };
        let (major, minor) = numbers.split_once(':').ok_or(())?;
        let access = DeviceAccess::parse(access).ok_or(())?;
        Ok(Self { kind, major: number(major)?, minor: number(minor)?, access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_the_kernels() {
        for text in ["c 10:200 rwm", "b *:* r", "a 7:* wm", "c 1:3 m"] {
            assert_eq!(text.parse::<DeviceRule>().map(|rule| rule.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "c 10:200", "x 1:1 r", "c 1 r", "c a:1 r", "c 1:1 rr", "c 1:1 x", "c 1:1 ", "c 1:1 r "] {
            assert_eq!(text.parse::<DeviceRule>(), Err(()), "{text:?}");
        }
    }
}
