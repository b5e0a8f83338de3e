//! EROFS images in plain files as detached mounts: no loop device, no place, nothing to take down.
//!
//! The kernel reads such files itself from 6.12 on (`CONFIG_EROFS_FS_BACKED_BY_FILE`), for root of the initial user
//! namespace only. A mount lasts as long as its descriptor or the overlay made of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// `fsconfig` takes strings of less than 256 bytes.
const LONGEST: usize = 255;

/// Whether this process can mount the image `index` with the contents in `devices`: it is done once, and undone.
pub fn try_erofs(index: &Path, devices: &[PathBuf]) -> io::Result<()> {
    mount(index, devices).map(drop)
}

/// The image `index`, whose contents lie in `devices`, mounted nowhere yet.
pub(crate) fn mount(index: &Path, devices: &[PathBuf]) -> io::Result<OwnedFd> {
    let context = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let files = std::iter::once(("source", index)).chain(devices.iter().map(|path| ("device", path.as_path())));
    // Descriptors that paths lead through, until the kernel has opened them itself.
    let mut held = Vec::new();
    for (key, path) in files {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() <= LONGEST {
            fsconfig_set_string(&context, key, bytes)?;
        } else {
            let file = File::open(path)?;
            fsconfig_set_string(&context, key, format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            held.push(file);
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}
