//! What becomes of a build's result: an image in the store, an archive, a tar, files. Each appears whole or not at all.

pub(crate) mod ahead;
pub mod origins;
pub mod pack;
pub mod stage;

mod archive;
pub(crate) mod attest;
mod bundle;
mod compress;
mod docker;
mod docker_host;
mod files;
mod growing;
pub(crate) mod image;
mod local;
mod store;
mod turns;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(crate) use archive::{Leaving, export};
pub use files::{Tree, write_tar};
pub use local::write_local;
pub use store::{Built, put_image};

pub(crate) use bundle::Parts;
use bundle::{Bundle, Shape, names};
use rbuild_image::{Descriptor, Digest, Flavour, ImageRef, Platform};

use crate::cli::report::Failure;
use crate::progress::Progress;
use crate::request::{ArchiveFormat, ArchiveOutput, BuildRequest, Compression, FilesForm, ImageForm, Output, Split};

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whom the umask lets.
    Anybody,
    /// Its owner: as Docker writes what it saves, since images and containers hold what not everybody is to see.
    Owner,
}

/// Writes a file in one piece.
pub fn write_whole_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    whole_file(path, Readers::Anybody, |out| Ok(out.write_all(bytes)?))
}

/// Lets `write` fill a file that appears under its name only when that succeeded and the bytes are on disk.
pub(crate) fn whole_file(
    path: &Path,
    readers: Readers,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    if !is_replaceable(path) {
        // A device, a pipe: there is no other name to write under.
        let mut out = BufWriter::new(fs::OpenOptions::new().write(true).open(path).map_err(failed)?);
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    replaced_file(path, readers, |mut out| write(&mut out).map(|()| (out, ())))
}

/// Lets `write` fill a file that takes the place of another one when that succeeded and the bytes are on disk.
fn replaced_file<T>(
    path: &Path,
    readers: Readers,
    write: impl FnOnce(BufWriter<File>) -> Result<(BufWriter<File>, T), Failure>,
) -> Result<T, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let temporary = beside(path);
    let mut options = File::options();
    options.mode(match readers {
        Readers::Anybody => 0o666,
        Readers::Owner => 0o600,
    });
    let result = options.read(true).write(true).create_new(true).open(&temporary).map_err(failed).and_then(|file| {
        let (out, value) = write(BufWriter::with_capacity(1 << 20, file))?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)?;
        Ok(value)
    });
    if result.is_err() {
        // It may never have been made.
        let _gone = fs::remove_file(&temporary);
    }
    result
}

fn is_replaceable(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// A name for the unfinished file, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// What one output made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported {
    /// The image's id; of the first platform's where there are several.
    pub(crate) id: Option<Digest>,
    /// The manifest or index, where one was made.
    pub(crate) root: Option<Descriptor>,
    /// The names that it got.
    pub(crate) names: Vec<ImageRef>,
}

/// Does what one `--output` asks for. `elsewhere` are repositories that registries may have blobs in.
pub(crate) fn write(
    parts: &Parts<'_, '_>,
    output: &Output,
    elsewhere: &[ImageRef],
    progress: &Progress,
) -> Result<Exported, Failure> {
    let Parts { request, .. } = *parts;
    match output {
        Output::CacheOnly => Ok(Exported::default()),
        Output::Image(output) => image::write(parts, output, elsewhere, progress),
        Output::Tar(dest, form) => {
            write_tar(&trees(parts, form)?, dest, epoch(request)?)?;
            progress.export("writing tar");
            Ok(Exported::default())
        }
        Output::Local(dest, form) => {
            write_local(&trees(parts, form)?, dest, epoch(request)?, form.others)?;
            progress.export(&format!("copying files to {}", dest.display()));
            Ok(Exported::default())
        }
        Output::Archive(archive) => {
            let exported = image_archive(parts, archive)?;
            progress.export("writing image archive");
            Ok(exported)
        }
        Output::Docker(form) => {
            let daemon = docker::Daemon::find(parts.engine.settings())?;
            let platform = request_platform(request);
            let [built] = parts.built else {
                return Err(Failure::new("docker exporter does not currently support exporting manifest lists")
                    .with_help("give one --platform with --load, or write an archive with -o type=oci,dest=FILE"));
            };
            // Nothing is gained by compressing what goes to a neighbour.
            let form = ImageForm { compression: Compression::Uncompressed, ..form.clone() };
            let bundle =
                Bundle::new(parts, &form, form.flavour.unwrap_or(Flavour::Docker), Shape::AsNeeded, stage::NOBODY)?;
            let diff_ids = bundle.staged.first().map_or(&built.config.rootfs.diff_ids, |staged| &staged.diff_ids);
            let names = names(request, &form);
            let loaded = daemon.load(&bundle, diff_ids, &names, &platform)?;
            progress.export(&format!("loading into Docker: {} layers sent, {} were there", loaded.sent, loaded.there));
            Ok(Exported { id: bundle.id(), root: Some(bundle.root.0.clone()), names })
        }
    }
}

