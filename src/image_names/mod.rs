//! Names and ids of stored images: what people type, what they see in lists, what naming and removing do.

mod inspect;

use jiff::Timestamp;
use rbuild_cache::{BlobRole, ImageError, Store, StoredImage};
use rbuild_image::{Digest, ImageConfig, ImageRef, MAX_CONFIG_BYTES, Platform};

use crate::cli::report::Failure;

pub use inspect::Inspection;

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
}

impl Row {
    /// The digest as lists show it.
    pub fn digest_text(&self) -> String {
        self.digest.map_or_else(|| "<none>".to_owned(), |digest| digest.to_string())
    }
}

/// Which images a list shows.
#[derive(Clone, Debug)]
pub struct ListFilter {
    name: String,
    tag: Option<String>,
}

impl ListFilter {
    /// Parses `NAME[:TAG]`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let reference: ImageRef = text.parse()?;
        Ok(Self { name: reference.name(), tag: reference.tag().map(str::to_owned) })
    }

    fn matches(&self, reference: &ImageRef) -> bool {
        reference.name() == self.name && self.tag.as_deref().is_none_or(|tag| reference.tag() == Some(tag))
    }
}

/// The lines of `images`, newest first.
pub fn list(store: &Store, filter: Option<&ListFilter>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for image in store.images().list()? {
        let record = &image.record;
        let row = |repository: String, tag: String, digest| Row {
            repository,
            tag,
            digest,
            id: record.id,
            created: record.created_at,
            platform: record.platform.clone(),
            size: record.size,
        };
        let manifest = record.manifest.as_ref().map(|manifest| manifest.digest);
        let tagged: Vec<&ImageRef> = image.references.iter().filter(|reference| reference.tag().is_some()).collect();
        if filter.is_none() && tagged.is_empty() {
            let by_digest = image.references.first().map(ImageRef::familiar_name);
            rows.push(row(by_digest.unwrap_or_else(|| "<none>".to_owned()), "<none>".to_owned(), manifest));
        }
        for reference in tagged {
            if filter.is_none_or(|filter| filter.matches(reference)) {
                let tag = reference.tag().unwrap_or("<none>").to_owned();
                rows.push(row(reference.familiar_name(), tag, manifest));
            }
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

/// Gives an image another name.
pub fn tag(store: &Store, source: &str, target: &ImageRef) -> Result<(), Failure> {
    if target.digest().is_some() {
        return Err(Failure::usage(format!("{target}: a name with a digest cannot be given"), "use name:tag"));
    }
    let image = find(store, source, None)?;
    store.images().tag(target, &image.record.id).map_err(explain)
}

/// How much `remove` may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A name, or an image that has only one.
    Careful,
    /// All names of an image; a missing image is no failure.
    Force,
}

/// What `remove` did.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<ImageRef>,
    /// Images that are gone.
    pub deleted: Vec<Digest>,
}

/// Removes a name, and the image with its last name; an id removes the image with all its names.
pub fn remove(store: &Store, text: &str, removal: Removal) -> Result<Removed, Failure> {
    let images = store.images();
    let image = match images.find(text, None) {
        Err(ImageError::NotFound { .. }) if removal == Removal::Force => return Ok(Removed::default()),
        found => found.map_err(explain)?,
    };
    let users = users(store, &image)?;
    let named = text.parse::<ImageRef>().ok().and_then(|typed| {
        let typed = typed.tag_or_latest();
        image.references.iter().find(|reference| reference.canonical() == typed.canonical()).cloned()
    });
    match named {
        Some(reference) if image.references.len() > 1 => {
            images.untag(&reference).map_err(explain)?;
            Ok(Removed { untagged: vec![reference], deleted: Vec::new() })
        }
        _ if !users.is_empty() && removal == Removal::Careful => Err(Failure::new(format!(
            "unable to remove {text}: container {} is using its image {}",
            users.join(", "),
            image.record.id.short()
        ))
        .with_help("remove the container with `rbuild rm`, or use rmi -f")),
        None if image.references.len() > 1 && removal == Removal::Careful => Err(Failure::new(format!(
            "unable to delete {text}: image has several names: {}",
            image.references.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))
        .with_help("remove it by one of them, or all with rmi -f")),
        _ => {
            let untagged = images.remove(&image.record.id).map_err(explain)?;
            Ok(Removed { untagged, deleted: vec![image.record.id] })
        }
    }
}

/// Containers that keep an image's snapshot or config.
fn users(store: &Store, image: &StoredImage) -> Result<Vec<String>, Failure> {
    let mut users = Vec::new();
    for (owner, kept) in store.roots().list()? {
        let uses = kept.iter().any(|kept| match kept {
            rbuild_cache::Kept::Snapshot(snapshot) => Some(*snapshot) == image.record.snapshot,
            rbuild_cache::Kept::Blob(blob) => image.record.blobs.get(blob) == Some(&BlobRole::Config),
        });
        if let (true, Some(container)) = (uses, owner.strip_prefix("container/")) {
            users.push(container.chars().take(12).collect());
        }
    }
    Ok(users)
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
