//! A blob that was written elsewhere below the store's root, by somebody who digested it on the way: it gets a second name
//! instead of a second copy.

use std::fs::{self, File};
use std::path::Path;

use rbuild_image::Digest;

use super::ingest::IngestError;
use super::{held_size, name, remove_if_there, sync_directories};
use crate::failpoint;
use crate::lease::{Hold, Lease};
use crate::lock::{LockMode, LockName, OnWait};
use crate::path_error::AtPath;
use crate::store::Store;

pub(super) fn adopt(
    store: &Store,
    lease: &Lease,
    on_wait: OnWait<'_>,
    path: &Path,
    digest: &Digest,
    size: u64,
) -> Result<(), IngestError> {
    lease.hold(Hold::Blob(*digest))?;
    let _lock = store.lock(&LockName::blob(digest), LockMode::Exclusive, on_wait)?;
    if held_size(store, digest)?.is_some() {
        return Ok(());
    }
    store.grows_by(size);
    let file = File::open(path).at("open", path)?;
    let got = file.metadata().at("inspect", path)?.len();
    if got != size {
        return Err(IngestError::Size { digest: *digest, want: size, got });
    }
    failpoint::hit("adopt-sync").and_then(|()| file.sync_all()).at("sync", path)?;
    let target = store.layout().blob(digest);
    // What lies there without a row is what a crash left.
    remove_if_there(&target)?;
    failpoint::hit("adopt-link").and_then(|()| fs::hard_link(path, &target)).at("link", path)?;
    failpoint::hit("adopt-sync-directory").at("sync", &target)?;
    sync_directories(store, std::iter::once(*digest))?;
    failpoint::hit("adopt-name").at("name", &target)?;
    name(store, &[(*digest, size)])?;
    failpoint::hit("adopt-done").at("name", &target)?;
    Ok(())
}
