//! Documents that are in memory, several at once: one directory sync and one transaction for all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;

use rbuild_image::Digest;

use super::ingest::IngestError;
use super::{held_size, name, sync_directories};
use crate::db::DbError;
use crate::failpoint;
use crate::lease::{Hold, Lease};
use crate::lock::{LockMode, LockName, OnWait};
use crate::path_error::{AtPath, PathError};
use crate::store::Store;

pub(super) fn put_all(
    store: &Store,
    lease: &Lease,
    on_wait: OnWait<'_>,
    documents: &[&[u8]],
) -> Result<Vec<Digest>, IngestError> {
    let digests: Vec<Digest> = documents.iter().map(Digest::sha256).collect();
    let mut wanted: BTreeMap<Digest, &[u8]> = digests.iter().copied().zip(documents.iter().copied()).collect();
    for digest in wanted.keys() {
        lease.hold(Hold::Blob(*digest))?;
    }
    drop_present(store, &mut wanted)?;
    if wanted.is_empty() {
        return Ok(digests);
    }
    // In order of their names: two processes with overlapping sets cannot wait for each other.
    let mut locks = Vec::new();
    for digest in wanted.keys() {
        locks.push(store.lock(&LockName::blob(digest), LockMode::Exclusive, on_wait)?);
    }
    drop_present(store, &mut wanted)?;
    let mut named = Vec::new();
    for (digest, bytes) in &wanted {
        place(store, lease, digest, bytes)?;
        named.push((*digest, bytes.len() as u64));
    }
    failpoint::hit("put-sync-directory").at("sync", store.layout().root())?;
    sync_directories(store, wanted.keys().copied())?;
    failpoint::hit("put-name").at("name", store.layout().root())?;
    name(store, &named)?;
    drop(locks);
    Ok(digests)
}

fn place(store: &Store, lease: &Lease, digest: &Digest, bytes: &[u8]) -> Result<(), PathError> {
    let path = lease.scratch_name("blob")?;
    let mut file = File::create_new(&path).at("create", &path)?;
    file.write_all(bytes).at("write", &path)?;
    failpoint::hit("put-sync").and_then(|()| file.sync_all()).at("sync", &path)?;
    let target = store.layout().blob(digest);
    failpoint::hit("put-rename").and_then(|()| fs::rename(&path, &target)).at("rename", &path)
}

fn drop_present(store: &Store, wanted: &mut BTreeMap<Digest, &[u8]>) -> Result<(), DbError> {
    let mut present = Vec::new();
    for digest in wanted.keys() {
        if held_size(store, digest)?.is_some() {
            present.push(*digest);
        }
    }
    wanted.retain(|digest, _| !present.contains(digest));
    Ok(())
}
