//! A view that grows layer by layer, as a build does: what small layers say is known by path, so that a look-up costs the same
//! however many there are.
//!
//! ```text
//! level 3   known: /out/c           asked ──> a large layer's reader
//! level 2   known: /out/b           "/out"   -> [(1, directory), (3, directory)]
//! level 1   known: /out, /out/a     "/out/a" -> [(1, file)]
//! base      a view of what was there before
//! ```
//!
//! One table serves all views of a line of layers: a view sees the levels up to its height. Who grows a view that somebody
//! grew already begins a table of his own on top of it. Nothing is ever taken out, since layers never change.
//!
//! The rules are those of a view: of a path counts the topmost statement that is not below something that hides it. What hides is
//! a whiteout, a directory that is opaque, and anything that is no directory, at any of the path's parents; the *floor* of a
//! directory is the lowest level that nothing hides, 0 where the base shows through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rbuild_image::ContainerPath;

use super::{DirEntry, LayerEntry, LayerReader, Stat, View, no_directory, relative};

/// Layers with more names are asked instead.
const MOST_NAMES: usize = 4096;
/// A table takes no more than this many names (some 300 bytes each); layers that come then are asked.
const MOST_TOGETHER: usize = 50_000;
/// How many tables may stand on each other.
const MOST_TABLES: usize = 16;

/// The levels up to a height of a table.
#[derive(Clone)]
pub(super) struct Grown {
    table: Arc<Table>,
    height: usize,
}

struct Table {
    base: View,
    /// How many tables this stands on.
    below: usize,
    levels: RwLock<Levels>,
}

#[derive(Default)]
struct Levels {
    /// Of each level, from level 1.
    readers: Vec<Arc<dyn LayerReader>>,
    /// What is known of their roots.
    roots: Vec<Option<Stat>>,
    /// The levels that are asked, ascending.
    asked: Vec<usize>,
    paths: HashMap<Vec<u8>, Known>,
    names: usize,
}

/// What is known of a path.
#[derive(Default)]
struct Known {
    /// What levels say, ascending.
    said: Vec<(usize, LayerEntry)>,
    /// The levels that hide what is lower, ascending, and the floor that each of them is.
    hides: Vec<(usize, usize)>,
    /// The names in this directory of which some level says something.
    names: BTreeSet<Vec<u8>>,
}

/// Everything that a small layer says.
pub(crate) struct Names {
    root: Option<Stat>,
    named: Vec<Named>,
}

struct Named {
    path: Vec<u8>,
    entry: LayerEntry,
    opaque: bool,
}

impl Names {
    /// Lists a layer; `None` where it has too many names.
    pub(crate) fn of(layer: &dyn LayerReader) -> io::Result<Option<Self>> {
        let mut found = Vec::new();
        let mut todo = vec![Vec::new()];
        while let Some(directory) = todo.pop() {
            for (name, entry) in layer.list(&directory)? {
                if found.len() == MOST_NAMES {
                    return Ok(None);
                }
                let path = if directory.is_empty() { name } else { [&directory[..], b"/", &name].concat() };
                let mut opaque = false;
                if is_directory(&entry) {
                    opaque = layer.is_opaque(&path)?;
                    todo.push(path.clone());
                }
                found.push(Named { path, entry, opaque });
            }
        }
        let root = match layer.lookup(b"")? {
            Some(LayerEntry::Present(stat)) => Some(stat),
            _ => None,
        };
        Ok(Some(Self { root, named: found }))
    }
}

/// What decides about a directory.
struct Place {
    floor: usize,
    /// The levels that are asked and have it, topmost first.
    asked: Vec<usize>,
}

impl Grown {
    /// `view` with a layer on top, of which all is known that it says, or which is asked; `None` when too many tables would
    /// stand on each other.
    pub(super) fn on(view: &View, layer: Arc<dyn LayerReader>, names: Option<Names>) -> Option<Self> {
        let (mut layer, mut names) = (layer, names);
        if let Some(grown) = &view.grown {
            match grown.table.put(grown.height, layer, names) {
                Ok(height) => return Some(Self { table: Arc::clone(&grown.table), height }),
                Err(taken) => (layer, names) = taken,
            }
        }
        let below = view.grown.as_ref().map_or(0, |grown| grown.table.below + 1);
        if below >= MOST_TABLES {
            return None;
        }
        let table = Arc::new(Table { base: view.clone(), below, levels: RwLock::default() });
        let height = table.put(0, layer, names).ok()?;
        Some(Self { table, height })
    }

    pub(super) fn find(&self, path: &ContainerPath) -> io::Result<Option<(Arc<dyn LayerReader>, Stat)>> {
        let levels = self.table.read();
        let Some(parent) = path.parent() else {
            for level in (1..=self.height).rev() {
                let known = levels.roots[level - 1].map(LayerEntry::Present);
                if let Some(root) = known.map_or_else(|| levels.reader(level).lookup(b""), |known| Ok(Some(known)))? {
                    return Ok(levels.decided(level, root));
                }
            }
            return self.table.base.find(path);
        };
        let place = levels.place(relative(&parent), self.height)?;
        let known = levels.paths.get(relative(path)).and_then(|known| latest(&known.said, self.height));
        let known = known.filter(|(level, _)| *level >= place.floor);
        for level in place.asked {
            if known.is_some_and(|(known, _)| *known > level) {
                break;
            }
            if let Some(entry) = levels.reader(level).lookup(relative(path))? {
                return Ok(levels.decided(level, entry));
            }
        }
        match known {
            Some((level, entry)) => Ok(levels.decided(*level, *entry)),
            None if place.floor == 0 => self.table.base.find(path),
            None => Ok(None),
        }
    }

