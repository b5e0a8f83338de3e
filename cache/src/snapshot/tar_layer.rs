//! The erofs kind: a layer is its tar, never unpacked, with an index that the kernel mounts over it.
//!
//! ```text
//! layers/PATH/tar      the uncompressed tar; its SHA-256 is the layer's diff_id
//!             index    an EROFS image: names and metadata, and where in the tar each file's bytes are
//!             side     bytes that the kernel cannot read where they are in the tar; mostly absent
//! ```
//!
//! The index is made while the tar passes by, on top of the parent that the layer was made on, whose directories and
//! symlinks decide where members go. It is trusted because it was made here: its digest is in the database, and it can
//! be made again from the tar.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::Lower;
use rbuild_image::layer::{FileHasher, LayerHasher, TarReader};
use rbuild_image::write_behind::WriteBehind;
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest, Hashing};
use rustix::fs::{CWD, RenameFlags};

use super::apply::{ApplyError, Unpacked, chunked, pass};
use super::diff::{DiffError, LayerDiff, Planned, Role, Times, plan_tar, write_planned};
use super::index_files::{RootMetadata, side_digest};
use super::kind::Snapshotter;
use super::seen::Facts;
use super::tar_reader::TarLayer;
use super::writer::Metadata;
use crate::erofs::{Device, IndexBuilder, IndexError, Member, Node, SideBlob, index_tar, index_tar_file};
use crate::failpoint;
use crate::path_error::{AtPath, PathError};
use crate::view::{LayerReader, View, Xattrs};

/// Name of this kind in the database.
pub(super) const NAME: &str = "erofs";
/// What the paths of such layers end with.
pub(super) const SUFFIX: &str = ".erofs";

/// Layers as tars.
#[derive(Debug)]
pub(super) struct TarKind;

impl Snapshotter for TarKind {
    fn name(&self) -> &'static str {
        NAME
    }

    fn measure(&self, scratch: &Path) -> Result<u64, PathError> {
        let place = place(scratch);
        used(&place).at("inspect", &place)
    }

    fn seal(&self, scratch: &Path, layer: &Path) -> Result<(), PathError> {
        seal(&place(scratch), layer)
    }

    fn put(&self, scratch: &Path, layer: &Path) -> Result<OwnedFd, PathError> {
        let place = place(scratch);
        let directory = File::open(&place).at("open", &place)?;
        put(scratch, layer)?;
        Ok(directory.into())
    }

    fn reader(&self, layer: &Path) -> Arc<dyn LayerReader> {
        Arc::new(TarLayer::new(layer))
    }

    fn lower(&self, layer: &Path, facts: Option<Facts>) -> Lower {
        let files = Files::of(layer);
        Lower::Erofs { index: files.index.clone(), devices: files.devices(facts) }
    }

    fn write_tar(
        &self,
        layer: &Path,
        known: Option<LayerDiff>,
        times: Times,
        out: &mut (dyn Write + Send),
    ) -> Result<LayerDiff, DiffError> {
        if let Times::ClampedTo(_) = times {
            let tar = Arc::new(File::open(Files::of(layer).tar).map_err(DiffError::Read)?);
            // Tars that are made here have one form.
            let planned = plan_tar(&tar, times).map_err(DiffError::Read)?;
            return write_planned(planned, out, &mut |_, _, _| Ok(()));
        }
        let (diff_id, size) = copy_tar(layer, out)?;
        let content_digest = match known {
            Some(known) => known.content_digest,
            None => content_of(layer).map_err(DiffError::Read)?,
        };
        Ok(LayerDiff { diff_id, content_digest, size })
    }

    fn open_tar(&self, layer: &Path) -> Option<io::Result<File>> {
        Some(File::open(Files::of(layer).tar))
    }
}

/// Where in the private place of an active snapshot such a layer is made.
pub(super) fn place(scratch: &Path) -> PathBuf {
    scratch.join("layer")
}

