//! A finished layer directory as a layer: the same directory always becomes the same tar.
//!
//! Entries come in the order of a depth-first walk by names in bytes. Whiteouts get their `.wh.` names back, an opaque
//! directory is followed by its marker. Of several names of one file the first has the content and the others link to
//! it. Files are written out in full: layers with sparse entries are not taken apart and put together again correctly by
//! all engines. The root has no entry, as in the layers BuildKit makes.
//!
//! One pass gives the tar, its digest and the content digest. Contents of small files are read ahead on the pool; the
//! tar is hashed and passed on by a thread of its own, unless there is so little that the caller's thread does it all.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rbuild_image::layer::whiteout::{OPAQUE, whiteout_of};
use rbuild_image::layer::{
    Device, Entry, EntryKind, FileContent, FileHasher, LayerHasher, TarReader, TarWriteError, TarWriter, Timestamp,
};
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest, Hashing};

use super::layer_dir::LayerDir;
use super::scan::{Detail, Scanned, open_file, scan};
use crate::view::{FileBytes, FileKind, Part, Stat};

/// The unit of tar.
const BLOCK: u64 = 512;
/// Files up to this size are read ahead.
const SMALL: u64 = 256 * 1024;
/// A batch that is read ahead ends at this many entries or bytes.
const BATCH_ENTRIES: usize = 512;
const BATCH_BYTES: u64 = 8 << 20;
/// Up to this many entries and bytes are written without any thread's help.
const FEW_ENTRIES: usize = 64;
const FEW_BYTES: u64 = 256 * 1024;
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
    write_planned(plan_directory(layer, times)?, out, &mut |_, _, _| Ok(()))
}

/// What a layer directory becomes.
pub(super) fn plan_directory(layer: &LayerDir, times: Times) -> Result<Vec<Planned<'_>>, DiffError> {
    let scanned = scan(layer, Detail::Full).map_err(DiffError::Read)?;
    Ok(plan(scanned, times, &|path| {
        let path = path.to_vec();
        Box::new(move || Ok(open_file(layer, &path)?))
    }))
}

/// The entries of a tar that was made here, as they are.
pub(super) fn plan_tar(tar: &Arc<File>, times: Times) -> io::Result<Vec<Planned<'static>>> {
    let mut reader = TarReader::new(io::BufReader::with_capacity(256 * 1024, tar.try_clone()?));
    let mut planned = Vec::new();
    let skip = |inner: &mut io::BufReader<File>, bytes: u64| match i64::try_from(bytes) {
        Ok(bytes) => inner.seek_relative(bytes),
        Err(_) => Err(io::ErrorKind::FileTooLarge.into()),
    };
    while let Some(mut entry) = reader.next_entry_skipping(skip).map_err(io::Error::other)? {
        entry.mtime = clamped(entry.mtime, times);
        let (offset, length) = (reader.offset(), entry.stored_size());
        let part = Part { file: Some(tar.clone()), offset, length };
        let content = match length {
            0 => PlannedContent::None,
            _ => PlannedContent::Known(Box::new(move || Ok(FileBytes::of_parts(vec![part])))),
        };
        planned.push(Planned { entry, content });
    }
    Ok(planned)
}

/// Writes the entries as a tar to `out`, and tells `observe` of each with the offset of its content.
pub(super) fn write_planned(
    planned: Vec<Planned<'_>>,
    out: &mut (dyn Write + Send),
    observe: Observe<'_>,
) -> Result<LayerDiff, DiffError> {
    if is_soon_done(&planned) {
        return write_alone(planned, out, observe);
    }
    let (to_hash, chunks) = sync_channel(8);
    let (to_write, batches) = sync_channel(1);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || hash_chunks(&chunks, out));
        let reading = scope.spawn(move || read_ahead(planned, &to_write));
        let count = Cell::new(0);
        let chunked = Chunked { to_hash, pending: Vec::with_capacity(CHUNK) };
        let written = write_entries(batches, Counted { out: chunked, written: &count }, observe)
            .and_then(|(digest, Counted { out, .. })| out.end().map_err(DiffError::Output).map(|()| digest));
        let hashed = hashing.join().map_err(|_| DiffError::Output(io::Error::other("the hashing thread panicked")))?;
        reading.join().map_err(|_| DiffError::Read(io::Error::other("the reading thread panicked")))?;
        // When the hashing thread ended early, writing only saw a closed channel.
        let (diff_id, size) = hashed.map_err(DiffError::Output)?;
        Ok(LayerDiff { diff_id: DiffId::new(diff_id), content_digest: written?, size })
    })
}

