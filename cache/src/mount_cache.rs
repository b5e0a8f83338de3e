//! Directories behind `RUN --mount=type=cache`.
//!
//! A cache's name on disk is a digest of its id and of what it started from; the id itself is never part of a path
//! (B-01). Each has one or more *instances*: sharing decides which one a step gets, by locks that die with the process.
//!
//! | sharing | gets |
//! |---|---|
//! | shared  | the first instance that nobody has for himself, or a new one |
//! | private | the first instance that nobody uses, or a new one |
//! | locked  | instance 0, waiting until nobody uses it |
//!
//! New instances are filled in private and renamed, so a cache is never seen half filled. What steps write into one is
//! theirs: nothing here reads it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rbuild_executor::user_namespace::{Powers, powers};
use rbuild_image::Digest;

use crate::db::{DbError, Durability, Micros};
use crate::failpoint;
use crate::lease::Lease;
use crate::lock::{LockError, LockGuard, LockMode, LockName, OnWait};
use crate::path_error::{AtPath, PathError};
use crate::removal::remove_tree;
use crate::store::Store;
use crate::usage::disk_usage;

/// Most instances of one cache.
const INSTANCES: i64 = 1000;

/// How steps that run at the same time share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountSharing {
    /// All at once.
    Shared,
    /// Another instance for each.
    Private,
    /// One after another.
    Locked,
}

/// A cache that a step wants.
#[derive(Clone, Copy)]
pub struct CacheMountRequest<'a> {
    /// Its id, any text.
    pub id: &'a str,
    /// Identifies what a new one starts from; caches with other starts are other caches.
    pub base: Option<&'a str>,
    /// How it is shared.
    pub sharing: MountSharing,
    /// Mode of a new one's root.
    pub mode: u32,
    /// Owner of a new one's root, as this process names users.
    pub uid: u32,
    /// Group of a new one's root.
    pub gid: u32,
    /// Puts what a new one starts from into its root.
    pub fill: &'a (dyn Fn(&Path) -> io::Result<()> + Sync),
}

/// A cache in use; on drop it is free for others.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    directory: OwnedFd,
    _lock: LockGuard,
}

impl CacheMount {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself, opened once.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }
}

/// An instance of a cache, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// The name on disk.
    pub hash: String,
    /// Which instance.
    pub instance: i64,
    /// The id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a step last got it.
    pub used_at: Timestamp,
    /// How often.
    pub use_count: u64,
}

/// Why a cache cannot be had or removed.
#[derive(Debug, thiserror::Error)]
pub enum CacheMountError {
    /// It is in use.
    #[error("cache mount {id:?} is in use")]
    InUse {
        /// Its id.
        id: String,
    },
    /// There are too many instances already.
    #[error("cache mount {id:?} has {INSTANCES} instances in use")]
    TooMany {
        /// Its id.
        id: String,
    },
    /// Waiting ended.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Cache mounts.
#[derive(Clone, Copy, Debug)]
pub struct CacheMounts<'a> {
    store: &'a Store,
}

impl Store {
    /// Cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts<'_> {
        CacheMounts { store: self }
    }
}

