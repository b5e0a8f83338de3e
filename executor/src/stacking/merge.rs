//! Directories of several layers seen as one, and a copy of what they show.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::fs::SeekFrom as Seeking;
use rustix::io::Errno;

use super::is_opaque;
use crate::root_dir::{DirFd, Node};
use crate::stat::{FileKind, Stat};

/// Deeper trees than this are refused, as each level of a copy takes descriptors.
const DEEPEST: usize = 1024;

/// One layer's directory of those that are merged.
pub(super) struct Part {
    pub(super) dir: DirFd,
    /// Whether it takes the changes; the others never change.
    pub(super) upper: bool,
}

/// What a copy was made of, name by name.
#[derive(Debug)]
pub(super) struct Known {
    /// What there was; `None` where the upper directory hides what lower ones have.
    pub(super) shown: Option<Shown>,
    /// Whether a lower directory has something of that name.
    pub(super) in_lower: bool,
}

/// Something that was copied.
#[derive(Debug)]
pub(super) struct Shown {
    /// The copy as it was made.
    pub(super) stat: Stat,
    /// Whether it stood in the upper directory, and so has to stay there.
    pub(super) from_upper: bool,
    /// What is below, of a directory.
    pub(super) below: Contents,
}

/// What was copied into a directory.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) names: BTreeMap<OsString, Known>,
    /// Whether the upper directory's own was opaque: it has to be again.
    pub(super) opaque: bool,
}

/// A whiteout is a character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    stat.kind == FileKind::CharDevice && stat.device_file == (0, 0)
}

/// What the layers have under one name, as far as it counts.
#[derive(Default)]
struct Found {
    /// What is seen, and in which layer.
    top: Option<(usize, Stat)>,
    /// The layers whose directories are merged, topmost first.
    dirs: Vec<usize>,
    /// Whether a lower layer has something, be it hidden by the upper one.
    in_lower: bool,
    /// Whether the upper layer's directory hides what is below.
    opaque: bool,
}

fn look_up(parts: &[Part], name: &OsStr) -> io::Result<Found> {
    let mut found = Found::default();
    let mut hidden_by_upper = false;
    for (index, part) in parts.iter().enumerate() {
        let stat = match part.dir.lstat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if hidden_by_upper {
            // It is not seen, and has to stay so.
            found.in_lower = !is_whiteout(&stat);
            break;
        }
        let mut hides = true;
        if !is_whiteout(&stat) {
            found.in_lower |= !part.upper;
            let directory = stat.kind == FileKind::Directory;
            if !directory && found.top.is_some() {
                break;
            }
            if directory {
                found.dirs.push(index);
                hides = is_opaque(&part.dir, name)?;
                found.opaque = hides && part.upper;
            }
            found.top.get_or_insert((index, stat));
        }
        match (hides, part.upper) {
            (true, true) => hidden_by_upper = true,
            (true, false) => break,
            (false, _) => {}
        }
    }
    Ok(found)
}

/// The directories of lower layers named `name` that are merged into one; none where they have something else. `None` where
/// they have nothing.
pub(super) fn below(lowers: &[Part], name: &OsStr) -> io::Result<Option<Vec<Part>>> {
    let found = look_up(lowers, name)?;
    found.top.map(|_| open_all(lowers, &found.dirs, name)).transpose()
}

fn open_all(parts: &[Part], chosen: &[usize], name: &OsStr) -> io::Result<Vec<Part>> {
    chosen.iter().map(|&index| Ok(Part { dir: parts[index].dir.open_dir(name)?, upper: parts[index].upper })).collect()
}

/// Copies what `parts` (topmost first) show into the empty directory `target`.
pub(super) fn copy(parts: &[Part], target: &DirFd, depth: usize) -> io::Result<Contents> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut names = BTreeMap::new();
    for part in parts {
        for entry in part.dir.list()? {
            names.entry(entry.name).or_insert(());
        }
    }
    let mut contents = Contents::default();
    for name in names.into_keys() {
        let found = look_up(parts, &name)?;
        let shown = match &found.top {
            None => None,
            Some((index, stat)) => {
                let part = &parts[*index];
                let mut below_it = Contents::default();
                if stat.kind == FileKind::Directory {
                    target.create_dir(&name, 0o700)?;
                    let inner = target.open_dir(&name)?;
                    let dirs = open_all(parts, &found.dirs, &name)?;
                    below_it = copy(&dirs, &inner, depth + 1)?;
                    below_it.opaque = found.opaque;
                } else {
                    node(&part.dir, &name, stat, target)?;
                }
                metadata(&part.dir, &name, stat, target)?;
                Some(Shown { stat: target.lstat(&name)?, from_upper: part.upper, below: below_it })
            }
        };
        if shown.is_some() || found.in_lower {
            contents.names.insert(name, Known { shown, in_lower: found.in_lower });
        }
    }
    Ok(contents)
}

/// Anything but a directory.
fn node(from: &DirFd, name: &OsStr, stat: &Stat, target: &DirFd) -> io::Result<()> {
    let (major, minor) = stat.device_file;
    match stat.kind {
        FileKind::File => content(&from.open_file(name)?, stat, &target.create_file(name, 0o600)?),
        FileKind::Symlink => target.symlink(&from.read_link(name)?, name),
        FileKind::CharDevice => target.mknod(name, Node::CharDevice { major, minor }, 0o600),
        FileKind::BlockDevice => target.mknod(name, Node::BlockDevice { major, minor }, 0o600),
        FileKind::Fifo => target.mknod(name, Node::Fifo, 0o600),
        FileKind::Socket => target.mknod(name, Node::Socket, 0o600),
        FileKind::Directory => Err(Errno::ISDIR.into()),
    }
}

/// Owner, mode, attributes and times, in the order in which none of them undoes another.
pub(super) fn metadata(from: &DirFd, name: &OsStr, stat: &Stat, target: &DirFd) -> io::Result<()> {
    target.chown(name, stat.uid, stat.gid)?;
    if stat.kind != FileKind::Symlink {
        target.chmod(name, stat.mode)?;
        attributes(from, name, target)?;
    }
    target.set_times(name, stat.accessed, stat.modified)
}

/// Everything but overlayfs's marks and this host's labels.
fn attributes(from: &DirFd, name: &OsStr, target: &DirFd) -> io::Result<()> {
    let listed = match from.xattrs(name) {
        Err(error) if is(&error, Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    for (attribute, value) in listed {
        let text = attribute.as_encoded_bytes();
        let mark = text.starts_with(b"trusted.overlay.") || text.starts_with(b"user.overlay.");
        if mark || text == b"security.selinux" {
            continue;
        }
        match target.set_xattr(name, &attribute, &value) {
            Err(error) if is(&error, Errno::NOTSUP) || (is(&error, Errno::PERM) && text.starts_with(b"trusted.")) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// The bytes of a file: shared where the file system can, else copied without its holes.
fn content(from: &File, stat: &Stat, to: &File) -> io::Result<()> {
    if stat.size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let sparse = stat.blocks * 512 < stat.size;
    if !sparse {
        io::copy(&mut &*from, &mut &*to)?;
        return Ok(());
    }
    let mut at = 0;
    while at < stat.size {
        let data = match rustix::fs::seek(from, Seeking::Data(at)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = rustix::fs::seek(from, Seeking::Hole(data))?;
        (&mut &*from).seek(SeekFrom::Start(data))?;
        (&mut &*to).seek(SeekFrom::Start(data))?;
        io::copy(&mut io::Read::take(from, end - data), &mut &*to)?;
        at = end;
    }
    Ok(rustix::fs::ftruncate(to.as_fd(), stat.size)?)
}
