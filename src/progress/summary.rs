//! What a build cost: how long it took, what was cached, and the chain of steps that it could not be faster than.

use std::collections::BTreeMap;

use rbuild_image::Digest;
use rbuild_solver::VertexId;

use super::lines::seconds;
use super::view::{State, Step, View};
use crate::cli::report::printable;
use crate::cli::table::size;

/// The chain of steps, each reading the one before, that took longest; with the sum of their times. Steps that did not
/// run cost nothing.
fn critical_path(view: &View) -> (Vec<VertexId>, u64) {
    let positions: BTreeMap<VertexId, usize> = view.steps().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let inputs: Vec<Vec<usize>> = view
        .steps()
        .map(|(_, step)| step.inputs.iter().filter_map(|input| positions.get(input).copied()).collect())
        .collect();
    let took: Vec<Option<u64>> = view.steps().map(|(_, step)| step.took()).collect();
    let (path, sum) = critical_path_of(&inputs, &took);
    let ids: Vec<VertexId> = view.steps().map(|(id, _)| *id).collect();
    (path.into_iter().map(|at| ids[at]).collect(), sum)
}

/// The same for steps by position, which stand after those that they read.
pub(crate) fn critical_path_of(inputs: &[impl AsRef<[usize]>], took: &[Option<u64>]) -> (Vec<usize>, u64) {
    let mut longest: Vec<(u64, Option<usize>)> = Vec::with_capacity(took.len());
    for (inputs, took) in inputs.iter().zip(took) {
        let before = inputs.as_ref().iter().filter_map(|input| Some((longest.get(*input)?.0, *input)));
        // Of equal ones the first: the picture should not depend on chance.
        let before = before.max_by_key(|(sum, input)| (*sum, std::cmp::Reverse(*input)));
        longest.push((took.unwrap_or(0) + before.map_or(0, |(sum, _)| sum), before.map(|(_, input)| input)));
    }
    let last = longest.iter().enumerate().max_by_key(|(at, (sum, _))| (*sum, std::cmp::Reverse(*at)));
    let Some((mut at, sum)) = last.map(|(at, (sum, _))| (at, *sum)).filter(|(_, sum)| *sum > 0) else {
        return (Vec::new(), 0);
    };
    let mut path = Vec::new();
    loop {
        if took[at].is_some() {
            path.push(at);
        }
        match longest[at].1 {
            Some(before) => at = before,
            None => break,
        }
    }
    path.reverse();
    (path, sum)
}

/// Steps of the critical path that the summary names.
const NAMED: usize = 3;
/// Characters of a name in the summary.
const LONGEST_NAME: usize = 48;

/// The last line of a build that succeeded.
pub(super) fn line(view: &View, took: u64, image: Option<(Digest, u64)>) -> String {
    let count = |wanted: fn(&Step) -> bool| view.steps().filter(|(_, step)| wanted(step)).count();
    // What no instruction made, a context, is no step that could have been cached.
    let ran = count(|step| matches!(step.state, State::Done(_)) && step.line > 0);
    let cached = count(|step| step.state == State::Cached);
    let mut out = format!("Built in {}: {ran} {} ran, {cached} cached", time(took), plural(ran));
    let (path, sum) = critical_path(view);
    if path.len() > 1 {
        let mut named: Vec<VertexId> = path.clone();
        named.sort_by_key(|id| std::cmp::Reverse(view.step(*id).and_then(Step::took)));
        named.truncate(NAMED);
        let shown = |id: &&VertexId| named.contains(*id);
        let step = |id: &VertexId| {
            let step = view.step(*id).expect("a path leads over steps of its build");
            let name: String = printable(&step.name.replace(['\n', '\t'], " ")).chars().take(LONGEST_NAME).collect();
            format!("{name} {}", time(step.took().unwrap_or(0)))
        };
        let steps: Vec<String> = path.iter().filter(shown).map(step).collect();
        out.push_str(&format!("; critical path {}: {}", time(sum), steps.join(", ")));
        if path.len() > steps.len() {
            out.push_str(&format!(" and {} shorter", path.len() - steps.len()));
        }
    }
    if let Some((id, bytes)) = image {
        out.push_str(&format!("; image {} {}", id.short(), size(bytes)));
    }
    out.push('\n');
    out
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "step" } else { "steps" }
}

/// A time of any size: `14ms`, `0.3s`, `2m05s`.
pub(crate) fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..100_000_000 => format!("{}ms", nanoseconds / 1_000_000),
        _ => seconds(nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::{Event, Outcome};

    use super::super::view::tests::planned;
    use super::*;

    #[test]
    fn the_longest_chain_is_named() {
        let (plan, ids) = planned(&[
            ("[base 1/1] FROM a", &[]),
            ("[left 1/2] RUN long", &[0]),
            ("[right 1/1] RUN short", &[0]),
            ("[left 2/2] RUN longer", &[1]),
            ("[end 1/2] COPY --from=left", &[2, 3]),
            ("[end 2/2] RUN other", &[2]),
        ]);
        let mut view = View::default();
        view.fold(&plan);
        view.fold(&Event::Cached { vertex: ids[0], at: 0 });
        let second = 1_000_000_000;
        for (at, begin, end) in [(1, 0, 4), (2, 0, 6), (3, 4, 9), (4, 9, 10), (5, 6, 7)] {
            view.fold(&Event::Started { vertex: ids[at], at: begin * second });
            view.fold(&Event::Done { vertex: ids[at], outcome: Outcome::Completed, at: end * second });
        }
        assert_eq!(critical_path(&view), (vec![ids[1], ids[3], ids[4]], 10 * second));
        insta::assert_snapshot!(line(&view, 11 * second, None), @"Built in 11.0s: 5 steps ran, 1 cached; critical path 10.0s: [left 1/2] RUN long 4.0s, [left 2/2] RUN longer 5.0s, [end 1/2] COPY --from=left 1.0s");
    }

    #[test]
    fn a_cached_build_has_no_critical_path() {
        let (plan, ids) = planned(&[("[1/1] FROM a", &[])]);
        let mut view = View::default();
        view.fold(&plan);
        view.fold(&Event::Cached { vertex: ids[0], at: 0 });
        assert_eq!(critical_path(&view), (Vec::new(), 0));
        let image = (Digest::sha256("x"), 4_261_550);
        assert_eq!(
            line(&view, 14_700_000, Some(image)),
            "Built in 14ms: 0 steps ran, 1 cached; image 2d711642b726 4.26MB\n"
        );
    }
}
