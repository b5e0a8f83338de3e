//! Whether a bind mount can be tied to the host's mounts as asked: only what the host shares can be passed on.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rbuild_executor::Propagation;

/// A source whose mount is not shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {} is mounted on {} but it is not {wanted} mount", path.display(), point.display())]
pub struct InvalidTie {
    path: PathBuf,
    point: PathBuf,
    wanted: &'static str,
}

/// Looks at the mount that `path` lies in.
pub(crate) fn check(path: &Path, propagation: Propagation) -> io::Result<Result<(), InvalidTie>> {
    if propagation == Propagation::Private {
        return Ok(Ok(()));
    }
    // Of a handle the kernel says the very mount, whatever is mounted over what.
    let handle =
        rustix::fs::open(path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    let handle = File::from(handle);
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
    Ok(tied(path, id, &fs::read_to_string("/proc/self/mountinfo")?, propagation))
}

fn tied(path: &Path, id: &str, mounts: &str, propagation: Propagation) -> Result<(), InvalidTie> {
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut mounts = mounts.lines().map(fields);
    let Some(mount) = mounts.find(|fields| fields.first().is_some_and(|own| own == id)) else { return Ok(()) };
    let optional = mount.iter().skip(6).take_while(|field| *field != "-");
    let (mut shared, mut slave) = (false, false);
    for field in optional {
        shared |= field.starts_with("shared:");
        slave |= field.starts_with("master:");
    }
    let wanted = match propagation {
        Propagation::Private => return Ok(()),
        Propagation::Shared if !shared => "a shared",
        Propagation::Slave if !shared && !slave => "a shared or slave",
        Propagation::Shared | Propagation::Slave => return Ok(()),
    };
    let point = mount.get(4).map(PathBuf::from).unwrap_or_default();
    Err(InvalidTie { path: path.to_owned(), point, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_shares_is_passed_on() {
        let mounts = "21 1 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                      30 21 8:2 / /s rw shared:4 - ext4 /dev/b rw\n\
                      31 21 8:3 / /m rw master:4 propagate_from:2 - ext4 /dev/c rw\n";
        let said =
            |id: &str, propagation| tied(Path::new("/p"), id, mounts, propagation).map_err(|error| error.to_string());
        for (id, propagation, error) in [
            ("21", Propagation::Private, None),
            ("21", Propagation::Slave, Some("path /p is mounted on / but it is not a shared or slave mount")),
            ("21", Propagation::Shared, Some("path /p is mounted on / but it is not a shared mount")),
            ("30", Propagation::Slave, None),
            ("30", Propagation::Shared, None),
            ("31", Propagation::Slave, None),
            ("31", Propagation::Shared, Some("path /p is mounted on /m but it is not a shared mount")),
        ] {
            assert_eq!(said(id, propagation).err().as_deref(), error, "{id} {propagation:?}");
        }
    }
}
