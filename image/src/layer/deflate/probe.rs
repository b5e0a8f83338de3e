//! Where matches are worth looking for.
//!
//! A block is looked at in pieces. What matches would win is estimated from a part of the places, which their content
//! chooses: equal strings are chosen together, so that a repetition is seen although few places are remembered. Most
//! pieces with matches show it in their first quarter.
//!
//! ```text
//! piece   | text | text | noise | noise | noise | noise | text |
//! stretch |   matched   |         plain                 | matched
//! ```
//!
//! A plain stretch is long enough that what is before it would hardly have been in the window of what follows.

use std::ops::Range;

use super::entropy::{BIT, Histogram};

/// Pieces begin at multiples of this, in bytes.
const PIECE: usize = 8 << 10;
/// The fewest pieces of a plain stretch between others.
const LEAST_PLAIN: usize = 4;
/// Matches at a greater distance do not exist.
const WINDOW: usize = 32 << 10;
/// The longest match.
const LONGEST: usize = 258;
/// One in so many places is chosen, by the uppermost bits of a hash.
const CHOSEN_BITS: u32 = 3;
const SLOT_BITS: u32 = 12;
/// Matches that win less than one in so many parts of what a piece takes without them are not worth their codes.
const LEAST_GAIN: u64 = 100;
/// What a byte without a match is taken to cost until the bytes are counted.
const FLAT_PRICE: u32 = 5 * BIT as u32;

/// A stretch of a block.
pub(in crate::layer) struct Stretch {
    pub(in crate::layer) range: Range<usize>,
    pub(in crate::layer) kind: Kind,
}

/// What a stretch is like.
pub(in crate::layer) enum Kind {
    /// Something in it occurred before.
    Matched,
    /// Only how often each byte occurs can be used; the counts of each piece.
    Plain(Vec<Histogram>),
}

/// Looks at blocks.
pub(in crate::layer) struct Probe {
    /// Where the last chosen place of each hash is, plus one.
    seen: [u32; 1 << SLOT_BITS],
    /// Room for the chosen places of a piece.
    chosen: [u16; PIECE],
    /// Matches that were found, with their distances.
    found: Vec<(Range<usize>, usize)>,
}

impl Probe {
    pub(in crate::layer) fn new() -> Box<Self> {
        Box::new(Self { seen: [0; 1 << SLOT_BITS], chosen: [0; PIECE], found: Vec::new() })
    }

    /// The stretches of a block of less than 4 GiB, in order. An empty block is one plain stretch.
    pub(in crate::layer) fn stretches(&mut self, block: &[u8]) -> Vec<Stretch> {
        self.seen.fill(0);
        let starts = (0..block.len()).step_by(PIECE);
        let pieces: Vec<Option<Histogram>> =
            starts.map(|from| self.plain(block, from..block.len().min(from + PIECE))).collect();
        let mut out: Vec<Stretch> = Vec::new();
        let mut from = 0;
        for run in pieces.chunk_by(|a, b| a.is_some() == b.is_some()) {
            let to = block.len().min(from + run.len() * PIECE);
            let whole = run.len() == pieces.len();
            let plain: Vec<Histogram> = run.iter().flatten().cloned().collect();
            let kind = if plain.is_empty() || (run.len() < LEAST_PLAIN && !whole) {
                Kind::Matched
            } else {
                Kind::Plain(plain)
            };
            match (out.last_mut(), kind) {
                (Some(Stretch { range, kind: Kind::Matched }), Kind::Matched) => range.end = to,
                (_, kind) => out.push(Stretch { range: from..to, kind }),
            }
            from = to;
        }
        if out.is_empty() {
            out.push(Stretch { range: 0..0, kind: Kind::Plain(Vec::new()) });
        }
        out
    }

    /// The counts of a piece that is plain.
    fn plain(&mut self, block: &[u8], piece: Range<usize>) -> Option<Histogram> {
        let quarter = piece.start..piece.start + piece.len() / 4;
        self.look(block, quarter.clone());
        if 5 * self.gain(block, &[FLAT_PRICE; 256]) > quarter.len() as u64 * u64::from(FLAT_PRICE) {
            return None;
        }
        let histogram = Histogram::of(&block[piece.clone()]);
        let (bits, prices) = (histogram.bits(), histogram.prices());
        let gain = self.gain(block, &prices);
        if 8 * LEAST_GAIN * gain <= bits {
            return Some(histogram);
        }
        self.look(block, quarter.end..piece.end);
        (LEAST_GAIN * (gain + self.gain(block, &prices)) <= bits).then_some(histogram)
    }

    /// About what the matches that were found win, where each byte has a price.
    fn gain(&self, block: &[u8], prices: &[u32; 256]) -> u64 {
        let won = self.found.iter().map(|(range, distance)| {
            let saved: u32 = block[range.clone()].iter().map(|&byte| prices[usize::from(byte)]).sum();
            // Of short matches few have a chosen place.
            let rarity = RARITY[range.len().min(RARITY.len() - 1)];
            u64::from(saved.saturating_sub(match_price(*distance))) * u64::from(rarity) / BIT
        });
        won.sum()
    }

