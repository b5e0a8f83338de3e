//! Which files one copy takes. The copy itself and the digest of what it would take both ask here, so they cannot
//! disagree.

use std::collections::HashSet;
use std::io;

use rayon::prelude::*;
use rbuild_cache::view::{FileKind, LastLink, Stat, resolve};
use rbuild_image::ContainerPath;
use rbuild_parser::glob;
use rbuild_parser::{Ignore, MatchState};
use rbuild_solver::CopyAction;

use super::FileError;
use super::source::{SourceTree, pattern_path};

/// One source of a copy: a file, or a directory with what is taken of it.
#[derive(Debug)]
pub(super) struct Selected {
    /// Where it is, symlinks followed.
    pub(super) path: ContainerPath,
    /// The name it was found by; empty for the root.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// What is taken from inside, directories before their entries.
    pub(super) inside: Vec<Entry>,
}

/// Something inside a selected directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Relative to the selected directory.
    pub(super) relative: Vec<u8>,
    pub(super) stat: Stat,
    /// Whether it was selected itself, or is a directory on the way to something that was.
    pub(super) chosen: bool,
}

/// Finds what `action` takes from `tree`, in the order in which it is copied.
pub(super) fn select(action: &CopyAction, tree: &dyn SourceTree) -> Result<Vec<Selected>, FileError> {
    let exclude = Ignore::new(&action.exclude)?;
    if action.parents {
        return select_with_parents(action, tree, &exclude);
    }
    let mut selected = Vec::new();
    for found in expand(&action.source, tree)? {
        let Some(place) = locate(tree, &found)? else {
            if action.required || has_wildcards(&action.source) {
                return Err(FileError::NotFound { path: found });
            }
            continue;
        };
        let inside = if place.1.kind.is_directory() { walk(tree, &place.0, None, &exclude)? } else { Vec::new() };
        let name = found.file_name().unwrap_or_default().to_vec();
        selected.push(Selected { path: place.0, name, stat: place.1, inside });
    }
    Ok(selected)
}

/// Everything at `path`, which is no pattern.
pub(super) fn select_whole(tree: &dyn SourceTree, path: &ContainerPath) -> Result<Selected, FileError> {
    let Some((path, stat)) = locate(tree, path)? else { return Err(FileError::NotFound { path: path.clone() }) };
    let inside = if stat.kind.is_directory() { walk(tree, &path, None, &Ignore::default())? } else { Vec::new() };
    Ok(Selected { path, name: Vec::new(), stat, inside })
}

/// `--parents`: the source is a pattern below a directory, the context's root or what stands before `/./`.
fn select_with_parents(
    action: &CopyAction,
    tree: &dyn SourceTree,
    exclude: &Ignore,
) -> Result<Vec<Selected>, FileError> {
    let (base, pattern) = action.source.split_once("/./").unwrap_or(("/", &action.source));
    let pattern = ContainerPath::new(pattern);
    let include = pattern_path(&pattern);
    let include = if include.is_empty() { None } else { Some(Include::new(&include)?) };
    let exact = !has_wildcards(&action.source);
    let mut selected = Vec::new();
    for found in expand(base, tree)? {
        let below = || FileError::NotFound { path: found.join(&pattern.as_bytes()[1..]) };
        let Some((path, stat)) = locate(tree, &found)? else { return Err(FileError::NotFound { path: found }) };
        let name = found.file_name().unwrap_or_default().to_vec();
        if !stat.kind.is_directory() {
            if exact {
                return Err(below());
            }
            // Wildcards may lead to files: patterns do not filter what was named.
            selected.push(Selected { path, name, stat, inside: Vec::new() });
            continue;
        }
        let inside = walk(tree, &path, include.as_ref(), exclude)?;
        if inside.is_empty() && action.required && exact && include.is_some() {
            return Err(below());
        }
        selected.push(Selected { path, name, stat, inside });
    }
    Ok(selected)
}

/// Where `path` leads, and what is there.
fn locate(tree: &dyn SourceTree, path: &ContainerPath) -> Result<Option<(ContainerPath, Stat)>, FileError> {
    let read = |source| FileError::Read { path: path.clone(), source };
    let place = resolve(tree, path.as_bytes(), LastLink::Follow).map_err(read)?;
    if place.kind.is_none() {
        return Ok(None);
    }
    Ok(tree.stat(&place.path).map_err(read)?.map(|stat| (place.path, stat)))
}

