//! Which parts of a chain are mounted as one: decided from the chain alone, so that every process decides the same.
//!
//! Layers are taken sixteen at a time, counted from the bottom of the chain. Sixteen that are all kept as tars become one
//! merged index, and neighbours are merged with each other as in a log-structured tree: when the upper one has grown to
//! more than half of the lower one. So a large base is merged once and again only when as much has come on top of it; each
//! layer is merged a logarithmic number of times while a chain grows; and of a chain of any length there are at most fifteen
//! single layers and a logarithmic number of merged ones to be mounted. What is decided about the lower part of a chain
//! never changes when layers come on top.

use std::ops::Range;

/// How many layers are merged at least. Below that a mount of each costs less than a merge.
pub(super) const UNIT: usize = 16;
/// No more than this many, so that tars and side blobs are numbered.
const MOST: usize = crate::erofs::MAX_DEVICES / 2;

/// The ranges of a chain to be mounted as one, from the bottom. `weights` says how large the index of each layer is, from the
/// bottom; `None` for one that has none.
pub(super) fn ranges(weights: &[Option<u64>]) -> Vec<Range<usize>> {
    let mut found: Vec<(Range<usize>, u64)> = Vec::new();
    for (number, unit) in weights.chunks_exact(UNIT).enumerate() {
        let Some(weight) = unit.iter().copied().sum::<Option<u64>>() else { continue };
        let (mut range, mut weight) = (number * UNIT..(number + 1) * UNIT, weight);
        while let Some((below, lower)) = found.last() {
            if below.end != range.start || weight.saturating_mul(2) <= *lower || range.end - below.start > MOST {
                break;
            }
            (range, weight) = (below.start..range.end, weight.saturating_add(*lower));
            found.pop();
        }
        found.push((range, weight));
    }
    found.into_iter().map(|(range, _)| range).collect()
}

/// What the merged index of one of these ranges is best made of: the ranges that there were before its last sixteen layers.
pub(super) fn pieces(weights: &[Option<u64>], range: &Range<usize>) -> Vec<Range<usize>> {
    let before = ranges(&weights[..range.end - UNIT]);
    before.into_iter().filter(|piece| piece.start >= range.start).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn even(layers: usize) -> Vec<Option<u64>> {
        vec![Some(1000); layers]
    }

    fn shown(ranges: Vec<Range<usize>>) -> String {
        format!("{ranges:?}")
    }

    #[test]
    fn short_chains_are_left_alone() {
        assert_eq!(ranges(&even(15)).len(), 0);
        assert_eq!(shown(ranges(&even(16))), "[0..16]");
        assert_eq!(shown(ranges(&even(31))), "[0..16]");
    }

    #[test]
    fn equal_layers_merge_as_a_binary_counter_counts() {
        assert_eq!(shown(ranges(&even(7 * 16))), "[0..64, 64..96, 96..112]");
        assert_eq!(shown(ranges(&even(8 * 16 + 3))), "[0..128]");
        assert_eq!(shown(pieces(&even(8 * 16), &(0..128))), "[0..64, 64..96, 96..112]");
        assert_eq!(pieces(&even(16), &(0..16)).len(), 0);
    }

    #[test]
    fn a_large_base_is_not_merged_again_and_again() {
        let mut weights = even(600);
        weights[0] = Some(2_000_000);
        assert_eq!(shown(ranges(&weights)), "[0..16, 16..528, 528..592]");
    }

    #[test]
    fn a_layer_without_an_index_parts_what_is_below_from_what_is_above() {
        let mut weights = even(64);
        weights[20] = None;
        assert_eq!(shown(ranges(&weights)), "[0..16, 32..64]");
    }

    proptest! {
        #[test]
        fn there_are_few_ranges_and_they_stay_while_a_chain_grows(
            weights in prop::collection::vec(prop::option::weighted(0.999, 1_500u64..5_000_000), 0..700)
        ) {
            let all = ranges(&weights);
            for pair in all.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            let single = weights.iter().filter(|weight| weight.is_none()).count();
            prop_assert!(all.len() <= 15 * (1 + single), "{all:?}");
            // Each is what it is made of, and the last sixteen.
            for range in &all {
                let made_of = pieces(&weights, range);
                let mut at = range.start;
                for piece in &made_of {
                    prop_assert_eq!(piece.start, at);
                    at = piece.end;
                }
                prop_assert_eq!(at + UNIT, range.end);
            }
            // How much is read to make all merged indexes of a chain that grows.
            let total: u64 = weights.iter().flatten().sum();
            let mut read = 0;
            for end in 1..=weights.len() / UNIT {
                let (before, after) = (ranges(&weights[..(end - 1) * UNIT]), ranges(&weights[..end * UNIT]));
                let new = after.into_iter().filter(|range| !before.contains(range));
                read += new.map(|range| weights[range].iter().flatten().sum::<u64>()).sum::<u64>();
            }
            prop_assert!(read <= total * 15, "{read} for {total}");
        }
    }
}
