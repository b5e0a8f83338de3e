//! Names and ids of stored images: what people type, what they see in lists, what naming and removing do.

mod diff;
mod filter;
mod history;
mod inspect;
mod remove;
mod told;

use jiff::Timestamp;
use rbuild_cache::{ImageError, Store, StoredImage};
use rbuild_image::{Digest, ImageConfig, ImageRef, MAX_CONFIG_BYTES, Platform};

use crate::cli::report::Failure;

pub(crate) use diff::diff;
pub use filter::{FilterUse, ImageFilter};
pub use history::{HistoryRow, history};
pub use inspect::Inspection;
pub use remove::{Removal, Removed, prune, remove};
pub(crate) use told::{Known, tell_of_prune, tell_of_transfer};

/// One line of `images`.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name without tag; `<none>` for an image that has lost its name.
    pub repository: String,
    /// Tag; `<none>` where there is none.
    pub tag: String,
    /// The digest it was pulled by.
    pub digest: Option<Digest>,
    /// Digest of the config.
    pub id: Digest,
    /// When the config says it was made.
    pub created: Option<Timestamp>,
    /// What it runs on.
    pub platform: Platform,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Bytes of its blobs: configuration, manifest, and layers as they came.
    pub content_size: u64,
}

impl Row {
    /// The digest as lists show it.
    pub fn digest_text(&self) -> String {
        self.digest.map_or_else(|| "<none>".to_owned(), |digest| digest.to_string())
    }
}

/// The lines of `images`, newest first.
pub fn list(store: &Store, filter: &ImageFilter) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for image in store.images().list()? {
        if !filter.takes(store, &image)? {
            continue;
        }
        let record = &image.record;
        let content_size = record.blobs.keys().filter_map(|blob| store.blobs().len(blob).ok()).sum();
        let row = |repository: String, tag: String, digest| Row {
            repository,
            tag,
            digest,
            id: record.id,
            created: record.created_at,
            platform: record.platform.clone(),
            size: record.size,
            content_size,
        };
        let tagged: Vec<&ImageRef> = image.references.iter().filter(|reference| reference.tag().is_some()).collect();
        if tagged.is_empty() && filter.dangling() != Some(false) {
            let by_digest = image.references.first();
            if by_digest.map_or(!filter.asks_for_names(), |reference| filter.takes_name(reference)) {
                let repository = by_digest.map_or_else(|| "<none>".to_owned(), ImageRef::familiar_name);
                rows.push(row(repository, "<none>".to_owned(), by_digest.and_then(|known| known.digest()).copied()));
            }
        }
        if filter.dangling() == Some(true) {
            continue;
        }
        for reference in tagged.into_iter().filter(|reference| filter.takes_name(reference)) {
            let tag = reference.tag().unwrap_or("<none>").to_owned();
            // As Docker: the digest that this repository is known to have it by.
            let known = image.references.iter().filter(|known| known.name() == reference.name());
            rows.push(row(reference.familiar_name(), tag, known.filter_map(|known| known.digest()).next().copied()));
        }
    }
    Ok(rows)
}

/// Finds an image by name or id.
pub fn find(store: &Store, text: &str, platform: Option<&Platform>) -> Result<StoredImage, Failure> {
    store.images().find(text, platform).map_err(explain)
}

/// An image's config.
pub fn config(store: &Store, id: &Digest) -> Result<ImageConfig, Failure> {
    let bytes = store.blobs().read(id, MAX_CONFIG_BYTES)?;
    ImageConfig::parse(&bytes).map_err(Failure::from)
}

/// An image's details in Docker's form.
pub fn inspect(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Inspection, Failure> {
    let image = find(store, text, platform)?;
    let (tags, digests): (Vec<_>, Vec<_>) = image.references.iter().partition(|reference| reference.tag().is_some());
    let texts = |references: Vec<&ImageRef>| references.into_iter().map(ToString::to_string).collect();
    let about = inspect::About {
        id: image.record.id.to_string(),
        tags: texts(tags),
        digests: texts(digests),
        size: image.record.size,
        stored: image.stored_at.to_string(),
        manifest: image.record.manifest.clone(),
    };
    Ok(Inspection::new(config(store, &image.record.id)?, about))
}

/// Refuses what cannot be given as a name: a digest says what an image is, whatever it is called.
pub(crate) fn check_new(name: &ImageRef) -> Result<(), Failure> {
    if name.digest().is_some() {
        return Err(Failure::usage(format!("{name}: a name with a digest cannot be given"), "use name:tag"));
    }
    if name.familiar_name() == "sha256" {
        return Err(Failure::usage(
            format!("{name}: an image cannot be called as a digest's algorithm is"),
            "what begins with sha256: is an image's id; use another name",
        ));
    }
    Ok(())
}

/// Gives an image another name.
pub fn tag(store: &Store, source: &str, target: &ImageRef) -> Result<(), Failure> {
    check_new(target)?;
    let image = find(store, source, None)?;
    store.images().tag(target, &image.record.id).map_err(explain)?;
    Known::of(store, &image.record.id).tell_of_name(store, target);
    Ok(())
}

/// Adds to an error what to do about it.
pub fn explain(error: ImageError) -> Failure {
    let help = match &error {
        ImageError::NotFound { .. } => "`rbuild images` lists what there is; `rbuild pull` fetches",
        ImageError::Ambiguous { .. } => "give more digits",
        _ => return Failure::from(error),
    };
    Failure::from(error).with_help(help)
}
