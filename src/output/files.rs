//! The root file system of a result, as a tar or as files below a directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_executor::FileKind::Directory;
use rbuild_executor::user_namespace::{Powers, powers};
use rbuild_executor::{DirFd, Node, RootDir, Timestamp};
use rbuild_image::layer::{Device, Entry, EntryKind, TarWriter, Timestamp as LayerTime};
use rbuild_image::{ContainerPath, Platform};

use super::{Readers, whole_file};
use crate::cli::report::Failure;
use crate::request::Destination;

/// Writes views as a tar, each below its directory (the root where that is empty): entries in byte order, hard links
/// kept. With `epoch` everything has that time.
pub fn write_tar(
    views: &[(String, View)],
    (dest, readers): (&Destination, Readers),
    epoch: Option<i64>,
) -> Result<(), Failure> {
    match dest {
        Destination::File(path) => whole_file(path, readers, |out| tar_into(views, out, epoch)),
        Destination::Stdout => tar_into(views, &mut io::BufWriter::with_capacity(1 << 20, io::stdout().lock()), epoch),
        Destination::Directory(path) => Err(Failure::new(format!("{} is a directory, not a file", path.display()))),
    }
}

/// Fails when two platforms have the same file: without directories of their own one would replace the other.
pub(super) fn refuse_common_files<'a>(views: impl Iterator<Item = (Platform, &'a View)>) -> Result<(), Failure> {
    let mut seen: BTreeMap<ContainerPath, Platform> = BTreeMap::new();
    for (platform, view) in views {
        let mut twice = None;
        view.walk(&ContainerPath::root(), &mut |path, stat| {
            if !stat.kind.is_directory()
                && let Some(first) = seen.insert(path.clone(), platform.clone())
                && first != platform
            {
                twice.get_or_insert((path.clone(), first));
            }
            Ok(())
        })?;
        if let Some((path, first)) = twice {
            return Err(Failure::new(format!(
                "cannot overwrite {path} from {first} with {platform} when split option is disabled"
            ))
            .with_help("leave platform-split=false out: each platform then gets a directory"));
        }
    }
    Ok(())
}

/// Writes views as a tar to a stream.
fn tar_into(views: &[(String, View)], out: &mut dyn Write, epoch: Option<i64>) -> Result<(), Failure> {
    let mut tar = TarWriter::new(out);
    for (directory, view) in views {
        let mut names: BTreeMap<(u64, u64), ContainerPath> = BTreeMap::new();
        let mut failure = None;
        let top = ContainerPath::new(directory);
        view.walk(&ContainerPath::root(), &mut |path, stat| {
            if path.is_root() && top.is_root() {
                return Ok(());
            }
            let place = top.join(&path.as_bytes()[1..]);
            append(&mut tar, view, path, place, &dated(stat, epoch), &mut names).map_err(|error| {
                failure = Some(Failure::from_error(&format!("cannot write {path}"), &error));
                io::Error::from(io::ErrorKind::Other)
            })
        })
        .map_err(|error| failure.unwrap_or_else(|| Failure::from(error)))?;
    }
    tar.finish()?.flush()?;
    Ok(())
}

fn append(
    tar: &mut TarWriter<&mut dyn Write>,
    view: &View,
    path: &ContainerPath,
    place: ContainerPath,
    stat: &Stat,
    names: &mut BTreeMap<(u64, u64), ContainerPath>,
) -> io::Result<()> {
    let device = |major, minor| Device { major, minor };
    let kind = match stat.kind {
        FileKind::Directory => EntryKind::Directory,
        FileKind::Symlink => EntryKind::Symlink { target: view.read_link(path)? },
        FileKind::CharDevice { major, minor } => EntryKind::CharDevice(device(major, minor)),
        FileKind::BlockDevice { major, minor } => EntryKind::BlockDevice(device(major, minor)),
        FileKind::Fifo => EntryKind::Fifo,
        // A socket means nothing without its process.
        FileKind::Socket => return Ok(()),
        FileKind::File => match first_name(names, &place, stat) {
            Some(first) => EntryKind::Hardlink { target: first },
            None => EntryKind::file(stat.size),
        },
    };
    let is_file = matches!(kind, EntryKind::File { .. });
    let entry = Entry {
        path: place,
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: LayerTime { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds },
        xattrs: view.xattrs(path)?,
    };
    let appended =
        if is_file { tar.append(&entry, &mut view.open(path)?) } else { tar.append(&entry, &mut io::empty()) };
    appended.map_err(io::Error::other)
}

/// A file's metadata with the time that it leaves with.
fn dated(stat: &Stat, epoch: Option<i64>) -> Stat {
    let mtime = epoch.map_or(stat.mtime, |seconds| rbuild_cache::view::Timestamp { seconds, nanoseconds: 0 });
    Stat { mtime, ..*stat }
}

/// The name under which the same inode was written before; remembers this one otherwise.
fn first_name(
    names: &mut BTreeMap<(u64, u64), ContainerPath>,
    path: &ContainerPath,
    stat: &Stat,
) -> Option<ContainerPath> {
    if stat.links < 2 {
        return None;
    }
    match names.entry(stat.inode) {
        std::collections::btree_map::Entry::Occupied(known) => Some(known.get().clone()),
        std::collections::btree_map::Entry::Vacant(free) => {
            free.insert(path.clone());
            None
        }
    }
}

