//! A parent of which nothing is known yet. Whoever has to ask it cannot go on.

use std::io;

use crate::view::{FileBytes, LayerEntry, LayerReader, Xattrs};

/// What is below a layer whose place is not known.
#[derive(Debug)]
pub(super) struct Unknown;

fn unknown<T>() -> io::Result<T> {
    Err(io::Error::other("what is below the layer is not known yet"))
}

impl LayerReader for Unknown {
    fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>> {
        // There is a root; how it looks is seen to when the layer has its place.
        if path.is_empty() { Ok(None) } else { unknown() }
    }

    fn is_opaque(&self, _: &[u8]) -> io::Result<bool> {
        unknown()
    }

    fn list(&self, _: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>> {
        unknown()
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        unknown()
    }

    fn open(&self, _: &[u8]) -> io::Result<FileBytes> {
        unknown()
    }

    fn xattrs(&self, _: &[u8]) -> io::Result<Xattrs> {
        unknown()
    }
}
