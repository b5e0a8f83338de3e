//! `/dev` and the terminal.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{NO_SUID_DEV_EXEC, attach, clone_tree, new_mount};
use crate::plan::{DeviceNode, DeviceOrigin};
use crate::root_dir::{DirFd, Node};
use crate::spec::HostDevice;
use crate::stat::{FileKind, Stat};
use crate::stdio::WindowSize;

/// Links that programs expect.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Directories that other file systems are mounted on.
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// The group that owns terminals everywhere.
const TTY_GROUP: &str = "5";

/// A tmpfs with the nodes, not in place yet. The umask must be 0.
pub(crate) fn dev(nodes: &[DeviceNode], origin: DeviceOrigin, terminal: bool) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = new_mount(c"tmpfs", &[("source", "tmpfs"), ("mode", "755"), ("size", "65536k")], attributes)?;
    let dir = DirFd::from_fd(mount.try_clone()?);
    for node in nodes {
        let (major, minor) = (node.major, node.minor);
        let kind = match (origin, node.block) {
            (DeviceOrigin::Host, _) => Node::File,
            (DeviceOrigin::Made, true) => Node::BlockDevice { major, minor },
            (DeviceOrigin::Made, false) => Node::CharDevice { major, minor },
        };
        match node.name.split_once('/') {
            None => dir.mknod(OsStr::new(&node.name), kind, 0o666)?,
            Some((parent, name)) => {
                match dir.create_dir(OsStr::new(parent), 0o755) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                open_dir(&dir, parent)?.mknod(OsStr::new(name), kind, 0o666)?;
            }
        }
    }
    for (name, target) in LINKS {
        dir.symlink(OsStr::new(target), OsStr::new(name))?;
    }
    for name in DIRECTORIES {
        dir.create_dir(OsStr::new(name), 0o755)?;
    }
    if terminal {
        dir.mknod(OsStr::new("console"), Node::File, 0o600)?;
    }
    Ok(mount)
}

/// Shows the host's devices in place of the empty files that [`dev`] made for them. What the host lacks, or what lies where a
/// device should, is left out.
pub(crate) fn bind_host_nodes(dev: &OwnedFd, nodes: &[DeviceNode]) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let host = rustix::fs::open(c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for node in nodes {
        let expected = if node.block { FileKind::BlockDevice } else { FileKind::CharDevice };
        let found = match rustix::fs::openat(&host, node.name.as_str(), flags, Mode::empty()) {
            Ok(found) => Some(found),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(errno) => return Err(errno.into()),
        };
        let stat = found.as_ref().map(Stat::of).transpose()?;
        let right = stat.is_some_and(|stat| stat.kind == expected && stat.device_file == (node.major, node.minor));
        match found.filter(|_| right) {
            Some(device) => {
                let place = rustix::fs::openat(dev, node.name.as_str(), flags, Mode::empty())?;
                attach(clone_tree(device, false)?, place.as_fd())?;
            }
            None => rustix::fs::unlinkat(dev, node.name.as_str(), AtFlags::empty())?,
        }
    }
    Ok(())
}

/// Makes device files that were asked for, with the host's owners and permissions; those that are there already stay. The umask
/// must be 0. An error names the device.
pub(crate) fn make_host_devices(dev: &OwnedFd, devices: &[HostDevice]) -> Result<(), (String, Errno)> {
    devices.iter().try_for_each(|device| make_host_device(dev, device).map_err(|errno| (device.name.clone(), errno)))
}

fn make_host_device(dev: &OwnedFd, device: &HostDevice) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent = rustix::fs::openat(dev, c".", flags, Mode::empty())?;
    let (directories, name) = match device.name.rsplit_once('/') {
        Some((directories, name)) => (directories.split('/').collect(), name),
        None => (Vec::new(), device.name.as_str()),
    };
    for directory in directories {
        match rustix::fs::mkdirat(&parent, directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        parent = rustix::fs::openat(&parent, directory, flags, Mode::empty())?;
    }
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode & 0o7777), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// A detached mount has no place yet, so nothing but plain lookups by name are needed.
fn open_dir(dir: &DirFd, name: &str) -> io::Result<DirFd> {
    dir.open_dir(OsStr::new(name))
}

/// An own devpts instance.
pub(crate) fn pts() -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("source", "devpts"), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    match new_mount(c"devpts", &options, attributes) {
        // Group 5 is not mapped in this user namespace.
        Err(Errno::INVAL) => new_mount(c"devpts", &options[..3], attributes),
        other => other,
    }
}

/// Shared memory.
pub(crate) fn shm(size: u64) -> rustix::io::Result<OwnedFd> {
    let size = size.to_string();
    new_mount(c"tmpfs", &[("source", "shm"), ("mode", "1777"), ("size", &size)], NO_SUID_DEV_EXEC)
}

/// POSIX message queues of the ipc namespace.
pub(crate) fn mqueue() -> rustix::io::Result<OwnedFd> {
    new_mount(c"mqueue", &[("source", "mqueue")], NO_SUID_DEV_EXEC)
}

/// Both sides of a new terminal of the given devpts: ours and the sandbox's. Neither is opened by a path that something
/// in the image could redirect (rule S-19).
pub(crate) fn terminal(devpts: impl AsFd, window: Option<WindowSize>) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ours = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    if let Some(WindowSize { rows, columns }) = window {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&ours, size)?;
    }
    Ok((ours, theirs))
}
