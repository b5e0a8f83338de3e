//! What becomes of a build's result: an image in the store, an archive, a tar, files. Each appears whole or not at all.

pub mod stage;

mod archive;
mod files;
mod store;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use archive::write_archive;
pub use files::{write_local, write_tar};
pub use store::{Built, put_image};

use rbuild_cache::snapshot::Times;
use rbuild_cache::view::View;
use rbuild_cache::{Lease, Store};
use rbuild_image::{Digest, Flavour, Platform, assemble_index};

use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::progress::Progress;
use crate::request::{ArchiveFormat, ArchiveOutput, BuildRequest, Output};
use stage::Packing;

/// Writes a file in one piece.
pub fn write_whole_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    whole_file(path, |out| Ok(out.write_all(bytes)?))
}

/// Lets `write` fill a file that appears under its name only when that succeeded and the bytes are on disk.
pub(crate) fn whole_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    if !is_replaceable(path) {
        // A device, a pipe: there is no other name to write under.
        let mut out = BufWriter::new(fs::OpenOptions::new().write(true).open(path).map_err(failed)?);
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    let temporary = beside(path);
    let result = File::create_new(&temporary).map_err(failed).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
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

/// Does what one `--output` asks for; gives the image's id where one was made.
pub(crate) fn write(
    engine: &Engine,
    store: &Store,
    lease: &Lease,
    request: &BuildRequest,
    output: &Output,
    built: &[Built],
    progress: &Progress,
) -> Result<Option<Digest>, Failure> {
    // The files of several platforms get a directory each: linux_amd64, linux_arm_v7.
    let views = || -> Result<Vec<(String, View)>, Failure> {
        let directory = |built: &Built| match built.config.platform() {
            _ if request.platforms.len() < 2 => String::new(),
            platform => platform.to_string().replace('/', "_"),
        };
        let snapshots = store.snapshots();
        built.iter().map(|built| Ok((directory(built), snapshots.view(built.snapshot)?))).collect()
    };
    match output {
        Output::CacheOnly => Ok(None),
        Output::Store => {
            let mut first = None;
            for built in built {
                let id = put_image(store, lease, built, &request.tags)?;
                progress.export(&format!("writing image {id}"));
                first.get_or_insert(id);
            }
            for tag in &request.tags {
                progress.export(&format!("naming to {}", tag.canonical()));
            }
            Ok(first)
        }
        Output::Tar(dest) => {
            write_tar(&views()?, dest, epoch(request)?)?;
            progress.export("writing tar");
            Ok(None)
        }
        Output::Local(dest) => {
            for (directory, view) in views()? {
                let dest = if directory.is_empty() { dest.clone() } else { dest.join(directory) };
                write_local(&view, &dest, epoch(request)?)?;
            }
            progress.export(&format!("copying files to {}", dest.display()));
            Ok(None)
        }
        Output::Archive(archive) => {
            let id = image_archive(engine, store, lease, request, archive, built)?;
            progress.export("writing image archive");
            Ok(id)
        }
    }
}

fn image_archive(
    engine: &Engine,
    store: &Store,
    lease: &Lease,
    request: &BuildRequest,
    archive: &ArchiveOutput,
    built: &[Built],
) -> Result<Option<Digest>, Failure> {
    let flavour = match archive.format {
        ArchiveFormat::Oci => Flavour::Oci,
        ArchiveFormat::Docker => Flavour::Docker,
    };
    let packing = Packing { compression: archive.compression, flavour };
    let times = match archive.rewrite_timestamp {
        false => Times::Kept,
        true => Times::ClampedTo(epoch(request)?.ok_or_else(|| {
            Failure::usage("rewrite-timestamp needs SOURCE_DATE_EPOCH", "set it in the environment or by --build-arg")
        })?),
    };
    let mut staged = Vec::new();
    for built in built {
        let record = built.record(store, lease)?;
        staged.push(stage::pack_layers(engine, lease, &record, &built.config, packing, times)?);
    }
    let names = if archive.names.is_empty() { request.tags.clone() } else { archive.names.clone() };
    let id = staged.first().map(|staged| staged.document.config.digest);
    let wants_index = archive.format == ArchiveFormat::Oci && crate::dockerfile::is_multi_platform(request)?;
    match staged.as_slice() {
        [one] if !wants_index => {
            let root = (one.manifest.clone(), names);
            write_archive(archive.format, &archive.dest, vec![root], &request_platform(request), one)?;
        }
        several => {
            let manifests = several.iter().map(|staged| staged.manifest.clone()).collect();
            let index = assemble_index(manifests, flavour, &std::collections::BTreeMap::new());
            let blobs = stage::Together { staged: several, index: Some(&index) };
            let root = (index.0.clone(), names);
            write_archive(archive.format, &archive.dest, vec![root], &request_platform(request), &blobs)?;
        }
    }
    Ok(id)
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
