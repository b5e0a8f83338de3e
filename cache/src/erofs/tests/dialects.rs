//! Entries as different producers write them, by bytes and not by the writer or the `tar` crate: what [`TarReader`] makes of
//! them is compared with what went in.
//!
//! [`TarReader`]: rbuild_image::layer::TarReader

use std::os::unix::ffi::OsStrExt;

use rbuild_image::layer::{Entry, EntryKind, Segment, SparseMap};

const BLOCK: usize = 512;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// GNU tar's own: long names in entries of their own, numbers to base 256, maps of sparse files in headers.
    Gnu,
    /// ustar with whatever it lacks in a PAX header; sparse maps there, all in one value (version 0.1).
    PaxMap,
    /// The same, sparse maps one pair of records a run (version 0.0).
    PaxPairs,
    /// The same, sparse maps before the content (version 1.0).
    PaxInContent,
}

pub(super) const DIALECTS: [Dialect; 4] = [Dialect::Gnu, Dialect::PaxMap, Dialect::PaxPairs, Dialect::PaxInContent];

/// What of an entry this dialect has no way to say is not in the one that is given back.
pub(super) fn sayable(entry: &Entry, dialect: Dialect) -> Entry {
    let mut entry = entry.clone();
    if dialect == Dialect::Gnu {
        entry.mtime.nanoseconds = 0;
        entry.xattrs.clear();
    }
    entry
}

/// A whole archive, each entry in its own dialect.
pub(super) fn archive<'e>(entries: impl IntoIterator<Item = (&'e Entry, &'e [u8], Dialect)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content, dialect) in entries {
        append(entry, content, dialect, &mut out);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn append(entry: &Entry, content: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    let name = name(entry);
    let link = match &entry.kind {
        EntryKind::Symlink { target } => target.clone(),
        EntryKind::Hardlink { target } => target.relative().as_bytes().to_vec(),
        _ => Vec::new(),
    };
    if dialect == Dialect::Gnu {
        for (text, flag) in [(&name, b'L'), (&link, b'K')] {
            if text.len() > 100 {
                let content = [&text[..], b"\0"].concat();
                put(&Header::new(b"././@LongLink", flag, content.len() as u64), &content, out);
            }
        }
        return gnu(entry, &name, &link, content, out);
    }
    pax(entry, &name, &link, content, dialect, out);
}

fn name(entry: &Entry) -> Vec<u8> {
    match (entry.path.is_root(), entry.kind == EntryKind::Directory) {
        (true, _) => b"./".to_vec(),
        (false, true) => [entry.path.relative().as_bytes(), b"/"].concat(),
        (false, false) => entry.path.relative().as_bytes().to_vec(),
    }
}

/// The fields of one header.
struct Header {
    bytes: [u8; BLOCK],
}

impl Header {
    fn new(name: &[u8], flag: u8, size: u64) -> Self {
        let mut header = Self { bytes: [0; BLOCK] };
        header.text(0, 100, name);
        header.number(100, 8, 0o644);
        header.number(108, 8, 0);
        header.number(116, 8, 0);
        header.number(124, 12, i128::from(size));
        header.number(136, 12, 0);
        header.bytes[156] = flag;
        header.text(257, 8, b"ustar\x0000");
        header
    }

    fn of(entry: &Entry, name: &[u8], link: &[u8], size: u64) -> Self {
        let flag = match entry.kind {
            EntryKind::File { .. } => b'0',
            EntryKind::Hardlink { .. } => b'1',
            EntryKind::Symlink { .. } => b'2',
            EntryKind::CharDevice(_) => b'3',
            EntryKind::BlockDevice(_) => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        let mut header = Self::new(name, flag, size);
        header.number(100, 8, entry.mode.into());
        header.text(157, 100, link);
        if let EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) = entry.kind {
            header.number(329, 8, device.major.into());
            header.number(337, 8, device.minor.into());
        }
        header
    }

    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        let text = &text[..text.len().min(length)];
        self.bytes[at..at + text.len()].copy_from_slice(text);
    }

    /// In octal digits, or to base 256 where these are too few.
    fn number(&mut self, at: usize, length: usize, value: i128) {
        let field = &mut self.bytes[at..at + length];
        let digits = format!("{:0width$o}", value.max(0), width = length - 1);
        if value >= 0 && digits.len() < length {
            field[..length - 1].copy_from_slice(digits.as_bytes());
            field[length - 1] = 0;
        } else {
            field.copy_from_slice(&value.to_be_bytes()[16 - length..]);
            field[0] = if value < 0 { 0xff } else { 0x80 };
        }
    }

    fn sealed(&self) -> [u8; BLOCK] {
        let mut bytes = self.bytes;
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes
    }
}

fn put(header: &Header, content: &[u8], out: &mut Vec<u8>) {
    out.extend(header.sealed());
    put_content(content, out);
}