    pub(super) fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        let levels = self.table.read();
        let place = levels.place(relative(path), self.height)?;
        let mut found: BTreeMap<Vec<u8>, (usize, LayerEntry)> = BTreeMap::new();
        let mut put = |name: Vec<u8>, level: usize, entry: LayerEntry| {
            let there = found.entry(name).or_insert((level, entry));
            if there.0 < level {
                *there = (level, entry);
            }
        };
        let known = levels.paths.get(relative(path));
        let mut exists = path.is_root() || !place.asked.is_empty();
        if let Some(known) = known {
            exists |= latest(&known.said, self.height)
                .is_some_and(|(level, entry)| *level >= place.floor && is_directory(entry));
            for name in &known.names {
                let path = path.join(name);
                let said = levels.paths.get(relative(&path)).and_then(|known| latest(&known.said, self.height));
                if let Some((level, entry)) = said.filter(|(level, _)| *level >= place.floor) {
                    put(name.clone(), *level, *entry);
                }
            }
        }
        for level in place.asked {
            for (name, entry) in levels.reader(level).list(relative(path))? {
                put(name, level, entry);
            }
        }
        if place.floor == 0 {
            match self.table.base.list(path) {
                Ok(entries) => {
                    exists = true;
                    entries.into_iter().for_each(|entry| put(entry.name, 0, LayerEntry::Present(entry.stat)));
                }
                Err(error) if exists && error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(error),
            }
        }
        if !exists {
            return Err(no_directory());
        }
        let present = |(name, (_, entry))| match entry {
            LayerEntry::Present(stat) => Some(DirEntry { name, stat }),
            LayerEntry::Whiteout => None,
        };
        Ok(found.into_iter().filter_map(present).collect())
    }

    /// How many layers there are, for people.
    pub(super) fn layers(&self) -> usize {
        self.height + self.table.base.depth()
    }
}

impl Table {
    fn read(&self) -> RwLockReadGuard<'_, Levels> {
        self.levels.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a layer on the level above `height`; gives back what it was given if there is one already.
    fn put(
        &self,
        height: usize,
        layer: Arc<dyn LayerReader>,
        names: Option<Names>,
    ) -> Result<usize, (Arc<dyn LayerReader>, Option<Names>)> {
        let mut levels = self.levels.write().unwrap_or_else(PoisonError::into_inner);
        if levels.readers.len() != height {
            return Err((layer, names));
        }
        let level = height + 1;
        levels.readers.push(layer);
        levels.roots.push(names.as_ref().and_then(|names| names.root));
        match names {
            Some(Names { named, .. }) if levels.names + named.len() <= MOST_TOGETHER => {
                levels.names += named.len();
                named.into_iter().for_each(|named| levels.note(level, named));
            }
            _ => levels.asked.push(level),
        }
        Ok(level)
    }
}

impl Levels {
    fn note(&mut self, level: usize, named: Named) {
        let Named { path, entry, opaque } = named;
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&b""[..], &path[..]),
        };
        match self.paths.get_mut(directory) {
            Some(known) => drop(known.names.insert(name.to_vec())),
            None => {
                let known = Known { names: BTreeSet::from([name.to_vec()]), ..Known::default() };
                self.paths.insert(directory.to_vec(), known);
            }
        }
        let known = self.paths.entry(path).or_default();
        // Most paths are said once.
        if known.said.is_empty() {
            known.said.reserve_exact(1);
        }
        known.said.push((level, entry));
        if !is_directory(&entry) {
            known.hides.push((level, level + 1));
        } else if opaque {
            known.hides.push((level, level));
        }
    }

    fn reader(&self, level: usize) -> &Arc<dyn LayerReader> {
        &self.readers[level - 1]
    }

    fn decided(&self, level: usize, entry: LayerEntry) -> Option<(Arc<dyn LayerReader>, Stat)> {
        match entry {
            LayerEntry::Whiteout => None,
            LayerEntry::Present(stat) => Some((self.reader(level).clone(), stat)),
        }
    }

    /// What decides about the directory `path` up to `height`. A level that is asked is never asked below something in it that
    /// is no directory.
    fn place(&self, path: &[u8], height: usize) -> io::Result<Place> {
        let asked = self.asked[..self.asked.partition_point(|level| *level <= height)].iter().rev().copied();
        let mut place = Place { floor: 0, asked: asked.collect() };
        for part in parts(path) {
            if let Some((_, floor)) = self.paths.get(part).and_then(|known| latest(&known.hides, height)) {
                place.floor = place.floor.max(*floor);
            }
            let mut have = Vec::new();
            for level in place.asked {
                if level < place.floor {
                    break;
                }
                match self.reader(level).lookup(part)? {
                    None => {}
                    Some(entry) if is_directory(&entry) => {
                        have.push(level);
                        if self.reader(level).is_opaque(part)? {
                            place.floor = level;
                            break;
                        }
                    }
                    Some(_) => {
                        place.floor = level + 1;
                        break;
                    }
                }
            }
            place.asked = have;
        }
        Ok(place)
    }
}

/// The topmost of these, which ascend, that is not above `height`.
fn latest<T>(of: &[(usize, T)], height: usize) -> Option<&(usize, T)> {
    of[..of.partition_point(|(level, _)| *level <= height)].last()
}

fn is_directory(entry: &LayerEntry) -> bool {
    matches!(entry, LayerEntry::Present(stat) if stat.kind.is_directory())
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`; nothing of the root.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let cuts = (1..=path.len()).filter(|end| path.get(*end).is_none_or(|byte| *byte == b'/'));
    cuts.map(|end| &path[..end])
}

#[cfg(test)]
mod tests;
