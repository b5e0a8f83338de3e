//! Chain ids: the names of stacks of layers (OCI image-spec, `config.md#layer-chainid`).

use crate::digest::{ChainId, DiffId, Digest};

/// The chain id of each stack from the lowest layer up: the first is the lowest diff id itself, each next one is
/// `SHA256(chain + " " + diff_id)`.
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<ChainId> {
    let mut out: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match out.last() {
            None => *diff_id.digest(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}")),
        };
        out.push(ChainId::new(next));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_is_named_by_all_its_layers() {
        let diff_ids: Vec<DiffId> = ["a", "b", "c"].iter().map(|seed| DiffId::new(Digest::sha256(seed))).collect();
        let chain = chain_ids(&diff_ids);
        assert_eq!(chain[0].digest(), diff_ids[0].digest());
        assert_eq!(chain[1].digest(), &Digest::sha256(format!("{} {}", diff_ids[0], diff_ids[1])));
        assert_eq!(chain[2].digest(), &Digest::sha256(format!("{} {}", chain[1], diff_ids[2])));
        assert_eq!(chain_ids(&diff_ids[..2]), chain[..2]);
        assert!(chain_ids(&[]).is_empty());
    }
}
