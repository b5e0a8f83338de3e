//! Which files a selection holds: what is compared when somebody asks which of them made a step run again.
//!
//! Kept apart from keys: a listing is a memory of what a digest stood for, never what decides about a hit. Packed with
//! zstd; paths share what they have in common with their predecessor, contents are cut to eight bytes:
//!
//! ```text
//! 1, then per file, in the order of the selection, numbers as LEB128:
//!   bytes shared with the previous path | length of the rest | rest | kind letter | mode | uid | gid | size
//!   mark 8 bytes (files and links) | attributes 8 bytes (where the letter's high bit is set)
//! ```

use std::io::Read;

/// First byte of a packed listing.
const PACKING: u8 = 1;
/// Set in a kind letter where there are extended attributes.
const ATTRIBUTES: u8 = 0x80;
/// Files beyond this are left out: a listing then says less, never something wrong.
pub(crate) const MOST_FILES: usize = 200_000;
/// A packed listing that unpacks to more is taken for damaged.
const MOST_BYTES: u64 = 256 << 20;

/// One file of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Where it is in its context or stage.
    pub path: Vec<u8>,
    /// `f` file, `d` directory, `l` link, `h` another name, `c`, `b` devices, `p` pipes and sockets.
    pub kind: u8,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// The first bytes of the digest of its content, link target or device numbers.
    pub mark: [u8; 8],
    /// The same of its extended attributes; zero without.
    pub attributes: [u8; 8],
}

/// The files of a selection, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files; some are missing when [`Listing::is_cut`].
    pub files: Vec<ListedFile>,
    /// Whether there were too many.
    pub is_cut: bool,
}

impl Listing {
    /// Adds a file, unless there are too many.
    pub fn push(&mut self, file: ListedFile) {
        if self.files.len() < MOST_FILES {
            self.files.push(file);
        } else {
            self.is_cut = true;
        }
    }

    /// The bytes that are kept.
    pub(crate) fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut raw = vec![PACKING, u8::from(self.is_cut)];
        let mut last: &[u8] = &[];
        for file in &self.files {
            let shared = last.iter().zip(&file.path).take_while(|(a, b)| a == b).count();
            let has_attributes = file.attributes != [0; 8];
            for number in [shared as u64, (file.path.len() - shared) as u64] {
                put(&mut raw, number);
            }
            raw.extend(&file.path[shared..]);
            raw.push(file.kind | if has_attributes { ATTRIBUTES } else { 0 });
            for number in [file.mode.into(), file.uid.into(), file.gid.into(), file.size] {
                put(&mut raw, number);
            }
            if is_marked(file.kind) {
                raw.extend(file.mark);
            }
            if has_attributes {
                raw.extend(file.attributes);
            }
            last = &file.path;
        }
        zstd::bulk::compress(&raw, 1)
    }

    /// What was packed; `None` when it is damaged.
    pub(crate) fn unpack(packed: &[u8]) -> Option<Self> {
        let mut raw = Vec::new();
        zstd::Decoder::new(packed).ok()?.take(MOST_BYTES).read_to_end(&mut raw).ok()?;
        let (&[PACKING, is_cut], mut rest) = raw.split_first_chunk()? else { return None };
        let mut listing = Self { files: Vec::new(), is_cut: is_cut != 0 };
        while !rest.is_empty() {
            let last = listing.files.last().map_or(&[][..], |file: &ListedFile| &file.path);
            let shared = usize::try_from(take(&mut rest)?).ok()?;
            let length = usize::try_from(take(&mut rest)?).ok()?;
            let (own, tail) = rest.split_at_checked(length)?;
            let path = [last.get(..shared)?, own].concat();
            let (letter, tail) = tail.split_first()?;
            rest = tail;
            let mut number = || take(&mut rest);
            let (mode, uid, gid, size) = (number()?, number()?, number()?, number()?);
            let kind = letter & !ATTRIBUTES;
            let mark = if is_marked(kind) { take_mark(&mut rest)? } else { [0; 8] };
            let attributes = if letter & ATTRIBUTES == 0 { [0; 8] } else { take_mark(&mut rest)? };
            let small = |number: u64| u32::try_from(number).ok();
            let (mode, uid, gid) = (small(mode)?, small(uid)?, small(gid)?);
            listing.files.push(ListedFile { path, kind, mode, uid, gid, size, mark, attributes });
        }
        Some(listing)
    }
}

fn is_marked(kind: u8) -> bool {
    !matches!(kind, b'd' | b'p')
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_mark(from: &mut &[u8]) -> Option<[u8; 8]> {
    let (mark, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*mark)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file() -> impl Strategy<Value = ListedFile> {
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
        (proptest::collection::vec(any::<u8>(), 0..40), 0..7_usize, numbers, any::<[u8; 8]>(), any::<[u8; 8]>())
            .prop_map(|(path, kind, (mode, uid, gid, size), mark, attributes)| {
                let kind = b"fdlhcbp"[kind];
                let mark = if is_marked(kind) { mark } else { [0; 8] };
                ListedFile { path, kind, mode, uid, gid, size, mark, attributes }
            })
    }

    proptest! {
        #[test]
        fn packing_round_trips(files in proptest::collection::vec(file(), 0..30), is_cut in any::<bool>()) {
            let listing = Listing { files, is_cut };
            prop_assert_eq!(Listing::unpack(&listing.pack().unwrap()), Some(listing));
        }

        #[test]
        fn damaged_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _whatever = Listing::unpack(&bytes);
            let _as_well = Listing::unpack(&zstd::bulk::compress(&bytes, 1).unwrap());
        }
    }

    #[test]
    fn fifty_thousand_files_cost_a_megabyte() {
        let mut listing = Listing::default();
        for number in 0..50_000_u64 {
            let digest = blake3::hash(&number.to_le_bytes());
            let mut mark = [0; 8];
            mark.copy_from_slice(&digest.as_bytes()[..8]);
            let path = format!("src/package-{}/module-{}/file-{number}.ts", number / 1000, number / 50).into_bytes();
            let size = number * 7919 % 60_000;
            listing.push(ListedFile {
                path,
                kind: b'f',
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                size,
                mark,
                attributes: [0; 8],
            });
        }
        let packed = listing.pack().unwrap();
        assert!(packed.len() < 1_000_000, "{}", packed.len());
    }
}
