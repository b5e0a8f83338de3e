//! The digest of exactly what a step reads from one of its sources.
//!
//! ```text
//! SHA-256 over "rbuild selection 1\n", then per source in order, per file in the order of the copy:
//!   letter · path length (u64) path · mode, uid, gid (u32) · detail length (u64) detail · attributes
//! letter:  s a source that was named (path: the name it was found by), e something inside (path: relative),
//!          w a directory on the way to something inside (mode only)
//! detail:  f and BLAKE3 of the bytes · d · l and the target · c, b and the numbers · p · h and the first name
//! ```
//!
//! All numbers little endian. No times: a touched file is the same file.

use std::collections::HashMap;
use std::io::{self, Write};

use rayon::prelude::*;
use rbuild_cache::view::{FileKind, Stat, Xattrs};
use rbuild_cache::{FileDigest, ListedFile, Listing};
use rbuild_image::{ContainerPath, ContentDigest, Hashing};
use rbuild_solver::{FileAction, FileOp};

use super::FileError;
use super::select::{Selected, select, select_whole};
use super::source::SourceTree;

/// Digests what `op` reads through input number `input`, whose tree is `source`.
/// Lists the files as well where a list is given.
pub(super) fn selection_digest(
    op: &FileOp,
    input: usize,
    source: &dyn SourceTree,
    mut listing: Option<&mut Listing>,
) -> Result<ContentDigest, FileError> {
    let mut digest = begin();
    for action in &op.actions {
        if let FileAction::Copy(copy) = action
            && copy.input == Some(input)
        {
            for selected in select(copy, source)? {
                add(&mut digest, source, &selected, listing.as_deref_mut())?;
            }
            write(&mut digest, b".");
        }
    }
    Ok(end(digest))
}

/// Digests the files and directories at `paths` with everything below them, for mounts of them.
/// Lists them as well where a list is given.
pub(super) fn tree_digest(
    source: &dyn SourceTree,
    paths: &[&ContainerPath],
    mut listing: Option<&mut Listing>,
) -> Result<ContentDigest, FileError> {
    let mut digest = begin();
    for path in paths {
        add(&mut digest, source, &select_whole(source, path)?, listing.as_deref_mut())?;
        write(&mut digest, b".");
    }
    Ok(end(digest))
}

type Sink = Hashing<io::Sink>;

fn begin() -> Sink {
    let mut digest = Hashing::new(io::sink());
    write(&mut digest, b"rbuild selection 1\n");
    digest
}

fn end(digest: Sink) -> ContentDigest {
    ContentDigest::new(digest.finish().1)
}

fn write(digest: &mut Sink, bytes: &[u8]) {
    digest.write_all(bytes).expect("a sink takes everything");
}

fn write_field(digest: &mut Sink, bytes: &[u8]) {
    write(digest, &(bytes.len() as u64).to_le_bytes());
    write(digest, bytes);
}

/// What had to be read of one file.
struct Read {
    content: Option<FileDigest>,
    target: Vec<u8>,
    xattrs: Xattrs,
}

fn add(
    digest: &mut Sink,
    source: &dyn SourceTree,
    selected: &Selected,
    mut listing: Option<&mut Listing>,
) -> Result<(), FileError> {
    let mut first_names: HashMap<(u64, u64), &[u8]> = HashMap::new();
    let files: Vec<(ContainerPath, &Stat)> = std::iter::once((selected.path.clone(), &selected.stat))
        .chain(selected.inside.iter().map(|entry| (selected.path.join(&entry.relative), &entry.stat)))
        .collect();
    let read: Vec<Read> =
        files.par_iter().map(|(path, stat)| read_one(source, path, stat)).collect::<Result<_, _>>()?;
    for (number, ((path, stat), read)) in files.iter().zip(read).enumerate() {
        let entry = number.checked_sub(1).map(|position| &selected.inside[position]);
        let (letter, name) = match entry {
            None => (b's', selected.name.as_slice()),
            Some(entry) if entry.chosen => (b'e', entry.relative.as_slice()),
            Some(entry) => (b'w', entry.relative.as_slice()),
        };
        write(digest, &[letter]);
        write_field(digest, name);
        for value in [stat.mode, stat.uid, stat.gid] {
            write(digest, &value.to_le_bytes());
        }
        let first =
            (stat.links > 1 && stat.kind == FileKind::File).then(|| first_names.insert(stat.inode, name)).flatten();
        if let Some(first) = first {
            first_names.insert(stat.inode, first);
        }
        let detail = detail(stat.kind, &read, first);
        if let Some(listing) = &mut listing {
            listing.push(listed(path, stat, &detail, &read.xattrs));
        }
        write_field(digest, &detail);
        write(digest, &(read.xattrs.len() as u64).to_le_bytes());
        for (attribute, value) in &read.xattrs {
            write_field(digest, attribute);
            write_field(digest, value);
        }
    }
    Ok(())
}

/// What is remembered of a file, to say later what changed.
fn listed(path: &ContainerPath, stat: &Stat, detail: &[u8], xattrs: &Xattrs) -> ListedFile {
    let start = |bytes: &[u8]| {
        let digest = FileDigest::of(bytes).expect("memory can be read");
        *digest.as_bytes().first_chunk().expect("a digest has 32 bytes")
    };
    let kind = detail.first().copied().unwrap_or(b'p');
    let mark = match detail {
        [b'f', content @ ..] => content.first_chunk().copied().unwrap_or_default(),
        _ => start(detail),
    };
    let mut attributes = [0; 8];
    if !xattrs.is_empty() {
        let mut bytes = Vec::new();
        for part in xattrs.iter().flat_map(|(name, value)| [name.as_slice(), value.as_slice()]) {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        attributes = start(&bytes);
    }
    let kind = if kind == b'h' { b'f' } else { kind };
    ListedFile {
        path: path.as_bytes()[1..].to_vec(),
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: if stat.kind == FileKind::File { stat.size } else { 0 },
        mark,
        attributes,
    }
}

fn read_one(source: &dyn SourceTree, path: &ContainerPath, stat: &Stat) -> Result<Read, FileError> {
    let failed = |source| FileError::Read { path: path.clone(), source };
    Ok(Read {
        content: match stat.kind {
            FileKind::File => Some(source.digest(path, stat).map_err(failed)?),
            _ => None,
        },
        target: match stat.kind {
            FileKind::Symlink => source.read_link(path).map_err(failed)?,
            _ => Vec::new(),
        },
        xattrs: source.xattrs(path).map_err(failed)?,
    })
}

fn detail(kind: FileKind, read: &Read, first: Option<&[u8]>) -> Vec<u8> {
    match (kind, first, &read.content) {
        (_, Some(first), _) => [b"h", first].concat(),
        (FileKind::File, _, Some(content)) => [&b"f"[..], content.as_bytes()].concat(),
        (FileKind::File, _, None) => b"f".to_vec(),
        (FileKind::Directory, ..) => b"d".to_vec(),
        (FileKind::Symlink, ..) => [b"l", read.target.as_slice()].concat(),
        (FileKind::CharDevice { major, minor }, ..) => format!("c{major}:{minor}").into_bytes(),
        (FileKind::BlockDevice { major, minor }, ..) => format!("b{major}:{minor}").into_bytes(),
        (FileKind::Fifo | FileKind::Socket, ..) => b"p".to_vec(),
    }
}
