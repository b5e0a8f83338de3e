//! Cache mounts as tar archives: to look into one, to carry it to another machine, to begin with a full one.
//!
//! The archive is that of a layer: no entry for the root, whose mode and owner stay what they were. It is unpacked by
//! the rules of layers, so names of whiteouts (`.wh.…`) do not survive.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

use crate::lease::Lease;
use crate::lock::LockMode;
use crate::mount_cache::{CacheMountError, CacheMountInfo, CacheMounts};
use crate::path_error::AtPath;
use crate::removal::remove_tree;
use crate::snapshot::{ApplyError, DiffError, directory_from_tar, directory_to_tar};

/// Why a cache mount could not be carried in or out.
#[derive(Debug, thiserror::Error)]
pub enum MountTransferError {
    /// It cannot be had.
    #[error(transparent)]
    Mount(#[from] CacheMountError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] DiffError),
    /// The archive cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] ApplyError),
}

impl CacheMounts<'_> {
    /// Writes an instance that nobody uses as an uncompressed tar.
    pub fn write_tar(&self, info: &CacheMountInfo, out: &mut (dyn Write + Send)) -> Result<(), MountTransferError> {
        let Some(_lock) = self.try_lock(info, LockMode::Exclusive)? else {
            return Err(CacheMountError::InUse { id: info.id.clone() }.into());
        };
        directory_to_tar(&self.directory(info), out)?;
        Ok(())
    }

    /// Replaces what an instance that nobody uses holds by what an uncompressed tar holds, whole or not at all.
    pub fn read_tar(
        &self,
        info: &CacheMountInfo,
        tar: &mut (dyn Read + Send),
        lease: &Lease,
    ) -> Result<(), MountTransferError> {
        let Some(_lock) = self.try_lock(info, LockMode::Exclusive)? else {
            return Err(CacheMountError::InUse { id: info.id.clone() }.into());
        };
        let path = self.directory(info);
        let failed = CacheMountError::from;
        let root = fs::metadata(&path).at("inspect", &path).map_err(failed)?;
        let new = lease.scratch_name("cache-mount").map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&new).at("create", &new).map_err(failed)?;
        directory_from_tar(&new, tar)?;
        std::os::unix::fs::chown(&new, Some(root.uid()), Some(root.gid()))
            .at("change the owner of", &new)
            .map_err(failed)?;
        let mode = fs::Permissions::from_mode(root.mode() & 0o7777);
        fs::set_permissions(&new, mode).at("change the mode of", &new).map_err(failed)?;
        let opened = File::open(&new).at("open", &new).map_err(failed)?;
        rustix::fs::syncfs(&opened).at("sync", &new).map_err(failed)?;
        // A crash between the two leaves the cache empty, which is what it may always be.
        let old = lease.scratch_name("cache-mount").map_err(failed)?;
        fs::rename(&path, &old).at("rename", &path).map_err(failed)?;
        fs::rename(&new, &path).at("rename", &new).map_err(failed)?;
        remove_tree(&old).at("remove", &old).map_err(failed)?;
        Ok(())
    }
}
