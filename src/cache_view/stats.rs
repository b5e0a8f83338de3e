//! What the cache has saved: counted from what builds record anyway.

use std::collections::BTreeMap;

use rbuild_cache::{ResultId, Store, VertexOutcome};
use serde::Serialize;

use crate::cli::report::Failure;

/// Hits and misses of the builds in the history.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// How many builds are counted.
    pub builds: usize,
    /// Steps that were answered from the cache.
    pub hits: usize,
    /// Steps that ran.
    pub misses: usize,
    /// Steps that failed or were stopped.
    pub unfinished: usize,
    /// What the hits would have taken; of steps that are still cached.
    pub saved_seconds: f64,
    /// Bytes of layers that hits did not write again; of steps that are still cached.
    pub saved_bytes: u64,
    /// What the misses took.
    pub spent_seconds: f64,
    /// Hits of all cached steps since they were made, also by builds that are forgotten.
    pub hits_of_cached: u64,
}

/// Counts.
pub fn stats(store: &Store) -> Result<Stats, Failure> {
    let listed = store.records().list()?;
    let cached: BTreeMap<ResultId, (f64, u64)> =
        listed.iter().map(|row| (row.record.result, (row.record.duration.as_secs_f64(), row.size))).collect();
    let mut stats = Stats { hits_of_cached: listed.iter().map(|row| row.record.use_count).sum(), ..Stats::default() };
    for build in store.builds().list(usize::MAX)? {
        stats.builds += 1;
        for vertex in store.builds().vertices(&build.build.id)? {
            // Contexts and images are no steps of the cache.
            if vertex.result.is_none() && vertex.outcome != VertexOutcome::Failed {
                continue;
            }
            match vertex.outcome {
                VertexOutcome::Cached => {
                    stats.hits += 1;
                    let (seconds, bytes) = vertex.result.and_then(|id| cached.get(&id)).copied().unwrap_or_default();
                    stats.saved_seconds += seconds;
                    stats.saved_bytes += bytes;
                }
                VertexOutcome::Done => {
                    stats.misses += 1;
                    stats.spent_seconds += vertex.duration.unwrap_or_default().as_secs_f64();
                }
                VertexOutcome::Failed | VertexOutcome::Cancelled => stats.unfinished += 1,
            }
        }
    }
    Ok(stats)
}
