//! Images and the references that lead to them.
//!
//! An image is its config's digest. A reference leads to one image per platform and moves in one synced transaction,
//! after everything it needs is durable. Removing an image frees nothing by itself: collection does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rbuild_image::{Descriptor, DiffId, Digest, ImageRef, Platform};

use crate::db::{DbError, Durability, Json, Micros, Text, Tx};
use crate::id::SnapshotId;
use crate::lease::{Hold, Lease};
use crate::path_error::PathError;
use crate::store::Store;

/// What a blob is to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlobRole {
    /// The config; every image has it.
    Config,
    /// The manifest that the image came with.
    Manifest,
    /// The index that the manifest came from.
    Index,
    /// A layer as it was pulled, kept so that pushing it back changes nothing.
    Layer,
}

impl BlobRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Layer => "layer",
        }
    }

    fn from_column(text: &str) -> rusqlite::Result<Self> {
        match text {
            "config" => Ok(Self::Config),
            "manifest" => Ok(Self::Manifest),
            "index" => Ok(Self::Index),
            "layer" => Ok(Self::Layer),
            _ => Err(rusqlite::Error::InvalidQuery),
        }
    }
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its config.
    pub id: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// The manifest that it was pulled or loaded with.
    pub manifest: Option<Descriptor>,
    /// Its layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// Its topmost layer; `None` when it has no layers, or when they are not unpacked yet.
    pub snapshot: Option<SnapshotId>,
    /// Bytes of all its layers, unpacked.
    pub size: u64,
    /// When its config says it was made.
    pub created_at: Option<Timestamp>,
    /// Blobs that belong to it; the config among them.
    pub blobs: BTreeMap<Digest, BlobRole>,
}

/// An image as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// What is known of it.
    pub record: ImageRecord,
    /// The references that lead to it, with tags or digests, in canonical order.
    pub references: Vec<ImageRef>,
    /// When it came in.
    pub stored_at: Timestamp,
    /// When it was last resolved for use.
    pub used_at: Timestamp,
}

/// What became of a reference's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untagged {
    /// The image it led to.
    pub image: Digest,
    /// The references that still lead there.
    pub left: Vec<ImageRef>,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has that name or id.
    #[error("no such image: {text}")]
    NotFound {
        /// What was asked for.
        text: String,
    },
    /// Several ids begin like that.
    #[error("{text} is the beginning of several image ids: {}", candidates.iter().map(Digest::short).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// The ids.
        candidates: Vec<Digest>,
    },
    /// A blob or snapshot that the record names is not there.
    #[error("image {} needs {what}, which is not in the store", id.short())]
    Incomplete {
        /// The image.
        id: Digest,
        /// What is missing.
        what: String,
    },
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The lease cannot be written.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Images and references.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    store: &'a Store,
}

impl Store {
    /// Images and references.
    pub fn images(&self) -> Images<'_> {
        Images { store: self }
    }
}

