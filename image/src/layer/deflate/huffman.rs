//! Prefix codes of bounded length, as deflate wants them (RFC 1951, section 3.2.2).

/// A symbol's code, its first bit lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) bits: u16,
    pub(super) length: u8,
}

/// Lengths of a prefix code for symbols that occur so often, at most `limit` bits each. There are at least two that occur,
/// and the code is complete; those that do not occur have length 0.
pub(super) fn lengths<const N: usize>(counts: &[u32; N], limit: u8) -> [u8; N] {
    // By how often they occur, then by symbol: the order decides which of two equal ones is longer.
    let mut symbols: Vec<(u32, usize)> =
        counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(|(symbol, &count)| (count, symbol)).collect();
    symbols.sort_unstable();
    debug_assert!(symbols.len() >= 2 && symbols.len() <= 1 << limit, "{} symbols in {limit} bits", symbols.len());
    let mut of_length = bounded(&depths(&symbols), usize::from(limit));
    let mut out = [0; N];
    let mut length = usize::from(limit);
    for (_, symbol) in symbols {
        while of_length[length] == 0 {
            length -= 1;
        }
        of_length[length] -= 1;
        out[symbol] = length as u8;
    }
    out
}

/// How deep each of the symbols is in Huffman's tree, rarest first.
fn depths(symbols: &[(u32, usize)]) -> Vec<usize> {
    let n = symbols.len();
    // Leaves first, then the nodes above them in the order in which they are made, which is the order of their weights.
    let mut parents = vec![0; 2 * n - 1];
    let mut weights: Vec<u64> = symbols.iter().map(|&(count, _)| u64::from(count)).collect();
    let (mut leaf, mut node) = (0, n);
    while weights.len() < 2 * n - 1 {
        let made = weights.len();
        let mut weight = 0;
        for _ in 0..2 {
            let least = match (leaf < n, node < made) {
                (true, true) if weights[leaf] <= weights[node] => &mut leaf,
                (true, false) => &mut leaf,
                _ => &mut node,
            };
            weight += weights[*least];
            parents[*least] = made;
            *least += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0; 2 * n - 1];
    for at in (0..2 * n - 2).rev() {
        depths[at] = depths[parents[at]] + 1;
    }
    depths.truncate(n);
    depths
}

/// How many symbols have each length, once none is longer than `limit`.
fn bounded(depths: &[usize], limit: usize) -> Vec<usize> {
    let mut of_length = vec![0usize; limit + 1];
    for &depth in depths {
        of_length[depth.min(limit)] += 1;
    }
    // What the code takes of the 2^limit words there are. Too much: a shorter one is made longer, and beside it there is
    // room for one of the longest.
    let mut taken: usize = (1..=limit).map(|length| of_length[length] << (limit - length)).sum();
    while taken > 1 << limit {
        let shorter = (1..limit).rev().find(|&length| of_length[length] > 0).expect("they fit into the limit");
        of_length[limit] -= 1;
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        taken -= 1;
    }
    of_length
}

/// The codes that follow from their lengths.
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut next = [0u16; 17];
    for length in 1..16 {
        let shorter = lengths.iter().filter(|&&other| usize::from(other) == length).count() as u16;
        next[length + 1] = (next[length] + shorter) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return Code::default();
        }
        let code = &mut next[usize::from(length)];
        let bits = code.reverse_bits() >> (16 - length);
        *code += 1;
        Code { bits, length }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(lengths: &[u8], limit: u8) -> usize {
        lengths.iter().filter(|&&length| length > 0).map(|&length| 1 << (limit - length)).sum()
    }

    #[test]
    fn the_rarest_are_the_longest() {
        assert_eq!(lengths(&[5, 0, 9, 12, 13, 16, 45], 14), [4, 0, 4, 3, 3, 3, 1]);
        assert_eq!(lengths(&[1, 1], 14), [1, 1]);
        assert_eq!(lengths(&[0, 7, 0, 1], 7), [0, 1, 0, 1]);
    }

    #[test]
    fn the_codes_of_the_standard() {
        // The example of RFC 1951.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let text = codes.map(|code| {
            let bits = (0..code.length).map(|at| if code.bits >> at & 1 == 1 { '1' } else { '0' });
            bits.collect::<String>()
        });
        assert_eq!(text, ["010", "011", "100", "101", "110", "00", "1110", "1111"]);
    }

    #[test]
    fn frequencies_that_grow_too_fast_stay_within_the_limit() {
        let mut counts = [0u32; 40];
        let (mut a, mut b) = (1, 1);
        for count in &mut counts {
            *count = a;
            (a, b) = (b, a + b);
        }
        for limit in [6, 7, 14, 15] {
            let lengths = lengths(&counts, limit);
            assert!(lengths.iter().all(|length| (1..=limit).contains(length)));
            assert_eq!(taken(&lengths, limit), 1 << limit, "complete");
            assert!(lengths.is_sorted_by(|a, b| a >= b));
        }
    }

    proptest! {
        #[test]
        fn every_code_is_complete(counts in proptest::array::uniform19(0u32..1000), limit in 5u8..15) {
            prop_assume!(counts.iter().filter(|&&count| count > 0).count() >= 2);
            let lengths = lengths(&counts, limit);
            for (count, length) in counts.iter().zip(lengths) {
                prop_assert_eq!(*count > 0, length > 0);
                prop_assert!(length <= limit);
            }
            prop_assert_eq!(taken(&lengths, limit), 1 << limit);
        }
    }
}