/// Whether starting threads would take longer than all the rest: what most steps of a build write is like that.
fn is_soon_done(planned: &[Planned<'_>]) -> bool {
    let size = |planned: &Planned<'_>| match planned.content {
        PlannedContent::None | PlannedContent::Mark => Some(0),
        PlannedContent::Known(_) => Some(planned.entry.stored_size()),
        PlannedContent::Found(_) => None,
    };
    planned.len() <= FEW_ENTRIES
        && planned.iter().map(size).sum::<Option<u64>>().is_some_and(|bytes| bytes <= FEW_BYTES)
}

/// The same tar, by this thread alone.
fn write_alone(
    planned: Vec<Planned<'_>>,
    out: &mut (dyn Write + Send),
    observe: Observe<'_>,
) -> Result<LayerDiff, DiffError> {
    let found = AtomicU64::new(0);
    let batch = planned.into_iter().map(|planned| read_one(planned, &found)).collect();
    let written = Cell::new(0);
    let mut hashing = Hashing::new(io::BufWriter::with_capacity(64 * 1024, out));
    let counted = Counted { out: &mut hashing, written: &written };
    let (content_digest, _) = write_entries([batch], counted, observe)?;
    hashing.flush().map_err(DiffError::Output)?;
    let (_, diff_id, size) = hashing.finish();
    Ok(LayerDiff { diff_id: DiffId::new(diff_id), content_digest, size })
}

/// Is told of each entry as it is in the tar, where its content begins there, and which of the two it is.
pub(super) type Observe<'o> = &'o mut dyn FnMut(&Entry, u64, Role) -> io::Result<()>;

/// What an entry is for. Its name alone does not tell: a step may call a file `.wh.x`, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Something that is there.
    Present,
    /// A whiteout, or the mark of an opaque directory.
    Mark,
}

/// Opens a file when its turn has come.
pub(super) type Open<'a> = Box<dyn FnOnce() -> io::Result<FileBytes> + Send + 'a>;

/// One entry to be written, and the file whose bytes it has.
pub(super) struct Planned<'a> {
    pub(super) entry: Entry,
    pub(super) content: PlannedContent<'a>,
}

/// Where the bytes of an entry come from.
pub(super) enum PlannedContent<'a> {
    None,
    /// None, and it hides something.
    Mark,
    /// A file of exactly the entry's size.
    Known(Open<'a>),
    /// A file whose size is the entry's.
    Found(Open<'a>),
}

impl<'a> Planned<'a> {
    fn mark(entry: Entry) -> Self {
        Self { entry, content: PlannedContent::Mark }
    }

    /// What hides `path` of the layers below.
    pub(super) fn whiteout(path: &ContainerPath) -> Self {
        let (parent, name) = (path.parent(), path.file_name().unwrap_or_default());
        let hidden = parent.unwrap_or_else(ContainerPath::root).join(whiteout_of(name));
        Self::mark(Entry::new(hidden, EntryKind::file(0), 0))
    }

    /// What hides everything in the directory `path` of the layers below; comes right after the directory.
    pub(super) fn opaque(path: &ContainerPath) -> Self {
        Self::mark(Entry::new(path.join(OPAQUE), EntryKind::file(0), 0))
    }
}

/// The entries of a layer in their order; `open` gives what opens a file.
pub(super) fn plan<'a>(scanned: Vec<Scanned>, times: Times, open: &dyn Fn(&[u8]) -> Open<'a>) -> Vec<Planned<'a>> {
    let mut planned = Vec::with_capacity(scanned.len());
    let mut first_names: HashMap<(u64, u64), ContainerPath> = HashMap::new();
    for found in scanned {
        let path = ContainerPath::new(&found.path);
        if found.is_whiteout() {
            planned.push(Planned::whiteout(&path));
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
        let content = match matches!(kind, EntryKind::File { .. }) && stat.size > 0 {
            true => PlannedContent::Known(open(&relative)),
            false => PlannedContent::None,
        };
        let mode = if stat.kind == FileKind::Symlink { 0o777 } else { stat.mode };
        let entry = Entry {
            uid: stat.uid,
            gid: stat.gid,
            mtime: time_of(&stat, times),
            xattrs,
            ..Entry::new(path, kind, mode)
        };
        let marker = opaque.then(|| Planned::opaque(&entry.path));
        planned.push(Planned { entry, content });
        planned.extend(marker);
    }
    planned
}

