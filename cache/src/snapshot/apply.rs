//! Unpacking a layer that came from outside, on top of its parent (rules I-01 to I-07).
//!
//! Nothing an archive says is taken for a path on disk: parents resolve in memory, inside the tree made of the parent
//! and what was unpacked so far, and the [`LayerWriter`] touches only directories it made. Whiteouts hide lower layers
//! whatever their place in the archive; a whiteout and an entry of one name keep the entry. Attributes that overlayfs
//! acts on and character devices 0:0, its whiteouts, are left out.
//!
//! The bytes are hashed on their own thread while files are written on this one.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};

use rbuild_image::layer::whiteout::{InvalidWhiteout, Whiteout, classify};
use rbuild_image::layer::{Entry, EntryKind, TarError, TarReader};
use rbuild_image::write_behind::WriteBehind;
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Hashing};

use super::diff::LayerDiff;
use super::writer::{Content, LayerWriteError, LayerWriter, Metadata};
use crate::erofs::IndexError;
use crate::view::{FileKind, LastLink, LayerTree, Parents, Timestamp, resolve_member};

/// Bytes that travel from the reading to the unpacking thread at once.
const CHUNK: usize = 256 * 1024;
/// How many chunks may wait.
const CHUNKS: usize = 8;

/// Why a layer cannot be unpacked. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive is damaged, or asks for more than the limits allow.
    #[error("invalid layer")]
    Archive(#[from] TarError),
    /// The bytes did not come, or are not what they should be.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// A whiteout that names nothing.
    #[error("invalid layer")]
    Whiteout(#[from] InvalidWhiteout),
    /// An entry below a whiteout, which is no directory.
    #[error("invalid layer: {path} lies below a whiteout")]
    BelowWhiteout {
        /// The entry.
        path: ContainerPath,
    },
    /// The id that stands for "no change" in chown(2).
    #[error("invalid layer: {path} belongs to user or group 4294967295")]
    Owner {
        /// The entry.
        path: ContainerPath,
    },
    /// A hard link to something that is not there or is a directory, or a parent that is no directory.
    #[error(transparent)]
    Write(#[from] LayerWriteError),
    /// No index can be made of the archive.
    #[error(transparent)]
    Index(IndexError),
    /// The uncompressed bytes are not those that the image's config names.
    #[error("the layer's content has digest {found}, but the image says {expected}")]
    WrongDigest {
        /// What the config says.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
}

impl From<IndexError> for ApplyError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Archive(error) => Self::Archive(error),
            IndexError::Whiteout(error) => Self::Whiteout(error),
            IndexError::BelowWhiteout { path } => Self::BelowWhiteout { path },
            IndexError::Place { action, path, source } => Self::Write(LayerWriteError { action, path, source }),
            IndexError::Read(error) => Self::Read(error),
            other => Self::Index(other),
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) diff_id: DiffId,
    pub(super) size: u64,
}

impl Unpacked {
    /// What a layer from outside is known by: its own digest stands for its content.
    pub(super) fn as_diff(self) -> LayerDiff {
        let content_digest = ContentDigest::new(*self.diff_id.digest());
        LayerDiff { diff_id: self.diff_id, content_digest, size: self.size }
    }
}

/// Unpacks the uncompressed archive `tar` with `writer` and finishes it; the bytes must have the digest `expected`.
pub(super) fn unpack(
    tar: &mut (dyn Read + Send),
    expected: Option<DiffId>,
    writer: &mut LayerWriter,
) -> Result<Unpacked, ApplyError> {
    let ((), found) = pass(tar, None, expected, |chunks| unpack_entries(chunks, writer))?;
    writer.finish()?;
    Ok(found)
}

/// Hands the bytes of `tar` to `work` while they are hashed, and written to `kept`, by another thread. `work` takes all of
/// them; they must have the digest `expected`.
pub(super) fn pass<T>(
    tar: &mut (dyn Read + Send),
    mut kept: Option<WriteBehind>,
    expected: Option<DiffId>,
    work: impl FnOnce(&mut Chunks) -> Result<T, ApplyError>,
) -> Result<(T, Unpacked), ApplyError> {
    let (sender, receiver) = sync_channel(CHUNKS);
    let (done, hashed) = std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut tar = Hashing::new(tar);
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let result = (&mut tar).take(CHUNK as u64).read_to_end(&mut chunk);
                let result = result.and_then(|read| {
                    if let Some(kept) = &mut kept {
                        kept.write_all(&chunk)?;
                    }
                    Ok(read)
                });
                let last = matches!(result, Ok(0) | Err(_));
                // When the receiver is gone, the work failed and says why.
                if sender.send(result.map(|_| chunk)).is_err() || last {
                    let (_, digest, size) = tar.finish();
                    return Unpacked { diff_id: DiffId::new(digest), size };
                }
            }
        });
        let done = work(&mut Chunks { receiver, current: io::Cursor::default(), ended: false });
        (done, hashing.join())
    });
    let done = done?;
    let found = hashed.map_err(|_| ApplyError::Read(io::Error::other("the reading thread panicked")))?;
    match expected {
        Some(expected) if expected != found.diff_id => Err(ApplyError::WrongDigest { expected, found: found.diff_id }),
        _ => Ok((done, found)),
    }
}