/// A layer that was written as a tar, and is ready to become visible.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// What the tar is known by; of one from outside the content's digest is the tar's.
    pub(super) diff: LayerDiff,
    /// Digest of the index.
    pub(super) index: Digest,
    /// Digest of the side blob, where there is one.
    pub(super) side: Option<Digest>,
    /// What the root directory is given, of which the tar says nothing.
    pub(super) root: Option<RootMetadata>,
    /// Whether the index could differ on another parent.
    pub(super) depends_on_parent: bool,
}

/// The files of a layer.
pub(super) struct Files {
    pub(super) tar: PathBuf,
    pub(super) index: PathBuf,
    pub(super) side: PathBuf,
}

impl Files {
    pub(super) fn of(layer: &Path) -> Self {
        Self { tar: layer.join("tar"), index: layer.join("index"), side: layer.join("side") }
    }

    /// Those with contents, in the order in which the index numbers them.
    pub(super) fn devices(self, facts: Option<Facts>) -> Vec<PathBuf> {
        let has_side = facts.map_or_else(|| self.side.exists(), |facts| facts.has_side);
        let side = has_side.then_some(self.side);
        std::iter::once(self.tar).chain(side).collect()
    }
}

/// A layer being made in a directory of its own.
struct Making {
    files: Files,
    side: SideBlob,
}

impl Making {
    fn begin(place: &Path) -> io::Result<(Self, File)> {
        DirBuilder::new().mode(0o700).create(place)?;
        let tar = create(&Files::of(place).tar)?;
        Ok((Self::resume(place)?, tar))
    }

    /// Goes on where no more than the tar is made.
    fn resume(place: &Path) -> io::Result<Self> {
        let files = Files::of(place);
        let side = SideBlob::new(create(&files.side)?);
        Ok(Self { files, side })
    }

