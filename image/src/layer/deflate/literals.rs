//! A gzip member without matches: each byte by how often it occurs, or as it is.
//!
//! ```text
//! 1f 8b 08 00 …  | block | block | … | CRC-32, length
//! block          dynamic: code lengths, then one code a byte; or stored: up to 65,535 bytes as they are
//! ```
//!
//! Where there are no matches to be found this gives less than a compressor that looks for them, which prefers the short
//! ones that chance makes, and takes a tenth of the time.

use super::entropy::{BIT, Histogram};
use super::huffman::{Code, codes, lengths};

/// The longest code of a byte: four of them and the rest of a byte fit into a word.
const LONGEST: u8 = 14;
/// What ends a block, in the alphabet of bytes and lengths.
const END: usize = 256;
/// The most that one stored block holds.
const STORED: usize = 65_535;
/// The order in which a dynamic block has the lengths of the code for lengths.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Appends a member. `pieces` are the histograms of what `data` consists of.
pub(super) fn write_member(out: &mut Vec<u8>, data: &[u8], pieces: &[Histogram]) {
    out.extend_from_slice(&HEADER);
    let mut bits = Bits { out, word: 0, count: 0 };
    let mut rest = data;
    let mut pieces = pieces.iter();
    // Nothing at all is a block, too.
    let mut next = Some(pieces.next().cloned().unwrap_or_else(|| Histogram::of(&[])));
    while let Some(mut block) = next.take() {
        let mut price = block_price(&block);
        for piece in pieces.by_ref() {
            let joined = block.joined(piece);
            let together = block_price(&joined);
            if together > price + block_price(piece) {
                next = Some(piece.clone());
                break;
            }
            (block, price) = (joined, together);
        }
        let (now, later) = rest.split_at(block.total() as usize);
        write_block(&mut bits, now, &block, next.is_none());
        rest = later;
    }
    bits.align();
    debug_assert!(rest.is_empty(), "pieces are all of the data");
    out.extend_from_slice(&libdeflater::crc32(data).to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
}

/// About what a block takes.
fn block_price(histogram: &Histogram) -> u64 {
    let header = (100 + 5 * u64::from(histogram.distinct()) / 2) * BIT;
    (histogram.bits() + header).min((8 * u64::from(histogram.total()) + 40) * BIT)
}

fn write_block(bits: &mut Bits<'_>, data: &[u8], histogram: &Histogram, is_last: bool) {
    let coded = (!data.is_empty()).then(|| Coded::new(histogram));
    let stored = 8 * (data.len() + 5 * data.len().div_ceil(STORED));
    match coded {
        Some(coded) if coded.size < stored as u64 => coded.write(bits, data, is_last),
        _ => write_stored(bits, data, is_last),
    }
}

fn write_stored(bits: &mut Bits<'_>, data: &[u8], is_last: bool) {
    let count = data.len().div_ceil(STORED).max(1);
    for at in 0..count {
        let chunk = &data[at * STORED..data.len().min((at + 1) * STORED)];
        bits.put(u64::from(is_last && at + 1 == count), 3);
        bits.align();
        let length = chunk.len() as u16;
        bits.out.extend_from_slice(&length.to_le_bytes());
        bits.out.extend_from_slice(&(!length).to_le_bytes());
        bits.out.extend_from_slice(chunk);
    }
}

/// A dynamic block.
struct Coded {
    codes: [Code; 257],
    /// Lengths in the code for lengths, with what follows them: its bits and how many they are.
    run_lengths: Vec<(usize, u64, u32)>,
    length_codes: [Code; 19],
    /// Bits that it takes.
    size: u64,
}

impl Coded {
    fn new(histogram: &Histogram) -> Self {
        let mut counts = [1; 257];
        counts[..END].copy_from_slice(histogram.counts());
        let lengths_of_bytes = lengths(&counts, LONGEST);
        // Two codes for distances, of one bit each: there are readers that want some.
        let mut all = [1; 259];
        all[..=END].copy_from_slice(&lengths_of_bytes);
        let run_lengths = run_lengths(&all);
        let mut uses = [0; 19];
        for &(symbol, ..) in &run_lengths {
            uses[symbol] += 1;
        }
        let length_codes = codes(&lengths(&uses, 7));
        let coded = Self { codes: codes(&lengths_of_bytes), run_lengths, length_codes, size: 0 };
        let body: u64 = counts.iter().zip(&coded.codes).map(|(&n, code)| u64::from(n) * u64::from(code.length)).sum();
        let header = coded
            .run_lengths
            .iter()
            .map(|&(symbol, _, extra)| u64::from(extra) + u64::from(coded.length_codes[symbol].length));
        let size = 17 + 3 * coded.listed() as u64 + header.sum::<u64>() + body;
        Self { size, ..coded }
    }

    /// How many lengths of the code for lengths are listed.
    fn listed(&self) -> usize {
        let last = ORDER.iter().rposition(|&symbol| self.length_codes[symbol].length > 0);
        last.map_or(4, |last| (last + 1).max(4))
    }

    fn write(&self, bits: &mut Bits<'_>, data: &[u8], is_last: bool) {
        bits.put(u64::from(is_last) | 2 << 1, 3);
        // 257 bytes and ends, 2 distances.
        bits.put(1 << 5, 10);
        let listed = self.listed();
        bits.put(listed as u64 - 4, 4);
        for &symbol in &ORDER[..listed] {
            bits.put(u64::from(self.length_codes[symbol].length), 3);
        }
        for &(symbol, extra, count) in &self.run_lengths {
            bits.put_code(self.length_codes[symbol]);
            bits.put(extra, count);
        }
        bits.put_all(&self.codes, data, self.size);
        bits.put_code(self.codes[END]);
    }
}

/// Lengths, with repetitions told as such (RFC 1951, section 3.2.7).
fn run_lengths(lengths: &[u8]) -> Vec<(usize, u64, u32)> {
    let mut out = Vec::new();
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = usize::from(run[0]);
        let mut left = run.len();
        if length != 0 {
            out.push((length, 0, 0));
            left -= 1;
        }
        while left > 0 {
            let (symbol, least, most, extra) = match (length, left) {
                (0, 11..) => (18, 11, 138, 7),
                (0, 3..) => (17, 3, 10, 3),
                (_, 3..) => (16, 3, 6, 2),
                _ => (length, 1, 1, 0),
            };
            let now = left.min(most);
            out.push((symbol, (now - least) as u64, extra));
            left -= now;
        }
    }
    out
}

