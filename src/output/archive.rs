//! Image archives: OCI layouts and docker-archives, as files, streams or directories.

use std::io::Write;

use rbuild_image::archive::{Export, write_docker_tar, write_oci_archive, write_oci_directory};
use rbuild_image::{BlobSource, Descriptor, ImageRef, Platform};

use super::whole_file;
use crate::cli::report::Failure;
use crate::request::{ArchiveFormat, Destination};

/// Writes images as one archive.
pub fn write_archive(
    format: ArchiveFormat,
    dest: &Destination,
    images: Vec<(Descriptor, Vec<ImageRef>)>,
    platform: &Platform,
    blobs: &dyn BlobSource,
) -> Result<(), Failure> {
    let images: Vec<Export> = images.into_iter().map(|(root, names)| Export { root, names }).collect();
    let write = |out: &mut dyn Write| -> Result<(), Failure> {
        match format {
            ArchiveFormat::Oci => drop(write_oci_archive(out, &images, blobs)?),
            ArchiveFormat::Docker => drop(write_docker_tar(out, &images, platform, blobs)?),
        }
        Ok(())
    };
    match dest {
        Destination::File(path) => whole_file(path, write),
        Destination::Stdout => {
            let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            write(&mut out)?;
            Ok(out.flush()?)
        }
        Destination::Directory(path) => {
            std::fs::create_dir_all(path)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", path.display())))?;
            if path.read_dir()?.next().is_some() {
                return Err(Failure::new(format!("{} is not empty", path.display()))
                    .with_help("name a new or empty directory for an OCI layout"));
            }
            Ok(write_oci_directory(path, &images, blobs)?)
        }
    }
}
