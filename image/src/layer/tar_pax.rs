//! The records of a PAX header that mean something for a layer.

use std::collections::BTreeMap;

use super::entry::{Segment, Timestamp};
use super::tar_field::{decimal, pax_records, pax_time};
use super::tar_reader::{TarError, lossy};

/// Before the names of extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one PAX header.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: PaxSparse,
}

/// The `GNU.sparse.*` records of all three formats.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) segments: Vec<Segment>,
    major: Option<u64>,
    minor: Option<u64>,
    /// Whether records name a map, as the formats before 1.0 do.
    mapped: bool,
    /// An offset whose length has not come yet.
    open: Option<u64>,
}

impl Pax {
    /// Parses the content of an `x` header. An empty value takes a record back, as Go and POSIX have it.
    pub(super) fn parse(data: &[u8]) -> Result<Self, TarError> {
        let fault = |field| TarError::Value { path: "(extended header)".to_owned(), field };
        let records = pax_records(data).ok_or_else(|| fault("record"))?;
        let mut pax = Self::default();
        for (key, value) in records {
            let number = |field| match value {
                b"" => Ok(None),
                digits => decimal(digits).map(Some).ok_or_else(|| fault(field)),
            };
            let text = |field| match value {
                b"" => Ok(None),
                text if text.contains(&0) => Err(fault(field)),
                text => Ok(Some(text.to_vec())),
            };
            match key {
                b"path" => replace(&mut pax.path, text("path")?, "path")?,
                b"linkpath" => replace(&mut pax.linkpath, text("link target")?, "link target")?,
                b"size" => replace(&mut pax.size, number("size")?, "size")?,
                b"uid" => pax.uid = number("uid")?,
                b"gid" => pax.gid = number("gid")?,
                b"mtime" if value.is_empty() => pax.mtime = None,
                b"mtime" => pax.mtime = Some(pax_time(value).ok_or_else(|| fault("modification time"))?),
                b"GNU.sparse.name" => pax.sparse.name = text("sparse name")?,
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    replace(&mut pax.sparse.size, number("sparse size")?, "sparse size")?;
                }
                b"GNU.sparse.major" => pax.sparse.major = number("sparse format")?,
                b"GNU.sparse.minor" => pax.sparse.minor = number("sparse format")?,
                b"GNU.sparse.numblocks" => pax.sparse.mapped = true,
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let value = number("sparse map")?.ok_or_else(|| fault("sparse map"))?;
                    pax.sparse.run(key == b"GNU.sparse.offset", value).ok_or_else(|| fault("sparse map"))?;
                }
                b"GNU.sparse.map" => pax.sparse.map(value).ok_or_else(|| fault("sparse map"))?,
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        if name.is_empty() {
                            return Err(fault("attribute name"));
                        }
                        pax.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        if pax.sparse.open.is_some() {
            return Err(fault("sparse map"));
        }
        Ok(pax)
    }
}

/// Sets a value that may not be given twice with different meanings.
fn replace<T: PartialEq + std::fmt::Debug>(
    slot: &mut Option<T>,
    value: Option<T>,
    what: &'static str,
) -> Result<(), TarError> {
    if slot.is_some() && value.is_some() && *slot != value {
        return Err(TarError::Contradiction { path: lossy(b"(extended header)"), what });
    }
    *slot = value;
    Ok(())
}

impl PaxSparse {
    /// Which format the records are of; `Some(None)` when the file is not sparse, `None` when no such format exists.
    pub(super) fn version(&self) -> Option<Option<(u64, u64)>> {
        match (self.major, self.minor) {
            (None, None) if self.mapped => Some(Some((0, 0))),
            (None, None) => Some(None),
            (Some(0), Some(minor @ (0 | 1))) => Some(Some((0, minor))),
            (Some(1), Some(0)) => Some(Some((1, 0))),
            _ => None,
        }
    }

    /// Format 0.0: offsets and lengths as records of their own, in turn.
    fn run(&mut self, is_offset: bool, value: u64) -> Option<()> {
        self.mapped = true;
        match (is_offset, self.open.take()) {
            (true, None) => self.open = Some(value),
            (false, Some(offset)) => self.segments.push(Segment { offset, length: value }),
            _ => return None,
        }
        Some(())
    }

    /// Format 0.1: offsets and lengths in one record, divided by commas.
    fn map(&mut self, value: &[u8]) -> Option<()> {
        self.mapped = true;
        if value.is_empty() {
            return Some(());
        }
        let mut numbers = value.split(|b| *b == b',');
        while let Some(offset) = numbers.next() {
            self.segments.push(Segment { offset: decimal(offset)?, length: decimal(numbers.next()?)? });
        }
        Some(())
    }
}
