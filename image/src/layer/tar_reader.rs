//! Reads layers that strangers made: every number checked before it is believed, every buffer bounded.
//!
//! Understands v7, ustar, star, GNU (long names, base 256, old sparse files) and PAX (with all three ways of writing
//! sparse files), and resolves doubtful headers the way Go's `archive/tar` does, since that is what the layers of the
//! world were made for: links, directories and devices have no content whatever their size field says; global PAX
//! headers are skipped. Sparse files stay sparse: [`Read`] yields their data only, the entry says where it belongs.
//!
//! What it does not do: touch a file system, or judge whiteouts and overlay xattrs; see `whiteout`.

use std::io::{self, Read};

use super::entry::{Device, Entry, EntryKind, Segment, SparseMap, Timestamp};
use super::tar_field::{decimal, number};
use super::tar_pax::Pax;
use crate::path::ContainerPath;

/// The unit of tar.
pub(super) const BLOCK: u64 = 512;
/// The largest number that eleven octal digits hold: writers put it where the real size is in a PAX record.
const SATURATED_SIZE: u64 = 0o77_777_777_777;

/// How much a layer may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarLimits {
    /// Headers in one archive.
    pub entries: u64,
    /// Components of a path.
    pub path_depth: u64,
    /// Bytes of a path or a link target.
    pub path_bytes: u64,
    /// Bytes of one extended header.
    pub extended_header_bytes: u64,
    /// Runs of data in one sparse file.
    pub sparse_segments: u64,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            path_depth: 1024,
            path_bytes: 65_536,
            extended_header_bytes: 1 << 20,
            sparse_segments: 1 << 18,
        }
    }
}

/// A layer that cannot be read, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes did not come.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
    /// The archive ends inside an entry.
    #[error("the archive ends early, inside the entry at byte {offset}")]
    Truncated {
        /// Where the entry's header begins.
        offset: u64,
    },
    /// Not a tar header.
    #[error("no tar header at byte {offset}: its checksum is wrong")]
    Checksum {
        /// Where it should begin.
        offset: u64,
    },
    /// A value is not a number, negative, or too large.
    #[error("entry {path:?}: its {field} is not acceptable")]
    Value {
        /// Whose header, as far as it was read.
        path: String,
        /// Which value.
        field: &'static str,
    },
    /// Two values of one entry say different things.
    #[error("entry {path:?}: {what} contradict each other")]
    Contradiction {
        /// Whose header.
        path: String,
        /// Which values.
        what: &'static str,
    },
    /// A type that layers do not have.
    #[error("entry {path:?} has the unknown type {typeflag:?}")]
    UnknownType {
        /// Whose header.
        path: String,
        /// The type's letter.
        typeflag: char,
    },
    /// The root of the layer is said to be something else than a directory.
    #[error("entry {path:?} names the root, but is no directory")]
    RootType {
        /// As written.
        path: String,
    },
    /// More than the limits allow.
    #[error("the archive exceeds the limit {name} of {limit}")]
    Limit {
        /// The field of [`TarLimits`].
        name: &'static str,
        /// Its value.
        limit: u64,
    },
}

/// Reads the entries of a layer one after the other. As a [`Read`] it gives the content of the last one.
///
/// Reads small pieces: hand it something buffered.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    limits: TarLimits,
    /// Bytes taken from `inner`.
    offset: u64,
    /// Where the current header begins.
    header_offset: u64,
    /// Content of the current entry not yet read.
    remaining: u64,
    /// Bytes after the content up to the next block.
    padding: u64,
    headers: u64,
    done: bool,
}

