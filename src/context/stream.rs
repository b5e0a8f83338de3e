//! A context that comes as one stream: a tar, compressed or not, or a Dockerfile alone.

use std::io::{Cursor, Read};

use rbuild_cache::{Lease, SnapshotId, Store};
use rbuild_image::Compression;
use rbuild_image::layer::{Decoder, detect};

use super::MAX_TEXT;
use crate::cli::report::Failure;
use crate::worker::file::unpack_context;

/// Length of a tar header.
const HEADER: usize = 512;
/// Where its checksum is; for the sum itself, eight blanks stand there.
const CHECKSUM: std::ops::Range<usize> = 148..156;

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
    cancelled: &dyn Fn() -> bool,
) -> Result<Unpacked, Failure> {
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(&format!("cannot read the context from {name}"), error)
    };
    let mut start = Vec::new();
    stream.by_ref().take(HEADER as u64).read_to_end(&mut start).map_err(|error| unreadable(&error))?;
    if start.is_empty() {
        return Err(Failure::new(format!("{name} is empty: neither a Dockerfile nor a tar")));
    }
    if detect(&start) == Compression::None && !is_tar_header(&start) {
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
    let active = store.snapshots().prepare(None, lease)?;
    let mut writer = active.writer()?;
    unpack_context(&mut tar, &mut writer, cancelled)
        .map_err(|failure| failure.within(&format!("cannot read the context from {name}")))?;
    drop(writer);
    Ok(Unpacked::Files(Some(active.commit(lease)?.id())))
}

/// Whether a block has the checksum of a tar header: all kinds of tar have that.
fn is_tar_header(block: &[u8]) -> bool {
    let (Some(field), HEADER) = (block.get(CHECKSUM), block.len()) else { return false };
    let digits = String::from_utf8_lossy(field);
    let digits = digits.trim_matches([' ', '\0']);
    let Ok(stated) = u32::from_str_radix(digits, 8) else { return false };
    let byte = |(at, byte): (usize, &u8)| u32::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
    stated == block.iter().enumerate().map(byte).sum::<u32>()
}
