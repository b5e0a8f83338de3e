//! A finished layer directory as a layer: the same directory always becomes the same tar.
//!
//! Entries come in the order of a depth-first walk by names in bytes. Whiteouts get their `.wh.` names back, an opaque
//! directory is followed by its marker. Of several names of one file the first has the content and the others link to
//! it. Files are written out in full: layers with sparse entries are not taken apart and put together again correctly by
//! all engines. The root has no entry, as in the layers BuildKit makes.
//!
//! One pass gives the tar, its digest and the content digest. Contents of small files are read ahead on the pool; the
//! tar is hashed and passed on by a thread of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rbuild_image::layer::whiteout::{OPAQUE, whiteout_of};
use rbuild_image::layer::{
    Device, Entry, EntryKind, FileContent, FileHasher, LayerHasher, TarWriteError, TarWriter, Timestamp,
};
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest, Hashing};

use super::layer_dir::LayerDir;
use super::scan::{Detail, Scanned, open_file, scan};
use super::writer::read_whole;
use crate::view::{FileKind, Stat};

/// Files up to this size are read ahead.
const SMALL: u64 = 256 * 1024;
/// A batch that is read ahead ends at this many entries or bytes.
const BATCH_ENTRIES: usize = 512;
const BATCH_BYTES: u64 = 8 << 20;
/// Bytes that travel to the hashing thread at once.
const CHUNK: usize = 256 * 1024;

/// A layer, measured: what images and caches know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerDiff {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// What it holds, without times.
    pub content_digest: ContentDigest,
    /// Length of the uncompressed tar.
    pub size: u64,
}

/// What happens to times when a layer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// They stay.
    #[default]
    Kept,
    /// Later ones become this many seconds since the epoch (`rewrite-timestamp`).
    ClampedTo(i64),
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The layer's files cannot be read.
    #[error("cannot read the layer's files")]
    Read(#[source] io::Error),
    /// An entry cannot be written.
    #[error(transparent)]
    Write(#[from] TarWriteError),
    /// The bytes did not go out.
    #[error("cannot write the layer")]
    Output(#[source] io::Error),
}

/// Writes `layer` as a tar to `out`.
pub(super) fn write_tar(layer: &LayerDir, times: Times, out: &mut (dyn Write + Send)) -> Result<LayerDiff, DiffError> {
    let planned = plan(scan(layer, Detail::Full).map_err(DiffError::Read)?, times);
    let (to_hash, chunks) = sync_channel(8);
    let (to_write, batches) = sync_channel(1);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || hash_chunks(&chunks, out));
        let planned = &planned;
        let reading = scope.spawn(move || read_ahead(layer, planned, &to_write));
        let written = write_entries(layer, batches, to_hash);
        let hashed = hashing.join().map_err(|_| DiffError::Output(io::Error::other("the hashing thread panicked")))?;
        reading.join().map_err(|_| DiffError::Read(io::Error::other("the reading thread panicked")))?;
        // When the hashing thread ended early, writing only saw a closed channel.
        let (diff_id, size) = hashed.map_err(DiffError::Output)?;
        Ok(LayerDiff { diff_id: DiffId::new(diff_id), content_digest: written?, size })
    })
}

/// One entry to be written, and the file whose bytes it has.
#[derive(Debug)]
struct Planned {
    entry: Entry,
    content: Option<Vec<u8>>,
}

fn plan(scanned: Vec<Scanned>, times: Times) -> Vec<Planned> {
    let mut planned = Vec::with_capacity(scanned.len());
    let mut first_names: HashMap<(u64, u64), ContainerPath> = HashMap::new();
    for found in scanned {
        let path = ContainerPath::new(&found.path);
        if found.is_whiteout() {
            let (parent, name) = (path.parent(), path.file_name().unwrap_or_default());
            let hidden = parent.unwrap_or_else(ContainerPath::root).join(whiteout_of(name));
            planned.push(Planned { entry: Entry::new(hidden, EntryKind::file(0), 0), content: None });
            continue;
        }
        let Scanned { path: relative, stat, opaque, xattrs, target } = found;
        let link =
            (stat.links > 1 && !stat.kind.is_directory()).then(|| first_names.get(&stat.inode).cloned()).flatten();
        let kind = match (link, stat.kind) {
            (Some(target), _) => EntryKind::Hardlink { target },
            (None, FileKind::File) => EntryKind::file(stat.size),
            (None, FileKind::Directory) => EntryKind::Directory,
            (None, FileKind::Symlink) => EntryKind::Symlink { target },
            (None, FileKind::CharDevice { major, minor }) => EntryKind::CharDevice(Device { major, minor }),
            (None, FileKind::BlockDevice { major, minor }) => EntryKind::BlockDevice(Device { major, minor }),
            (None, FileKind::Fifo) => EntryKind::Fifo,
            (None, FileKind::Socket) => continue,
        };
        if stat.links > 1 && !stat.kind.is_directory() {
            first_names.entry(stat.inode).or_insert_with(|| path.clone());
        }
        let content = (matches!(kind, EntryKind::File { .. }) && stat.size > 0).then_some(relative);
        let mode = if stat.kind == FileKind::Symlink { 0o777 } else { stat.mode };
        let entry = Entry {
            uid: stat.uid,
            gid: stat.gid,
            mtime: time_of(&stat, times),
            xattrs,
            ..Entry::new(path, kind, mode)
        };
        let marker = opaque.then(|| Entry::new(entry.path.join(OPAQUE), EntryKind::file(0), 0));
        planned.push(Planned { entry, content });
        planned.extend(marker.map(|entry| Planned { entry, content: None }));
    }
    planned
}

