//! `ADD` of a local archive: recognised by content, unpacked with numeric owners (rule B-08: as a layer, except that
//! whiteout names are ordinary files).

use std::io::{self, Read};

use rbuild_cache::snapshot::{Content, Metadata};
use rbuild_cache::view::{FileBytes, FileKind, LastLink, Timestamp};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{Decoder, Entry, EntryKind, TarError, TarReader};

use super::FileError;
use super::copy::Copier;
use super::owner::Owner;
use super::select::Selected;
use super::source::SourceTree;

/// Whether a file is a tar, compressed or not, with at least one readable entry.
pub(super) fn is_archive(tree: &dyn SourceTree, selected: &Selected) -> Result<bool, FileError> {
    let file = open(tree, selected)?;
    let Ok(decoder) = Decoder::new(file) else { return Ok(false) };
    Ok(matches!(TarReader::new(decoder).next_entry(), Ok(Some(_))))
}

fn open(tree: &dyn SourceTree, selected: &Selected) -> Result<io::BufReader<FileBytes>, FileError> {
    let file = tree.open(&selected.path).map_err(|source| FileError::Read { path: selected.path.clone(), source })?;
    Ok(io::BufReader::with_capacity(128 * 1024, file))
}

/// Unpacks the archive `selected` into the existing directory `dest`.
pub(super) fn unpack(
    copier: &mut Copier<'_>,
    tree: &dyn SourceTree,
    selected: &Selected,
    dest: &ContainerPath,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    let decoder = Decoder::new(open(tree, selected)?)
        .map_err(|source| FileError::Read { path: selected.path.clone(), source })?;
    unpack_stream(copier, decoder, &selected.path, dest, owner)
}

/// Unpacks a tar that is called `name` into the existing directory `dest`.
pub(super) fn unpack_stream(
    copier: &mut Copier<'_>,
    tar: impl Read,
    name: &ContainerPath,
    dest: &ContainerPath,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    let broken = |source| FileError::Archive { path: name.clone(), source };
    let mut reader = TarReader::new(io::BufReader::with_capacity(256 * 1024, tar));
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        copier.check()?;
        place(copier, dest, &entry, owner, &mut reader)?;
    }
    // A checksum at the end of the compressed bytes is checked by reading up to it.
    reader.finish().map(drop).map_err(|error| broken(TarError::from(error)))
}

fn place(
    copier: &mut Copier<'_>,
    dest: &ContainerPath,
    entry: &Entry,
    owner: Option<Owner>,
    content: &mut dyn Read,
) -> Result<(), FileError> {
    let Some(name) = entry.path.file_name() else {
        return Ok(()); // The directory that it is unpacked into keeps its metadata.
    };
    let given = entry.path.parent().unwrap_or_else(ContainerPath::root);
    let parent = follow(copier, &dest.join(&given.as_bytes()[1..]), LastLink::Follow)?;
    copier.make_directories_with(&parent, &Metadata { mode: 0o755, ..Metadata::default() })?;
    let path = parent.join(name);
    let owner = owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid });
    let metadata = Metadata {
        mode: entry.mode,
        uid: owner.uid,
        gid: owner.gid,
        mtime: Some(Timestamp { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds }),
        xattrs: entry.xattrs.clone(),
    };
    let existing = copier.kind(&path)?;
    if entry.kind == EntryKind::Directory {
        match existing {
            Some(FileKind::Directory) => copier.writer.set_directory_metadata(&path, &metadata)?,
            Some(_) => {
                copier.writer.remove(&path)?;
                copier.writer.make_directory(&path, &metadata)?;
            }
            None => copier.writer.make_directory(&path, &metadata)?,
        }
        return Ok(());
    }
    let target = match &entry.kind {
        EntryKind::Hardlink { target } => Some(follow(copier, &dest.join(&target.as_bytes()[1..]), LastLink::Keep)?),
        _ => None,
    };
    if existing == Some(FileKind::Directory) {
        copier.writer.remove(&path)?;
    }
    match &entry.kind {
        EntryKind::File { size, sparse: None, .. } => {
            copier.writer.file(&path, &metadata, Content::Stream(content, *size))?;
        }
        EntryKind::File { size, sparse: Some(map), .. } => {
            copier.writer.file(&path, &metadata, Content::Sparse(content, map, *size))?;
        }
        EntryKind::Symlink { target } => copier.writer.symlink(&path, target, &metadata)?,
        EntryKind::Hardlink { .. } => {
            copier.writer.hard_link(&target.expect("resolved above for hard links"), &path)?;
        }
        EntryKind::CharDevice(device) if (device.major, device.minor) == (0, 0) => {}
        EntryKind::CharDevice(device) => {
            let kind = FileKind::CharDevice { major: device.major, minor: device.minor };
            copier.writer.node(&path, kind, &metadata)?;
        }
        EntryKind::BlockDevice(device) => {
            let kind = FileKind::BlockDevice { major: device.major, minor: device.minor };
            copier.writer.node(&path, kind, &metadata)?;
        }
        EntryKind::Fifo => copier.writer.node(&path, FileKind::Fifo, &metadata)?,
        EntryKind::Directory => {}
    }
    Ok(())
}

/// Resolves inside the image: links of an archive lead nowhere else.
fn follow(copier: &Copier<'_>, path: &ContainerPath, last: LastLink) -> Result<ContainerPath, FileError> {
    let found = copier.writer.resolve(path.as_bytes(), last);
    found.map(|found| found.path).map_err(|source| FileError::Read { path: path.clone(), source })
}
