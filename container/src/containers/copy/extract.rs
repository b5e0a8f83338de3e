//! A tar becomes files, below one directory.
//!
//! Names of the archive are looked up inside the root and below the directory only. What is there is replaced, but a directory
//! keeps its files, and a symlink in the way of a directory stays and is followed inside the root, as Docker does. A file that is
//! mounted there is not replaced.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;

use rbuild_executor::{DirFd, FileKind, NewDirectory, Node, RootDir, Timestamp};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{Entry, EntryKind, TarReader};

use super::CopyError;

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says (`-a`).
    Archive,
    /// These: user and group.
    All(u32, u32),
}

/// Unpacks into the directory `place`.
pub(super) fn unpack(
    root: &RootDir,
    place: &ContainerPath,
    tar: &mut dyn Read,
    owners: Owners,
) -> Result<(), CopyError> {
    let mut reader = TarReader::new(BufReader::new(tar));
    let mut directories = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let path = below(place, &entry.path);
        let failed = |source| CopyError::File { action: "write", path: path.clone(), source };
        if path == *place {
            continue;
        }
        let parents = match path.parent() {
            Some(parent) => parent,
            None => continue,
        };
        let (uid, gid) = owner(&entry, owners);
        let new = NewDirectory { mode: 0o755, uid, gid };
        let directory = root.ensure_dir(&parents, new).map_err(failed)?.0;
        let Some(name) = path.file_name().map(OsStr::from_bytes) else { continue };
        put(root, &directory, name, place, &entry, &mut reader, (uid, gid)).map_err(failed)?;
        if entry.kind == EntryKind::Directory {
            directories.push((path, entry.mtime));
        }
    }
    // Now that nothing is written into them any more.
    for (path, mtime) in directories.into_iter().rev() {
        let time = Timestamp { seconds: mtime.seconds, nanoseconds: mtime.nanoseconds };
        let set = root.open_dir(&path).and_then(|directory| directory.set_own_times(time, time));
        set.map_err(|source| CopyError::File { action: "date", path, source })?;
    }
    Ok(())
}

fn below(place: &ContainerPath, path: &ContainerPath) -> ContainerPath {
    place.join(path.as_bytes().strip_prefix(b"/").unwrap_or(path.as_bytes()))
}

fn owner(entry: &Entry, owners: Owners) -> (u32, u32) {
    match owners {
        Owners::Archive => (entry.uid, entry.gid),
        Owners::All(uid, gid) => (uid, gid),
    }
}

fn put(
    root: &RootDir,
    directory: &DirFd,
    name: &OsStr,
    place: &ContainerPath,
    entry: &Entry,
    content: &mut dyn Read,
    (uid, gid): (u32, u32),
) -> io::Result<()> {
    let there = match directory.lstat(name) {
        Ok(stat) => Some(stat.kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let is_directory = entry.kind == EntryKind::Directory;
    match there {
        Some(FileKind::Directory) if is_directory => {}
        // A link to a directory stands for it.
        Some(FileKind::Symlink) if is_directory => return Ok(()),
        Some(FileKind::Directory) => {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "cannot overwrite a directory with a file"));
        }
        Some(_) if is_directory => {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "cannot overwrite a file with a directory"));
        }
        // Seen from here the kernel would let it go, and what is mounted there with it.
        Some(_) if directory.is_mount(name)? => return Err(io::ErrorKind::ResourceBusy.into()),
        Some(_) => directory.unlink(name)?,
        None => {}
    }
    match &entry.kind {
        EntryKind::Directory if there.is_some() => {}
        EntryKind::Directory => directory.create_dir(name, 0o700)?,
        EntryKind::File { .. } => {
            let mut file = directory.create_file(name, 0o600)?;
            io::copy(content, &mut file)?;
        }
        EntryKind::Symlink { target } => directory.symlink(OsStr::from_bytes(target), name)?,
        EntryKind::Hardlink { target } => {
            let target = below(place, target);
            let Some((from, from_name)) = root.open_parent(&target)? else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            return directory.hard_link(&from, from_name, name);
        }
        EntryKind::CharDevice(device) => {
            directory.mknod(name, Node::CharDevice { major: device.major, minor: device.minor }, 0o600)?;
        }
        EntryKind::BlockDevice(device) => {
            directory.mknod(name, Node::BlockDevice { major: device.major, minor: device.minor }, 0o600)?;
        }
        EntryKind::Fifo => directory.mknod(name, Node::Fifo, 0o600)?,
    }
    directory.chown(name, uid, gid)?;
    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
        directory.chmod(name, entry.mode)?;
    }
    for (attribute, value) in &entry.xattrs {
        if attribute == b"security.capability" {
            directory.set_xattr(name, OsStr::from_bytes(attribute), value)?;
        }
    }
    let time = Timestamp { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds };
    directory.set_times(name, time, time)
}