fn time_of(stat: &Stat, times: Times) -> Timestamp {
    let own = Timestamp { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds };
    match times {
        Times::ClampedTo(limit) => own.min(Timestamp { seconds: limit, nanoseconds: 0 }),
        Times::Kept => own,
    }
}

/// The bytes of one entry, as far as they were read ahead.
enum Content {
    None,
    Read(Vec<u8>, FileContent),
    Open(File),
}

/// Threads that only read files. Not the common pool: whoever measures layers on that one waits here, and with all of its
/// threads waiting nobody would be left to read.
fn readers() -> &'static ThreadPool {
    static READERS: LazyLock<ThreadPool> = LazyLock::new(|| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|_| "read-ahead".to_owned())
            .build()
            .expect("a process that can start threads at all can start these")
    });
    &READERS
}

type Batch<'p> = Vec<(&'p Planned, Content)>;

fn read_ahead<'p>(layer: &LayerDir, planned: &'p [Planned], batches: &SyncSender<io::Result<Batch<'p>>>) {
    let mut rest = planned;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |planned: &&Planned| {
            bytes += planned.entry.stored_size().min(SMALL);
            bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH_ENTRIES).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        let read = |planned: &'p Planned| {
            let Some(path) = &planned.content else { return Ok((planned, Content::None)) };
            if planned.entry.stored_size() > SMALL {
                return Ok((planned, Content::None));
            }
            let bytes = read_whole(&open_file(layer, path)?, planned.entry.stored_size())?;
            let mut hasher = FileHasher::new();
            hasher.update(&bytes);
            Ok((planned, Content::Read(bytes, hasher.finish())))
        };
        let batch: io::Result<Batch<'p>> = readers().install(|| now.par_iter().map(read).collect());
        let failed = batch.is_err();
        if batches.send(batch).is_err() || failed {
            return;
        }
        rest = later;
    }
}

fn write_entries(
    layer: &LayerDir,
    batches: Receiver<io::Result<Batch<'_>>>,
    to_hash: SyncSender<Vec<u8>>,
) -> Result<ContentDigest, DiffError> {
    let mut tar = TarWriter::new(Chunked { to_hash, pending: Vec::with_capacity(CHUNK) });
    let mut digest = LayerHasher::new();
    for batch in batches {
        for (planned, mut content) in batch.map_err(DiffError::Read)? {
            if let (Content::None, Some(path)) = (&content, &planned.content) {
                content = Content::Open(open_file(layer, path).map_err(|error| DiffError::Read(error.into()))?);
            }
            let hash = match content {
                Content::None => {
                    tar.append(&planned.entry, &mut io::empty())?;
                    None
                }
                Content::Read(bytes, content) => {
                    tar.append(&planned.entry, &mut bytes.as_slice())?;
                    Some(content)
                }
                Content::Open(file) => {
                    let mut reader = HashingReader { inner: file, hasher: FileHasher::new() };
                    tar.append(&planned.entry, &mut reader)?;
                    Some(reader.hasher.finish())
                }
            };
            digest.add(&planned.entry, hash.as_ref());
        }
    }
    tar.finish().and_then(Chunked::end).map_err(DiffError::Output)?;
    Ok(digest.finish())
}

struct HashingReader<R> {
    inner: R,
    hasher: FileHasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

/// Collects small writes for the hashing thread.
struct Chunked {
    to_hash: SyncSender<Vec<u8>>,
    pending: Vec<u8>,
}

impl Chunked {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK));
        self.to_hash.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end(mut self) -> io::Result<()> {
        self.send()
    }
}

impl Write for Chunked {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(buf);
        if self.pending.len() >= CHUNK {
            self.send()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hash_chunks(chunks: &Receiver<Vec<u8>>, out: &mut (dyn Write + Send)) -> io::Result<(Digest, u64)> {
    let mut out = Hashing::new(out);
    for chunk in chunks {
        out.write_all(&chunk)?;
    }
    out.flush()?;
    let (_, digest, size) = out.finish();
    Ok((digest, size))
}