impl CacheMounts<'_> {
    /// Gets a cache for a step, making it if need be.
    pub fn acquire(
        &self,
        request: &CacheMountRequest<'_>,
        lease: &Lease,
        on_wait: OnWait<'_>,
    ) -> Result<CacheMount, CacheMountError> {
        let hash = hash(request.id, request.base);
        let (instance, lock) = self.claim(request, &hash, on_wait)?;
        let path = self.store.layout().cache_mount(&hash, instance);
        if !path.try_exists().at("inspect", &path)? {
            // Sharers of a new instance make it once.
            let making = LockName::other("cache-mount-new", &path.to_string_lossy());
            let _making = self.store.lock(&making, LockMode::Exclusive, on_wait)?;
            if !path.try_exists().at("inspect", &path)? {
                make(request, lease, &path)?;
            }
        }
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "INSERT INTO cache_mounts (hash, instance, id, created_at, used_at, use_count)
                 VALUES (?1, ?2, ?3, ?4, ?4, 1)
                 ON CONFLICT (hash, instance) DO UPDATE SET used_at = excluded.used_at, use_count = use_count + 1",
                (&hash, instance, request.id, Micros(now)),
            )
        })?;
        let directory = File::open(&path).at("open", &path)?.into();
        Ok(CacheMount { path, directory, _lock: lock })
    }

    /// All instances, by id.
    pub fn list(&self) -> Result<Vec<CacheMountInfo>, DbError> {
        let sql = "SELECT hash, instance, id, created_at, used_at, use_count FROM cache_mounts
                   ORDER BY id, hash, instance";
        self.store.db().read(|tx| {
            tx.all(sql, [], |row| {
                let (Micros(created_at), Micros(used_at)) = (row.get(3)?, row.get(4)?);
                Ok(CacheMountInfo {
                    hash: row.get(0)?,
                    instance: row.get(1)?,
                    id: row.get(2)?,
                    created_at,
                    used_at,
                    use_count: row.get(5)?,
                })
            })
        })
    }

    /// Bytes on disk of an instance. Walks it.
    pub fn size(&self, info: &CacheMountInfo) -> Result<u64, PathError> {
        disk_usage(&self.store.layout().cache_mount(&info.hash, info.instance))
    }

    /// Removes an instance that nobody uses; how many bytes that gave back.
    pub fn remove(&self, info: &CacheMountInfo, lease: &Lease) -> Result<u64, CacheMountError> {
        let name = lock_name(&info.hash, info.instance);
        let Some(_lock) = self.store.try_lock(&name, LockMode::Exclusive)? else {
            return Err(CacheMountError::InUse { id: info.id.clone() });
        };
        self.store.db().write(Durability::Synced, |tx| {
            tx.execute("DELETE FROM cache_mounts WHERE hash = ?1 AND instance = ?2", (&info.hash, info.instance))
        })?;
        let path = self.store.layout().cache_mount(&info.hash, info.instance);
        failpoint::hit("mount-remove").at("remove", &path)?;
        let doomed = lease.scratch_name("cache-mount")?;
        match fs::rename(&path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.at("rename", &path)?,
        }
        let freed = remove_tree(&doomed).at("remove", &doomed)?;
        // Fails while there are other instances.
        let parent = self.store.layout().cache_mounts().join(&info.hash);
        if let Err(error) = fs::remove_dir(&parent) {
            tracing::debug!(path = %parent.display(), %error, "directory stays");
        }
        Ok(freed)
    }

    pub(crate) fn try_lock(&self, info: &CacheMountInfo, mode: LockMode) -> Result<Option<LockGuard>, CacheMountError> {
        Ok(self.store.try_lock(&lock_name(&info.hash, info.instance), mode)?)
    }

    pub(crate) fn directory(&self, info: &CacheMountInfo) -> PathBuf {
        self.store.layout().cache_mount(&info.hash, info.instance)
    }

    fn claim(
        &self,
        request: &CacheMountRequest<'_>,
        hash: &str,
        on_wait: OnWait<'_>,
    ) -> Result<(i64, LockGuard), CacheMountError> {
        let mode = match request.sharing {
            MountSharing::Locked => {
                return Ok((0, self.store.lock(&lock_name(hash, 0), LockMode::Exclusive, on_wait)?));
            }
            MountSharing::Shared => LockMode::Shared,
            MountSharing::Private => LockMode::Exclusive,
        };
        for instance in 0..INSTANCES {
            if let Some(lock) = self.store.try_lock(&lock_name(hash, instance), mode)? {
                return Ok((instance, lock));
            }
        }
        Err(CacheMountError::TooMany { id: request.id.to_owned() })
    }
}

pub(crate) fn lock_name(hash: &str, instance: i64) -> LockName {
    LockName::other("cache-mount", &format!("{hash}/{instance}"))
}

fn hash(id: &str, base: Option<&str>) -> String {
    // Lengths keep the two apart.
    Digest::sha256(format!("{}:{id}:{}", id.len(), base.unwrap_or_default())).hex()
}

fn make(request: &CacheMountRequest<'_>, lease: &Lease, target: &Path) -> Result<(), PathError> {
    let path = lease.scratch_name("cache-mount")?;
    DirBuilder::new().mode(0o700).create(&path).at("create", &path)?;
    (request.fill)(&path).at("fill", &path)?;
    if powers() != Powers::SingleId {
        std::os::unix::fs::chown(&path, Some(request.uid), Some(request.gid)).at("change the owner of", &path)?;
    }
    // After chown, which clears the set-id bits.
    fs::set_permissions(&path, fs::Permissions::from_mode(request.mode)).at("change the mode of", &path)?;
    let directory = File::open(&path).at("open", &path)?;
    failpoint::hit("mount-sync").at("sync", &path)?;
    rustix::fs::syncfs(&directory).at("sync", &path)?;
    let parent = target.parent().expect("an instance lies in its cache's directory");
    match DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", parent),
        _ => {}
    }
    failpoint::hit("mount-rename").and_then(|()| fs::rename(&path, target)).at("rename", &path)?;
    failpoint::hit("mount-renamed").at("rename", &path)
}