/// What precedes a header and changes its meaning.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Reads from `inner` with the default limits.
    pub fn new(inner: R) -> Self {
        Self::with_limits(inner, TarLimits::default())
    }

    /// Reads from `inner` with the given limits.
    pub fn with_limits(inner: R, limits: TarLimits) -> Self {
        Self { inner, limits, offset: 0, header_offset: 0, remaining: 0, padding: 0, headers: 0, done: false }
    }

    /// The next entry, or `None` at the end of the archive. Skips what was not read of the last one's content.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.next_entry_skipping(|inner, bytes| {
            let skipped = io::copy(&mut inner.take(bytes), &mut io::sink())?;
            if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
        })
    }

    /// Like [`next_entry`](Self::next_entry), but skips content with `skip`: for a reader that can seek.
    pub fn next_entry_skipping(
        &mut self,
        mut skip: impl FnMut(&mut R, u64) -> io::Result<()>,
    ) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            if self.done {
                return Ok(None);
            }
            let bytes = self.remaining + self.padding;
            if bytes > 0 {
                skip(&mut self.inner, bytes).map_err(|error| self.truncated(error))?;
                self.offset += bytes;
                (self.remaining, self.padding) = (0, 0);
            }
            self.header_offset = self.offset;
            let Some(header) = self.header()? else {
                self.done = true;
                return Ok(None);
            };
            self.headers += 1;
            self.limit("entries", self.headers, self.limits.entries)?;
            let typeflag = header.as_old().linkflag[0];
            match typeflag {
                b'x' => extensions.pax = Some(Pax::parse(&self.extension(&header)?)?),
                b'L' => extensions.long_name = Some(until_nul(&self.extension(&header)?).to_vec()),
                b'K' => extensions.long_link = Some(until_nul(&self.extension(&header)?).to_vec()),
                b'g' | b'V' => drop(self.extension(&header)?),
                _ => return self.entry(&header, typeflag, std::mem::take(&mut extensions)).map(Some),
            }
        }
    }

    /// How many bytes of the current entry's content are left to read.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Where in the archive the next byte comes from; right after [`next_entry`](Self::next_entry), where the
    /// content begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on to the end of the underlying bytes, so that a digest taken on the way covers all of them.
    pub fn finish(mut self) -> io::Result<R> {
        io::copy(&mut self.inner, &mut io::sink())?;
        Ok(self.inner)
    }

    /// The next header; `None` after two blocks of zeros or at the end of the bytes.
    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let mut header = tar::Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK as usize];
            if self.block(&mut second)? && second.iter().any(|b| *b != 0) {
                return Err(TarError::Checksum { offset: self.offset - BLOCK });
            }
            return Ok(None);
        }
        if !checksum_holds(&header) {
            return Err(TarError::Checksum { offset: self.header_offset });
        }
        // Some writers leave the version of a ustar header empty.
        let bytes = header.as_mut_bytes();
        if bytes[257..263] == *b"ustar\0" {
            bytes[263..265].copy_from_slice(b"00");
        }
        Ok(Some(header))
    }

    /// Reads one block; false when there is not a single byte left.
    fn block(&mut self, block: &mut [u8; BLOCK as usize]) -> Result<bool, TarError> {
        let mut have = 0;
        while have < block.len() {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated { offset: self.header_offset }),
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += BLOCK;
        Ok(true)
    }

    /// Reads the content of an extended header.
    fn extension(&mut self, header: &tar::Header) -> Result<Vec<u8>, TarError> {
        let path = || lossy(until_nul(&header.as_old().name));
        let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| TarError::Value { path: path(), field: "size" })?;
        self.limit("extended_header_bytes", size, self.limits.extended_header_bytes)?;
        self.set_content(size);
        let mut data = Vec::new();
        Read::take(&mut *self, size).read_to_end(&mut data).map_err(|error| self.truncated(error))?;
        Ok(data)
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn entry(&mut self, header: &tar::Header, typeflag: u8, extensions: Extensions) -> Result<Entry, TarError> {
        let Extensions { pax, long_name, long_link } = extensions;
        let pax = pax.unwrap_or_default();
        let old = header.as_old();
        let name = match (long_name, &pax.sparse.name, &pax.path) {
            (Some(name), _, _) => name,
            (None, Some(name), _) | (None, None, Some(name)) => name.clone(),
            (None, None, None) => header_name(header),
        };
        let link = long_link.or_else(|| pax.linkpath.clone()).unwrap_or_else(|| until_nul(&old.linkname).to_vec());
        let shown = lossy(&name[..name.len().min(300)]);
        let fault = |field| TarError::Value { path: shown.clone(), field };
        for (bytes, field) in [(&name, "path"), (&link, "link target")] {
            self.limit("path_bytes", bytes.len() as u64, self.limits.path_bytes)?;
            if bytes.contains(&0) {
                return Err(fault(field));
            }
        }
        let path = ContainerPath::new(&name);
        self.limit("path_depth", path.components().count() as u64, self.limits.path_depth)?;

        let id = |field: &[u8], pax: Option<u64>, name| {
            let value = match pax {
                Some(value) => Some(value),
                None => number(field).and_then(|value| u64::try_from(value).ok()),
            };
            // The last number means "no change" to chown.
            value.and_then(|value| u32::try_from(value).ok()).filter(|id| *id != u32::MAX).ok_or_else(|| fault(name))
        };
        let device = || -> Result<Device, TarError> {
            let (major, minor) = device_fields(header);
            Ok(Device { major: id(major, None, "device number")?, minor: id(minor, None, "device number")? })
        };
        let mode = number(&old.mode).and_then(|mode| u64::try_from(mode).ok()).ok_or_else(|| fault("mode"))?;
        let (uid, gid) = (id(&old.uid, pax.uid, "uid")?, id(&old.gid, pax.gid, "gid")?);
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => {
                Timestamp { seconds: number(&old.mtime).ok_or_else(|| fault("modification time"))?, nanoseconds: 0 }
            }
        };
        let kind = match typeflag {
            0 if name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => self.file(header, typeflag, &pax, &shown)?,
            b'1' => EntryKind::Hardlink { target: ContainerPath::new(&link) },
            b'2' if link.is_empty() => return Err(fault("link target")),
            b'2' => EntryKind::Symlink { target: link },
            b'3' => EntryKind::CharDevice(device()?),
            b'4' => EntryKind::BlockDevice(device()?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarError::UnknownType { path: shown, typeflag: other.into() }),
        };
        if path.is_root() && kind != EntryKind::Directory {
            return Err(TarError::RootType { path: shown });
        }
        // The mask is twelve bits wide.
        let mode = (mode & 0o7777) as u32;
        Ok(Entry { path, kind, mode, uid, gid, mtime, xattrs: pax.xattrs })
    }

    /// The size of a regular file and where its data lies.
    fn file(&mut self, header: &tar::Header, typeflag: u8, pax: &Pax, path: &str) -> Result<EntryKind, TarError> {
        let fault = |field| TarError::Value { path: path.to_owned(), field };
        let in_header = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let in_header = in_header.ok_or_else(|| fault("size"))?;
        let stored = match pax.size {
            Some(size) if in_header == size || in_header == 0 || in_header == SATURATED_SIZE => size,
            Some(_) => {
                return Err(TarError::Contradiction { path: path.to_owned(), what: "header size and extended size" });
            }
            None => in_header,
        };
        // Offsets are signed in every interface of the kernel.
        if stored > i64::MAX as u64 - BLOCK {
            return Err(fault("size"));
        }
        let (size, runs) = if typeflag == b'S' {
            let (size, runs) = self.old_sparse(header, path)?;
            self.set_content(stored);
            (size, runs)
        } else {
            self.set_content(stored);
            match pax.sparse.version().ok_or_else(|| fault("sparse format"))? {
                None => return Ok(EntryKind::File { size: stored, sparse: None }),
                Some((0, _)) => (pax.sparse.size.ok_or_else(|| fault("sparse size"))?, pax.sparse.segments.clone()),
                Some(_) => {
                    let runs = self.sparse_prefix(path)?;
                    (pax.sparse.size.ok_or_else(|| fault("sparse size"))?, runs)
                }
            }
        };
        self.limit("sparse_segments", runs.len() as u64, self.limits.sparse_segments)?;
        if size > i64::MAX as u64 {
            return Err(fault("sparse size"));
        }
        let map = SparseMap::new(runs, size).ok_or_else(|| fault("sparse map"))?;
        if map.data_size() != self.remaining {
            return Err(TarError::Contradiction { path: path.to_owned(), what: "size and sparse map" });
        }
        Ok(EntryKind::File { size, sparse: Some(map) })
    }

    /// The map in a GNU header and the blocks after it.
    fn old_sparse(&mut self, header: &tar::Header, path: &str) -> Result<(u64, Vec<Segment>), TarError> {
        let fault = || TarError::Value { path: path.to_owned(), field: "sparse map" };
        let unsigned = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(fault);
        let gnu = header.as_gnu().ok_or_else(fault)?;
        let size = unsigned(&gnu.realsize)?;
        let mut runs = Vec::new();
        let mut push = |fields: &[tar::GnuSparseHeader]| -> Result<usize, TarError> {
            for field in fields.iter().take_while(|field| field.offset[0] != 0) {
                runs.push(Segment { offset: unsigned(&field.offset)?, length: unsigned(&field.numbytes)? });
            }
            Ok(runs.len())
        };
        push(&gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            if !self.block(extension.as_mut_bytes())? {
                return Err(TarError::Truncated { offset: self.header_offset });
            }
            let count = push(&extension.sparse)?;
            self.limit("sparse_segments", count as u64, self.limits.sparse_segments)?;
            // A block that adds nothing but says that more follow would let an archive spin here.
            more = extension.isextended[0] != 0 && extension.sparse[0].offset[0] != 0;
        }
        Ok((size, runs))
    }

    /// The map at the start of the content (PAX sparse format 1.0): decimal lines, padded to a block.
    fn sparse_prefix(&mut self, path: &str) -> Result<Vec<Segment>, TarError> {
        let fault = || TarError::Value { path: path.to_owned(), field: "sparse map" };
        let mut block = [0; BLOCK as usize];
        let mut at = block.len();
        let mut line = |reader: &mut Self| -> Result<u64, TarError> {
            let mut digits = Vec::with_capacity(20);
            loop {
                if at == block.len() {
                    reader.read_exact(&mut block).map_err(|_| fault())?;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' => return decimal(&digits).ok_or_else(fault),
                    digit if digit.is_ascii_digit() && digits.len() < 20 => digits.push(digit),
                    _ => return Err(fault()),
                }
            }
        };
        let count = line(self)?;
        self.limit("sparse_segments", count, self.limits.sparse_segments)?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Segment { offset: line(self)?, length: line(self)? });
        }
        Ok(runs)
    }

    fn limit(&self, name: &'static str, value: u64, limit: u64) -> Result<(), TarError> {
        if value > limit { Err(TarError::Limit { name, limit }) } else { Ok(()) }
    }

    fn truncated(&self, error: io::Error) -> TarError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { offset: self.header_offset },
            _ => TarError::Io(error),
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            let early = TarError::Truncated { offset: self.header_offset };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, early));
        }
        self.remaining -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

