//! The root file system of a result as files below a directory.
//!
//! They are made beside it first; then whole files are moved in, replacing those of the same name. A file that is there
//! with the same bytes stays: it is read, not written, and keeps its inode. What else is there stays too, unless the
//! directory is to become what the result is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_executor::FileKind::{Directory, File as RegularFile};
use rbuild_executor::user_namespace::{Powers, powers};
use rbuild_executor::{DirFd, Node, RootDir, Timestamp};
use rbuild_image::ContainerPath;

use super::files::{ATTESTED_MODE, Tree, dated, first_name};
use crate::cli::report::Failure;
use crate::request::OtherFiles;

/// Writes trees as files below `dest`, each in its directory. With `epoch` everything has that time.
pub fn write_local(trees: &[Tree], dest: &Path, epoch: Option<i64>, others: OtherFiles) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(&format!("cannot write files below {}", dest.display()), error)
    };
    for tree in trees {
        let place = if tree.directory.is_empty() { dest.to_owned() } else { dest.join(&tree.directory) };
        write_tree(tree, &place, epoch).map_err(|error| failed(&error))?;
    }
    if others == OtherFiles::Removed {
        let remove = || {
            let root = RootDir::open(dest)?;
            remove_others(trees, &root.open_dir(&ContainerPath::root())?, &ContainerPath::root())
        };
        remove().map_err(|error: io::Error| failed(&error))?;
    }
    Ok(())
}

fn write_tree(tree: &Tree, dest: &Path, epoch: Option<i64>) -> io::Result<()> {
    let parent = dest.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let partial = parent.join(format!(".rbuild-{}.partial", std::process::id()));
    fs::create_dir(&partial)?;
    let fill = || {
        let there = match fs::symlink_metadata(dest) {
            Ok(_) => Some(RootDir::open(dest)?),
            Err(_) => None,
        };
        let copy = Copy {
            view: &tree.view,
            epoch,
            privileged: rustix::process::geteuid().is_root() && powers() == Powers::All,
            there: there.as_ref(),
        };
        let kept = copy.out(&partial)?;
        for (name, bytes) in &tree.attested {
            let mut file = File::create(partial.join(name))?;
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(ATTESTED_MODE))?;
            let time = u64::try_from(epoch.unwrap_or(tree.attested_at)).unwrap_or(0);
            file.set_modified(UNIX_EPOCH + Duration::from_secs(time))?;
        }
        let Some(there) = &there else { return fs::rename(&partial, dest) };
        merge(&RootDir::open(&partial)?, there)?;
        copy.touch_up(there, &kept)
    };
    let result = fill();
    // After a rename it is gone; after a merge it is empty directories.
    let _gone = fs::remove_dir_all(&partial);
    result
}

/// Files on their way out.
struct Copy<'a> {
    view: &'a View,
    epoch: Option<i64>,
    /// Whether owners can be given.
    privileged: bool,
    /// The directory that they go to, where it is there already.
    there: Option<&'a RootDir>,
}

impl Copy<'_> {
    /// Writes everything into a new directory but the files that need not be; gives these.
    fn out(&self, into: &Path) -> io::Result<Vec<(ContainerPath, Stat)>> {
        let root = RootDir::open(into)?;
        let mut names = BTreeMap::new();
        let (mut directories, mut kept) = (Vec::new(), Vec::new());
        self.view.walk(&ContainerPath::root(), &mut |path, stat| {
            let Some((parent, name)) = root.open_parent(path)? else { return Ok(()) };
            let stat = &dated(stat, self.epoch);
            if self.is_there(path, stat)? {
                kept.push((path.clone(), *stat));
                return Ok(());
            }
            make(&root, &parent, name, self.view, path, stat, &mut names)?;
            if stat.kind.is_directory() {
                directories.push((path.clone(), *stat));
            } else {
                finish(&parent, name, self.view, path, stat, self.privileged)?;
            }
            Ok(())
        })?;
        // Directories last: filling them changes their times, and a read-only one cannot be filled.
        for (path, stat) in directories.iter().rev() {
            if let Some((parent, name)) = root.open_parent(path)? {
                finish(&parent, name, self.view, path, stat, self.privileged)?;
            }
        }
        Ok(kept)
    }

    /// Whether a file with these bytes is there, and is no other name of something else.
    fn is_there(&self, path: &ContainerPath, stat: &Stat) -> io::Result<bool> {
        let Some(there) = self.there.filter(|_| stat.kind == FileKind::File && stat.links < 2) else {
            return Ok(false);
        };
        // Whatever is in the way is replaced, not read.
        let Ok(Some((parent, name))) = there.open_parent(path) else { return Ok(false) };
        let alike = |own: &rbuild_executor::Stat| own.kind == RegularFile && own.size == stat.size && own.links == 1;
        if !parent.lstat(name).is_ok_and(|own| alike(&own)) {
            return Ok(false);
        }
        let Ok(file) = parent.open_file(name) else { return Ok(false) };
        same_bytes(BufReader::with_capacity(PIECE, self.view.open(path)?), BufReader::with_capacity(PIECE, file))
    }

    /// Gives files that stayed the metadata that they are to have.
    fn touch_up(&self, there: &RootDir, kept: &[(ContainerPath, Stat)]) -> io::Result<()> {
        for (path, stat) in kept {
            let Some((parent, name)) = there.open_parent(path)? else { continue };
            let own = parent.lstat(name)?;
            let owner = !self.privileged || (own.uid, own.gid) == (stat.uid, stat.gid);
            let time = Timestamp { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds };
            let known = own.mode == stat.mode && owner && own.modified == time;
            if !known || !self.view.xattrs(path)?.is_empty() {
                finish(&parent, name, self.view, path, stat, self.privileged)?;
            }
        }
        Ok(())
    }
}

/// How much is compared at once.
const PIECE: usize = 128 << 10;

fn same_bytes(mut one: impl BufRead, mut other: impl BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Removes what no tree has.
fn remove_others(trees: &[Tree], there: &DirFd, path: &ContainerPath) -> io::Result<()> {
    let mut wanted: BTreeSet<Vec<u8>> = BTreeSet::new();
    for tree in trees {
        let top = tree.top();
        if !path.starts_with(&top) {
            // Not above several levels: a tree's directory is one name.
            wanted.extend(top.file_name().map(<[u8]>::to_vec));
            continue;
        }
        if path == &top {
            wanted.extend(tree.attested.iter().map(|(name, _)| name.clone().into_bytes()));
        }
        let inside = ContainerPath::new(&path.as_bytes()[top.as_bytes().len().min(path.as_bytes().len())..]);
        if tree.view.lstat(&inside)?.is_some_and(|stat| stat.kind.is_directory()) {
            wanted.extend(tree.view.list(&inside)?.into_iter().map(|entry| entry.name));
        }
    }
    for entry in there.list()? {
        let name = entry.name.as_os_str();
        if !wanted.contains(name.as_bytes()) {
            there.remove_all(name)?;
        } else if there.lstat(name)?.kind == Directory {
            remove_others(trees, &there.open_dir(name)?, &path.join(name.as_bytes()))?;
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
