//! Writes layers: the same entries always become the same bytes.
//!
//! Plain ustar headers, and before those that need it one PAX header with its records in byte order, as Go's
//! `archive/tar` writes them in PAX format and so BuildKit's and containerd's layers look: names without a leading
//! slash, directories with one at the end, no user or group names, no access or change times. Sparse files are written
//! in GNU's PAX format 1.0, which Go, GNU tar and libarchive read.
//! Runs of data that do not fill whole blocks are refused: those readers disagree on them.

use std::io::{self, Read, Write};

use super::entry::{Entry, EntryKind, Segment, SparseMap};
use super::tar_field::{format_pax_time, push_pax_record};
use super::tar_pax::XATTR;
use super::tar_reader::BLOCK;

/// An entry that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TarWriteError {
    /// The bytes did not go out, or the content could not be read.
    #[error("cannot write entry {path:?}")]
    Io {
        /// Which entry.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content ended before the entry's size.
    #[error("{path:?} has {got} bytes where {want} were expected; was it changed meanwhile?")]
    Short {
        /// Which entry.
        path: String,
        /// What the entry says.
        want: u64,
        /// What came.
        got: u64,
    },
    /// The format has no way to say this.
    #[error("entry {path:?}: its {field} cannot be written to a tar archive")]
    Unrepresentable {
        /// Which entry.
        path: String,
        /// What.
        field: &'static str,
    },
}

/// Writes the entries of a layer one after the other.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: vec![0; 128 * 1024] }
    }

    /// Writes one entry with exactly [`Entry::stored_size`] bytes of `content`: for a sparse file only its data.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), TarWriteError> {
        self.append_observed(entry, content, &mut |_| ())
    }

    /// Like [`append`](Self::append), and shows each piece of content to `observe` as it passes.
    pub(super) fn append_observed(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        observe: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TarWriteError> {
        let path = || entry.path.to_string();
        let io_error = |source| TarWriteError::Io { path: path(), source };
        let (header, prefix) = self.headers(entry)?;
        self.inner.write_all(&header).map_err(io_error)?;
        self.inner.write_all(&prefix).map_err(io_error)?;
        let want = entry.stored_size();
        let mut left = want;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            match content.read(&mut self.buffer[..room]) {
                Ok(0) => return Err(TarWriteError::Short { path: path(), want, got: want - left }),
                Ok(n) => {
                    self.inner.write_all(&self.buffer[..n]).map_err(io_error)?;
                    observe(&self.buffer[..n]);
                    left -= n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        self.inner.write_all(padding(want)).map_err(io_error)
    }

    /// Writes the two empty blocks that end an archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK as usize])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// The blocks that come before an entry's content.
    pub(crate) fn header(&self, entry: &Entry) -> Result<Vec<u8>, TarWriteError> {
        Ok(self.headers(entry)?.0)
    }

    /// What it writes to. Whoever writes there himself ends with a whole block.
    pub(crate) fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The blocks before the content, and the map that a sparse file's content begins with.
    fn headers(&self, entry: &Entry) -> Result<(Vec<u8>, Vec<u8>), TarWriteError> {
        let fault = |field| TarWriteError::Unrepresentable { path: entry.path.to_string(), field };
        let mut name = entry.path.as_bytes()[1..].to_vec();
        if entry.kind == EntryKind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let (typeflag, link) = match &entry.kind {
            EntryKind::File { .. } => (b'0', &b""[..]),
            EntryKind::Hardlink { target } => (b'1', &target.as_bytes()[1..]),
            EntryKind::Symlink { target } => (b'2', target.as_slice()),
            EntryKind::CharDevice(_) => (b'3', &b""[..]),
            EntryKind::BlockDevice(_) => (b'4', &b""[..]),
            EntryKind::Directory => (b'5', &b""[..]),
            EntryKind::Fifo => (b'6', &b""[..]),
        };
        if name.is_empty() || (link.is_empty() && matches!(typeflag, b'1' | b'2')) {
            return Err(fault("name"));
        }
        if link.contains(&0) {
            return Err(fault("link target"));
        }
        let (prefix, real_size) = match &entry.kind {
            EntryKind::File { size, sparse: Some(map) } if !is_aligned(map, *size) => return Err(fault("sparse map")),
            EntryKind::File { size, sparse: Some(map) } => (sparse_prefix(map, *size), Some(*size)),
            _ => (Vec::new(), None),
        };
        let size = entry.stored_size() + prefix.len() as u64;

        let mut header = tar::Header::new_ustar();
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        {
            let ustar = header.as_ustar_mut().expect("just made as ustar");
            let mut number = |field: &mut [u8], value: u64, key: Option<&str>| -> Option<()> {
                if !octal(field, value) {
                    octal(field, 0);
                    records.push((key?.into(), value.to_string().into_bytes()));
                }
                Some(())
            };
            number(&mut ustar.mode, entry.mode.into(), None).ok_or_else(|| fault("mode"))?;
            number(&mut ustar.uid, entry.uid.into(), Some("uid"));
            number(&mut ustar.gid, entry.gid.into(), Some("gid"));
            number(&mut ustar.size, size, Some("size"));
            let (major, minor) = match entry.kind {
                EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => (device.major, device.minor),
                _ => (0, 0),
            };
            for (field, value) in [(&mut ustar.dev_major, major), (&mut ustar.dev_minor, minor)] {
                number(field, value.into(), None).ok_or_else(|| fault("device number"))?;
            }
            let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(u64::MAX);
            if !octal(&mut ustar.mtime, seconds) || entry.mtime.nanoseconds != 0 {
                if entry.mtime.seconds < 0 || seconds > 0o77_777_777_777 {
                    octal(&mut ustar.mtime, 0);
                }
                records.push((b"mtime".to_vec(), format_pax_time(entry.mtime).into_bytes()));
            }
            ustar.typeflag = [typeflag];
            if !text(&mut ustar.name, &name) {
                records.push((b"path".to_vec(), name.clone()));
            }
            if !text(&mut ustar.linkname, link) {
                records.push((b"linkpath".to_vec(), link.to_vec()));
            }
        }
        for (xattr, value) in &entry.xattrs {
            if xattr.is_empty() || xattr.contains(&b'=') || xattr.contains(&0) {
                return Err(fault("extended attribute name"));
            }
            records.push(([XATTR, xattr].concat(), value.clone()));
        }
        if let Some(real_size) = real_size {
            records.push((b"GNU.sparse.major".to_vec(), b"1".to_vec()));
            records.push((b"GNU.sparse.minor".to_vec(), b"0".to_vec()));
            records.push((b"GNU.sparse.name".to_vec(), name.clone()));
            records.push((b"GNU.sparse.realsize".to_vec(), real_size.to_string().into_bytes()));
        }
        seal(&mut header);
        let mut out = pax_header(&name, records);
        out.extend_from_slice(header.as_bytes());
        Ok((out, prefix))
    }
}

/// The `x` header with its records, or nothing when there are none.
fn pax_header(name: &[u8], mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    records.sort();
    let mut data = Vec::new();
    for (key, value) in &records {
        push_pax_record(&mut data, key, value);
    }
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let cut = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let mut header = tar::Header::new_ustar();
    let ustar = header.as_ustar_mut().expect("just made as ustar");
    text(&mut ustar.name, &[&name[..cut], b"PaxHeaders.0/", &name[cut..]].concat());
    for field in [&mut ustar.mode, &mut ustar.uid, &mut ustar.gid, &mut ustar.dev_major, &mut ustar.dev_minor] {
        octal(field, 0);
    }
    octal(&mut ustar.size, data.len() as u64);
    octal(&mut ustar.mtime, 0);
    ustar.typeflag = *b"x";
    seal(&mut header);
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(&data);
    out.extend_from_slice(padding(data.len() as u64));
    out
}

/// The map that precedes the data of a sparse file: lines of decimal numbers, filled up to a block. A hole at the end
/// needs an empty run after it, or GNU tar makes the file too short.
fn sparse_prefix(map: &SparseMap, size: u64) -> Vec<u8> {
    let end = map.segments().last().map_or(0, |last| last.offset + last.length);
    let tail = (end < size).then_some(Segment { offset: size, length: 0 });
    let mut out = format!("{}\n", map.segments().len() + usize::from(tail.is_some())).into_bytes();
    for segment in map.segments().iter().chain(&tail) {
        out.extend_from_slice(format!("{}\n{}\n", segment.offset, segment.length).as_bytes());
    }
    out.extend_from_slice(padding(out.len() as u64));
    out
}

/// Whether the runs of data fill whole blocks, but for the last one at the end of the file: GNU tar pads each run when
/// it reads, Go does not, and so they agree only on these. File systems have no others.
fn is_aligned(map: &SparseMap, size: u64) -> bool {
    map.segments().iter().all(|run| {
        let end = run.offset + run.length;
        run.offset.is_multiple_of(BLOCK) && (run.length.is_multiple_of(BLOCK) || end == size)
    })
}

/// Writes octal digits with leading zeros and a NUL; false, and nothing written, when the number is too long.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() > digits {
        return false;
    }
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
    true
}

