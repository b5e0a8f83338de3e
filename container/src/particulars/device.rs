//! `--device HOST[:INSIDE[:rwm]]`: devices of the host in the container's `/dev`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rbuild_executor::{DeviceAccess, HostDevice};
use serde::{Deserialize, Serialize};

/// A device, or a directory of devices, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Where it appears below `/dev`; empty for a directory whose devices appear in `/dev` itself.
    pub name: String,
    /// What may be done to it.
    pub access: DeviceAccess,
}

/// A `--device` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDevice {
    /// Not of the form.
    #[error("invalid device specification: {text}")]
    Specification {
        /// What was given.
        text: String,
    },
    /// Letters other than `rwm`.
    #[error("invalid device mode: {mode}")]
    Mode {
        /// What was given.
        mode: String,
    },
    /// Not a place for devices.
    #[error("invalid device specification: {text}: devices appear below /dev, nowhere else")]
    Elsewhere {
        /// What was given.
        text: String,
    },
    /// A device of the Container Device Interface.
    #[error(
        "invalid device specification: {text}: devices are named by their paths, the Container Device Interface is not served"
    )]
    Qualified {
        /// What was given.
        text: String,
    },
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// It is not there, or cannot be looked at.
    #[error("error gathering device information while adding custom device \"{}\"", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("error gathering device information while adding custom device \"{}\": not a device node", path.display())]
    NotADevice { path: PathBuf },
}

impl FromStr for DeviceRequest {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let specification = || InvalidDevice::Specification { text: text.to_owned() };
        let parts: Vec<&str> = text.split(':').collect();
        let (path, inside, mode) = match parts[..] {
            [path] => (path, path, "rwm"),
            // As in Docker: a second part of these letters alone is no place.
            [path, mode] if DeviceAccess::parse(mode).is_some() => (path, path, mode),
            [path, inside] => (path, inside, "rwm"),
            [path, inside, mode] => (path, inside, mode),
            _ => return Err(specification()),
        };
        if !path.starts_with('/') {
            return Err(if path.contains('=') {
                InvalidDevice::Qualified { text: text.to_owned() }
            } else {
                specification()
            });
        }
        let access = DeviceAccess::parse(mode).ok_or_else(|| InvalidDevice::Mode { mode: mode.to_owned() })?;
        let elsewhere = || InvalidDevice::Elsewhere { text: text.to_owned() };
        let name = match inside.trim_end_matches('/') {
            "/dev" => "",
            inside => inside.strip_prefix("/dev/").ok_or_else(elsewhere)?,
        };
        if !name.is_empty() && name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(elsewhere());
        }
        Ok(Self { path: path.into(), name: name.to_owned(), access })
    }
}

/// What of a directory of devices are none that can be passed on.
const LEFT_OUT: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// The devices as the host has them now; a directory stands for all devices in it.
pub(crate) fn devices(asked: &[DeviceRequest]) -> Result<Vec<HostDevice>, DeviceError> {
    let mut found = Vec::new();
    for request in asked {
        let metadata = at(&request.path, fs::metadata(&request.path))?;
        if metadata.is_dir() {
            walk(&request.path, &request.name, request.access, &mut found)?;
        } else if request.name.is_empty() {
            return Err(DeviceError::NotADevice { path: request.path.clone() });
        } else {
            let device = device(&request.path, &request.name, &metadata, request.access);
            found.push(device.ok_or_else(|| DeviceError::NotADevice { path: request.path.clone() })?);
        }
    }
    Ok(found)
}

fn walk(directory: &Path, name: &str, access: DeviceAccess, found: &mut Vec<HostDevice>) -> Result<(), DeviceError> {
    let mut entries = Vec::new();
    for entry in at(directory, fs::read_dir(directory))? {
        entries.push(at(directory, entry)?.file_name());
    }
    entries.sort();
    for entry in entries {
        let Some(own) = entry.to_str() else { continue };
        let path = directory.join(own);
        // What ends meanwhile is not passed on, and links are not followed.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let inside = if name.is_empty() { own.to_owned() } else { format!("{name}/{own}") };
        if metadata.is_dir() && !LEFT_OUT.contains(&own) {
            walk(&path, &inside, access, found)?;
        } else if own != "console" {
            found.extend(device(&path, &inside, &metadata, access));
        }
    }
    Ok(())
}

fn device(path: &Path, name: &str, metadata: &fs::Metadata, access: DeviceAccess) -> Option<HostDevice> {
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(HostDevice {
        name: name.to_owned(),
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access,
    })
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, DeviceError> {
    result.map_err(|source| DeviceError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_dockers() {
        for (text, want) in [
            ("/dev/kvm", "/dev/kvm kvm rwm"),
            ("/dev/kvm:r", "/dev/kvm kvm r"),
            ("/dev/a:/dev/b/c", "/dev/a b/c rwm"),
            ("/dev/a:/dev/b:rw", "/dev/a b rw"),
            ("/srv/nodes:/dev/", "/srv/nodes  rwm"),
            ("/dev/snd:/dev/snd/", "/dev/snd snd rwm"),
        ] {
            let request: DeviceRequest = text.parse().unwrap();
            assert_eq!(format!("{} {} {}", request.path.display(), request.name, request.access), want, "{text}");
        }
        for (text, want) in [
            ("dev/kvm", "invalid device specification: dev/kvm"),
            ("/dev/a:/dev/b:rw:x", "invalid device specification: /dev/a:/dev/b:rw:x"),
            ("/dev/a:/dev/b:x", "invalid device mode: x"),
            ("/dev/a:/dev/b:rr", "invalid device mode: rr"),
            ("/dev/a:/opt/b", "invalid device specification: /dev/a:/opt/b: devices appear below /dev, nowhere else"),
            (
                "/dev/a:/dev/../b",
                "invalid device specification: /dev/a:/dev/../b: devices appear below /dev, nowhere else",
            ),
        ] {
            assert_eq!(text.parse::<DeviceRequest>().unwrap_err().to_string(), want, "{text}");
        }
        assert!("vendor.com/gpu=all".parse::<DeviceRequest>().unwrap_err().to_string().contains("Container Device"));
    }

    #[test]
    fn a_device_is_looked_at_and_other_files_are_refused() {
        let null = devices(&["/dev/null:/dev/mine:r".parse().unwrap()]).unwrap();
        assert_eq!((null[0].name.as_str(), null[0].block, null[0].major, null[0].minor), ("mine", false, 1, 3));
        let refused = |text: &str| devices(&[text.parse().unwrap()]).unwrap_err().to_string();
        assert!(refused("/etc/passwd:/dev/x").ends_with("not a device node"));
        assert!(refused("/dev/no-such").contains("/dev/no-such"));
        let all = devices(&["/dev:/dev/host".parse().unwrap()]).unwrap();
        assert!(all.iter().any(|device| device.name == "host/null"));
        assert!(!all.iter().any(|device| device.name.starts_with("host/pts/")));
    }
}
