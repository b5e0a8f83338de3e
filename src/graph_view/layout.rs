//! Where each node goes: layers from top to bottom by the longest path from what reads nothing; within a layer in the
//! order that crosses fewest edges, by barycentres; then each as near to its neighbours as the others let it be.
//!
//! An edge over several layers gets a bend in each, which takes part as a narrow node, so that it leads around others.

use super::GraphView;

/// Size of a node, and the room between two.
pub(super) const NODE_WIDTH: f64 = 280.0;
pub(super) const NODE_HEIGHT: f64 = 44.0;
const GAP_X: f64 = 24.0;
const GAP_Y: f64 = 34.0;
const BEND_WIDTH: f64 = 10.0;
/// Beyond this many bends edges are drawn straight: such a picture cannot be read anyway.
const MOST_BENDS: usize = 4000;
/// Sweeps over all layers.
const SWEEPS: usize = 12;

/// A place: the middle of a node's upper edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// A graph that has its places.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of each node.
    pub(super) nodes: Vec<Place>,
    /// For each edge: node that reads, node that is read, and the bends between, from top to bottom.
    pub(super) edges: Vec<(usize, usize, Vec<Place>)>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Nodes and bends.
#[derive(Debug, Default)]
struct Items {
    width: Vec<f64>,
    layer: Vec<usize>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
}

impl Items {
    fn add(&mut self, width: f64, layer: usize) -> usize {
        self.width.push(width);
        self.layer.push(layer);
        self.above.push(Vec::new());
        self.below.push(Vec::new());
        self.width.len() - 1
    }

    fn join(&mut self, above: usize, below: usize) {
        self.below[above].push(below);
        self.above[below].push(above);
    }
}

/// Lays a graph out.
pub(super) fn layout(view: &GraphView) -> Layout {
    let mut items = Items::default();
    for node in &view.nodes {
        let layer = node.inputs.iter().map(|input| items.layer[*input] + 1).max().unwrap_or(0);
        items.add(NODE_WIDTH, layer);
    }
    let spans = |at: usize, input: usize, items: &Items| items.layer[at] - items.layer[input];
    let edges: Vec<(usize, usize)> = view
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.inputs.iter().map(move |input| (at, *input)))
        .collect();
    let bends: usize = edges.iter().map(|(at, input)| spans(*at, *input, &items) - 1).sum();
    let mut routes = Vec::with_capacity(edges.len());
    for (at, input) in edges {
        let mut route = Vec::new();
        let mut last = input;
        if bends <= MOST_BENDS {
            for layer in items.layer[input] + 1..items.layer[at] {
                let bend = items.add(BEND_WIDTH, layer);
                items.join(last, bend);
                route.push(bend);
                last = bend;
            }
        }
        items.join(last, at);
        routes.push((at, input, route));
    }
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); items.layer.iter().map(|layer| layer + 1).max().unwrap_or(0)];
    for (item, layer) in items.layer.iter().enumerate() {
        layers[*layer].push(item);
    }
    order(&mut layers, &items);
    let x = places(&layers, &items);
    let left = (0..x.len()).map(|item| x[item] - items.width[item] / 2.0).fold(f64::MAX, f64::min);
    let right = (0..x.len()).map(|item| x[item] + items.width[item] / 2.0).fold(f64::MIN, f64::max);
    let place = |item: usize| Place { x: x[item] - left, y: items.layer[item] as f64 * (NODE_HEIGHT + GAP_Y) };
    Layout {
        nodes: (0..view.nodes.len()).map(place).collect(),
        edges: routes
            .into_iter()
            .map(|(at, input, route)| (at, input, route.into_iter().map(place).collect()))
            .collect(),
        width: (right - left).max(0.0),
        height: (layers.len() as f64 * (NODE_HEIGHT + GAP_Y) - GAP_Y).max(0.0),
    }
}

/// Orders each layer by the mean position of its neighbours, downwards and upwards in turn; the order with the fewest
/// crossings stays.
fn order(layers: &mut Vec<Vec<usize>>, items: &Items) {
    let mut best = (crossings(layers, items), layers.clone());
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = layers.len();
        for step in 1..count {
            let (layer, other) = if down { (step, step - 1) } else { (count - 1 - step, count - step) };
            let position = positions(&layers[other], items.width.len());
            let neighbours = if down { &items.above } else { &items.below };
            let own = positions(&layers[layer], items.width.len());
            let centre = |item: &usize| {
                let found: Vec<f64> =
                    neighbours[*item].iter().filter_map(|n| position[*n]).map(|at| at as f64).collect();
                match found.len() {
                    // It stays where it is.
                    0 => own[*item].map_or(0.0, |at| at as f64),
                    count => found.iter().sum::<f64>() / count as f64,
                }
            };
            let mut sorted: Vec<(f64, usize)> = layers[layer].iter().map(|item| (centre(item), *item)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[layer] = sorted.into_iter().map(|(_, item)| item).collect();
        }
        let crossed = crossings(layers, items);
        if crossed < best.0 {
            best = (crossed, layers.clone());
        }
    }
    *layers = best.1;
}