fn time_of(stat: &Stat, times: Times) -> Timestamp {
    clamped(Timestamp { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds }, times)
}

fn clamped(own: Timestamp, times: Times) -> Timestamp {
    match times {
        Times::ClampedTo(limit) => own.min(Timestamp { seconds: limit, nanoseconds: 0 }),
        Times::Kept => own,
    }
}

/// The bytes of one entry, as far as they were read ahead.
enum Content<'a> {
    None,
    Mark,
    Read(Vec<u8>, FileContent),
    Open(FileBytes),
    /// It was not its turn.
    Later(Open<'a>, bool),
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

type Batch<'a> = Vec<(Entry, Content<'a>)>;

fn read_ahead<'a>(planned: Vec<Planned<'a>>, batches: &SyncSender<io::Result<Batch<'a>>>) {
    let mut rest = planned.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut now, mut bytes) = (Vec::new(), 0);
        while let Some(next) = rest.next_if(|next| {
            now.is_empty() || now.len() < BATCH_ENTRIES && bytes + next.entry.stored_size().min(SMALL) <= BATCH_BYTES
        }) {
            bytes += next.entry.stored_size().min(SMALL);
            now.push(next);
        }
        // Sizes that are not known yet count when they are found.
        let found = AtomicU64::new(0);
        let batch: io::Result<Batch<'a>> =
            readers().install(|| now.into_par_iter().map(|planned| read_one(planned, &found)).collect());
        let failed = batch.is_err();
        if batches.send(batch).is_err() || failed {
            return;
        }
    }
}

fn read_one<'a>(planned: Planned<'a>, found: &AtomicU64) -> io::Result<(Entry, Content<'a>)> {
    let Planned { mut entry, content } = planned;
    let (open, known) = match content {
        PlannedContent::None => return Ok((entry, Content::None)),
        PlannedContent::Mark => return Ok((entry, Content::Mark)),
        PlannedContent::Known(open) => (open, true),
        PlannedContent::Found(open) => (open, false),
    };
    if known && entry.stored_size() > SMALL || !known && found.load(Ordering::Relaxed) > BATCH_BYTES {
        return Ok((entry, Content::Later(open, known)));
    }
    let file = open()?;
    let size = if known { entry.stored_size() } else { file.size()? };
    if size > SMALL {
        entry.kind = EntryKind::file(size);
        return Ok((entry, Content::Open(file)));
    }
    let bytes = file.read_whole(size)?;
    if !known {
        found.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        entry.kind = EntryKind::file(bytes.len() as u64);
    }
    let mut hasher = FileHasher::new();
    hasher.update(&bytes);
    Ok((entry, Content::Read(bytes, hasher.finish())))
}

fn write_entries<'a, 'w, W: Write>(
    batches: impl IntoIterator<Item = io::Result<Batch<'a>>>,
    out: Counted<'w, W>,
    observe: Observe<'_>,
) -> Result<(ContentDigest, Counted<'w, W>), DiffError> {
    let written = out.written;
    let mut tar = TarWriter::new(out);
    let mut digest = LayerHasher::new();
    for batch in batches {
        for (mut entry, mut content) in batch.map_err(DiffError::Read)? {
            if let Content::Later(open, known) = content {
                let file = open().map_err(DiffError::Read)?;
                if !known {
                    entry.kind = EntryKind::file(file.size().map_err(DiffError::Read)?);
                }
                content = Content::Open(file);
            }
            let role = if matches!(content, Content::Mark) { Role::Mark } else { Role::Present };
            let hash = match content {
                Content::None | Content::Mark | Content::Later(..) => {
                    tar.append(&entry, &mut io::empty())?;
                    None
                }
                Content::Read(bytes, content) => {
                    tar.append(&entry, &mut bytes.as_slice())?;
                    Some(content)
                }
                Content::Open(file) => {
                    let mut reader = HashingReader { inner: file, hasher: FileHasher::new() };
                    tar.append(&entry, &mut reader)?;
                    Some(reader.hasher.finish())
                }
            };
            let stored = entry.stored_size();
            observe(&entry, written.get() - stored.next_multiple_of(BLOCK), role).map_err(DiffError::Output)?;
            digest.add(&entry, hash.as_ref());
        }
    }
    let out = tar.finish().map_err(DiffError::Output)?;
    Ok((digest.finish(), out))
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

/// Says how many bytes went through.
struct Counted<'w, W> {
    out: W,
    written: &'w Cell<u64>,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.written.set(self.written.get() + n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
