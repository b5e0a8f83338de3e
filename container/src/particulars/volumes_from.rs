//! `--volumes-from CONTAINER[:ro|:rw]`: the volumes and host directories of another container.

use std::fmt;
use std::str::FromStr;

use rbuild_executor::Access;
use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

use crate::config::{ContainerMount, ContainerMountSource};
use crate::mounts::CopyUp;

/// As it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The other container, by its name or id.
    pub container: String,
    /// Whether they can be written where the other one can write them.
    pub access: Access,
}

/// A `--volumes-from` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumesFrom {
    /// It names nobody.
    #[error("volumes from specification cannot be an empty string")]
    Empty,
    /// Another mode than `ro` and `rw`.
    #[error("invalid mode: {mode}")]
    Mode {
        /// What was given.
        mode: String,
    },
}

impl FromStr for VolumesFrom {
    type Err = InvalidVolumesFrom;

    fn from_str(text: &str) -> Result<Self, InvalidVolumesFrom> {
        let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if container.is_empty() {
            return Err(InvalidVolumesFrom::Empty);
        }
        let mut access = Access::ReadWrite;
        for part in mode.split(',') {
            match part {
                "ro" => access = Access::ReadOnly,
                // Labels of SELinux, which sandboxes do not need.
                "rw" | "z" | "Z" => {}
                _ => return Err(InvalidVolumesFrom::Mode { mode: mode.to_owned() }),
            }
        }
        Ok(Self { container: container.to_owned(), access })
    }
}

/// As Docker's `inspect` has it.
impl fmt::Display for VolumesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.access == Access::ReadOnly { ":ro" } else { "" };
        write!(f, "{}{mode}", self.container)
    }
}

impl VolumesFrom {
    /// What it takes over of the other container's mounts.
    pub(crate) fn of(&self, mounts: &[ContainerMount]) -> Vec<ContainerMount> {
        let shared = |mount: &ContainerMount| {
            let source = match &mount.source {
                // Whoever had it first has filled it.
                ContainerMountSource::Volume { name, ownership, labels, .. } => ContainerMountSource::Volume {
                    name: name.clone(),
                    ownership: *ownership,
                    copy: CopyUp::Nothing,
                    labels: labels.clone(),
                },
                bind @ ContainerMountSource::Bind { .. } => bind.clone(),
                // Memory is not shared.
                ContainerMountSource::Tmpfs { .. } => return None,
            };
            let access = if self.access == Access::ReadOnly { Access::ReadOnly } else { mount.access };
            Some(ContainerMount { target: mount.target.clone(), source, access })
        };
        mounts.iter().filter_map(shared).collect()
    }
}

/// Adds what other containers have: it yields to what the user mounts at the same place, and volumes of the image yield to it.
pub(crate) fn inherit(mounts: &mut Vec<ContainerMount>, asked: &[ContainerPath], inherited: Vec<ContainerMount>) {
    for mount in inherited.into_iter().filter(|mount| !asked.contains(&mount.target)) {
        mounts.retain(|own| own.target != mount.target);
        mounts.push(mount);
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VolumeOwnership;
    use crate::mounts::MissingSource;

    fn bind(target: &str, path: &str, access: Access) -> ContainerMount {
        let source = ContainerMountSource::Bind {
            path: path.into(),
            missing: MissingSource::Refuse,
            manner: Default::default(),
        };
        ContainerMount { target: ContainerPath::new(target), source, access }
    }

    #[test]
    fn modes_only_take_away() {
        for (text, want) in [("web", "web"), ("web:rw", "web"), ("web:ro", "web:ro"), ("web:ro,z", "web:ro")] {
            assert_eq!(text.parse::<VolumesFrom>().unwrap().to_string(), want);
        }
        assert_eq!("".parse::<VolumesFrom>(), Err(InvalidVolumesFrom::Empty));
        assert_eq!("web:rx".parse::<VolumesFrom>().unwrap_err().to_string(), "invalid mode: rx");
        let volume = ContainerMountSource::Volume {
            name: "data".parse().unwrap(),
            ownership: VolumeOwnership::Anonymous,
            copy: CopyUp::Content,
            labels: Default::default(),
        };
        let mounts = [
            bind("/b", "/host", Access::ReadOnly),
            ContainerMount { target: ContainerPath::new("/v"), source: volume, access: Access::ReadWrite },
            ContainerMount {
                target: ContainerPath::new("/t"),
                source: ContainerMountSource::Tmpfs {
                    size: None,
                    mode: 0o755,
                    options: Default::default(),
                    typed: None,
                },
                access: Access::ReadWrite,
            },
        ];
        let of = |text: &str| text.parse::<VolumesFrom>().unwrap().of(&mounts);
        let shown = |mounts: Vec<ContainerMount>| -> Vec<String> {
            mounts.iter().map(|mount| format!("{} {:?}", mount.target, mount.access)).collect()
        };
        assert_eq!(shown(of("web")), ["/b ReadOnly", "/v ReadWrite"]);
        assert_eq!(shown(of("web:ro")), ["/b ReadOnly", "/v ReadOnly"]);
        assert!(matches!(of("web")[1].source, ContainerMountSource::Volume { copy: CopyUp::Nothing, .. }));
    }

    #[test]
    fn own_mounts_win_and_volumes_of_the_image_yield() {
        let mut mounts = vec![bind("/a", "/own", Access::ReadWrite), bind("/a/image", "/image", Access::ReadWrite)];
        let asked = [ContainerPath::new("/a")];
        let inherited = ["/a", "/a/image", "/x"].map(|target| bind(target, "/other", Access::ReadWrite));
        inherit(&mut mounts, &asked, inherited.into());
        let path = |mount: &ContainerMount| match &mount.source {
            ContainerMountSource::Bind { path, .. } => format!("{} {}", mount.target, path.display()),
            other => format!("{other:?}"),
        };
        assert_eq!(mounts.iter().map(path).collect::<Vec<_>>(), ["/a /own", "/x /other", "/a/image /other"]);
    }
}
