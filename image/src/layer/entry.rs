//! What one entry of a layer says about one path.

use std::collections::BTreeMap;

use crate::path::ContainerPath;

/// One entry of a layer: a path and everything about it but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where. Whiteouts are entries too: see [`whiteout::classify`](super::whiteout::classify).
    pub path: ContainerPath,
    /// What.
    pub kind: EntryKind,
    /// Permissions with the set-id and sticky bits: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, by name in byte order.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The type of an entry with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// How long it is, holes included.
        size: u64,
        /// Where its data lies when it has holes; `None` when all of it is data.
        sparse: Option<SparseMap>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// Another name of an earlier file.
    Hardlink {
        /// The earlier name, from the root of the layer.
        target: ContainerPath,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// A time since 1970 as files have it. Before 1970 the seconds are negative, the nanoseconds still count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// Below one second: less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// Which parts of a sparse file are data: ascending, apart from each other, inside the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseMap(Vec<Segment>);

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is: never 0.
    pub length: u64,
}

impl Entry {
    /// An entry without xattrs, owned by root, of time 0.
    pub fn new(path: ContainerPath, kind: EntryKind, mode: u32) -> Self {
        Self { path, kind, mode, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: BTreeMap::new() }
    }

    /// How many bytes of content are stored for it: 0 but for regular files, without holes.
    pub fn stored_size(&self) -> u64 {
        match &self.kind {
            EntryKind::File { sparse: Some(map), .. } => map.data_size(),
            EntryKind::File { size, sparse: None } => *size,
            _ => 0,
        }
    }
}

impl EntryKind {
    /// A regular file without holes.
    pub fn file(size: u64) -> Self {
        Self::File { size, sparse: None }
    }
}

impl SparseMap {
    /// Checks that the runs ascend, do not overlap and lie inside `size`; empty ones are dropped.
    pub fn new(runs: impl IntoIterator<Item = Segment>, size: u64) -> Option<Self> {
        let mut end = 0;
        let mut segments = Vec::new();
        for run in runs {
            let next = run.offset.checked_add(run.length)?;
            if run.offset < end || next > size {
                return None;
            }
            end = next;
            if run.length > 0 {
                segments.push(run);
            }
        }
        Some(Self(segments))
    }

    /// The runs of data, ascending.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// How many bytes are data.
    pub fn data_size(&self) -> u64 {
        self.0.iter().map(|segment| segment.length).sum()
    }
}

/// Says where in a file its stored bytes belong, as they come.
#[derive(Debug)]
pub struct Placement {
    segments: std::vec::IntoIter<Segment>,
    current: Segment,
}

impl Placement {
    /// For the content of `entry`, from its start.
    pub fn of(entry: &Entry) -> Self {
        let segments = match &entry.kind {
            EntryKind::File { sparse: Some(map), .. } => map.0.clone(),
            EntryKind::File { size, sparse: None } => vec![Segment { offset: 0, length: *size }],
            _ => Vec::new(),
        };
        Self { segments: segments.into_iter(), current: Segment { offset: 0, length: 0 } }
    }

    /// Hands the next stored bytes to `take`, in pieces, each with its offset in the file. Bytes after the last run
    /// of data are dropped.
    pub fn place(&mut self, mut bytes: &[u8], mut take: impl FnMut(u64, &[u8])) {
        while !bytes.is_empty() {
            if self.current.length == 0 {
                let Some(next) = self.segments.next() else { return };
                self.current = next;
                continue;
            }
            let n = usize::try_from(self.current.length).unwrap_or(usize::MAX).min(bytes.len());
            take(self.current.offset, &bytes[..n]);
            self.current.offset += n as u64;
            self.current.length -= n as u64;
            bytes = &bytes[n..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_maps_are_ordered_and_inside_the_file() {
        let map = |runs: &[(u64, u64)], size| {
            SparseMap::new(runs.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }), size)
        };
        assert_eq!(map(&[(0, 2), (2, 3), (9, 1)], 10).unwrap().data_size(), 6);
        assert_eq!(map(&[(10, 0)], 10).unwrap().segments(), []);
        for (runs, size) in [
            (&[(0, 2), (1, 1)][..], 10),
            (&[(5, 1), (0, 1)], 10),
            (&[(9, 2)], 10),
            (&[(11, 0)], 10),
            (&[(u64::MAX, 1)], u64::MAX),
            (&[(1, u64::MAX)], u64::MAX),
        ] {
            assert_eq!(map(runs, size), None, "{runs:?}");
        }
    }
    #[test]
    fn stored_bytes_are_placed_across_pieces() {
        let map = SparseMap::new([Segment { offset: 10, length: 3 }, Segment { offset: 20, length: 2 }], 30);
        let entry = Entry::new(ContainerPath::new("/f"), EntryKind::File { size: 30, sparse: map }, 0o644);
        let mut placement = Placement::of(&entry);
        let mut out = Vec::new();
        for piece in ["ab", "cd", "ef"] {
            placement.place(piece.as_bytes(), |offset, bytes| out.push((offset, bytes.to_vec())));
        }
        let want = [(10, b"ab".to_vec()), (12, b"c".to_vec()), (20, b"d".to_vec()), (21, b"e".to_vec())];
        assert_eq!(out, want);
    }
}