/// Whether a component is a pattern; an escaped character is none, as in Go.
fn has_wildcards(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// The paths that a source names: itself, or what its wildcards match below their fixed part. Only the fixed part
/// leads through symlinks.
fn expand(source: &str, tree: &dyn SourceTree) -> Result<Vec<ContainerPath>, FileError> {
    let whole = ContainerPath::new(source);
    let text = String::from_utf8_lossy(whole.as_bytes()).into_owned();
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let Some(first) = parts.iter().position(|part| has_wildcards(part)) else { return Ok(vec![whole]) };
    let base = ContainerPath::new(parts[..first].join("/"));
    let read = |source| FileError::Read { path: base.clone(), source };
    let start = resolve(tree, base.as_bytes(), LastLink::Follow).map_err(read)?;
    if start.kind != Some(FileKind::Directory) {
        return Ok(Vec::new());
    }
    let mut found = vec![(start.path, FileKind::Directory)];
    for pattern in &parts[first..] {
        let mut next = Vec::new();
        for (path, kind) in found {
            if kind != FileKind::Directory {
                continue;
            }
            for entry in tree.list(&path).map_err(read)? {
                // A pattern that cannot be read matches nothing, as in BuildKit.
                if glob::matches(pattern.as_bytes(), &entry.name).unwrap_or(false) {
                    next.push((path.join(&entry.name), entry.stat.kind));
                }
            }
        }
        found = next;
    }
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

/// The pattern of a `--parents` source.
struct Include {
    patterns: Ignore,
    components: Vec<String>,
}

impl Include {
    fn new(pattern: &str) -> Result<Self, FileError> {
        Ok(Self { patterns: Ignore::new([pattern])?, components: pattern.split('/').map(str::to_owned).collect() })
    }

    /// Whether something below the directory `path`, which does not match itself, may match.
    fn may_match_below(&self, path: &str) -> bool {
        let mut components = self.components.iter();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match components.next() {
                None => return false,
                Some(part) if part == "**" => return true,
                Some(part) => {
                    if !glob::matches(part.as_bytes(), name.as_bytes()).unwrap_or(true) {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// A directory that is being walked, with what the patterns say of it.
struct Level {
    relative: Vec<u8>,
    include: MatchState,
    exclude: MatchState,
}

/// Everything that is taken from inside the directory `top`; one level of the tree at a time, its directories in
/// parallel.
fn walk(
    tree: &dyn SourceTree,
    top: &ContainerPath,
    include: Option<&Include>,
    exclude: &Ignore,
) -> Result<Vec<Entry>, FileError> {
    let root = Level { relative: Vec::new(), include: MatchState::default(), exclude: MatchState::default() };
    let (mut entries, mut level) = (Vec::new(), vec![root]);
    while !level.is_empty() {
        let listed: Vec<(Vec<Entry>, Vec<Level>)> = level
            .par_iter()
            .map(|directory| list_level(tree, top, directory, include, exclude))
            .collect::<Result<_, _>>()?;
        level = Vec::new();
        for (found, deeper) in listed {
            entries.extend(found);
            level.extend(deeper);
        }
    }
    keep_ways(&mut entries);
    entries.par_sort_unstable_by(|a, b| compare(&a.relative, &b.relative));
    Ok(entries)
}

fn list_level(
    tree: &dyn SourceTree,
    top: &ContainerPath,
    directory: &Level,
    include: Option<&Include>,
    exclude: &Ignore,
) -> Result<(Vec<Entry>, Vec<Level>), FileError> {
    let path = if directory.relative.is_empty() { top.clone() } else { top.join(&directory.relative) };
    let listed = tree.list(&path).map_err(|source: io::Error| FileError::Read { path, source })?;
    let (mut found, mut deeper) = (Vec::new(), Vec::new());
    for entry in listed {
        let mut relative = directory.relative.clone();
        if !relative.is_empty() {
            relative.push(b'/');
        }
        relative.extend_from_slice(&entry.name);
        let mut next =
            Level { relative: relative.clone(), include: MatchState::default(), exclude: MatchState::default() };
        let mut chosen = true;
        let mut enter = true;
        if include.is_some() || !exclude.is_empty() {
            let text = String::from_utf8_lossy(&relative).into_owned();
            if let Some(include) = include {
                (chosen, next.include) = include.patterns.step(&directory.include, &text);
                enter = chosen || include.may_match_below(&text);
            }
            if !exclude.is_empty() {
                let (excluded, state) = exclude.step(&directory.exclude, &text);
                next.exclude = state;
                chosen &= !excluded;
                enter &= !excluded || exclude.may_restore_below(&text);
            }
        }
        let is_directory = entry.stat.kind.is_directory();
        if is_directory && enter {
            deeper.push(next);
        }
        if chosen || (is_directory && enter) {
            found.push(Entry { relative, stat: entry.stat, chosen });
        }
    }
    Ok((found, deeper))
}

/// Drops directories that were only looked into and have nothing of interest.
fn keep_ways(entries: &mut Vec<Entry>) {
    let mut needed: HashSet<Vec<u8>> = HashSet::new();
    for entry in entries.iter().filter(|entry| entry.chosen) {
        let mut rest = entry.relative.as_slice();
        while let Some(cut) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = &rest[..cut];
            if !needed.insert(rest.to_vec()) {
                break;
            }
        }
    }
    entries.retain(|entry| entry.chosen || needed.contains(&entry.relative));
}

/// Byte order of names, directory by directory.
fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}