/// The sum of a header's bytes, its own field taken as spaces; some old writers added signed bytes.
fn checksum_holds(header: &tar::Header) -> bool {
    let Some(want) = number(&header.as_old().cksum) else { return false };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in header.as_bytes().iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    want == unsigned || want == signed
}

/// The name in the header with ustar's prefix, or the shorter one of star.
fn header_name(header: &tar::Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    let Some(ustar) = header.as_ustar() else { return name.to_vec() };
    let star = header.as_bytes()[508..] == *b"tar\0";
    let prefix = until_nul(if star { &ustar.prefix[..131] } else { &ustar.prefix });
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Device numbers have their place since ustar, which GNU kept.
fn device_fields(header: &tar::Header) -> (&[u8], &[u8]) {
    match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => (b"", b""),
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_in_the_archive() {
        let path = || "a/b".to_owned();
        let errors = [
            io::Error::from(io::ErrorKind::TimedOut).into(),
            TarError::Truncated { offset: 512 },
            TarError::Checksum { offset: 1024 },
            TarError::Value { path: path(), field: "size" },
            TarError::Contradiction { path: path(), what: "header size and extended size" },
            TarError::UnknownType { path: path(), typeflag: 'Z' },
            TarError::RootType { path: ".".to_owned() },
            TarError::Limit { name: "entries", limit: 7 },
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        cannot read the archive
        the archive ends early, inside the entry at byte 512
        no tar header at byte 1024: its checksum is wrong
        entry "a/b": its size is not acceptable
        entry "a/b": header size and extended size contradict each other
        entry "a/b" has the unknown type 'Z'
        entry "." names the root, but is no directory
        the archive exceeds the limit entries of 7
        "#);
    }
}