/// Hands the bytes of `tar`, which another thread makes meanwhile, to `take` in pieces.
pub(super) fn chunked(
    tar: &mut (dyn Read + Send),
    mut take: impl FnMut(&[u8]) -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    let (sender, receiver) = sync_channel::<io::Result<Vec<u8>>>(CHUNKS);
    // Pieces that were taken, to be filled once more.
    let (give_back, empty) = sync_channel::<Vec<u8>>(CHUNKS + 2);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            loop {
                let mut chunk = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
                chunk.clear();
                let result = (&mut *tar).take(CHUNK as u64).read_to_end(&mut chunk);
                let last = matches!(result, Ok(0) | Err(_));
                // When the receiver is gone, the other side failed and says why.
                if sender.send(result.map(|_| chunk)).is_err() || last {
                    return;
                }
            }
        });
        let mut work = || {
            for chunk in &receiver {
                let chunk = chunk.map_err(ApplyError::Read)?;
                take(&chunk)?;
                drop(give_back.try_send(chunk));
            }
            Ok(())
        };
        let done = work();
        drop(receiver);
        reading.join().map_err(|_| ApplyError::Read(io::Error::other("the reading thread panicked")))?;
        done
    })
}

/// The chunks of the reading thread as a stream.
pub(super) struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(buf)?;
            if n > 0 || buf.is_empty() || self.ended {
                return Ok(n);
            }
            match self.receiver.recv() {
                Ok(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Ok(Ok(chunk)) => self.current = io::Cursor::new(chunk),
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

fn unpack_entries(tar: &mut Chunks, writer: &mut LayerWriter) -> Result<(), ApplyError> {
    let mut reader = TarReader::new(tar);
    let mut unpacker = Unpacker { writer, parents: Parents::default() };
    while let Some(entry) = reader.next_entry()? {
        unpacker.apply(&entry, &mut reader)?;
    }
    // What follows the end of the archive counts for the digest too.
    reader.finish().map_err(ApplyError::Read)?;
    Ok(())
}

struct Unpacker<'w> {
    writer: &'w mut LayerWriter,
    parents: Parents,
}

impl Unpacker<'_> {
    fn apply(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ApplyError> {
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(ApplyError::Owner { path: entry.path.clone() });
        }
        let Some(name) = entry.path.file_name() else {
            // The root: only its metadata (rule I-02; the reader refuses other types).
            return Ok(self.writer.set_directory_metadata(&entry.path, &metadata(entry))?);
        };
        let parent = self.parents.of(self.writer, &entry.path)?;
        match classify(name)? {
            Whiteout::None => self.place(entry, parent.join(name), content),
            Whiteout::Delete(gone) => Ok(self.writer.hide(&parent.join(gone))?),
            Whiteout::Opaque => Ok(self.writer.hide_all(&parent)?),
            Whiteout::Metadata => Ok(()),
        }
    }

    fn place(&mut self, entry: &Entry, path: ContainerPath, content: &mut dyn Read) -> Result<(), ApplyError> {
        let metadata = metadata(entry);
        if entry.kind == EntryKind::Directory {
            self.parents.forget();
            return Ok(self.writer.directory_entry(&path, &metadata)?);
        }
        if let EntryKind::CharDevice(device) = entry.kind
            && (device.major, device.minor) == (0, 0)
        {
            tracing::debug!(%path, "a character device 0:0 is left out");
            return Ok(());
        }
        if let EntryKind::Hardlink { target } = &entry.kind {
            let target = resolve_member(self.writer, target, LastLink::Keep)?.0;
            if target != path {
                self.make_room(&path)?;
            }
            return Ok(self.writer.hard_link(&target, &path)?);
        }
        self.make_room(&path)?;
        match &entry.kind {
            EntryKind::File { size, sparse: None } => {
                self.writer.file(&path, &metadata, Content::Stream(content, *size))?;
            }
            EntryKind::File { size, sparse: Some(map) } => {
                self.writer.file(&path, &metadata, Content::Sparse(content, map, *size))?;
            }
            EntryKind::Symlink { target } => self.writer.symlink(&path, target, &metadata)?,
            EntryKind::CharDevice(device) => {
                let kind = FileKind::CharDevice { major: device.major, minor: device.minor };
                self.writer.node(&path, kind, &metadata)?;
            }
            EntryKind::BlockDevice(device) => {
                let kind = FileKind::BlockDevice { major: device.major, minor: device.minor };
                self.writer.node(&path, kind, &metadata)?;
            }
            EntryKind::Fifo => self.writer.node(&path, FileKind::Fifo, &metadata)?,
            EntryKind::Directory | EntryKind::Hardlink { .. } => {}
        }
        Ok(())
    }

    /// Drops what this layer has at `path`; a file or link hides what the parent has there by itself.
    fn make_room(&mut self, path: &ContainerPath) -> Result<(), ApplyError> {
        self.parents.forget_below(path);
        Ok(self.writer.discard(path)?)
    }
}

impl LayerTree for LayerWriter {
    type Error = ApplyError;

    fn note_dependence(&mut self) {
        Self::note_dependence(self);
    }

    fn make_directories(&mut self, path: &ContainerPath) -> Result<(), ApplyError> {
        Self::make_directories(self, path, &Metadata { mode: 0o755, ..Metadata::default() })?;
        Ok(())
    }

    fn below_whiteout(path: &ContainerPath) -> ApplyError {
        ApplyError::BelowWhiteout { path: path.clone() }
    }

    fn unresolved(path: &ContainerPath, source: io::Error) -> ApplyError {
        ApplyError::Write(LayerWriteError { action: "resolve", path: path.clone(), source })
    }
}

pub(super) fn metadata(entry: &Entry) -> Metadata {
    Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: Some(Timestamp { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds }),
        xattrs: entry.xattrs.clone(),
    }
}
