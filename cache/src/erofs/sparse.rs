//! Sparse files of a tar as chunks: where the runs of data fit the chunks they are used in place, holes cost nothing,
//! and only chunks that are partly data go to the side blob.

use rbuild_image::layer::SparseMap;

use super::BLOCK;
use super::format::MAX_CHUNK_BITS;
use super::member::{Chunk, Content};

/// The smallest chunks are pages, as file systems make holes.
const MIN_BITS: u8 = 12;
/// What a file may have of chunks, and how many more for each run: an archive of little data cannot ask for a large
/// index.
const FREE_CHUNKS: u64 = 64;
const CHUNKS_PER_RUN: u64 = 16;
/// The longest file of ext4: larger ones could not be unpacked either.
const MAX_SIZE: u64 = 16 << 40;

/// A sparse file in chunks, and what has to be written for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) content: Content,
    /// Length of what goes to the side blob.
    pub(super) side_bytes: u64,
    /// For each chunk in the side blob: where it begins in the file and in the side blob.
    pub(super) copies: Vec<(u64, u64)>,
    pub(super) chunk: u64,
}

/// Plans a file of `size` bytes whose runs of data follow each other in the tar from `offset`; what goes to the side
/// blob is counted from its beginning. `None` when the file is larger than anything that could be unpacked.
pub(super) fn plan(map: &SparseMap, size: u64, offset: u64, side_offset: u64) -> Option<Plan> {
    if size > MAX_SIZE {
        return None;
    }
    let runs = map.segments();
    let limit = FREE_CHUNKS + CHUNKS_PER_RUN * runs.len() as u64;
    let mut chunk_bits = MIN_BITS;
    while size.div_ceil(1 << chunk_bits) > limit {
        chunk_bits += 1;
    }
    debug_assert!(chunk_bits <= MAX_CHUNK_BITS + 9, "64 chunks of the largest kind are more than any file");
    let chunk = 1u64 << chunk_bits;
    let mut chunks = Vec::new();
    let mut copies = Vec::new();
    let mut side_bytes = 0;
    // The first run that ends behind the chunk, and where its data begins in the tar.
    let mut first = 0;
    let mut stored = offset;
    let mut begin = 0;
    while begin < size {
        let end = (begin + chunk).min(size);
        while let Some(run) = runs.get(first)
            && run.offset + run.length <= begin
        {
            stored += run.length;
            first += 1;
        }
        let place = match runs.get(first) {
            Some(run) if run.offset < end => {
                let in_tar = stored.checked_add(begin.saturating_sub(run.offset))?;
                let whole = run.offset <= begin && run.offset + run.length >= end;
                if whole && in_tar.is_multiple_of(BLOCK) {
                    Chunk::Tar(in_tar)
                } else {
                    copies.push((begin, side_offset + side_bytes));
                    side_bytes += chunk;
                    Chunk::Side(side_offset + side_bytes - chunk)
                }
            }
            _ => Chunk::Hole,
        };
        chunks.push(place);
        begin += chunk;
    }
    let content = if size == 0 { Content::Empty } else { Content::Chunks { size, chunk_bits, chunks } };
    Some(Plan { content, side_bytes, copies, chunk })
}

impl Plan {
    /// Where in the side blob a piece of data belongs that begins at `offset` in the file, and how much of it; `None`
    /// as place when it stays in the tar.
    pub(super) fn place(&self, offset: u64, length: u64) -> (Option<u64>, u64) {
        let begin = offset - offset % self.chunk;
        let here = length.min(begin + self.chunk - offset);
        let copy = self.copies.binary_search_by_key(&begin, |copy| copy.0).ok();
        (copy.map(|at| self.copies[at].1 + (offset - begin)), here)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_image::layer::Segment;

    use super::*;

    fn map(runs: &[(u64, u64)], size: u64) -> SparseMap {
        SparseMap::new(runs.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }), size).unwrap()
    }

    #[test]
    fn whole_chunks_stay_in_the_tar() {
        let size = 5 * 4096 + 100;
        let map = map(&[(4096, 8192), (3 * 4096 + 512, 512), (5 * 4096, 100)], size);
        let plan = plan(&map, size, 1024, 512).unwrap();
        let chunks =
            vec![Chunk::Hole, Chunk::Tar(1024), Chunk::Tar(5120), Chunk::Side(512), Chunk::Hole, Chunk::Tar(9728)];
        assert_eq!(plan.content, Content::Chunks { size, chunk_bits: 12, chunks });
        assert_eq!((plan.side_bytes, plan.copies.as_slice()), (4096, &[(3 * 4096, 512)][..]));
        assert_eq!(plan.place(4096, 9000), (None, 4096));
        assert_eq!(plan.place(3 * 4096 + 512, 512), (Some(1024), 512));
    }

    #[test]
    fn runs_that_are_not_aligned_are_copied() {
        let size = 8192;
        let map = map(&[(0, 10), (4096, 4096)], size);
        let plan = plan(&map, size, 1024, 0).unwrap();
        let chunks = vec![Chunk::Side(0), Chunk::Side(4096)];
        assert_eq!(plan.content, Content::Chunks { size, chunk_bits: 12, chunks });
    }

    #[test]
    fn little_data_makes_few_chunks() {
        let size = 16 << 40;
        let plan = plan(&map(&[(1 << 30, 512)], size), size, 512, 0).unwrap();
        let Content::Chunks { chunks, .. } = plan.content else { panic!("it has content") };
        assert!(chunks.len() <= 80, "{}", chunks.len());
        assert_eq!(super::plan(&map(&[], size + 1), size + 1, 512, 0), None);
    }
}
