//! Files that a layer has and a layer above removes or replaces: they are in the image, and nobody sees them.

use std::io;

use super::{LayerEntry, LayerReader};

/// A regular file that nobody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Where it is, relative to the root.
    pub path: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
    /// The layer that has it, counted from the top.
    pub layer: usize,
    /// The layer above that hides it.
    pub by: usize,
    /// Whether that one has something else there.
    pub replaced: bool,
}

/// Calls `visit` for every regular file that one of these layers, topmost first, has and another of them hides, each once.
pub(crate) fn hidden(layers: Layers<'_>, visit: &mut dyn FnMut(Hidden)) -> io::Result<()> {
    for by in 0..layers.len() {
        let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(directory) = todo.pop() {
            if !directory.is_empty() && layers[by].is_opaque(&directory)? {
                for (name, entry) in below(layers, by, &directory)? {
                    let path = joined(&directory, &name);
                    // What the layer itself has there is met as its own entry.
                    if layers[by].lookup(&path)?.is_none() {
                        conceal(layers, by, &path, entry, false, visit)?;
                    }
                }
            }
            for (name, entry) in layers[by].list(&directory)? {
                let path = joined(&directory, &name);
                match entry {
                    LayerEntry::Present(stat) if stat.kind.is_directory() => todo.push(path),
                    LayerEntry::Present(_) => gone(layers, by, &path, true, visit)?,
                    LayerEntry::Whiteout => gone(layers, by, &path, false, visit)?,
                }
            }
        }
    }
    Ok(())
}

type Layers<'a> = &'a [std::sync::Arc<dyn LayerReader>];
/// What a layer says, and its position.
type Found = (usize, LayerEntry);

/// What layers below have in a directory, with the position of the topmost one that says something of each name.
fn below(layers: Layers<'_>, by: usize, directory: &[u8]) -> io::Result<Vec<(Vec<u8>, Found)>> {
    let mut known = std::collections::BTreeMap::new();
    for (position, layer) in layers.iter().enumerate().skip(by + 1) {
        match layer.lookup(directory)? {
            Some(LayerEntry::Present(stat)) if stat.kind.is_directory() => {}
            None => continue,
            Some(_) => break,
        }
        for (name, entry) in layer.list(directory)? {
            known.entry(name).or_insert((position, entry));
        }
        if layer.is_opaque(directory)? {
            break;
        }
    }
    Ok(known.into_iter().collect())
}

/// A path that `by` takes away.
fn gone(layers: Layers<'_>, by: usize, path: &[u8], replaced: bool, visit: &mut dyn FnMut(Hidden)) -> io::Result<()> {
    for (position, layer) in layers.iter().enumerate().skip(by + 1) {
        if let Some(entry) = layer.lookup(path)? {
            return conceal(layers, by, path, (position, entry), replaced, visit);
        }
    }
    Ok(())
}

/// Tells of a file, or of all that is below a directory.
fn conceal(
    layers: Layers<'_>,
    by: usize,
    path: &[u8],
    (layer, entry): Found,
    replaced: bool,
    visit: &mut dyn FnMut(Hidden),
) -> io::Result<()> {
    let LayerEntry::Present(stat) = entry else { return Ok(()) };
    if stat.kind.is_directory() {
        for (name, entry) in below(layers, by, path)? {
            conceal(layers, by, &joined(path, &name), entry, false, visit)?;
        }
    } else if stat.size > 0 {
        visit(Hidden { path: path.to_owned(), size: stat.size, layer, by, replaced });
    }
    Ok(())
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::{FileBytes, FileKind, Stat, Timestamp, Xattrs};
    use super::*;

    /// A layer by paths: a size, `None` for a whiteout; what ends in `/` is a directory, in `//` an opaque one.
    struct Fake(BTreeMap<String, Option<u64>>);

    fn layer(entries: &[(&str, Option<u64>)]) -> Arc<dyn LayerReader> {
        Arc::new(Fake(entries.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect()))
    }

    impl Fake {
        fn entry(&self, path: &str) -> Option<LayerEntry> {
            let time = Timestamp { seconds: 0, nanoseconds: 0 };
            let stat = |kind, size| Stat {
                kind,
                mode: 0,
                uid: 0,
                gid: 0,
                size,
                mtime: time,
                ctime: time,
                inode: (0, 0),
                links: 1,
                blocks: 0,
            };
            if let Some(size) = self.0.get(path) {
                return Some(size.map_or(LayerEntry::Whiteout, |size| LayerEntry::Present(stat(FileKind::File, size))));
            }
            let inside = |known: &String| path.is_empty() || known.starts_with(&format!("{path}/"));
            self.0.keys().any(inside).then(|| LayerEntry::Present(stat(FileKind::Directory, 0)))
        }
    }

    impl LayerReader for Fake {
        fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>> {
            Ok(self.entry(std::str::from_utf8(path).unwrap()))
        }

        fn is_opaque(&self, path: &[u8]) -> io::Result<bool> {
            Ok(self.0.contains_key(&format!("{}//", std::str::from_utf8(path).unwrap())))
        }

        fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>> {
            let path = std::str::from_utf8(path).unwrap();
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let names = self.0.keys().filter_map(|known| known.strip_prefix(&prefix)?.split('/').next());
            let names: std::collections::BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
            Ok(names
                .into_iter()
                .filter_map(|name| Some((name.as_bytes().to_vec(), self.entry(&format!("{prefix}{name}"))?)))
                .collect())
        }

        fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn open(&self, _: &[u8]) -> io::Result<FileBytes> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn xattrs(&self, _: &[u8]) -> io::Result<Xattrs> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// What is hidden in layers from the topmost down: `path size layer<by`, `=` where it is replaced.
    fn hidden(among: usize, layers: &[&[(&str, Option<u64>)]]) -> String {
        let layers: Vec<_> = layers.iter().take(among).map(|entries| layer(entries)).collect();
        let mut told = Vec::new();
        super::hidden(&layers, &mut |file| {
            let how = if file.replaced { "=" } else { "<" };
            told.push(format!(
                "{} {} {}{how}{}",
                String::from_utf8(file.path).unwrap(),
                file.size,
                file.layer,
                file.by
            ));
        })
        .unwrap();
        told.sort();
        told.join(", ")
    }

    #[test]
    fn deleted_and_replaced_files_are_told_once_with_the_layer_that_has_them() {
        let top: &[(&str, Option<u64>)] = &[("a/big", None), ("b", Some(3))];
        let middle: &[(&str, Option<u64>)] = &[("a/big", Some(7))];
        let low: &[(&str, Option<u64>)] = &[("a/big", Some(5)), ("b", Some(2)), ("c", Some(9))];
        assert_eq!(hidden(3, &[top, middle, low]), "a/big 5 2=1, a/big 7 1<0, b 2 2=0");
        assert_eq!(hidden(2, &[top, middle, low]), "a/big 7 1<0", "a base image is not looked at");
    }

    #[test]
    fn directories_that_are_deleted_or_made_anew_hide_all_that_is_below() {
        let low: &[(&str, Option<u64>)] = &[("d/x", Some(1)), ("d/e/y", Some(2)), ("k", Some(4))];
        assert_eq!(hidden(2, &[&[("d", None)], low]), "d/e/y 2 1<0, d/x 1 1<0");
        assert_eq!(hidden(2, &[&[("d//", Some(0)), ("d/x", Some(8))], low]), "d/e/y 2 1<0, d/x 1 1=0");
        assert_eq!(hidden(2, &[&[("d/z", Some(8))], low]), "", "directories merge");
    }
}
