//! What files are copied from: a build context or another step's result, read alike.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::view::{DirEntry, FileBytes, FileKind, Lookup, Stat, Timestamp, View, Xattrs};
use rbuild_cache::{FileDigest, FileIndex, FileStamp};
use rbuild_executor::RootDir;
use rbuild_image::ContainerPath;
use rbuild_parser::{Ignore, MatchState};

/// A tree that files are copied from. Paths are free of symlinks (see [`rbuild_cache::view::resolve`]); what is ignored
/// does not exist.
pub(super) trait SourceTree: Lookup + Send + Sync {
    /// The metadata of `path`, as the copy will have it; `None` when it does not exist.
    fn stat(&self, path: &ContainerPath) -> io::Result<Option<Stat>>;

    /// The entries of a directory, in byte order of their names.
    fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>>;

    /// Opens a regular file.
    fn open(&self, path: &ContainerPath) -> io::Result<FileBytes>;

    /// The extended attributes that a copy gets.
    fn xattrs(&self, path: &ContainerPath) -> io::Result<Xattrs>;

    /// The digest of a regular file whose metadata is `stat`.
    fn digest(&self, path: &ContainerPath, stat: &Stat) -> io::Result<FileDigest>;
}

/// The root of a tree without layers: an empty directory, of which everything may be copied.
const NOTHING: Stat = Stat {
    kind: FileKind::Directory,
    mode: 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: Timestamp { seconds: 0, nanoseconds: 0 },
    ctime: Timestamp { seconds: 0, nanoseconds: 0 },
    inode: (0, 0),
    links: 1,
    blocks: 0,
};

impl SourceTree for View {
    fn stat(&self, path: &ContainerPath) -> io::Result<Option<Stat>> {
        let found = self.lstat(path)?;
        Ok(if path.is_root() { found.or(Some(NOTHING)) } else { found })
    }

    fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        Self::list(self, path)
    }

    fn open(&self, path: &ContainerPath) -> io::Result<FileBytes> {
        Self::open(self, path)
    }

    fn xattrs(&self, path: &ContainerPath) -> io::Result<Xattrs> {
        if path.is_root() && self.lstat(path)?.is_none() {
            return Ok(Xattrs::new());
        }
        Self::xattrs(self, path)
    }

    fn digest(&self, path: &ContainerPath, _: &Stat) -> io::Result<FileDigest> {
        FileDigest::of(Self::open(self, path)?)
    }
}

/// A directory of the user's as a build context: owners are root's, sockets and what the ignore file names do not exist,
/// attributes stay behind. A context that came as an archive or a repository is a [`View`]: it is what it is.
pub(super) struct ContextTree {
    root: RootDir,
    /// Remembers digests between builds.
    index: Option<Arc<FileIndex>>,
    ignore: Ignore,
}

impl std::fmt::Debug for ContextTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextTree").finish_non_exhaustive()
    }
}

impl ContextTree {
    /// A directory of the user's. `index` remembers digests between builds.
    pub(super) fn directory(path: &Path, ignore: Ignore, index: Option<Arc<FileIndex>>) -> io::Result<Self> {
        Ok(Self { root: RootDir::open(path)?, index, ignore })
    }

    /// What the ignore patterns say of everything above an entry of `path`.
    fn state_of(&self, path: &ContainerPath) -> MatchState {
        let mut state = MatchState::default();
        let mut so_far = ContainerPath::root();
        for name in path.components() {
            so_far = so_far.join(name);
            state = self.ignore.step(&state, &pattern_path(&so_far)).1;
        }
        state
    }

    /// Whether the entry exists for the build. An ignored directory does where something inside was taken back.
    fn is_visible(&self, path: &ContainerPath, ignored: bool, kind: FileKind) -> io::Result<bool> {
        if kind == FileKind::Socket {
            return Ok(false);
        }
        if !ignored {
            return Ok(true);
        }
        if !kind.is_directory() || !self.ignore.may_restore_below(&pattern_path(path)) {
            return Ok(false);
        }
        self.has_visible_entry(path)
    }

