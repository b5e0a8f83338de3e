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
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::Lower;
use rbuild_image::layer::{FileHasher, LayerHasher, TarReader};
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest, Hashing};
use rustix::fs::{CWD, RenameFlags};

use super::apply::{ApplyError, Unpacked, pass};
use super::diff::{DiffError, LayerDiff, Planned, Times, plan_tar, write_planned};
use super::kind::Snapshotter;
use super::tar_reader::TarLayer;
use super::writer::Metadata;
use crate::erofs::{Device, IndexBuilder, IndexError, Member, Node, SideBlob, index_tar};
use crate::failpoint;
use crate::path_error::{AtPath, PathError};
use crate::view::{LayerReader, View};

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

    fn reader(&self, layer: &Path) -> Arc<dyn LayerReader> {
        Arc::new(TarLayer::new(layer))
    }

    fn lower(&self, layer: &Path) -> Lower {
        let files = Files::of(layer);
        Lower::Erofs { index: files.index.clone(), devices: files.devices() }
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
            return write_planned(planned, out, &mut |_, _| Ok(()));
        }
        let (diff_id, size) = copy_tar(layer, out)?;
        let content_digest = match known {
            Some(known) => known.content_digest,
            None => content_of(layer).map_err(DiffError::Read)?,
        };
        Ok(LayerDiff { diff_id, content_digest, size })
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
    /// Bytes on disk.
    pub(super) size: u64,
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
    pub(super) fn devices(self) -> Vec<PathBuf> {
        let side = self.side.exists().then_some(self.side);
        std::iter::once(self.tar).chain(side).collect()
    }
}

/// A layer being made in a directory of its own.
struct Making {
    place: PathBuf,
    files: Files,
    side: SideBlob,
}

impl Making {
    fn begin(place: &Path) -> io::Result<(Self, File)> {
        DirBuilder::new().mode(0o700).create(place)?;
        let files = Files::of(place);
        let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let tar = create(&files.tar)?;
        let side = SideBlob::new(create(&files.side)?);
        Ok((Self { place: place.to_owned(), files, side }, tar))
    }

    /// Writes the index of what `builder` took.
    fn end(self, builder: IndexBuilder, diff: LayerDiff) -> Result<Written, IndexError> {
        let depends_on_parent = builder.depends_on_parent();
        let mut devices = vec![Device { bytes: diff.size, digest: Some(*diff.diff_id.digest()) }];
        match self.side.length() {
            0 => fs::remove_file(&self.files.side).map_err(IndexError::Write)?,
            bytes => devices.push(Device { bytes, digest: None }),
        }
        let mut out = File::create_new(&self.files.index).map_err(IndexError::Write)?;
        let info = builder.finish(&devices, &mut out)?;
        let size = used(&self.place).map_err(IndexError::Write)?;
        Ok(Written { diff, index: info.digest, size, depends_on_parent })
    }
}

/// Bytes on disk of a layer's directory.
fn used(place: &Path) -> io::Result<u64> {
    let mut blocks = fs::metadata(place)?.blocks();
    for entry in fs::read_dir(place)? {
        blocks += entry?.metadata()?.blocks();
    }
    Ok(blocks * 512)
}

/// Writes the entries as a layer on top of `parent` into the new directory `place`, whose root has the metadata `root`.
pub(super) fn write(
    planned: Vec<Planned<'_>>,
    place: &Path,
    parent: Arc<View>,
    root: Option<&Metadata>,
) -> Result<Written, DiffError> {
    let (mut making, mut tar) = Making::begin(place).map_err(DiffError::Output)?;
    let mut builder = IndexBuilder::over(parent).map_err(DiffError::Read)?;
    if let Some(root) = root {
        builder.add(root_member(root)).map_err(failed)?;
    }
    let side = &mut making.side;
    let diff = write_planned(planned, &mut tar, &mut |entry, offset| {
        builder.add_entry(entry, offset, &mut io::empty(), side).map_err(io::Error::other)
    })?;
    making.end(builder, diff).map_err(failed)
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
        xattrs: metadata.xattrs.clone(),
    }
}

/// What became of a tar from outside.
pub(super) enum Taken {
    /// A layer.
    Layer(Written),
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
    let (builder, found) = pass(tar, Some(kept), expected, |chunks| {
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
    let content_digest = ContentDigest::new(*found.diff_id.digest());
    let diff = LayerDiff { diff_id: found.diff_id, content_digest, size: found.size };
    match builder {
        Some(builder) => Ok(Taken::Layer(making.end(builder, diff)?)),
        None => Ok(Taken::OnlyTar(making.files.tar, found)),
    }
}

/// Makes the index of a tar that is there once more; its digest.
pub(super) fn index_again(
    layer: &Path,
    place: &Path,
    parent: Arc<View>,
    diff: LayerDiff,
) -> Result<Written, ApplyError> {
    let (mut making, tar) = Making::begin(place).map_err(ApplyError::Read)?;
    drop(tar);
    fs::remove_file(&making.files.tar).map_err(ApplyError::Read)?;
    let mut source =
        io::BufReader::with_capacity(256 * 1024, File::open(Files::of(layer).tar).map_err(ApplyError::Read)?);
    let builder = index_tar(&mut source, parent, &mut making.side)?;
    Ok(making.end(builder, diff)?)
}

/// Puts an index that was made in `place`, with what belongs to it, in the layer's own. Who has the old one open keeps it.
pub(super) fn put_index(place: &Path, layer: &Path) -> Result<(), PathError> {
    let (from, to) = (Files::of(place), Files::of(layer));
    for (from, to) in [(from.side, to.side), (from.index, to.index)] {
        match File::open(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.and_then(|file| file.sync_all()).at("sync", &from)?,
        }
        fs::rename(&from, &to).at("rename", &from)?;
    }
    File::open(layer).and_then(|directory| directory.sync_all()).at("sync", layer)
}

/// The digest of the index as it is.
pub(crate) fn index_digest(layer: &Path) -> io::Result<Digest> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut File::open(Files::of(layer).index)?, &mut hashing)?;
    Ok(hashing.finish().1)
}

/// Syncs a layer that was written in `place` and moves it to `layer`, durably: the data of its files first, then their
/// names, then the layer's own.
fn seal(place: &Path, layer: &Path) -> Result<(), PathError> {
    let files = Files::of(place);
    for path in std::iter::once(files.index.clone()).chain(files.devices()) {
        failpoint::hit("layer-sync").at("sync", &path)?;
        File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)?;
    }
    File::open(place).and_then(|directory| directory.sync_all()).at("sync", place)?;
    failpoint::hit("layer-rename").at("rename", place)?;
    rustix::fs::renameat_with(CWD, place, CWD, layer, RenameFlags::NOREPLACE).at("rename", place)?;
    let Some(parent) = layer.parent() else { return Ok(()) };
    failpoint::hit("layer-sync-directory").at("sync", parent)?;
    File::open(parent).and_then(|directory| directory.sync_all()).at("sync", parent)
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
