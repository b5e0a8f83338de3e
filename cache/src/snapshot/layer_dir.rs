//! One immutable layer kept as a directory, read without following symlinks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{beneath, overlay, xattr};
use crate::view::{FileBytes, FileKind, LayerEntry, LayerReader, Stat, Xattrs};

/// A layer directory. Opened when it is first read: a stack of hundreds of layers costs nothing until then.
#[derive(Clone, Debug)]
pub(crate) struct LayerDir {
    path: PathBuf,
    fd: Arc<OnceLock<OwnedFd>>,
}

impl LayerDir {
    /// The layer directory at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), fd: Arc::default() }
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.path, flags, Mode::empty())?;
        // When another thread was faster, its descriptor stays and this one is closed.
        Ok(self.fd.get_or_init(|| opened).as_fd())
    }

    /// The directory that holds `path`, and the last component (empty for the root).
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(Parent<'_>, &'p [u8]), Errno> {
        match path.iter().rposition(|b| *b == b'/') {
            None => Ok((Parent::Root(self.fd()?), path)),
            Some(cut) => {
                let dir = beneath::open(self.fd()?, &path[..cut], OFlags::PATH | OFlags::DIRECTORY)?;
                Ok((Parent::Opened(dir), &path[cut + 1..]))
            }
        }
    }
}

/// A directory that is borrowed or was opened for one call.
enum Parent<'a> {
    Root(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// `None` where the call failed because there is nothing.
fn absent<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn entry_of(stat: Stat) -> LayerEntry {
    if stat.kind.is_whiteout_device() { LayerEntry::Whiteout } else { LayerEntry::Present(stat) }
}

impl LayerReader for LayerDir {
    fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>> {
        self.fd()?; // A layer that is gone is an error, not an empty one.
        let Some((dir, name)) = absent(self.parent(path))? else { return Ok(None) };
        Ok(absent(Stat::at(dir, name))?.map(entry_of))
    }

    fn is_opaque(&self, path: &[u8]) -> io::Result<bool> {
        if path.is_empty() {
            return Ok(false);
        }
        let (dir, name) = self.parent(path)?;
        Ok(overlay::is_opaque(dir, name)?)
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>> {
        let dir = beneath::open_dir(self.fd()?, path)?;
        let mut found = Vec::new();
        for name in names(&dir)? {
            if let Some(stat) = absent(Stat::at(&dir, &name))? {
                found.push((name, entry_of(stat)));
            }
        }
        Ok(found)
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
    }

    fn open(&self, path: &[u8]) -> io::Result<FileBytes> {
        let fd = beneath::open(self.fd()?, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if Stat::at(&fd, b"")?.kind != FileKind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(fd).into())
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Xattrs> {
        let (dir, name) = self.parent(path)?;
        Ok(xattr::read(dir, name, xattr::is_content)?)
    }
}

/// The names in an open directory, in byte order, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