/// Bits on their way into bytes, lowest first.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    /// How many bits of the word are taken: at most 7 between calls.
    count: u32,
}

impl Bits<'_> {
    /// At most 16 bits.
    fn put(&mut self, bits: u64, count: u32) {
        self.word |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.word as u8);
            self.word >>= 8;
            self.count -= 8;
        }
    }

    fn put_code(&mut self, code: Code) {
        self.put(u64::from(code.bits), u32::from(code.length));
    }

    /// The codes of all of `data`, which take no more than `most` bits.
    fn put_all(&mut self, codes: &[Code; 257], data: &[u8], most: u64) {
        let codes: &[Code; 256] = codes[..END].try_into().expect("257 are more");
        let mut at = self.out.len();
        // A whole word is written each time, of which less than that may count.
        self.out.resize(at + most as usize / 8 + 16, 0);
        let (mut word, mut count) = (self.word, self.count);
        let chunks = data.chunks_exact(4);
        let rest = chunks.remainder();
        for chunk in chunks {
            for &byte in chunk {
                let code = codes[usize::from(byte)];
                word |= u64::from(code.bits) << count;
                count += u32::from(code.length);
            }
            self.out[at..at + 8].copy_from_slice(&word.to_le_bytes());
            let whole = count / 8;
            at += whole as usize;
            word >>= 8 * whole;
            count %= 8;
        }
        self.out.truncate(at);
        (self.word, self.count) = (word, count);
        for &byte in rest {
            self.put_code(codes[usize::from(byte)]);
        }
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.out.push(self.word as u8);
            (self.word, self.count) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn member(data: &[u8], piece: usize) -> Vec<u8> {
        let pieces: Vec<Histogram> = data.chunks(piece).map(Histogram::of).collect();
        let mut out = Vec::new();
        write_member(&mut out, data, &pieces);
        out
    }

    /// Both decoders that images are read with here, one of which is strict about codes.
    fn check(data: &[u8], piece: usize) -> Vec<u8> {
        let packed = member(data, piece);
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == data, "flate2 reads something else");
        let mut read = vec![0; data.len()];
        let n = libdeflater::Decompressor::new().gzip_decompress(&packed, &mut read).unwrap();
        assert!(n == data.len() && read == data, "libdeflate reads something else");
        packed
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 1u64;
        let next = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn lengths_around_all_limits() {
        let noise = noise(3 * STORED + 5);
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 4096, 65_534, 65_535, 65_536, 131_070, 131_071, 3 * STORED + 5] {
            let packed = check(&noise[..length], 8192);
            assert!(packed.len() <= length + 40 + 5 * length.div_ceil(STORED), "{length} bytes: {}", packed.len());
            check(&vec![0; length], 8192);
            let skewed: Vec<u8> = noise[..length].iter().map(|byte| byte & byte >> 3 & 0x1f).collect();
            let packed = check(&skewed, 8192);
            assert!(length < 4096 || packed.len() < length * 6 / 10, "{length} bytes: {}", packed.len());
        }
    }

    #[test]
    fn one_symbol_every_symbol_and_very_different_frequencies() {
        for byte in [0, 1, 127, 255] {
            let packed = check(&vec![byte; 100_000], 8192);
            assert!(packed.len() < 100_000 / 8 + 200, "a bit each");
        }
        check(&(0..=255).collect::<Vec<u8>>(), 8192);
        let mut growing = Vec::new();
        for byte in 0..18u8 {
            growing.resize(growing.len() + (1 << byte), byte);
        }
        check(&growing, usize::MAX);
    }

    #[test]
    fn a_block_ends_where_frequencies_change() {
        let data = [vec![b'a'; 65_536], noise(65_536), vec![b'b'; 65_536]].concat();
        let packed = check(&data, 8192);
        assert!(packed.len() < 65_536 + 2 * 8192 + 300, "{} bytes", packed.len());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            parts in proptest::collection::vec((any::<u8>(), 1usize..5000, 0u8..9), 0..20),
            piece in 1usize..20_000,
        ) {
            let mut data = Vec::new();
            for (byte, length, shift) in parts {
                let part = noise(length).into_iter().map(|noise| byte.wrapping_add(noise.checked_shr(shift.into()).unwrap_or(0)));
                data.extend(part);
            }
            check(&data, piece);
        }
    }
}