/// The files of each platform with what is attested about them, and the directory that they get: `linux_amd64`,
/// `linux_arm_v7`, or none.
fn trees(parts: &Parts<'_, '_>, form: &FilesForm) -> Result<Vec<Tree>, Failure> {
    let Parts { request, store, lease, built, attester, .. } = *parts;
    let apart = match form.split {
        Split::Several => request.platforms.len() > 1,
        Split::Always => true,
        Split::Never => false,
    };
    let attested_at = attester.times.map_or(0, |(_, ended)| ended.as_second());
    let mut trees = Vec::new();
    for one in built {
        let view = store.snapshots().view(one.snapshot)?;
        let platform = one.config.platform().to_string().replace('/', "_");
        let name = |file: &str| match (form.split, file.rsplit_once('.')) {
            // As in BuildKit: platforms that share a directory have files of their own there.
            (Split::Never, Some((stem, extension))) => {
                format!("{}{stem}.{platform}.{extension}", form.attestation_prefix)
            }
            _ => format!("{}{file}", form.attestation_prefix),
        };
        let attested = attester.files(one, &view, (store, lease))?;
        trees.push(Tree {
            directory: if apart { platform.clone() } else { String::new() },
            attested: attested.into_iter().map(|(file, bytes)| (name(file), bytes)).collect(),
            view,
            attested_at,
        });
    }
    if !apart && trees.len() > 1 {
        files::refuse_common_files(
            built.iter().map(|built| built.config.platform()).zip(trees.iter().map(|tree| &tree.view)),
        )?;
    }
    Ok(trees)
}

fn image_archive(parts: &Parts<'_, '_>, archive: &ArchiveOutput) -> Result<Exported, Failure> {
    let Parts { request, .. } = *parts;
    let flavour = match archive.format {
        ArchiveFormat::Oci => Flavour::Oci,
        ArchiveFormat::Docker => archive.form.flavour.unwrap_or(Flavour::Docker),
    };
    let wants_index = archive.format == ArchiveFormat::Oci && crate::dockerfile::is_multi_platform(request)?;
    let shape = if wants_index { Shape::Index } else { Shape::AsNeeded };
    let names = names(request, &archive.form);
    let pack = |ready: stage::Ready<'_>| Bundle::new(parts, &archive.form, flavour, shape, ready);
    let bundle = export(parts.engine, (archive.format, &archive.dest, Readers::Anybody), pack, |bundle| Leaving {
        images: vec![(bundle.root.0.clone(), names.clone())],
        platform: request_platform(request),
        blobs: bundle,
    })?;
    Ok(Exported { id: bundle.id(), root: Some(bundle.root.0.clone()), names })
}

/// The build argument `SOURCE_DATE_EPOCH`; an empty one is none.
fn epoch(request: &BuildRequest) -> Result<Option<i64>, Failure> {
    let given = request.build_args.iter().rev().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
    let seconds = |text: &str| {
        text.parse().map_err(|_| {
            Failure::usage(format!("SOURCE_DATE_EPOCH={text} is not a number of seconds"), "e.g. SOURCE_DATE_EPOCH=0")
        })
    };
    given.map(|(_, text)| text.as_str()).filter(|text| !text.is_empty()).map(seconds).transpose()
}

fn request_platform(request: &BuildRequest) -> Platform {
    request.platforms.first().cloned().unwrap_or_else(Platform::host)
}