    /// Whether anything inside an ignored directory was taken back; looks no further than the first.
    fn has_visible_entry(&self, path: &ContainerPath) -> io::Result<bool> {
        let state = self.state_of(path);
        for entry in self.raw_list(path)? {
            let inside = path.join(&entry.name);
            let ignored = self.ignore.step(&state, &pattern_path(&inside)).0;
            if self.is_visible(&inside, ignored, entry.stat.kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn raw_stat(&self, path: &ContainerPath) -> io::Result<Option<Stat>> {
        let stat = if path.is_root() {
            Stat::at(self.root.open_dir(path)?, b"")
        } else {
            match self.root.open_parent(path) {
                Ok(Some((dir, name))) => Stat::at(dir, name.as_encoded_bytes()),
                Ok(None) => return Ok(None),
                Err(error) => return absent(error),
            }
        };
        stat.map(Some).or_else(|errno| absent(errno.into()))
    }

    fn raw_list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        let dir = self.root.open_dir(path)?;
        let mut entries = Vec::new();
        for entry in dir.list()? {
            let name = entry.name.as_encoded_bytes().to_vec();
            match Stat::at(&dir, &name) {
                Ok(stat) => entries.push(DirEntry { name, stat }),
                Err(rustix::io::Errno::NOENT) => {} // It went away meanwhile.
                Err(error) => return Err(error.into()),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

fn absent<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => Ok(None),
        _ => Err(error),
    }
}

/// As patterns see a path: relative, as text.
pub(super) fn pattern_path(path: &ContainerPath) -> String {
    String::from_utf8_lossy(&path.as_bytes()[1..]).into_owned()
}

fn owned_by_root(stat: Stat) -> Stat {
    Stat { uid: 0, gid: 0, ..stat }
}

impl Lookup for ContextTree {
    fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>> {
        Ok(self.stat(path)?.map(|stat| stat.kind))
    }

    fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
        Ok(self.root.read_link(path)?.into_encoded_bytes())
    }
}

impl SourceTree for ContextTree {
    fn stat(&self, path: &ContainerPath) -> io::Result<Option<Stat>> {
        let Some(stat) = self.raw_stat(path)? else { return Ok(None) };
        let Some(parent) = path.parent() else { return Ok(Some(owned_by_root(stat))) };
        let ignored = !self.ignore.is_empty() && self.ignore.step(&self.state_of(&parent), &pattern_path(path)).0;
        Ok(self.is_visible(path, ignored, stat.kind)?.then(|| owned_by_root(stat)))
    }

    fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        let state = self.state_of(path);
        let mut visible = Vec::new();
        for entry in self.raw_list(path)? {
            let inside = path.join(&entry.name);
            let ignored = !self.ignore.is_empty() && self.ignore.step(&state, &pattern_path(&inside)).0;
            if self.is_visible(&inside, ignored, entry.stat.kind)? {
                visible.push(DirEntry { stat: owned_by_root(entry.stat), ..entry });
            }
        }
        Ok(visible)
    }

    fn open(&self, path: &ContainerPath) -> io::Result<FileBytes> {
        Ok(self.root.open_file(path)?.into())
    }

    fn xattrs(&self, _: &ContainerPath) -> io::Result<Xattrs> {
        Ok(Xattrs::new())
    }

    fn digest(&self, path: &ContainerPath, stat: &Stat) -> io::Result<FileDigest> {
        let Some(index) = &self.index else { return FileDigest::of(self.open(path)?) };
        let nanoseconds =
            |time: Timestamp| time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds.into());
        let stamp = FileStamp {
            dev: stat.inode.0,
            ino: stat.inode.1,
            size: stat.size,
            mtime: nanoseconds(stat.mtime),
            ctime: nanoseconds(stat.ctime),
            mode: stat.mode,
        };
        let relative = &path.as_bytes()[1..];
        if let Some(known) = index.get(relative, &stamp) {
            return Ok(known);
        }
        let digest = FileDigest::of(self.open(path)?)?;
        index.insert(relative, stamp, digest);
        Ok(digest)
    }
}
