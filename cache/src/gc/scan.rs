//! Files that have no row: left by a crash between a deletion's transaction and its files, or between a rename and
//! its transaction.
//!
//! Such a file may also belong to somebody who is about to name it. So, in this order: list the files, read what live
//! leases hold, read the rows. Whoever is about to name a layer holds its path before it appears; blobs and mounts are
//! named under their locks. Besides, nothing younger than the oldest live lease is touched.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::{Algorithm, Digest};

use super::PruneError;
use super::sweep::Sweeper;
use crate::db::DbError;
use crate::lease::{self, Hold, LiveHolds};
use crate::lock::{LockMode, LockName};
use crate::mount_cache::lock_name;
use crate::path_error::{AtPath, PathError};
use crate::store::Store;
use crate::usage::disk_usage;

/// For how long a partial download waits for somebody to go on with it.
const PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// A file or directory in the store.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    /// When it got this name, or changed last.
    changed: Timestamp,
}

/// What lies in the store without a row, a lease or a lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Garbage {
    pub(crate) layers: Vec<Found>,
    pub(crate) merged: Vec<Found>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) mounts: Vec<(String, i64, PathBuf)>,
    pub(crate) scratch: Vec<PathBuf>,
    pub(crate) partials: Vec<(Digest, PathBuf)>,
}

/// Bytes of partial downloads, whoever may still go on with them.
pub(super) fn partial_bytes(store: &Store) -> Result<u64, PathError> {
    list(&store.layout().ingest())?.iter().map(|found| disk_usage(&found.path)).sum()
}

/// Removes what nobody names.
pub(super) fn garbage(sweeper: &mut Sweeper<'_>) -> Result<ControlFlow<()>, PruneError> {
    let store = sweeper.store;
    let garbage = find(store)?;
    store.locks().remove_unheld()?;
    for found in garbage.layers {
        if (sweeper.interrupt)().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        sweeper.tree(&found.path)?;
    }
    for found in garbage.merged {
        sweeper.file(&found.path)?;
    }
    for digest in garbage.blobs {
        if (sweeper.interrupt)().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        sweeper.blob(&digest)?;
    }
    for (hash, instance, path) in garbage.mounts {
        let Some(_lock) = store.try_lock(&lock_name(&hash, instance), LockMode::Exclusive)? else { continue };
        if !named_mounts(store)?.contains(&(hash, instance)) {
            sweeper.tree(&path)?;
        }
    }
    for path in garbage.scratch {
        sweeper.tree(&path)?;
    }
    for path in super::quarantined(store)? {
        sweeper.tree(&path)?;
    }
    for (digest, path) in garbage.partials {
        let Some(_lock) = store.try_lock(&LockName::blob(&digest), LockMode::Exclusive)? else { continue };
        sweeper.file(&path)?;
    }
    Ok(ControlFlow::Continue(()))
}

/// Removes what layers were before they got another form, as far as nobody can use it any more.
pub(super) fn replaced_layers(sweeper: &mut Sweeper<'_>) -> Result<(), PruneError> {
    let store = sweeper.store;
    let layers = list(&store.layout().layers())?;
    let live = lease::live(store.layout())?;
    let named = named_layers(store)?;
    for found in layers.into_iter().filter(|found| !named.contains(&found.name)) {
        if is_abandoned(&found, &live) {
            sweeper.tree(&found.path)?;
        }
    }
    Ok(())
}

fn named_layers(store: &Store) -> Result<BTreeSet<String>, DbError> {
    let layers: Vec<String> = store.db().read(|tx| tx.all("SELECT path FROM layers", [], |row| row.get(0)))?;
    Ok(layers.into_iter().collect())
}

/// Finds what nobody names, without changing anything.
pub(crate) fn find(store: &Store) -> Result<Garbage, PruneError> {
    let layout = store.layout();
    let layers = list(&layout.layers())?;
    let merged = match layout.merged().exists() {
        true => list(&layout.merged())?,
        false => Vec::new(),
    };
    let mut blobs = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for found in list(&layout.blobs(algorithm))? {
            blobs.extend(format!("{}:{}", algorithm.name(), found.name).parse::<Digest>());
        }
    }
    let mut mounts = Vec::new();
    for cache in list(&layout.cache_mounts())? {
        for instance in list(&cache.path)? {
            mounts.extend(instance.name.parse::<i64>().map(|number| (cache.name.clone(), number, instance.path)));
        }
    }
    let scratch = list(&layout.tmp())?;
    let partials = list(&layout.ingest())?;

    let live = lease::live(layout)?;

    let [named_layers, named_merged, named_blobs] = store.db().read(|tx| {
        let names = |sql| Ok(tx.all(sql, [], |row| row.get::<_, String>(0))?.into_iter().collect::<BTreeSet<_>>());
        Ok::<_, DbError>([
            names("SELECT path FROM layers")?,
            names("SELECT path FROM merged")?,
            names("SELECT digest FROM blobs")?,
        ])
    })?;
    let named_mounts = named_mounts(store)?;
    let old = store.now().checked_sub(PARTIAL).unwrap_or(Timestamp::MIN);
    Ok(Garbage {
        layers: layers
            .into_iter()
            .filter(|found| !named_layers.contains(&found.name) && is_abandoned(found, &live))
            .collect(),
        merged: merged
            .into_iter()
            .filter(|found| !named_merged.contains(&found.name) && is_abandoned(found, &live))
            .collect(),
        blobs: blobs.into_iter().filter(|digest| !named_blobs.contains(&digest.to_string())).collect(),
        mounts: mounts
            .into_iter()
            .filter(|(hash, instance, _)| !named_mounts.contains(&(hash.clone(), *instance)))
            .collect(),
        scratch: scratch
            .into_iter()
            .filter(|found| found.path != layout.ingest() && !layout.leases().join(&found.name).exists())
            .map(|found| found.path)
            .collect(),
        partials: partials
            .into_iter()
            .filter(|found| found.changed < old)
            .filter_map(|found| Some((found.name.replacen('-', ":", 1).parse().ok()?, found.path)))
            .collect(),
    })
}

fn is_abandoned(found: &Found, live: &LiveHolds) -> bool {
    // The kernel's own clock for files may be some milliseconds behind.
    let changed = found.changed.checked_add(Duration::from_millis(20)).unwrap_or(Timestamp::MAX);
    let older = live.oldest.is_none_or(|oldest| changed < oldest);
    older && !live.holds.contains(&Hold::Layer(found.name.clone()))
}

fn named_mounts(store: &Store) -> Result<BTreeSet<(String, i64)>, DbError> {
    let rows = store.cache_mounts().list()?;
    Ok(rows.into_iter().map(|info| (info.hash, info.instance)).collect())
}

pub(super) fn list(directory: &Path) -> Result<Vec<Found>, PathError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        let entry = entry.at("list", directory)?;
        let path = entry.path();
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.at("inspect", &path)?,
        };
        // Ours are plain ASCII; what is not cannot be named by a row either.
        let name = entry.file_name().to_string_lossy().into_owned();
        let nanoseconds = i32::try_from(metadata.ctime_nsec()).unwrap_or(0);
        let changed = Timestamp::new(metadata.ctime(), nanoseconds).unwrap_or(Timestamp::MAX);
        all.push(Found { path, name, changed });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