/// Writes what a field can show of a text; false when that is not all of it and a record must say the rest.
fn text(field: &mut [u8], text: &[u8]) -> bool {
    field.fill(0);
    let ascii: Vec<u8> = text.iter().copied().filter(u8::is_ascii).collect();
    let shown = ascii.len().min(field.len());
    field[..shown].copy_from_slice(&ascii[..shown]);
    shown == text.len()
}

/// Writes the checksum as Go does: six digits, NUL, space.
fn seal(header: &mut tar::Header) {
    header.as_old_mut().cksum = [b' '; 8];
    let sum: u64 = header.as_bytes().iter().map(|b| u64::from(*b)).sum();
    let written = octal(&mut header.as_old_mut().cksum[..7], sum);
    debug_assert!(written, "512 bytes of 255 are less than six octal digits");
}

fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
    // Less than a block.
    &ZEROS[..(size.wrapping_neg() % BLOCK) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_entry() {
        let path = || "/a/b".to_owned();
        for (error, words) in [
            (
                TarWriteError::Io { path: path(), source: io::ErrorKind::StorageFull.into() },
                r#"cannot write entry "/a/b""#,
            ),
            (
                TarWriteError::Short { path: path(), want: 10, got: 5 },
                r#""/a/b" has 5 bytes where 10 were expected; was it changed meanwhile?"#,
            ),
            (
                TarWriteError::Unrepresentable { path: path(), field: "modification time" },
                r#"entry "/a/b": its modification time cannot be written to a tar archive"#,
            ),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