impl Images<'_> {
    /// Stores an image and makes `references` lead to it, at once. A lease must hold its blobs and its snapshot.
    pub fn put(&self, record: &ImageRecord, references: &[ImageRef]) -> Result<(), ImageError> {
        // A build that hit everywhere says what is known already; a synced transaction would be most of its time.
        if self.store.db().read(|tx| is_stored(tx, record, references))? {
            return Ok(());
        }
        let now = self.store.now();
        self.store.db().write(Durability::Synced, |tx| {
            check_complete(tx, record)?;
            tx.execute(
                "INSERT INTO images (id, platform, manifest, diff_ids, snapshot, size, created_at, stored_at, used_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
                 ON CONFLICT (id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest),
                     snapshot = coalesce(excluded.snapshot, snapshot), size = excluded.size, used_at = excluded.used_at",
                (
                    Text(record.id),
                    Text(&record.platform),
                    record.manifest.as_ref().map(Json),
                    Json(&record.diff_ids),
                    record.snapshot,
                    record.size,
                    record.created_at.map(Micros),
                    Micros(now),
                ),
            )?;
            for (digest, role) in &record.blobs {
                tx.execute(
                    "INSERT OR IGNORE INTO image_blobs (image, blob, role) VALUES (?1, ?2, ?3)",
                    (Text(record.id), Text(digest), role.as_str()),
                )?;
            }
            for reference in references {
                point(tx, reference, &record.platform, &record.id, now)?;
            }
            Ok(())
        })
    }

    /// Makes a reference lead to a stored image; where it led before is forgotten.
    pub fn tag(&self, reference: &ImageRef, id: &Digest) -> Result<(), ImageError> {
        let now = self.store.now();
        self.store.db().write(Durability::Synced, |tx| {
            let found = tx.first("SELECT platform FROM images WHERE id = ?1", [Text(id)], |row| row.get(0))?;
            let Some(Text(platform)) = found else { return Err(ImageError::NotFound { text: id.to_string() }) };
            point(tx, reference, &platform, id, now)
        })
    }

    /// Lets go of blobs that layers came as, where these are kept as their tars: no image keeps them any more, and a
    /// collection takes them when nobody uses them. Gives how many blobs these are.
    pub fn let_go_of_layer_blobs(&self, blobs: &[(DiffId, Digest)]) -> Result<usize, ImageError> {
        self.store.db().write(Durability::Lazy, |tx| {
            let mut gone = BTreeSet::new();
            for (diff_id, blob) in blobs {
                // A directory is compared with what its blob unpacks to.
                let rows = tx.execute(
                    "DELETE FROM image_blobs WHERE blob = ?2 AND role = 'layer'
                         AND EXISTS (SELECT 1 FROM layers WHERE diff_id = ?1)
                         AND NOT EXISTS (SELECT 1 FROM layers WHERE diff_id = ?1 AND kind <> 'erofs')",
                    (Text(diff_id), Text(blob)),
                )?;
                if rows > 0 {
                    gone.insert(*blob);
                }
            }
            Ok(gone.len())
        })
    }

    /// Says that an image's layers are unpacked now.
    pub fn set_snapshot(&self, id: &Digest, snapshot: SnapshotId, size: u64) -> Result<(), ImageError> {
        let changed = self.store.db().write(Durability::Lazy, |tx| {
            tx.execute("UPDATE images SET snapshot = ?2, size = ?3 WHERE id = ?1", (Text(id), snapshot, size))
        })?;
        if changed == 0 { Err(ImageError::NotFound { text: id.to_string() }) } else { Ok(()) }
    }

    /// Forgets a reference, on all platforms. The images stay, perhaps without a name.
    pub fn untag(&self, reference: &ImageRef) -> Result<Vec<Untagged>, ImageError> {
        let key = key_of(reference);
        self.store.db().write(Durability::Synced, |tx| {
            let images: Vec<Text<Digest>> =
                tx.all("DELETE FROM tags WHERE reference = ?1 RETURNING image", [&key], |row| row.get(0))?;
            if images.is_empty() {
                return Err(ImageError::NotFound { text: reference.to_string() });
            }
            let mut untagged = Vec::new();
            for Text(image) in images {
                untagged.push(Untagged { image, left: references_of(tx, &image)? });
            }
            Ok(untagged)
        })
    }

    /// Forgets an image and all references to it. Its files go with the next collection, unless something else needs
    /// them. Returns the references.
    pub fn remove(&self, id: &Digest) -> Result<Vec<ImageRef>, ImageError> {
        self.store.db().write(Durability::Synced, |tx| {
            let references = references_of(tx, id)?;
            tx.execute("DELETE FROM tags WHERE image = ?1", [Text(id)])?;
            match tx.execute("DELETE FROM images WHERE id = ?1", [Text(id)])? {
                0 => Err(ImageError::NotFound { text: id.to_string() }),
                _ => Ok(references),
            }
        })
    }

    /// The image that a reference leads to. Among several platforms, the one that serves `platform` (or this machine)
    /// best.
    pub fn get(&self, reference: &ImageRef, platform: Option<&Platform>) -> Result<Option<StoredImage>, DbError> {
        self.store.db().read(|tx| match by_reference(tx, reference, platform)? {
            None => Ok(None),
            Some(id) => load(tx, &id),
        })
    }

    /// The image with an id.
    pub fn by_id(&self, id: &Digest) -> Result<Option<StoredImage>, DbError> {
        self.store.db().read(|tx| load(tx, id))
    }

    /// The image that people mean by `text`: a reference, an id, or the beginning of an id.
    pub fn find(&self, text: &str, platform: Option<&Platform>) -> Result<StoredImage, ImageError> {
        self.store.db().read(|tx| find(tx, text, platform))
    }

    /// Finds an image for use: `lease` keeps its snapshot and blobs, whatever others remove meanwhile.
    pub fn acquire(&self, text: &str, platform: Option<&Platform>, lease: &Lease) -> Result<StoredImage, ImageError> {
        loop {
            let image = self.find(text, platform)?;
            for digest in image.record.blobs.keys() {
                lease.hold(Hold::Blob(*digest))?;
            }
            if let Some(snapshot) = image.record.snapshot {
                lease.hold(Hold::Snapshot(snapshot))?;
            }
            // Still the same one: so it kept its parts until the lease did.
            let id = Text(image.record.id);
            let found = self.store.db().read(|tx| {
                tx.first("SELECT snapshot FROM images WHERE id = ?1", [&id], |row| row.get::<_, Option<SnapshotId>>(0))
            })?;
            if found == Some(image.record.snapshot) {
                let now = self.store.now();
                self.store.db().write(Durability::Lazy, |tx| {
                    tx.execute("UPDATE images SET used_at = ?2 WHERE id = ?1", (&id, Micros(now)))
                })?;
                return Ok(image);
            }
        }
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<StoredImage>, DbError> {
        self.store.db().read(|tx| {
            let order = "SELECT id FROM images ORDER BY coalesce(created_at, stored_at) DESC, id";
            let ids: Vec<Text<Digest>> = tx.all(order, [], |row| row.get(0))?;
            let mut images = Vec::with_capacity(ids.len());
            for Text(id) in ids {
                images.extend(load(tx, &id)?);
            }
            Ok(images)
        })
    }
}