fn put_content(content: &[u8], out: &mut Vec<u8>) {
    out.extend(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn gnu(entry: &Entry, name: &[u8], link: &[u8], content: &[u8], out: &mut Vec<u8>) {
    let mut header = Header::of(entry, name, link, content.len() as u64);
    header.text(257, 8, b"ustar  \0");
    header.number(108, 8, entry.uid.into());
    header.number(116, 8, entry.gid.into());
    header.number(136, 12, entry.mtime.seconds.into());
    let EntryKind::File { size, sparse: Some(map) } = &entry.kind else { return put(&header, content, out) };
    header.bytes[156] = b'S';
    header.number(483, 12, i128::from(*size));
    // The last run of GNU tar is an empty one at the end of the file.
    let end = Segment { offset: *size, length: 0 };
    let runs: Vec<Segment> = map.segments().iter().copied().chain([end]).collect();
    let (first, rest) = runs.split_at(runs.len().min(4));
    place(&mut header.bytes[386..482], first);
    header.bytes[482] = u8::from(!rest.is_empty());
    out.extend(header.sealed());
    let mut more = rest.chunks(21).peekable();
    while let Some(runs) = more.next() {
        let mut extension = [0; BLOCK];
        place(&mut extension[..504], runs);
        extension[504] = u8::from(more.peek().is_some());
        out.extend(extension);
    }
    put_content(content, out);
}

fn place(fields: &mut [u8], runs: &[Segment]) {
    for (field, run) in fields.chunks_exact_mut(24).zip(runs) {
        field.copy_from_slice(format!("{:011o}\0{:011o}\0", run.offset, run.length).as_bytes());
    }
}

fn pax(entry: &Entry, name: &[u8], link: &[u8], content: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    let mut records = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| {
        let rest = [b" ", key, b"=", value, b"\n"].concat();
        let mut length = rest.len() + 1;
        while length.to_string().len() + rest.len() != length {
            length = length.to_string().len() + rest.len();
        }
        records.extend(length.to_string().into_bytes());
        records.extend(rest);
    };
    let mut content = content.to_vec();
    let mut name_field = name.to_vec();
    if let EntryKind::File { size, sparse: Some(map) } = &entry.kind {
        sparse_records(*size, map, dialect, name, &mut content, &mut record);
        name_field = b"GNUSparseFile.0/file".to_vec();
        if dialect == Dialect::PaxPairs {
            record(b"path", name);
        }
    } else if name.len() > 100 || !name.is_ascii() {
        record(b"path", name);
    }
    if link.len() > 100 {
        record(b"linkpath", link);
    }
    record(b"uid", entry.uid.to_string().as_bytes());
    record(b"gid", entry.gid.to_string().as_bytes());
    // Before 1970 the digits behind the point count away from it.
    let (seconds, nanoseconds) = (i128::from(entry.mtime.seconds), i128::from(entry.mtime.nanoseconds));
    let all = seconds * 1_000_000_000 + nanoseconds;
    let sign = if all < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:09}", all.unsigned_abs() / 1_000_000_000, all.unsigned_abs() % 1_000_000_000);
    record(b"mtime", text.as_bytes());
    for (key, value) in &entry.xattrs {
        record(&[b"SCHILY.xattr.", &key[..]].concat(), value);
    }
    put(&Header::new(b"PaxHeaders.0/entry", b'x', records.len() as u64), &records, out);
    put(&Header::of(entry, &name_field, link, content.len() as u64), &content, out);
}

fn sparse_records(
    size: u64,
    map: &SparseMap,
    dialect: Dialect,
    name: &[u8],
    content: &mut Vec<u8>,
    record: &mut impl FnMut(&[u8], &[u8]),
) {
    let runs = map.segments();
    let numbers = runs.iter().flat_map(|run| [run.offset.to_string(), run.length.to_string()]);
    let size = size.to_string();
    match dialect {
        Dialect::PaxInContent => {
            record(b"GNU.sparse.major", b"1");
            record(b"GNU.sparse.minor", b"0");
            record(b"GNU.sparse.name", name);
            record(b"GNU.sparse.realsize", size.as_bytes());
            let lines: Vec<String> = std::iter::once(runs.len().to_string()).chain(numbers).collect();
            let mut before = (lines.join("\n") + "\n").into_bytes();
            before.resize(before.len().next_multiple_of(BLOCK), 0);
            content.splice(..0, before);
        }
        Dialect::PaxPairs => {
            record(b"GNU.sparse.size", size.as_bytes());
            record(b"GNU.sparse.numblocks", runs.len().to_string().as_bytes());
            for run in runs {
                record(b"GNU.sparse.offset", run.offset.to_string().as_bytes());
                record(b"GNU.sparse.numbytes", run.length.to_string().as_bytes());
            }
        }
        Dialect::PaxMap | Dialect::Gnu => {
            record(b"GNU.sparse.size", size.as_bytes());
            record(b"GNU.sparse.numblocks", runs.len().to_string().as_bytes());
            record(b"GNU.sparse.name", name);
            record(b"GNU.sparse.map", numbers.collect::<Vec<_>>().join(",").as_bytes());
        }
    }
}
