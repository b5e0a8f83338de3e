//! A merged, read-only view of a chain of layers: what a mount of them would show, without mounting anything.
//!
//! Rules are overlayfs's: the topmost layer that says something about a name decides; directories of several layers
//! merge until one is opaque or hidden by something that is no directory; a whiteout ends the search. Symlinks resolve
//! inside the view (see [`resolve`]), so nothing outside it can be reached. Needs no privilege beyond reading the store.
//!
//! Which kind of layer is underneath shows in no signature: a layer is a [`LayerReader`].

mod bytes;
mod grown;
mod hidden;
mod parents;
mod resolve;
mod stat;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use grown::Grown;
use rbuild_image::ContainerPath;

pub use bytes::{FileBytes, Part};
pub(crate) use grown::Names;
pub use hidden::Hidden;
pub(crate) use hidden::hidden;
pub(crate) use parents::{LayerTree, Parents, resolve_member};
pub use resolve::{LastLink, Lookup, MAX_SYMLINKS, Resolved, resolve};
pub use stat::{FileKind, Stat, Timestamp, Xattrs};

/// What one layer says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerEntry {
    /// It removes the path of the layers below.
    Whiteout,
    /// It has it.
    Present(Stat),
}

/// One layer, by paths relative to its root (empty for the root). No method follows a symlink.
pub trait LayerReader: Send + Sync {
    /// What the layer says about `path`.
    fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>>;

    /// Whether the directory `path` hides those of the layers below.
    fn is_opaque(&self, path: &[u8]) -> io::Result<bool>;

    /// The entries of the directory `path`, in byte order of their names.
    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>>;

    /// The target of a symlink.
    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>>;

    /// Opens a regular file for reading.
    fn open(&self, path: &[u8]) -> io::Result<FileBytes>;

    /// The extended attributes that belong to the layer's content.
    fn xattrs(&self, path: &[u8]) -> io::Result<Xattrs>;
}

/// One name in a directory of a [`View`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Vec<u8>,
    /// Its metadata.
    pub stat: Stat,
}

/// Positions of the layers that make up one directory, topmost first; empty where there is no such directory.
type Contributors = Arc<[usize]>;

/// A merged read-only view. Several threads may use it at once; clones share what was looked up.
#[derive(Clone)]
pub struct View {
    /// Topmost first; none in one that has grown.
    layers: Arc<[Arc<dyn LayerReader>]>,
    directories: Arc<Mutex<HashMap<ContainerPath, Contributors>>>,
    grown: Option<Grown>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("layers", &self.depth()).finish_non_exhaustive()
    }
}

impl View {
    /// A view of `layers`, the topmost first.
    pub fn new(layers: Vec<Arc<dyn LayerReader>>) -> Self {
        let root: Contributors = (0..layers.len()).collect();
        let directories = Arc::new(Mutex::new(HashMap::from([(ContainerPath::root(), root)])));
        Self { layers: layers.into(), directories, grown: None }
    }

    /// An empty tree.
    pub fn empty() -> Self {
        Self::new(Vec::new())
    }

    /// This with a layer on top, of which `names` are all that it says, unless it is to be asked. Costs what the layer does,
    /// however many there are; `None` when views were grown from each other too often, so that a new one is better.
    pub(crate) fn grow(&self, layer: Arc<dyn LayerReader>, names: Option<Names>) -> Option<Self> {
        let grown = Grown::on(self, layer, names)?;
        Some(Self { grown: Some(grown), ..Self::empty() })
    }

    /// How many layers or merged ones it is made of.
    fn depth(&self) -> usize {
        self.grown.as_ref().map_or(self.layers.len(), Grown::layers)
    }

    /// The metadata of `path`, following no symlink anywhere in it; `None` when it does not exist.
    pub fn lstat(&self, path: &ContainerPath) -> io::Result<Option<Stat>> {
        Ok(self.find(path)?.map(|(_, stat)| stat))
    }

    /// Resolves `path` inside the view; missing components resolve to themselves.
    pub fn resolve(&self, path: impl AsRef<[u8]>, last: LastLink) -> io::Result<Resolved> {
        resolve(self, path, last)
    }

