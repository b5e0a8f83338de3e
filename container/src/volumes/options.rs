//! Options of local volumes (`volume create -o`): a directory of this machine in place of one of the store.
//!
//! Docker's driver mounts whatever `mount` can; without a daemon nobody would hold such a mount, so that only `type=none` with
//! `o=bind` is served, which needs none: the directory itself is what containers get. What is mounted below it is seen, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_executor::Access;
use serde::{Deserialize, Serialize};

/// What a volume's maker chose of its driver: nothing, or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct VolumeOptions {
    /// As typed, for whoever asks.
    typed: BTreeMap<String, String>,
    device: Option<(PathBuf, Access)>,
}

/// Options that a local volume cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeOptions {
    /// It is not known.
    #[error("invalid option: {key:?}")]
    Unknown {
        /// Which.
        key: String,
    },
    /// Directories have no quotas.
    #[error("quota size requested but no quota support")]
    Quota,
    /// One does not go without another.
    #[error("missing required option: {key:?}")]
    Missing {
        /// The other.
        key: &'static str,
    },
    /// What would have to be mounted.
    #[error("volumes of type {kind} are not supported: the type is none, with o=bind")]
    Type {
        /// Which type.
        kind: String,
    },
    /// An option of `mount`.
    #[error("the mount option {word:?} of a volume is not supported: known are bind, rbind, ro and rw")]
    MountOption {
        /// Which.
        word: String,
    },
    /// Not a path of this machine.
    #[error("invalid device {device:?}: the directory of a volume is an absolute path")]
    Device {
        /// What was given.
        device: String,
    },
}

impl VolumeOptions {
    /// The directory of this machine that the volume is, if it is not one of the store.
    pub(crate) fn device(&self) -> Option<&Path> {
        self.device.as_ref().map(|(path, _)| path.as_path())
    }

    /// Whether containers may write to it.
    pub(crate) fn access(&self) -> Access {
        self.device.as_ref().map_or(Access::ReadWrite, |(_, access)| *access)
    }

    /// As they were typed.
    pub fn typed(&self) -> &BTreeMap<String, String> {
        &self.typed
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.typed.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for VolumeOptions {
    type Error = InvalidVolumeOptions;

    fn try_from(typed: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        if typed.is_empty() {
            return Ok(Self::default());
        }
        if let Some(key) = typed.keys().find(|key| !["type", "o", "device", "size"].contains(&key.as_str())) {
            return Err(InvalidVolumeOptions::Unknown { key: key.clone() });
        }
        if typed.contains_key("size") {
            return Err(InvalidVolumeOptions::Quota);
        }
        let given = |key: &'static str| {
            let value = typed.get(key).map(String::as_str).filter(|value| !value.is_empty());
            value.ok_or(InvalidVolumeOptions::Missing { key })
        };
        let (kind, device) = (given("type")?, given("device")?);
        let words: Vec<&str> = typed.get("o").map(String::as_str).unwrap_or_default().split(',').collect();
        if kind != "none" || !words.iter().any(|word| matches!(*word, "bind" | "rbind")) {
            return Err(InvalidVolumeOptions::Type { kind: kind.to_owned() });
        }
        if !device.starts_with('/') {
            return Err(InvalidVolumeOptions::Device { device: device.to_owned() });
        }
        let mut access = Access::ReadWrite;
        for word in words {
            match word {
                "ro" => access = Access::ReadOnly,
                "rw" => access = Access::ReadWrite,
                "" | "bind" | "rbind" => {}
                _ => return Err(InvalidVolumeOptions::MountOption { word: word.to_owned() }),
            }
        }
        let device = Some((PathBuf::from(device), access));
        Ok(Self { typed, device })
    }
}

impl From<VolumeOptions> for BTreeMap<String, String> {
    fn from(options: VolumeOptions) -> Self {
        options.typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(typed: &[(&str, &str)]) -> Result<VolumeOptions, String> {
        let typed: BTreeMap<String, String> =
            typed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        VolumeOptions::try_from(typed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_of_the_machine_is_a_volume() {
        let bind = options(&[("type", "none"), ("o", "bind"), ("device", "/srv/data")]).unwrap();
        assert_eq!((bind.device(), bind.access()), (Some(Path::new("/srv/data")), Access::ReadWrite));
        let read_only = options(&[("type", "none"), ("o", "ro,rbind"), ("device", "/srv")]).unwrap();
        assert_eq!(read_only.access(), Access::ReadOnly);
        let text = serde_json::to_string(&read_only).unwrap();
        assert_eq!(text, r#"{"device":"/srv","o":"ro,rbind","type":"none"}"#);
        assert_eq!(serde_json::from_str::<VolumeOptions>(&text).unwrap(), read_only);
        assert_eq!(options(&[]).unwrap().device(), None);
    }

    #[test]
    fn what_would_have_to_be_mounted_is_refused() {
        let refused: [(&[(&str, &str)], &str); 8] = [
            (&[("foo", "bar")], "invalid option: \"foo\""),
            (&[("size", "10m")], "quota size requested but no quota support"),
            (&[("o", "bind"), ("device", "/srv")], "missing required option: \"type\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (
                &[("type", "tmpfs"), ("device", "tmpfs")],
                "volumes of type tmpfs are not supported: the type is none, with o=bind",
            ),
            (
                &[("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.1")],
                "volumes of type nfs are not supported: the type is none, with o=bind",
            ),
            (
                &[("type", "none"), ("device", "/srv"), ("o", "bind,noexec")],
                "the mount option \"noexec\" of a volume is not supported: known are bind, rbind, ro and rw",
            ),
            (
                &[("type", "none"), ("device", "srv"), ("o", "bind")],
                "invalid device \"srv\": the directory of a volume is an absolute path",
            ),
        ];
        for (typed, said) in refused {
            assert_eq!(options(typed), Err(said.to_owned()));
        }
    }
}
