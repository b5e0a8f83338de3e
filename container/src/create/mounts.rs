//! The mounts of a container: the user's, then a volume of its own for each `VOLUME` of the image that is left.

use std::collections::BTreeMap;

use rbuild_executor::Access;
use rbuild_image::{ContainerPath, RuntimeConfig};

use crate::config::{ContainerMount, ContainerMountSource, VolumeOwnership};
use crate::mounts::{CopyUp, MountRequest, MountRequestSource};
use crate::request::RunRequest;
use crate::volume::VolumeName;

/// Mounts that cannot be together in one container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMounts {
    /// Two mounts at one place.
    #[error("duplicate mount point: {target}")]
    Duplicate {
        /// The place.
        target: ContainerPath,
    },
    /// The image declares its root, or nothing, a volume.
    #[error("the image declares an invalid volume path: {path:?}")]
    ImageVolume {
        /// What it declares.
        path: String,
    },
}

/// All mounts, outer ones before what lies inside them, otherwise as they were given.
pub(super) fn merge(
    image: &RuntimeConfig,
    request: &RunRequest,
    volume_name: &mut dyn FnMut() -> VolumeName,
) -> Result<Vec<ContainerMount>, InvalidMounts> {
    let mut mounts: Vec<ContainerMount> = Vec::new();
    for asked in &request.mounts {
        if mounts.iter().any(|mount| mount.target == asked.target) {
            return Err(InvalidMounts::Duplicate { target: asked.target.clone() });
        }
        mounts.push(settle(asked, volume_name));
    }
    for path in image.volumes.keys() {
        let target = ContainerPath::new(path);
        if target.is_root() {
            return Err(InvalidMounts::ImageVolume { path: path.clone() });
        }
        if mounts.iter().any(|mount| mount.target == target) {
            continue;
        }
        let source = MountRequestSource::Volume { name: None, copy: CopyUp::Content, labels: Vec::new() };
        mounts.push(settle(&MountRequest { target, source, access: Access::ReadWrite }, volume_name));
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

fn settle(asked: &MountRequest, volume_name: &mut dyn FnMut() -> VolumeName) -> ContainerMount {
    let source = match &asked.source {
        MountRequestSource::Volume { name, copy, labels } => ContainerMountSource::Volume {
            ownership: if name.is_some() { VolumeOwnership::Named } else { VolumeOwnership::Anonymous },
            name: name.clone().unwrap_or_else(volume_name),
            copy: *copy,
            labels: labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        },
        MountRequestSource::Bind { path, missing, manner } => {
            ContainerMountSource::Bind { path: path.clone(), missing: *missing, manner: *manner }
        }
        MountRequestSource::Tmpfs { size, mode, options, typed } => {
            ContainerMountSource::Tmpfs { size: *size, mode: *mode, options: options.clone(), typed: typed.clone() }
        }
    };
    ContainerMount { target: asked.target.clone(), source, access: asked.access }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{parse_tmpfs_flag, parse_volume_flag};
    use std::path::Path;

    fn merged(image: &[&str], volumes: &[&str], tmpfs: &[&str]) -> Result<Vec<String>, InvalidMounts> {
        let image = RuntimeConfig {
            volumes: image.iter().map(|path| ((*path).to_owned(), Default::default())).collect(),
            ..RuntimeConfig::default()
        };
        let volumes = volumes.iter().map(|text| parse_volume_flag(text, Path::new("/here")).unwrap());
        let tmpfs = tmpfs.iter().map(|text| parse_tmpfs_flag(text).unwrap());
        let request = RunRequest { mounts: volumes.chain(tmpfs).collect(), ..RunRequest::default() };
        let mut drawn = 0;
        let mut draw = || {
            drawn += 1;
            format!("anonymous{drawn}").parse().unwrap()
        };
        let mounts = merge(&image, &request, &mut draw)?;
        Ok(mounts.iter().map(|mount| format!("{} {}", mount.target, describe(&mount.source))).collect())
    }

    fn describe(source: &ContainerMountSource) -> String {
        match source {
            ContainerMountSource::Volume { name, ownership, .. } => format!("{ownership:?} {name}"),
            ContainerMountSource::Bind { path, .. } => path.display().to_string(),
            ContainerMountSource::Tmpfs { .. } => "tmpfs".to_owned(),
        }
    }

    #[test]
    fn volumes_of_the_image_yield_to_the_users_mounts() {
        assert_eq!(
            merged(&["/data", "/etc/x", "/log/"], &["/h:/data:ro", "logs:/log"], &["/run"]).unwrap(),
            ["/data /h", "/log Named logs", "/run tmpfs", "/etc/x Anonymous anonymous1"]
        );
        assert_eq!(merged(&["/cache"], &[], &["/cache/"]).unwrap(), ["/cache tmpfs"]);
        assert_eq!(
            merged(&[], &["/data", "/data2"], &[]).unwrap(),
            ["/data Anonymous anonymous1", "/data2 Anonymous anonymous2"]
        );
    }

    #[test]
    fn outer_mounts_come_first() {
        assert_eq!(merged(&[], &["/h:/a/b/c", "/h:/a", "/h:/a/b"], &[]).unwrap(), ["/a /h", "/a/b /h", "/a/b/c /h"]);
    }

    #[test]
    fn a_place_is_taken_once() {
        let duplicate = InvalidMounts::Duplicate { target: ContainerPath::new("/c") };
        assert_eq!(duplicate.to_string(), "duplicate mount point: /c");
        assert_eq!(merged(&[], &["/a:/c", "/b:/c/"], &[]), Err(duplicate.clone()));
        assert_eq!(merged(&[], &["/a:/c"], &["/c"]), Err(duplicate));
    }

    #[test]
    fn a_volume_of_the_image_stays_inside_and_is_not_the_root() {
        assert_eq!(merged(&["/../../data"], &[], &[]).unwrap(), ["/data Anonymous anonymous1"]);
        for root in ["/", "..", ""] {
            let error = merged(&[root], &[], &[]).unwrap_err();
            assert_eq!(error.to_string(), format!("the image declares an invalid volume path: {root:?}"));
        }
    }
}