    /// The metadata of what `path` leads to, symlinks followed inside the view.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> io::Result<Option<Stat>> {
        self.lstat(&self.resolve(path, LastLink::Follow)?.path)
    }

    /// The target of the symlink at `path` (itself not resolved).
    pub fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
        let (layer, _) = self.find(path)?.ok_or_else(not_found)?;
        layer.read_link(relative(path))
    }

    /// Opens the regular file at `path`, following no symlink; never blocks.
    pub fn open(&self, path: &ContainerPath) -> io::Result<FileBytes> {
        let (layer, _) = self.find(path)?.ok_or_else(not_found)?;
        layer.open(relative(path))
    }

    /// The extended attributes of `path` that are content of its layer.
    pub fn xattrs(&self, path: &ContainerPath) -> io::Result<Xattrs> {
        let (layer, _) = self.find(path)?.ok_or_else(not_found)?;
        layer.xattrs(relative(path))
    }

    /// Reads the regular file that `path` leads to, symlinks followed inside the view; `None` when there is no such
    /// file, when it is no regular file, or when it is larger than `limit` bytes.
    pub fn read_regular(&self, path: impl AsRef<[u8]>, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let resolved = match self.resolve(path, LastLink::Follow) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Ok(None),
            other => other?,
        };
        match self.lstat(&resolved.path)? {
            Some(stat) if stat.kind == FileKind::File && stat.size <= limit => {}
            _ => return Ok(None),
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(self.open(&resolved.path)?, limit), &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The entries of the directory at `path` (no symlink followed), merged, in byte order of their names.
    pub fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        if let Some(grown) = &self.grown {
            return grown.list(path);
        }
        let contributors = self.contributors(path)?;
        if contributors.is_empty() && !path.is_root() {
            return Err(no_directory());
        }
        if let [only] = contributors.as_ref() {
            let present = |(name, entry)| match entry {
                LayerEntry::Present(stat) => Some(DirEntry { name, stat }),
                LayerEntry::Whiteout => None,
            };
            return Ok(self.layers[*only].list(relative(path))?.into_iter().filter_map(present).collect());
        }
        let mut merged: BTreeMap<Vec<u8>, LayerEntry> = BTreeMap::new();
        for layer in contributors.iter() {
            for (name, entry) in self.layers[*layer].list(relative(path))? {
                merged.entry(name).or_insert(entry);
            }
        }
        Ok(merged
            .into_iter()
            .filter_map(|(name, entry)| match entry {
                LayerEntry::Present(stat) => Some(DirEntry { name, stat }),
                LayerEntry::Whiteout => None,
            })
            .collect())
    }

    /// Calls `visit` for `path` and everything below it, parents before their entries, names in byte order.
    pub fn walk(
        &self,
        path: &ContainerPath,
        visit: &mut dyn FnMut(&ContainerPath, &Stat) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(stat) = self.lstat(path)? else { return Err(not_found()) };
        let mut todo = vec![(path.clone(), stat)];
        while let Some((path, stat)) = todo.pop() {
            visit(&path, &stat)?;
            if stat.kind.is_directory() {
                let entries = self.list(&path)?;
                todo.extend(entries.into_iter().rev().map(|entry| (path.join(&entry.name), entry.stat)));
            }
        }
        Ok(())
    }

    /// The layer that decides what `path` is, with what it says.
    fn find(&self, path: &ContainerPath) -> io::Result<Option<(Arc<dyn LayerReader>, Stat)>> {
        if let Some(grown) = &self.grown {
            return grown.find(path);
        }
        let Some(parent) = path.parent() else {
            for layer in self.layers.iter() {
                if let Some(LayerEntry::Present(stat)) = layer.lookup(b"")? {
                    return Ok(Some((layer.clone(), stat)));
                }
            }
            return Ok(None);
        };
        for layer in self.contributors(&parent)?.iter() {
            match self.layers[*layer].lookup(relative(path))? {
                None => {}
                Some(LayerEntry::Whiteout) => return Ok(None),
                Some(LayerEntry::Present(stat)) => return Ok(Some((self.layers[*layer].clone(), stat))),
            }
        }
        Ok(None)
    }

    /// The layers that make up the directory `path`.
    fn contributors(&self, path: &ContainerPath) -> io::Result<Contributors> {
        if let Some(known) = self.directories.lock().expect("no panic while held").get(path) {
            return Ok(known.clone());
        }
        let mut chosen = Vec::new();
        if let Some(parent) = path.parent() {
            for layer in self.contributors(&parent)?.iter() {
                let reader = &self.layers[*layer];
                match reader.lookup(relative(path))? {
                    None => {}
                    Some(LayerEntry::Present(stat)) if stat.kind.is_directory() => {
                        chosen.push(*layer);
                        if reader.is_opaque(relative(path))? {
                            break;
                        }
                    }
                    Some(_) => break,
                }
            }
        }
        let contributors: Contributors = chosen.into();
        self.directories.lock().expect("no panic while held").insert(path.clone(), contributors.clone());
        Ok(contributors)
    }
}

impl Lookup for View {
    fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>> {
        if path.is_root() {
            return Ok(Some(FileKind::Directory));
        }
        Ok(self.lstat(path)?.map(|stat| stat.kind))
    }

    fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
        Self::read_link(self, path)
    }
}

/// The path as layers know it: without the leading slash.
fn relative(path: &ContainerPath) -> &[u8] {
    &path.as_bytes()[1..]
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn no_directory() -> io::Error {
    io::Error::from(io::ErrorKind::NotADirectory)
}
