//! What a report shows, as it stands in the page.

use std::collections::BTreeMap;

use rbuild_cache::Store;
use rbuild_solver::{Event, MissReason, VertexId};
use serde::Serialize;
use serde_json::Value;

use crate::advice;
use crate::build_record::{self, BuildInfo, RecordedStep, StepState};
use crate::cli::report::Failure;
use crate::graph_view::GraphView;
use crate::progress::Lines;

/// The version of the page's data.
const VERSION: u32 = 1;
/// Bytes of all logs together in one page, which keeps a page of a hundred steps below 300 KB.
const LOG_BYTES: usize = 120 * 1024;
/// Bytes of one step's log in any case.
const LEAST_LOG: usize = 512;

/// What a page shows.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    /// `history inspect`'s object.
    build: Value,
    /// The same of the build that it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Value>,
    /// Positions of the steps of the critical path.
    critical: Vec<usize>,
    critical_ns: u64,
    /// Why steps ran, by position; `null` where there is nothing to say.
    misses: Vec<Option<String>>,
    /// What steps said, by position: the end of it.
    logs: Vec<String>,
    hints: Vec<String>,
}

/// A build with its steps.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The build.
    pub(crate) build: BuildInfo,
    /// Its steps.
    pub(crate) steps: Vec<RecordedStep>,
}

impl Subject {
    /// Reads the build that a reference means, sizes of cached steps' layers included.
    pub(crate) fn find(store: &Store, reference: &str) -> Result<Self, Failure> {
        let build = build_record::find(store, reference)?;
        let mut steps = build_record::open(store, &build)?;
        let mut makers: BTreeMap<String, Vec<RecordedStep>> = BTreeMap::new();
        for step in steps.iter_mut().filter(|step| step.state == StepState::Cached && step.detail.size.is_none()) {
            let Some((maker, position)) = step.result.map(|result| store.builds().maker(result)).transpose()?.flatten()
            else {
                continue;
            };
            let name = maker.as_str().to_owned();
            if !makers.contains_key(&name) {
                let made = build_record::open(store, &build_record::find(store, &name)?)?;
                makers.insert(name.clone(), made);
            }
            step.detail.size = makers[&name].get(position).and_then(|made| made.detail.size);
        }
        Ok(Self { build, steps })
    }
}

impl Report {
    /// Gathers all that is known of a build, and what differs from another one.
    pub(crate) fn gather(
        store: &Store,
        subject: &Subject,
        other: Option<&Subject>,
        object: impl Fn(&BuildInfo, &[RecordedStep]) -> Value,
    ) -> Result<(Self, GraphView), Failure> {
        let graph = GraphView::of_build(&subject.build, &subject.steps);
        let reason = |step: &RecordedStep| {
            let miss = step.detail.miss.as_ref().filter(|miss| **miss != MissReason::ImageStore)?;
            Some(miss.lines().join("\n"))
        };
        let report = Self {
            version: VERSION,
            build: object(&subject.build, &subject.steps),
            other: other.map(|other| object(&other.build, &other.steps)),
            critical: (0..graph.nodes.len()).filter(|at| graph.nodes[*at].critical).collect(),
            critical_ns: graph.critical_ns,
            misses: subject.steps.iter().map(reason).collect(),
            logs: logs(store, subject)?,
            hints: advice::of_build(store, &subject.build, &subject.steps)?.iter().map(ToString::to_string).collect(),
        };
        Ok((report, graph))
    }
}

/// The end of what each step said.
fn logs(store: &Store, subject: &Subject) -> Result<Vec<String>, Failure> {
    let mut said: Vec<Vec<u8>> = vec![Vec::new(); subject.steps.len()];
    let mut positions: BTreeMap<VertexId, usize> = BTreeMap::new();
    let Some(mut events) = build_record::replay(&store.builds().files(&subject.build.id))? else {
        return Ok(vec![String::new(); said.len()]);
    };
    while let Some(event) = events.event()? {
        match event {
            Event::Planned { vertices } => {
                positions = vertices.iter().enumerate().map(|(at, planned)| (planned.vertex, at)).collect();
            }
            Event::Log { vertex, data, .. } => {
                if let Some(said) = positions.get(&vertex).and_then(|at| said.get_mut(*at)) {
                    said.extend_from_slice(&data);
                    if said.len() > 2 * LOG_BYTES {
                        said.drain(..said.len() - LOG_BYTES);
                    }
                }
            }
            _ => {}
        }
    }
    let talking = said.iter().filter(|said| !said.is_empty()).count().max(1);
    let most = (LOG_BYTES / talking).max(LEAST_LOG);
    Ok(said.iter().map(|said| shown(said, most)).collect())
}

/// The last lines that fit, harmless to show.
fn shown(said: &[u8], most: usize) -> String {
    let mut lines = Lines::default();
    let mut all = lines.take(said);
    all.extend(lines.finish());
    let mut size = 0;
    let fits = all.iter().rev().take_while(|line| {
        size += line.len() + 1;
        size <= most
    });
    let kept = fits.count();
    let text = all[all.len() - kept..].join("\n");
    match all.len() - kept {
        0 => text,
        1 => format!("[1 earlier line is left out]\n{text}"),
        left => format!("[{left} earlier lines are left out]\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_cut_at_lines_from_their_end() {
        assert_eq!(shown(b"one\ntwo\nthree", 100), "one\ntwo\nthree");
        assert_eq!(shown(b"one\ntwo\nthree", 10), "[1 earlier line is left out]\ntwo\nthree");
        assert_eq!(shown(b"one\ntwo\nthree", 9), "[2 earlier lines are left out]\nthree");
        assert_eq!(shown(b"\x1b[1mone\x1b[0m\x1b[2J\n", 100), "one\\u{1b}[2J");
        assert_eq!(shown(b"", 100), "");
    }
}
