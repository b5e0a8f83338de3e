//! A block as gzip members: each stretch by the way that suits it.
//!
//! Compressors of the kind of zlib look for matches everywhere. Half of what images hold has none: pictures, archives, wheels,
//! numbers. There looking takes the most time and wins nothing, or less than nothing. So a block is [looked at](probe) first; what
//! has matches goes to libdeflate, the rest becomes a member [of literals](literals).

mod entropy;
mod huffman;
mod literals;
mod probe;

use std::io;

use libdeflater::{CompressionLvl, Compressor};

pub(super) use probe::{Kind, Probe, Stretch};

/// From this level on all of a block goes to libdeflate, which then weighs matches against what they replace.
const THOROUGH: i32 = 8;

/// Makes gzip of blocks.
pub(super) struct Gzip {
    level: i32,
    compressor: Compressor,
    probe: Box<Probe>,
}

impl Gzip {
    /// At a level from 0, stored, and 1, fast, to 12, small.
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let known = CompressionLvl::new(level).map_err(|_| io::Error::other(format!("no gzip level {level}")))?;
        Ok(Self { level, compressor: Compressor::new(known), probe: Probe::new() })
    }

    /// Appends the members that a block becomes.
    pub(super) fn compress(&mut self, block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if self.level == 0 || self.level >= THOROUGH {
            return self.matched(block, out);
        }
        for Stretch { range, kind } in self.probe.stretches(block) {
            match kind {
                Kind::Matched => self.matched(&block[range], out)?,
                Kind::Plain(pieces) => literals::write_member(out, &block[range], &pieces),
            }
        }
        Ok(())
    }

    fn matched(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let from = out.len();
        out.resize(from + self.compressor.gzip_compress_bound(data.len()), 0);
        let length = self.compressor.gzip_compress(data, &mut out[from..]).map_err(io::Error::other)?;
        out.truncate(from + length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// A part of a block, by what makes it.
    fn part(kind: u8, seed: u64, length: usize) -> Vec<u8> {
        let words = ["lorem ", "ipsum ", "dolor ", "sit ", "amet, "];
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            match kind {
                0 => out.push(next() as u8),
                1 => out.push((next() & next() & 0x3f) as u8),
                2 => out.extend_from_slice(words[next() % 5].as_bytes()),
                _ => out.push(seed as u8),
            }
        }
        out.truncate(length);
        out
    }

    fn check(level: i32, block: &[u8]) -> usize {
        let mut gzip = Gzip::new(level).unwrap();
        let mut packed = Vec::new();
        gzip.compress(block, &mut packed).unwrap();
        let mut read = Vec::new();
        flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == block, "level {level}: something else is read");
        let mut again = Vec::new();
        gzip.compress(block, &mut again).unwrap();
        assert!(packed == again, "level {level}: what was before a block shows in it");
        packed.len()
    }

    #[test]
    fn plain_data_takes_no_more_than_by_looking_for_matches() {
        for (kind, most) in [(0, 1.001), (1, 0.62), (2, 0.25), (3, 0.01)] {
            let block = part(kind, 5, 1 << 20);
            let size = check(2, &block);
            assert!((size as f64) < most * block.len() as f64, "kind {kind}: {size}");
            let mut matched = Vec::new();
            Gzip::new(2).unwrap().matched(&block, &mut matched).unwrap();
            assert!(size <= matched.len() + matched.len() / 1000, "kind {kind}: {size} and {}", matched.len());
        }
    }

    #[test]
    fn nothing_is_looked_for_where_all_is_to_be_stored() {
        for kind in 0..4 {
            let size = check(0, &part(kind, 5, 100_000));
            assert!((100_000..100_100).contains(&size), "kind {kind}: {size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn blocks_of_all_kinds_come_back(
            parts in proptest::collection::vec((0u8..4, any::<u64>(), 0usize..80_000), 0..8),
            level in 0i32..=12,
        ) {
            let block: Vec<u8> = parts.into_iter().flat_map(|(kind, seed, length)| part(kind, seed, length)).collect();
            check(level, &block);
        }
    }
}