    /// Writes the index of what `builder` took.
    fn end(
        self,
        mut builder: IndexBuilder,
        diff: LayerDiff,
        root: Option<RootMetadata>,
    ) -> Result<Written, IndexError> {
        if let Some(root) = root {
            builder.add(root_member(&root.into()))?;
        }
        let depends_on_parent = builder.depends_on_parent();
        let mut devices = vec![Device { bytes: diff.size, digest: Some(*diff.diff_id.digest()) }];
        let side = match self.side.length() {
            0 => {
                fs::remove_file(&self.files.side).map_err(IndexError::Write)?;
                None
            }
            bytes => {
                devices.push(Device { bytes, digest: None });
                Some(side_digest(&self.side.into_file()).map_err(IndexError::Read)?)
            }
        };
        let mut out = File::create_new(&self.files.index).map_err(IndexError::Write)?;
        let info = builder.finish(&devices, &mut out)?;
        Ok(Written { diff, index: info.digest, side, root, depends_on_parent })
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Bytes on disk of a layer's directory.
pub(super) fn used(place: &Path) -> io::Result<u64> {
    let mut blocks = fs::metadata(place)?.blocks();
    for entry in fs::read_dir(place)? {
        blocks += entry?.metadata()?.blocks();
    }
    Ok(blocks * 512)
}

/// Writes the entries as a layer on top of `parent` into the new directory `place`, whose root has the metadata `root`. Fails
/// when it is not `going_on`.
pub(super) fn write(
    planned: Vec<Planned<'_>>,
    place: &Path,
    parent: Arc<View>,
    root: Option<&Metadata>,
    going_on: &(dyn Fn() -> bool + Sync),
) -> Result<Written, DiffError> {
    let (mut making, tar) = Making::begin(place).map_err(DiffError::Output)?;
    let mut builder = IndexBuilder::over(parent).map_err(DiffError::Read)?;
    let side = &mut making.side;
    let diff =
        write_planned(planned, &mut Stoppable { tar: WriteBehind::new(tar), going_on }, &mut |entry, offset, role| {
            let added = match role {
                Role::Mark => builder.add_entry(entry, offset, &mut io::empty(), side),
                Role::Present => builder.add_present(entry, offset, &mut io::empty(), side),
            };
            added.map_err(io::Error::other)
        })?;
    making.end(builder, diff, root.map(RootMetadata::from)).map_err(failed)
}

/// A tar whose writing may be given up.
struct Stoppable<'a> {
    tar: WriteBehind,
    going_on: &'a (dyn Fn() -> bool + Sync),
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (self.going_on)() {
            true => self.tar.write(bytes),
            false => Err(io::Error::other("it was given up")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(error: IndexError) -> DiffError {
    DiffError::Output(io::Error::other(error))
}

fn root_member(metadata: &Metadata) -> Member {
    Member {
        path: ContainerPath::root(),
        node: Node::Directory { opaque: false },
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime.unwrap_or_default(),
        xattrs: Xattrs::new(),
    }
}

/// What became of a tar from outside.
pub(super) enum Taken {
    /// A layer.
    Layer(Box<Written>),
    /// The bytes are as expected and at this path, but no index can say what they hold.
    OnlyTar(PathBuf, Unpacked),
}

/// Takes the uncompressed archive `tar`, which must have the digest `expected`, as a layer on top of `parent` into the
/// new directory `place`.
pub(super) fn take(
    tar: &mut (dyn Read + Send),
    expected: Option<DiffId>,
    place: &Path,
    parent: Arc<View>,
) -> Result<Taken, ApplyError> {
    let (mut making, kept) = Making::begin(place).map_err(ApplyError::Read)?;
    let side = &mut making.side;
    let (builder, found) = pass(tar, Some(WriteBehind::new(kept)), expected, |chunks| {
        match index_tar(chunks, parent, side) {
            // The layer may still be one as a directory; its bytes count anyhow.
            Err(error @ (IndexError::Unrepresentable { .. } | IndexError::TooLarge { .. })) => {
                tracing::debug!(%error, "kept as a directory");
                io::copy(chunks, &mut io::sink()).map_err(ApplyError::Read)?;
                Ok(None)
            }
            other => Ok(Some(other.map_err(ApplyError::from)?)),
        }
    })?;
    let diff = found.as_diff();
    match builder {
        Some(builder) => Ok(Taken::Layer(Box::new(making.end(builder, diff, None)?))),
        None => Ok(Taken::OnlyTar(making.files.tar, found)),
    }
}

/// Writes the uncompressed archive `tar`, which must have the digest `expected`, into the new directory `place`. Its bytes are
/// made by one thread, hashed and written by another.
pub(super) fn keep(
    tar: &mut (dyn Read + Send),
    expected: Option<DiffId>,
    place: &Path,
) -> Result<Unpacked, ApplyError> {
    DirBuilder::new().mode(0o700).create(place).map_err(ApplyError::Read)?;
    let kept = File::create_new(Files::of(place).tar).map_err(ApplyError::Read)?;
    let mut out = Hashing::new(WriteBehind::new(kept));
    chunked(tar, |chunk| out.write_all(chunk).map_err(ApplyError::Read))?;
    let (_, digest, size) = out.finish();
    let found = Unpacked { diff_id: DiffId::new(digest), size };
    match expected {
        Some(expected) if expected != found.diff_id => Err(ApplyError::WrongDigest { expected, found: found.diff_id }),
        _ => Ok(found),
    }
}

/// Makes a layer on top of `parent` of what [`keep`] left in `place`.
pub(super) fn describe(found: Unpacked, place: &Path, parent: Arc<View>) -> Result<Taken, ApplyError> {
    let mut making = Making::resume(place).map_err(ApplyError::Read)?;
    let diff = found.as_diff();
    let tar = File::open(&making.files.tar).map_err(ApplyError::Read)?;
    match index_tar_file(&tar, parent, &mut making.side) {
        Ok(builder) => Ok(Taken::Layer(Box::new(making.end(builder, diff, None)?))),
        Err(error @ (IndexError::Unrepresentable { .. } | IndexError::TooLarge { .. })) => {
            tracing::debug!(%error, "kept as a directory");
            Ok(Taken::OnlyTar(making.files.tar, found))
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the index of a tar that is there once more; its digest.
pub(super) fn index_again(
    layer: &Path,
    place: &Path,
    parent: Arc<View>,
    diff: LayerDiff,
    root: Option<RootMetadata>,
) -> Result<Written, ApplyError> {
    DirBuilder::new().mode(0o700).create(place).map_err(ApplyError::Read)?;
    let mut making = Making::resume(place).map_err(ApplyError::Read)?;
    let source = File::open(Files::of(layer).tar).map_err(ApplyError::Read)?;
    let builder = index_tar_file(&source, parent, &mut making.side)?;
    Ok(making.end(builder, diff, root)?)
}

/// Puts an index that was made in `place`, with what belongs to it, in the layer's own. Who has the old one open keeps it.
pub(super) fn put_index(place: &Path, layer: &Path) -> Result<(), PathError> {
    let (from, to) = (Files::of(place), Files::of(layer));
    for (from, to) in [(from.side, to.side), (from.index, to.index)] {
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.at("rename", &from)?,
        }
    }
    Ok(())
}

/// Moves a layer that was written in `place` to `layer`, durably. One file is synced, the tar; index and side blob are
/// compared with their digests after the next boot, and made again from it if need be. It is renamed before it is synced,
/// so that on file systems with a journal this makes its names durable as well, and syncing the directories that hold
/// them finds nothing left to do.
fn seal(place: &Path, layer: &Path) -> Result<(), PathError> {
    rename(place, layer)?;
    sync(layer)
}

fn rename(place: &Path, layer: &Path) -> Result<(), PathError> {
    failpoint::hit("layer-rename").at("rename", place)?;
    rustix::fs::renameat_with(CWD, place, CWD, layer, RenameFlags::NOREPLACE).at("rename", place)
}

/// Moves the layer that was made in `scratch` to its final place, without syncing anything.
pub(super) fn put(scratch: &Path, layer: &Path) -> Result<(), PathError> {
    rename(&place(scratch), layer)
}

/// Makes a layer at its final place durable.
pub(super) fn sync(layer: &Path) -> Result<(), PathError> {
    let tar = Files::of(layer).tar;
    failpoint::hit("layer-sync").at("sync", &tar)?;
    File::open(&tar).and_then(|file| file.sync_all()).at("sync", &tar)?;
    for directory in [Some(layer), layer.parent()].into_iter().flatten() {
        failpoint::hit("layer-sync-directory").at("sync", directory)?;
        File::open(directory).and_then(|directory| directory.sync_all()).at("sync", directory)?;
    }
    Ok(())
}

/// Copies the tar to `out`: what it is now.
fn copy_tar(layer: &Path, out: &mut (dyn Write + Send)) -> Result<(DiffId, u64), DiffError> {
    let mut tar = File::open(Files::of(layer).tar).map_err(DiffError::Read)?;
    let mut out = Hashing::new(out);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => out.write_all(&buffer[..read]).map_err(DiffError::Output)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DiffError::Read(error)),
        }
    }
    out.flush().map_err(DiffError::Output)?;
    let (_, digest, size) = out.finish();
    Ok((DiffId::new(digest), size))
}

/// What the tar holds, without times.
pub(super) fn content_of(layer: &Path) -> io::Result<ContentDigest> {
    let tar = io::BufReader::with_capacity(256 * 1024, File::open(Files::of(layer).tar)?);
    let mut reader = TarReader::new(tar);
    let mut digest = LayerHasher::new();
    let mut buffer = vec![0; 256 * 1024];
    while let Some(entry) = reader.next_entry().map_err(io::Error::other)? {
        let mut hasher = FileHasher::new();
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        digest.add(&entry, Some(&hasher.finish()));
    }
    Ok(digest.finish())
}
