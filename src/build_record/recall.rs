//! `--show-cached-logs`: what cached steps said when they ran, from the journals of the builds that ran them.

use std::collections::BTreeMap;

use rbuild_cache::{BuildId, ResultId, Store};
use rbuild_solver::{Event, VertexId, VertexReport, VertexState};

use super::journal::replay;
use crate::cli::report::Failure;
use crate::progress::Progress;

/// A step of an earlier build whose log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// The cached vertex of this build.
    vertex: VertexId,
    /// The position of the one that ran, in its build.
    position: usize,
}

/// Shows the logs of cached vertices. Steps whose builds are forgotten, or that said nothing, are passed over.
pub(crate) fn recall(store: &Store, vertices: &[VertexReport], progress: &Progress) -> Result<(), Failure> {
    let mut wanted: BTreeMap<BuildId, Vec<Wanted>> = BTreeMap::new();
    for report in vertices.iter().filter(|report| report.state == VertexState::Cached) {
        if let Some((build, position)) = maker(store, report.result)? {
            wanted.entry(build).or_default().push(Wanted { vertex: report.vertex, position });
        }
    }
    let mut logs: BTreeMap<VertexId, (BuildId, Vec<Event>)> = BTreeMap::new();
    for (build, wanted) in wanted {
        for (vertex, events) in read(store, &build, &wanted)? {
            logs.insert(vertex, (build.clone(), events));
        }
    }
    for (vertex, (build, events)) in logs {
        let began = store.builds().find(build.as_str())?.first().map_or(0, |record| record.started_at.as_second());
        progress.show(&Event::Recalled { vertex, build: build.to_string(), began });
        events.iter().for_each(|event| progress.show(event));
    }
    Ok(())
}

fn maker(store: &Store, result: Option<ResultId>) -> Result<Option<(BuildId, usize)>, Failure> {
    let Some(result) = result else { return Ok(None) };
    Ok(store.builds().maker(result)?)
}

/// The logs that are wanted of one build, as events of this one; times count from the start of their step.
fn read(store: &Store, build: &BuildId, wanted: &[Wanted]) -> Result<BTreeMap<VertexId, Vec<Event>>, Failure> {
    let mut logs: BTreeMap<VertexId, Vec<Event>> = BTreeMap::new();
    let Some(mut events) = replay(&store.builds().files(build))? else { return Ok(logs) };
    let mut ours: BTreeMap<VertexId, VertexId> = BTreeMap::new();
    let mut started: BTreeMap<VertexId, u64> = BTreeMap::new();
    while let Some(event) = events.event()? {
        match event {
            Event::Planned { vertices } => {
                let known = |one: &Wanted| Some((vertices.get(one.position)?.vertex, one.vertex));
                ours = wanted.iter().filter_map(known).collect();
            }
            Event::Started { vertex, at } => {
                started.insert(vertex, at);
            }
            Event::Log { vertex, stream, data, at } => {
                if let Some(own) = ours.get(&vertex) {
                    let at = at.saturating_sub(started.get(&vertex).copied().unwrap_or(0));
                    logs.entry(*own).or_default().push(Event::Log { vertex: *own, stream, data, at });
                }
            }
            _ => {}
        }
    }
    Ok(logs)
}