/// Writes a view as files below `dest`. They are made beside it first; then whole files are moved in, replacing those
/// of the same name, and what else is there stays. With `epoch` everything has that time.
pub fn write_local(view: &View, dest: &Path, epoch: Option<i64>) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(&format!("cannot write files below {}", dest.display()), error)
    };
    let parent = dest.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    let partial = parent.join(format!(".rbuild-{}.partial", std::process::id()));
    fs::create_dir(&partial).map_err(|error| failed(&error))?;
    let result = copy_out(view, &partial, epoch).and_then(|()| {
        if fs::symlink_metadata(dest).is_err() {
            return fs::rename(&partial, dest);
        }
        merge(&RootDir::open(&partial)?, &RootDir::open(dest)?)
    });
    // After a rename it is gone; after a merge it is empty directories.
    let _gone = fs::remove_dir_all(&partial);
    result.map_err(|error| failed(&error))
}

fn copy_out(view: &View, into: &Path, epoch: Option<i64>) -> io::Result<()> {
    let root = RootDir::open(into)?;
    let privileged = rustix::process::geteuid().is_root() && powers() == Powers::All;
    let mut names = BTreeMap::new();
    let mut directories = Vec::new();
    view.walk(&ContainerPath::root(), &mut |path, stat| {
        let Some((parent, name)) = root.open_parent(path)? else { return Ok(()) };
        let stat = &dated(stat, epoch);
        make(&root, &parent, name, view, path, stat, &mut names)?;
        if stat.kind.is_directory() {
            directories.push((path.clone(), *stat));
        } else {
            finish(&parent, name, view, path, stat, privileged)?;
        }
        Ok(())
    })?;
    // Directories last: filling them changes their times, and a read-only one cannot be filled.
    for (path, stat) in directories.iter().rev() {
        if let Some((parent, name)) = root.open_parent(path)? {
            finish(&parent, name, view, path, stat, privileged)?;
        }
    }
    Ok(())
}

fn make(
    root: &RootDir,
    parent: &DirFd,
    name: &OsStr,
    view: &View,
    path: &ContainerPath,
    stat: &Stat,
    names: &mut BTreeMap<(u64, u64), ContainerPath>,
) -> io::Result<()> {
    match stat.kind {
        FileKind::Directory => parent.create_dir(name, 0o700),
        FileKind::Symlink => parent.symlink(OsStr::from_bytes(&view.read_link(path)?), name),
        FileKind::CharDevice { major, minor } => parent.mknod(name, Node::CharDevice { major, minor }, 0o600),
        FileKind::BlockDevice { major, minor } => parent.mknod(name, Node::BlockDevice { major, minor }, 0o600),
        FileKind::Fifo => parent.mknod(name, Node::Fifo, 0o600),
        FileKind::Socket => Ok(()),
        FileKind::File => {
            if let Some(first) = first_name(names, path, stat)
                && let Some((from, from_name)) = root.open_parent(&first)?
            {
                return parent.hard_link(&from, from_name, name);
            }
            let mut file: File = parent.create_file(name, 0o600)?;
            io::copy(&mut view.open(path)?, &mut file).map(drop)
        }
    }
}

fn finish(
    parent: &DirFd,
    name: &OsStr,
    view: &View,
    path: &ContainerPath,
    stat: &Stat,
    privileged: bool,
) -> io::Result<()> {
    if stat.kind == FileKind::Socket {
        return Ok(());
    }
    if privileged {
        parent.chown(name, stat.uid, stat.gid)?;
    }
    if stat.kind != FileKind::Symlink {
        parent.chmod(name, stat.mode)?;
    }
    if matches!(stat.kind, FileKind::File | FileKind::Directory) {
        // After the owner: changing that takes capabilities away.
        for (attribute, value) in view.xattrs(path)? {
            // Not every file system takes every attribute, nor everybody may set it.
            let _unsupported = parent.set_xattr(name, OsStr::from_bytes(&attribute), &value);
        }
    }
    let time = Timestamp { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds };
    parent.set_times(name, time, time)
}

/// Moves everything below `from` into `to`.
fn merge(from: &RootDir, to: &RootDir) -> io::Result<()> {
    merge_directory(&from.open_dir(&ContainerPath::root())?, &to.open_dir(&ContainerPath::root())?)
}

fn merge_directory(from: &DirFd, to: &DirFd) -> io::Result<()> {
    for entry in from.list()? {
        let name = entry.name.as_os_str();
        let stat = from.lstat(name)?;
        let there = match to.lstat(name) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match there {
            Some(there) if there.kind == Directory && stat.kind == Directory => {
                merge_directory(&from.open_dir(name)?, &to.open_dir(name)?)?;
            }
            Some(there) => {
                if (there.kind == Directory) != (stat.kind == Directory) {
                    to.remove_all(name)?;
                }
                from.rename(name, to, name)?;
            }
            None => from.rename(name, to, name)?,
        }
    }
    Ok(())
}
