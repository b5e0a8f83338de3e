//! Everything that lasts: blobs, snapshots, cache records, leases. Several processes share it without a daemon.
//!
//! Every write goes the same way: private name, sync, rename, one transaction. So a crash leaves garbage at worst,
//! never a name that leads nowhere.

mod builds;
mod clock;
mod content;
mod db;
mod descriptions;
pub mod erofs;
mod failpoint;
mod file_index;
mod gc;
mod id;
mod images;
mod index;
mod layout;
mod lease;
mod listing;
mod lock;
mod mount_cache;
mod mount_transfer;
mod path_error;
mod rebuild;
pub mod remote;
mod removal;
mod repair;
mod reserve;
mod roots;
pub mod snapshot;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tombstone;
mod usage;
mod verify;
pub mod view;

pub use builds::{
    BuildEnd, BuildId, BuildRecord, BuildStatus, BuildVertex, Builds, Detail, HistoryError, HistoryLimits,
    InvalidBuildId, NewBuild, VertexOutcome,
};
pub use clock::{Clock, SystemClock};
pub use content::{BlobError, BlobInfo, Blobs, IngestError, LeasedBlobs};
pub use db::{DbError, MigrateError};
pub use descriptions::{Among, Candidate, Descriptions, Fate, Recorded, StepDescription, StepPlace};
pub use file_index::{FileDigest, FileIndex, FileStamp};
pub use gc::{
    DiskSpace, FormUsage, GcPolicy, ImageScope, ImageUsage, InvalidFilter, InvalidSpace, Keeper, Limits, Loser, Loss,
    MountUsage, PruneControl, PruneError, PruneFilter, PruneMode, PruneReport, PruneScope, PrunedRecord, RecordKind,
    RecordUsage, Space, Subject, Usage,
};
pub use id::{CacheKey, LayerId, ResultId, SnapshotId};
pub use images::{BlobRole, ImageError, ImageRecord, Images, StoredImage, Untagged};
pub use index::{CacheRecord, KeyKind, ListedRecord, NewRecord, RecordError, RecordKey, Records, StepUsage};
pub use layout::Layout;
pub use lease::{Hold, Lease, LeaseInfo, Reap, WAITING};
pub use listing::{ListedFile, Listing};
pub use lock::{Holder, LockError, LockGuard, LockMode, LockName, OnWait, Waiting, wait_silently};
pub use mount_cache::{CacheMount, CacheMountError, CacheMountInfo, CacheMountRequest, CacheMounts, MountSharing};
pub use mount_transfer::MountTransferError;
pub use path_error::PathError;
pub use rebuild::{RebuildError, RebuildReport};
pub use repair::{RepairReport, Replacements};
pub use roots::{Kept, Roots};
pub use store::{Creation, OpenError, OpenOptions, Store};
pub use tombstone::{Tombstone, Tombstones};
pub use verify::{Problem, VerifyDepth, VerifyReport};
