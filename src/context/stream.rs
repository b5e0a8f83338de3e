//! A context that comes as one stream: a tar, compressed or not, or a Dockerfile alone.

use std::io::{Cursor, Read};

use rbuild_cache::{Lease, SnapshotId, Store};
use rbuild_image::Compression;
use rbuild_image::layer::{Decoder, detect};

use super::MAX_TEXT;
use crate::cli::report::Failure;

/// Where a tar header says that it is one (POSIX.1-1988).
const MAGIC: std::ops::Range<usize> = 257..262;
/// Length of a tar header.
const HEADER: u64 = 512;

/// What a stream was.
#[derive(Debug)]
pub(super) enum Unpacked {
    /// A Dockerfile.
    Dockerfile(String),
    /// A tar, now a snapshot.
    Files(Option<SnapshotId>),
}

/// Reads a stream to its end.
pub(super) fn read(
    store: &Store,
    lease: &Lease,
    mut stream: Box<dyn Read + Send>,
    name: &str,
) -> Result<Unpacked, Failure> {
    let unreadable =
        |error: &dyn std::error::Error| Failure::from_error(&format!("cannot read the context from {name}"), error);
    let mut start = Vec::new();
    stream.by_ref().take(HEADER).read_to_end(&mut start).map_err(|error| unreadable(&error))?;
    if start.is_empty() {
        return Err(Failure::new(format!("{name} is empty: neither a Dockerfile nor a tar")));
    }
    if detect(&start) == Compression::None && start.get(MAGIC) != Some(b"ustar") {
        stream.take(MAX_TEXT).read_to_end(&mut start).map_err(|error| unreadable(&error))?;
        if start.len() as u64 > MAX_TEXT {
            return Err(Failure::new(format!(
                "{name} is neither a tar nor a Dockerfile: it has more than {MAX_TEXT} bytes"
            )));
        }
        let text = String::from_utf8(start)
            .map_err(|_| Failure::new(format!("{name} is neither a tar nor a Dockerfile: it is not UTF-8 text")))?;
        return Ok(Unpacked::Dockerfile(text));
    }
    let mut tar = Decoder::new(Cursor::new(start).chain(stream)).map_err(|error| unreadable(&error))?;
    let snapshot = store.snapshots().import(&mut tar, lease).map_err(|error| unreadable(&error))?;
    Ok(Unpacked::Files(Some(snapshot.id())))
}
