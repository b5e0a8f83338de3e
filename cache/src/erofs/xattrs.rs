//! Extended attributes while an index is made: each attribute and each set of them is kept once.
//!
//! An attribute that more than one inode has is written once, in the shared area; the inodes refer to it.

use std::collections::HashMap;

use super::error::Unrepresentable;
use super::format::{XATTR_HEADER, split_xattr_name};
use crate::view::Xattrs;

/// The attribute that makes overlayfs take a directory for opaque.
pub(super) const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// How many shared attributes one inode can refer to.
const MAX_SHARED: usize = u8::MAX as usize;
/// The length of an inode's attributes is a 16-bit number of 4 bytes.
const MAX_BODY: u64 = XATTR_HEADER + 4 * (u16::MAX as u64 - 1);

/// A set of attributes; 0 is the empty one.
pub(super) type SetId = u32;

#[derive(Debug, Default)]
pub(super) struct XattrTable {
    /// Attributes as they are written, padded.
    attributes: Vec<Box<[u8]>>,
    by_bytes: HashMap<Box<[u8]>, u32>,
    /// Attributes by number, in order of their names; set `n` is at `n - 1`.
    sets: Vec<Box<[u32]>>,
    by_attributes: HashMap<Box<[u32]>, SetId>,
    /// How many inodes have an attribute.
    uses: Vec<u32>,
    /// Where a shared attribute begins, in units of 4 bytes.
    shared: Vec<Option<u32>>,
}

impl XattrTable {
    pub(super) fn intern(&mut self, xattrs: &Xattrs) -> Result<SetId, Unrepresentable> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        let mut set = Vec::with_capacity(xattrs.len());
        for (name, value) in xattrs {
            set.push(self.attribute(name, value)?);
        }
        Ok(self.set(set))
    }

    /// The set with the mark of an opaque directory added.
    pub(super) fn with_opaque(&mut self, id: SetId) -> Result<SetId, Unrepresentable> {
        let mut set = self.of(id).to_vec();
        set.push(self.attribute(OPAQUE.0, OPAQUE.1)?);
        Ok(self.set(set))
    }

    /// Counts one inode that has the set.
    pub(super) fn count(&mut self, id: SetId) {
        self.uses.resize(self.attributes.len(), 0);
        let Self { sets, uses, .. } = self;
        if let Some(set) = id.checked_sub(1).and_then(|at| sets.get(at as usize)) {
            for attribute in set {
                uses[*attribute as usize] += 1;
            }
        }
    }

    /// Places the attributes of more than one inode, and gives what they take.
    pub(super) fn share(&mut self) -> Vec<u8> {
        self.uses.resize(self.attributes.len(), 0);
        let mut area = Vec::new();
        for (attribute, uses) in self.attributes.iter().zip(&self.uses) {
            let place = (*uses > 1).then(|| u32::try_from(area.len() / 4).ok()).flatten();
            if place.is_some() {
                area.extend_from_slice(attribute);
            }
            self.shared.push(place);
        }
        area
    }

    /// What follows an inode that has the set.
    pub(super) fn body(&self, id: SetId) -> Result<Vec<u8>, Unrepresentable> {
        let set = self.of(id);
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let mut references = Vec::new();
        let mut inline = Vec::new();
        for attribute in set {
            match self.shared[*attribute as usize] {
                Some(place) if references.len() < 4 * MAX_SHARED => references.extend(place.to_le_bytes()),
                _ => inline.extend_from_slice(&self.attributes[*attribute as usize]),
            }
        }
        let mut body = vec![0; XATTR_HEADER as usize];
        // At most 255.
        body[4] = (references.len() / 4) as u8;
        body.extend(references);
        body.extend(inline);
        if body.len() as u64 > MAX_BODY { Err(Unrepresentable::Xattrs) } else { Ok(body) }
    }

    fn of(&self, id: SetId) -> &[u32] {
        id.checked_sub(1).and_then(|at| self.sets.get(at as usize)).map_or(&[], |set| set)
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) -> Result<u32, Unrepresentable> {
        let (prefix, rest) = split_xattr_name(name).ok_or(Unrepresentable::Xattr)?;
        let name_length = u8::try_from(rest.len()).map_err(|_| Unrepresentable::Xattr)?;
        let value_length = u16::try_from(value.len()).map_err(|_| Unrepresentable::Xattr)?;
        let mut bytes = vec![name_length, prefix];
        bytes.extend(value_length.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if let Some(known) = self.by_bytes.get(bytes.as_slice()) {
            return Ok(*known);
        }
        let number = u32::try_from(self.attributes.len()).map_err(|_| Unrepresentable::Xattrs)?;
        let bytes: Box<[u8]> = bytes.into();
        self.attributes.push(bytes.clone());
        self.by_bytes.insert(bytes, number);
        Ok(number)
    }

    fn set(&mut self, set: Vec<u32>) -> SetId {
        if let Some(known) = self.by_attributes.get(set.as_slice()) {
            return *known;
        }
        let set: Box<[u32]> = set.into();
        self.sets.push(set.clone());
        // Fewer than attributes and members, which are counted in 32 bits.
        let id = self.sets.len() as SetId;
        self.by_attributes.insert(set, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Xattrs {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_two_inodes_have_is_written_once() {
        let mut table = XattrTable::default();
        let both = table.intern(&set(&[("user.a", "1"), ("user.b", "22222")])).unwrap();
        let one = table.intern(&set(&[("user.a", "1")])).unwrap();
        assert_eq!(table.intern(&set(&[("user.a", "1")])), Ok(one));
        assert_eq!(table.intern(&set(&[])), Ok(0));
        for id in [both, one, 0] {
            table.count(id);
        }
        assert_eq!(table.share(), b"\x01\x01\x01\x00a1\0\0");
        assert_eq!(table.body(0).unwrap(), b"");
        assert_eq!(table.body(one).unwrap(), b"\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(table.body(both).unwrap(), b"\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x05\x00b22222\0\0");
    }

    #[test]
    fn too_long_ones_are_refused() {
        let mut table = XattrTable::default();
        let long = |name: usize, value: usize| set(&[(&format!("user.{}", "n".repeat(name)), &"v".repeat(value))]);
        assert!(table.intern(&long(255, 65_535)).is_ok());
        assert_eq!(table.intern(&long(256, 0)), Err(Unrepresentable::Xattr));
        assert_eq!(table.intern(&long(1, 65_536)), Err(Unrepresentable::Xattr));
        let five: Xattrs = (0..5u8).map(|n| (vec![b'u', b's', b'e', b'r', b'.', n + 65], vec![0; 65_000])).collect();
        let id = table.intern(&five).unwrap();
        table.count(id);
        table.share();
        assert_eq!(table.body(id), Err(Unrepresentable::Xattrs));
    }
}
