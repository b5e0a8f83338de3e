//! Where everything is. The only file that joins path names of the store.
//!
//! ```text
//! ROOT/ format                 "rbuild-store 1": version of this layout
//!       meta.db (-wal, -shm)   the database
//!       reserve                room that a full disk is emptied with
//!       blobs/sha256/HEX       content, verified; laid out as in an OCI image layout
//!       erofs                  where layers that are tars were found to be mountable
//!       layers/PATH            one layer's files, or its tar and index; PATH is in the database
//!       merged/NAME            indexes over several layers, made of theirs
//!       cache-mounts/HASH/N/   RUN --mount=type=cache
//!       logs/BUILD/            full logs of every step
//!       quarantine/            damaged files that a repair took out of use
//!       containers/ID/  volumes/NAME/_data  networks/
//!       locks/NAME             one file per lock somebody holds or waits for
//!       leases/ID              one file per live invocation: what it keeps
//!       tmp/ID/                private to the lease ID: active snapshots, files being made
//!       tmp/ingest/            partial downloads, kept for the next attempt
//! ```

use std::path::{Path, PathBuf};

use rbuild_image::{Algorithm, Digest};

/// Version of the layout that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// Path names below a store's root.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the store in this directory, whether it is there or not.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file with the layout's version.
    pub fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("meta.db")
    }

    /// Room that a full disk is emptied with.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Content directory of one algorithm.
    pub fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// The directory of layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// A layer's files, by the `path` that the database has for it.
    pub fn layer(&self, path: &str) -> PathBuf {
        self.layers().join(path)
    }

    /// The directory of merged indexes; made when it is first needed.
    pub(crate) fn merged(&self) -> PathBuf {
        self.root.join("merged")
    }

    /// A merged index, by the `path` that the database has for it.
    pub(crate) fn merged_index(&self, path: &str) -> PathBuf {
        self.merged().join(path)
    }

    /// Says when and where it was found out that layers that are tars can be mounted.
    pub(crate) fn erofs_note(&self) -> PathBuf {
        self.root.join("erofs")
    }

    /// The directory of all cache mounts.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// One instance of a cache mount.
    pub(crate) fn cache_mount(&self, hash: &str, instance: i64) -> PathBuf {
        self.cache_mounts().join(hash).join(instance.to_string())
    }

    /// Logs of all builds.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What one build left to be read again.
    pub fn build_files(&self, build: &str) -> PathBuf {
        self.logs().join(build)
    }

    /// The directory of containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The directory of volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The directory of networks.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// Damaged files that a repair took out of use; made when it is first needed.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The directory of lock files.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// The directory of leases.
    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// The directory of private directories.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The directory that is private to a lease.
    pub(crate) fn scratch(&self, lease: &str) -> PathBuf {
        self.tmp().join(lease)
    }

    /// The directory of partial downloads.
    pub(crate) fn ingest(&self) -> PathBuf {
        self.tmp().join("ingest")
    }

    /// A partial download.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Every directory that an empty store has, parents first.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        vec![
            self.root.join("blobs"),
            self.blobs(Algorithm::Sha256),
            self.blobs(Algorithm::Sha512),
            self.layers(),
            self.cache_mounts(),
            self.logs(),
            self.containers(),
            self.volumes(),
            self.networks(),
            self.locks(),
            self.leases(),
            self.tmp(),
            self.ingest(),
        ]
    }
}