    /// Finds matches in a part of a block.
    fn look(&mut self, block: &[u8], part: Range<usize>) {
        let count = self.choose(block, part.clone());
        self.found.clear();
        let mut covered = part.start;
        for &at in &self.chosen[..count] {
            let at = part.start + usize::from(at);
            if at < covered {
                continue;
            }
            let word = word(block, at);
            let slot = &mut self.seen[slot(word)];
            let before = std::mem::replace(slot, at as u32 + 1) as usize;
            if before == 0 || at + 1 - before > WINDOW || self::word(block, before - 1) != word {
                continue;
            }
            let before = before - 1;
            let (back, ahead) = extent(block, before, at, covered, part.end);
            covered = at + ahead;
            self.found.push((at - back..covered, at - before));
        }
    }

    /// Lists the chosen places of a part, from its start; how many there are.
    fn choose(&mut self, block: &[u8], part: Range<usize>) -> usize {
        let mut count = 0;
        for (at, four) in (0u16..).zip(block[part].windows(4)) {
            // Whether a place is chosen cannot be foreseen: no branch depends on it.
            self.chosen[count % PIECE] = at;
            let word = u32::from_le_bytes(four.try_into().expect("these are four"));
            count += usize::from(hash(word) >> (32 - CHOSEN_BITS) == 0);
        }
        count
    }
}

fn hash(word: u32) -> u32 {
    word.wrapping_mul(0x9e37_79b1)
}

/// Where places with this content are remembered, when they are chosen.
fn slot(word: u32) -> usize {
    (hash(word) >> (32 - CHOSEN_BITS - SLOT_BITS)) as usize % (1 << SLOT_BITS)
}

/// How far what is equal at two places goes back, and on.
fn extent(block: &[u8], before: usize, at: usize, first: usize, end: usize) -> (usize, usize) {
    let most = (end - at).min(LONGEST);
    let ahead = block[before..].iter().zip(&block[at..at + most]).take_while(|(a, b)| a == b).count();
    let most = (at - first).min(before).min(LONGEST - ahead);
    let back = (1..=most).take_while(|&n| block[before - n] == block[at - n]).count();
    (back, ahead)
}

/// What a match costs: its length, its distance, and the bits behind that.
fn match_price(distance: usize) -> u32 {
    (10 + distance.ilog2()) * BIT as u32
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("these are four"))
}

/// How many matches of a length there are for each that has a chosen place, which [`BIT`] stands for.
const RARITY: [u32; 64] = rarity();

const fn rarity() -> [u32; 64] {
    let mut out = [0; 64];
    let one = 1u64 << 32;
    let mut none = one;
    let mut length = 4;
    while length < out.len() {
        none -= none >> CHOSEN_BITS;
        out[length] = ((BIT << 32) / (one - none)) as u32;
        length += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mask: u8) -> Vec<u8> {
        let mut seed = 7u64;
        let next = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8 & (seed >> 48) as u8 & (seed >> 40) as u8 & mask | (seed >> 32) as u8 & !mask
        };
        (0..length).map(next).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        let words = ["lorem ", "ipsum ", "dolor ", "sit ", "amet, ", "consectetur ", "adipiscing ", "elit\n"];
        let order = noise(length, 0);
        let mut out: Vec<u8> = order.iter().flat_map(|&at| words[usize::from(at) % 8].bytes()).collect();
        out.truncate(length);
        out
    }

    fn drawn(block: &[u8]) -> String {
        let stretches = Probe::new().stretches(block);
        let mut end = 0;
        let parts = stretches.iter().map(|Stretch { range, kind }| {
            assert_eq!(range.start, end, "nothing is left out");
            end = range.end;
            let pieces = range.len().div_ceil(PIECE);
            match kind {
                Kind::Matched => format!("matched {pieces}"),
                Kind::Plain(histograms) => {
                    assert_eq!(histograms.iter().map(|piece| piece.total() as usize).sum::<usize>(), range.len());
                    format!("plain {pieces}")
                }
            }
        });
        let drawn = parts.collect::<Vec<_>>().join(", ");
        assert_eq!(end, block.len());
        drawn
    }

    #[test]
    fn each_kind_of_data_is_known() {
        let long = 16 * PIECE;
        assert_eq!(drawn(&noise(long, 0)), "plain 16");
        assert_eq!(drawn(&noise(long, 0xff)), "plain 16", "skewed");
        assert_eq!(drawn(&text(long)), "matched 16");
        assert_eq!(drawn(&vec![0; long]), "matched 16");
        assert_eq!(drawn(&noise(long / 2, 0).repeat(2)), "plain 16", "beyond the window");
        assert_eq!(drawn(&noise(PIECE / 2, 0).repeat(32)), "matched 16");
    }

    #[test]
    fn only_long_plain_stretches_stand_alone() {
        let (text, noise) = (|pieces| text(pieces * PIECE), |pieces| noise(pieces * PIECE, 0));
        assert_eq!(drawn(&[text(4), noise(4), text(2)].concat()), "matched 4, plain 4, matched 2");
        assert_eq!(drawn(&[text(4), noise(3), text(2)].concat()), "matched 9");
        assert_eq!(drawn(&[noise(4), text(1), noise(4)].concat()), "plain 4, matched 1, plain 4");
        assert_eq!(drawn(&noise(1)[..100]), "plain 1");
        assert_eq!(drawn(&[]), "plain 0");
    }

    #[test]
    fn places_at_the_ends_are_looked_at() {
        for length in 0..20 {
            drawn(&vec![7; length]);
            drawn(&vec![7; PIECE + length]);
        }
    }
}