fn positions(layer: &[usize], items: usize) -> Vec<Option<usize>> {
    let mut out = vec![None; items];
    for (at, item) in layer.iter().enumerate() {
        out[*item] = Some(at);
    }
    out
}

/// How many pairs of edges between neighbouring layers cross.
fn crossings(layers: &[Vec<usize>], items: &Items) -> usize {
    let mut sum = 0;
    for pair in layers.windows(2) {
        let position = positions(&pair[1], items.width.len());
        // Ends below, in the order of the ends above: each pair out of order is a crossing.
        let mut ends = Vec::new();
        for item in &pair[0] {
            let mut own: Vec<usize> = items.below[*item].iter().filter_map(|below| position[*below]).collect();
            own.sort_unstable();
            ends.extend(own);
        }
        // Counted in a tree of sums.
        let mut tree = vec![0_usize; pair[1].len() + 1];
        for (seen, end) in ends.iter().enumerate() {
            let (mut at, mut before) = (end + 1, 0);
            while at > 0 {
                before += tree[at];
                at &= at - 1;
            }
            sum += seen - before;
            let mut at = end + 1;
            while at < tree.len() {
                tree[at] += 1;
                at += at & at.wrapping_neg();
            }
        }
    }
    sum
}

/// Middles of all items: each as near to the mean of its neighbours as order and width allow.
fn places(layers: &[Vec<usize>], items: &Items) -> Vec<f64> {
    let mut x = vec![0.0; items.width.len()];
    for layer in layers {
        let mut at = 0.0;
        for item in layer {
            x[*item] = at + items.width[*item] / 2.0;
            at += items.width[*item] + GAP_X;
        }
    }
    for sweep in 0..SWEEPS * 2 {
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for layer in order {
            let neighbours = |item: usize| if down { &items.above[item] } else { &items.below[item] };
            let wanted = |item: &usize| match neighbours(*item).len() {
                0 => x[*item],
                count => neighbours(*item).iter().map(|n| x[*n]).sum::<f64>() / count as f64,
            };
            let wanted: Vec<f64> = layers[layer].iter().map(wanted).collect();
            let widths: Vec<f64> = layers[layer].iter().map(|item| items.width[*item]).collect();
            for (item, place) in layers[layer].iter().zip(spread(&wanted, &widths)) {
                x[*item] = place;
            }
        }
    }
    x
}

/// The places nearest to `wanted` (least squares) that keep the order and leave room for the widths: with the room
/// taken out what is left is a monotone regression, solved by pooling neighbours that are out of order.
fn spread(wanted: &[f64], widths: &[f64]) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(wanted.len());
    let mut offset = 0.0;
    for (at, width) in widths.iter().enumerate() {
        if at > 0 {
            offset += (widths[at - 1] + width) / 2.0 + GAP_X;
        }
        offsets.push(offset);
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        let mut pool = (wanted - offset, 1_usize);
        while let Some((mean, count)) = pools.last().copied().filter(|(mean, _)| *mean > pool.0) {
            pool = ((mean * count as f64 + pool.0 * pool.1 as f64) / (count + pool.1) as f64, count + pool.1);
            pools.pop();
        }
        pools.push(pool);
    }
    let means = pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count));
    means.zip(offsets).map(|(mean, offset)| mean + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::super::NodeState;
    use super::super::tests::graph;
    use super::*;

    #[test]
    fn crossed_branches_are_uncrossed() {
        let ran = NodeState::Ran;
        // 2 reads 1 and 3 reads 0: drawn in order of the plan they cross.
        let view = graph(&[("a", &[], ran, 1), ("b", &[], ran, 1), ("c", &[1], ran, 1), ("d", &[0], ran, 1)]);
        let laid = layout(&view);
        assert!((laid.nodes[0].x < laid.nodes[1].x) == (laid.nodes[3].x < laid.nodes[2].x), "{laid:?}");
    }

    #[test]
    fn what_has_one_neighbour_stands_below_it() {
        let ran = NodeState::Ran;
        let laid = layout(&graph(&[("a", &[], ran, 1), ("b", &[0], ran, 1), ("c", &[0, 1], ran, 1)]));
        assert_eq!(laid.nodes[0].y, 0.0);
        assert!(laid.nodes[1].y < laid.nodes[2].y);
        assert_eq!(laid.edges.iter().map(|(.., bends)| bends.len()).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn places_keep_order_and_room() {
        let placed = spread(&[10.0, 0.0, 500.0], &[100.0, 100.0, 100.0]);
        assert_eq!(placed, [-57.0, 67.0, 500.0]);
    }
}
