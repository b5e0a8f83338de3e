//! A new database from the content directory, when the old one is damaged or lost.
//!
//! What is named by its digest proves itself: every blob that still has its digest gets a row, and every manifest
//! whose config and layers are there becomes an image again, to be unpacked when it is used. So does every config whose
//! layers were built here and still give the diff ids that it names. Names are taken from what can still be read of
//! the old database, which is kept beside the new one as `meta.db.damaged`. Cache records are lost.

mod built;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rbuild_image::{
    Algorithm, Descriptor, Digest, ImageRef, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, MediaType, parse_config,
    parse_manifest,
};

use crate::content::{BlobError, digest_file, name};
use crate::db::{self, DbError, salvage};
use crate::failpoint;
use crate::images::{BlobRole, ImageError, ImageRecord};
use crate::layout::Layout;
use crate::lease::{self, Hold};
use crate::path_error::{AtPath, PathError};
use crate::snapshot::SnapshotError;
use crate::store::{OpenError, OpenOptions, Store, lock_root};

/// What could be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Blobs that have their digests.
    pub blobs: usize,
    /// Blobs that do not; they are garbage now.
    pub damaged: Vec<Digest>,
    /// Images that are complete.
    pub images: Vec<Digest>,
    /// Names that the old database still knew.
    pub names: Vec<ImageRef>,
}

/// Why a store cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Somebody uses the store.
    #[error("the store {} is in use by another process: {command}", root.display())]
    InUse {
        /// Its directory.
        root: std::path::PathBuf,
        /// What that process does.
        command: String,
    },
    /// The new database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A blob cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer cannot be stored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An image cannot be stored.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

impl Store {
    /// Makes a new database for the store in `root` and fills it from the content directory. Reads every blob.
    pub fn rebuild(root: &Path, options: OpenOptions) -> Result<(Self, RebuildReport), RebuildError> {
        let layout = Layout::new(root.to_owned());
        {
            let _locked = lock_root(root)?;
            let (waiting, working): (Vec<_>, Vec<_>) =
                lease::list(&layout)?.into_iter().partition(|info| info.purpose == lease::WAITING);
            // They have the database open, whose files are going to be other ones.
            let mut remaining = waiting.into_iter().filter(|info| !lease::kill_holder(&layout, info));
            if let Some(info) = working.into_iter().next().or_else(|| remaining.next()) {
                return Err(RebuildError::InUse { root: root.to_owned(), command: info.command });
            }
            set_aside(&layout)?;
            failpoint::hit("rebuild-aside").at("create", &layout.database())?;
            db::create(&layout.database()).map_err(OpenError::from)?;
        }
        let damaged = layout.database().with_extension("db.damaged");
        let store = Self::open(root, options)?;
        let lease = store.lease("rebuild")?;
        let mut report = RebuildReport::default();
        let mut sizes = BTreeMap::new();
        for digest in content(&layout)? {
            let path = layout.blob(&digest);
            let mut file = File::open(&path).at("open", &path)?;
            let (got, size) = digest_file(&mut file, digest.algorithm()).at("read", &path)?;
            if got != digest {
                report.damaged.push(digest);
                continue;
            }
            lease.hold(Hold::Blob(digest))?;
            name(&store, &[(digest, size)])?;
            sizes.insert(digest, size);
        }
        report.blobs = sizes.len();
        let mut described = BTreeMap::new();
        for (digest, size) in sizes.iter().filter(|(_, size)| **size <= MAX_MANIFEST_BYTES) {
            let Some((manifest, descriptor)) = manifest(&store, digest, *size)? else { continue };
            if let Some(record) = image(&store, &manifest, &descriptor, &sizes)? {
                store.images().put(&record, &[])?;
                report.images.push(record.id);
            }
            described.entry(manifest.config.digest).or_insert(descriptor);
        }
        let (found, sources) = (built::layers(&store)?, store.layer_sources()?);
        for (digest, _) in sizes.iter().filter(|(_, size)| **size <= MAX_CONFIG_BYTES) {
            if !report.images.contains(digest)
                && let Some(mut record) = built::image(&store, digest, &found, &sources, &lease)?
            {
                // It came with a manifest, whose layers are here as tars only.
                if let Some(manifest) = described.remove(digest) {
                    record.blobs.insert(manifest.digest, BlobRole::Manifest);
                    record.manifest = Some(manifest);
                }
                store.images().put(&record, &[])?;
                report.images.push(record.id);
            }
        }
        report.images.sort();
        report.images.dedup();
        for (reference, id) in salvage::tags(&damaged) {
            // Claims: only those that make sense here.
            if let (Ok(reference), Ok(id)) = (reference.parse::<ImageRef>(), id.parse::<Digest>())
                && report.images.contains(&id)
            {
                store.images().tag(&reference, &id)?;
                report.names.push(reference);
            }
        }
        Ok((store, report))
    }
}

/// Moves the old database, log included, out of the way.
fn set_aside(layout: &Layout) -> Result<(), PathError> {
    for suffix in ["", "-wal", "-shm"] {
        let with = |name: &str| {
            let mut path = layout.database().into_os_string();
            path.push(name);
            path.push(suffix);
            std::path::PathBuf::from(path)
        };
        let (old, aside) = (with(""), with(".damaged"));
        match fs::rename(&old, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("rename", &old),
            _ => {}
        }
    }
    Ok(())
}

/// The digests that files of the content directory claim to have.
fn content(layout: &Layout) -> Result<Vec<Digest>, PathError> {
    let mut digests = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let directory = layout.blobs(algorithm);
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let file = entry.at("list", &directory)?.file_name();
            digests.extend(format!("{}:{}", algorithm.name(), file.to_string_lossy()).parse::<Digest>());
        }
    }
    digests.sort();
    Ok(digests)
}

/// What a blob is the manifest of, if it is one.
fn manifest(store: &Store, digest: &Digest, size: u64) -> Result<Option<(Manifest, Descriptor)>, BlobError> {
    let bytes = store.blobs().read(digest, MAX_MANIFEST_BYTES)?;
    // Most small blobs are something else.
    let Ok(manifest) = parse_manifest(&bytes, None) else { return Ok(None) };
    let media_type = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
    Ok(Some((manifest, Descriptor::new(media_type, *digest, size))))
}

/// The image that a manifest describes, if everything it names is there.
fn image(
    store: &Store,
    manifest: &Manifest,
    descriptor: &Descriptor,
    sizes: &BTreeMap<Digest, u64>,
) -> Result<Option<ImageRecord>, BlobError> {
    let mut parts = manifest.layers.iter().chain([&manifest.config]);
    if !parts.all(|part| sizes.get(&part.digest) == Some(&part.size)) {
        return Ok(None);
    }
    let id = manifest.config.digest;
    let Ok(config) = store.blobs().read(&id, MAX_CONFIG_BYTES) else { return Ok(None) };
    let Ok(config) = parse_config(&config, manifest) else { return Ok(None) };
    let mut blobs: BTreeMap<Digest, BlobRole> =
        manifest.layers.iter().map(|layer| (layer.digest, BlobRole::Layer)).collect();
    blobs.extend([(descriptor.digest, BlobRole::Manifest), (id, BlobRole::Config)]);
    Ok(Some(ImageRecord {
        id,
        platform: config.platform(),
        manifest: Some(descriptor.clone()),
        diff_ids: config.rootfs.diff_ids.clone(),
        snapshot: None,
        size: manifest.layers.iter().map(|layer| layer.size).sum(),
        created_at: config.created.as_deref().and_then(|text| text.parse().ok()),
        blobs,
    }))
}
