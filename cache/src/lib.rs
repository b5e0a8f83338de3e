//! Everything that lasts: blobs, snapshots, cache records, leases. Several processes share it without a daemon.

mod id;

pub use id::SnapshotId;
