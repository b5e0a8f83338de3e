//! The layers of a snapshot as one value: chains that grow from each other share their lower part, so that one more layer costs
//! one more link, however long the chain is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layer_row::LayerRow;

/// The layers of a snapshot, topmost first; none of nothing.
#[derive(Clone, Default)]
pub(super) struct Chain(Option<Arc<Link>>);

struct Link {
    row: LayerRow,
    below: Chain,
    length: usize,
    /// Whether the indexes of this layer and of all below are known to be sound.
    indexed: AtomicBool,
}

impl Chain {
    /// A layer on top of others.
    pub(super) fn on(row: LayerRow, below: Self) -> Self {
        let length = below.len() + 1;
        Self(Some(Arc::new(Link { row, below, length, indexed: AtomicBool::new(false) })))
    }

    /// The topmost layer; `None` of nothing.
    pub(super) fn top(&self) -> Option<&LayerRow> {
        self.0.as_ref().map(|link| &link.row)
    }

    /// All but the topmost layer.
    pub(super) fn below(&self) -> Self {
        self.0.as_ref().map(|link| link.below.clone()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |link| link.length)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LayerRow> {
        self.links().map(|link| &link.row)
    }

    /// The chains that end with each of the layers, topmost first: this one first.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        let mut next = self.clone();
        std::iter::from_fn(move || {
            let below = next.0.as_ref()?.below.clone();
            Some(std::mem::replace(&mut next, below))
        })
    }

    /// The rows side by side, for who looks at parts of the chain.
    pub(super) fn rows(&self) -> Vec<&LayerRow> {
        self.iter().collect()
    }

    /// Whether the indexes of all layers were found to be sound.
    pub(super) fn is_indexed(&self) -> bool {
        self.0.as_ref().is_none_or(|link| link.indexed.load(Ordering::Relaxed))
    }

    /// Remembers that they were.
    pub(super) fn note_indexed(&self) {
        if let Some(link) = &self.0 {
            link.indexed.store(true, Ordering::Relaxed);
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.0.as_deref(), |link| link.below.0.as_deref())
    }
}

impl FromIterator<LayerRow> for Chain {
    /// The layers are given lowest first.
    fn from_iter<T: IntoIterator<Item = LayerRow>>(rows: T) -> Self {
        rows.into_iter().fold(Self::default(), |below, row| Self::on(row, below))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|row| row.snapshot)).finish()
    }
}

impl Drop for Link {
    /// Link by link: ten thousand of them would be too deep a recursion.
    fn drop(&mut self) {
        let mut next = self.below.0.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.below.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::id::{LayerId, SnapshotId};

    fn row(n: i64) -> LayerRow {
        LayerRow {
            id: LayerId::from_row(n),
            snapshot: SnapshotId::from_row(n),
            kind: "directory".to_owned(),
            path: n.to_string(),
            size: 0,
            diff_id: None,
            tar_size: None,
            content_digest: None,
            created_at: Timestamp::UNIX_EPOCH,
            index: None,
            root: None,
        }
    }

    fn shown(chain: &Chain) -> String {
        chain.iter().map(|row| row.path.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn chains_share_what_is_below_and_are_topmost_first() {
        let two: Chain = [row(1), row(2)].into_iter().collect();
        let (three, other) = (Chain::on(row(3), two.clone()), Chain::on(row(4), two.clone()));
        assert_eq!((shown(&three).as_str(), shown(&other).as_str(), three.len()), ("3 2 1", "4 2 1", 3));
        assert_eq!(three.each().map(|chain| shown(&chain)).collect::<Vec<_>>(), ["3 2 1", "2 1", "1"]);
        assert_eq!((shown(&three.below()).as_str(), three.below().below().below().len()), ("2 1", 0));
        three.below().note_indexed();
        assert!(two.is_indexed() && !three.is_indexed() && Chain::default().is_indexed(), "of the lower part alone");
    }

    #[test]
    fn a_long_chain_goes_without_a_deep_recursion() {
        let long: Chain = (0..200_000).map(row).collect();
        let part = long.each().nth(199_990).unwrap();
        drop(long);
        assert_eq!(shown(&part), "9 8 7 6 5 4 3 2 1 0");
    }
}
