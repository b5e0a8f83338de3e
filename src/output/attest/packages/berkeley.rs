//! The values of a Berkeley DB hash file, as far as rpm's oldest database needs it.
//!
//! The first page says magic number, version and page size (in the byte order of the machine that wrote it). A page has
//! 26 bytes first: log position (8), number (4), previous (4), next (4), entries (2), used or free (2), level (1), kind (1). On
//! a hash page offsets of 2 bytes follow, keys and values in turns. A value that is longer than a page has its bytes on a
//! chain of overflow pages; rpm's headers all are.

/// Where a page's content begins.
const HEAD: usize = 26;
/// Kinds of pages.
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// A value whose bytes are on other pages.
const OFF_PAGE: u8 = 3;

/// A file, and how to read its numbers.
struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    is_big: bool,
}

/// The values that lie on pages of their own, in the order of the file; `None` where it is no such database.
pub(super) fn large_values(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const MAGIC: u32 = 0x0006_1561;
    let magic = bytes.get(12..16)?.try_into().ok()?;
    let is_big = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (MAGIC, _) => false,
        (_, MAGIC) => true,
        _ => return None,
    };
    let head = Pages { bytes, size: bytes.len(), is_big };
    let size = usize::try_from(head.long(bytes, 20)?).ok()?;
    if !(512..=65536).contains(&size) || !size.is_power_of_two() {
        return None;
    }
    let pages = Pages { size, ..head };
    let mut values = Vec::new();
    for page in bytes.chunks_exact(size).skip(1) {
        if matches!(page[HEAD - 1], HASH_UNSORTED | HASH) {
            pages.of_hash_page(page, &mut values)?;
        }
    }
    Some(values)
}

impl Pages<'_> {
    fn long(&self, of: &[u8], at: usize) -> Option<u32> {
        let four = of.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    fn short(&self, of: &[u8], at: usize) -> Option<usize> {
        let two = of.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(usize::from(if self.is_big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) }))
    }

    fn of_hash_page(&self, page: &[u8], values: &mut Vec<Vec<u8>>) -> Option<()> {
        let entries = self.short(page, 20)?;
        for value in (1..entries).step_by(2) {
            let at = self.short(page, HEAD + value * 2)?;
            if *page.get(at)? == OFF_PAGE {
                values.push(self.chain(self.long(page, at + 4)?, self.long(page, at + 8)?)?);
            }
        }
        Some(())
    }

    /// The bytes of a chain of overflow pages.
    fn chain(&self, first: u32, length: u32) -> Option<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len())?;
        let mut out = Vec::with_capacity(length);
        let mut next = first;
        while out.len() < length {
            let begin = usize::try_from(next).ok().filter(|page| *page > 0)?.checked_mul(self.size)?;
            let page = self.bytes.get(begin..begin.checked_add(self.size)?)?;
            let used = self.short(page, 22)?;
            // A page that gives nothing would lead round in a circle.
            if page[HEAD - 1] != OVERFLOW || used == 0 {
                return None;
            }
            out.extend_from_slice(page.get(HEAD..HEAD + used)?);
            next = self.long(page, 16)?;
        }
        out.truncate(length);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Berkeley DB itself (`testdata/rpm/make.pl`).
    const MADE: &[u8] = include_bytes!("../../../../testdata/rpm/Packages");

    #[test]
    fn values_on_pages_of_their_own_are_read() {
        let values = large_values(MADE).unwrap();
        assert_eq!(values.len(), 3);
        assert!(values.iter().all(|value| value.len() > 1500 && value.ends_with(b"long \0")));
        assert_eq!(large_values(b"no database"), None);
    }

    #[test]
    fn whatever_is_broken_ends() {
        for cut in (0..MADE.len()).step_by(37) {
            drop(large_values(&MADE[..cut]));
        }
        for at in 0..MADE.len() {
            let mut bytes = MADE.to_vec();
            bytes[at] ^= 0xff;
            drop(large_values(&bytes));
        }
    }
}