/// The text under which a reference is kept: a digest beats a tag, nothing means `latest`.
fn key_of(reference: &ImageRef) -> String {
    match reference.digest() {
        Some(digest) => reference.with_digest(*digest).canonical(),
        None => reference.tag_or_latest().canonical(),
    }
}

fn point(
    tx: &Tx<'_>,
    reference: &ImageRef,
    platform: &Platform,
    id: &Digest,
    now: Timestamp,
) -> Result<(), ImageError> {
    tx.execute(
        "INSERT OR REPLACE INTO tags (reference, platform, image, updated_at) VALUES (?1, ?2, ?3, ?4)",
        (key_of(reference), Text(platform), Text(id), Micros(now)),
    )?;
    Ok(())
}

/// Whether storing this would change nothing.
fn is_stored(tx: &Tx<'_>, record: &ImageRecord, references: &[ImageRef]) -> Result<bool, DbError> {
    let Some(stored) = load(tx, &record.id)?.map(|image| image.record) else { return Ok(false) };
    let same = stored.platform == record.platform
        && stored.size == record.size
        && (record.manifest.is_none() || stored.manifest == record.manifest)
        && (record.snapshot.is_none() || stored.snapshot == record.snapshot)
        && record.blobs.iter().all(|(digest, role)| stored.blobs.get(digest) == Some(role));
    if !same {
        return Ok(false);
    }
    for reference in references {
        let sql = "SELECT image = ?3 FROM tags WHERE reference = ?1 AND platform = ?2";
        let params = (key_of(reference), Text(&record.platform), Text(record.id));
        if tx.first(sql, params, |row| row.get::<_, bool>(0))? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_complete(tx: &Tx<'_>, record: &ImageRecord) -> Result<(), ImageError> {
    let missing = |what: String| Err(ImageError::Incomplete { id: record.id, what });
    if record.blobs.get(&record.id) != Some(&BlobRole::Config) {
        return missing("its config".to_owned());
    }
    for digest in record.blobs.keys() {
        if tx.first("SELECT 1 FROM blobs WHERE digest = ?1", [Text(digest)], |_| Ok(()))?.is_none() {
            return missing(format!("blob {digest}"));
        }
    }
    if let Some(snapshot) = record.snapshot
        && tx.first("SELECT 1 FROM snapshots WHERE id = ?1", [snapshot], |_| Ok(()))?.is_none()
    {
        return missing(format!("snapshot {snapshot}"));
    }
    Ok(())
}

fn find(tx: &Tx<'_>, text: &str, platform: Option<&Platform>) -> Result<StoredImage, ImageError> {
    let not_found = || ImageError::NotFound { text: text.to_owned() };
    if let Ok(reference) = text.parse::<ImageRef>()
        && let Some(id) = by_reference(tx, &reference, platform)?
    {
        return load(tx, &id)?.ok_or_else(not_found);
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(not_found());
    }
    let low = format!("sha256:{digits}");
    let mut candidates: Vec<Text<Digest>> = tx.all(
        "SELECT id FROM images WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 5",
        (&low, format!("{low}g")),
        |row| row.get(0),
    )?;
    match (candidates.pop(), candidates.is_empty()) {
        (None, _) => Err(not_found()),
        (Some(Text(id)), true) => load(tx, &id)?.ok_or_else(not_found),
        (Some(last), false) => {
            candidates.push(last);
            let candidates = candidates.into_iter().map(|Text(id)| id).collect();
            Err(ImageError::Ambiguous { text: text.to_owned(), candidates })
        }
    }
}

fn by_reference(tx: &Tx<'_>, reference: &ImageRef, platform: Option<&Platform>) -> Result<Option<Digest>, DbError> {
    let rows: Vec<(Text<Platform>, Text<Digest>)> = tx.all(
        "SELECT platform, image FROM tags WHERE reference = ?1 ORDER BY updated_at DESC, platform",
        [key_of(reference)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let host = Platform::host();
    let ranked = rows.iter().filter_map(|(Text(have), Text(id))| match platform {
        Some(wanted) => have.rank_for(wanted).map(|rank| (rank, *id)),
        None => Some((have.rank_for(&host).unwrap_or(u32::MAX), *id)),
    });
    // The first of equals: the newest.
    Ok(ranked.min_by_key(|(rank, _)| *rank).map(|(_, id)| id))
}

fn references_of(tx: &Tx<'_>, id: &Digest) -> Result<Vec<ImageRef>, DbError> {
    let rows: Vec<Text<ImageRef>> =
        tx.all("SELECT DISTINCT reference FROM tags WHERE image = ?1 ORDER BY reference", [Text(id)], |row| {
            row.get(0)
        })?;
    Ok(rows.into_iter().map(|Text(reference)| reference).collect())
}

fn load(tx: &Tx<'_>, id: &Digest) -> Result<Option<StoredImage>, DbError> {
    let sql = "SELECT platform, manifest, diff_ids, snapshot, size, created_at, stored_at, used_at
               FROM images WHERE id = ?1";
    let found = tx.first(sql, [Text(id)], |row| {
        let (Text(platform), Json(diff_ids)) = (row.get(0)?, row.get(2)?);
        let (Micros(stored_at), Micros(used_at)) = (row.get(6)?, row.get(7)?);
        let record = ImageRecord {
            id: *id,
            platform,
            manifest: row.get::<_, Option<Json<Descriptor>>>(1)?.map(|Json(manifest)| manifest),
            diff_ids,
            snapshot: row.get(3)?,
            size: row.get(4)?,
            created_at: row.get::<_, Option<Micros>>(5)?.map(|Micros(time)| time),
            blobs: BTreeMap::new(),
        };
        Ok(StoredImage { record, references: Vec::new(), stored_at, used_at })
    })?;
    let Some(mut image) = found else { return Ok(None) };
    let blobs = tx.all("SELECT blob, role FROM image_blobs WHERE image = ?1", [Text(id)], |row| {
        let Text(digest) = row.get(0)?;
        Ok((digest, BlobRole::from_column(&row.get::<_, String>(1)?)?))
    })?;
    image.record.blobs = blobs.into_iter().collect();
    image.references = references_of(tx, id)?;
    Ok(Some(image))
}
