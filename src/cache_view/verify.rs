//! What `rbuild cache verify` does, as plain data.

use std::ops::ControlFlow;

use rbuild_cache::{PruneControl, Store, VerifyDepth, wait_silently};

use crate::cli::report::Failure;

/// What a check found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Promises that are not kept.
    pub problems: Vec<String>,
    /// Files that only take room.
    pub leftovers: usize,
    /// Blobs, layers and images that were looked at.
    pub checked: usize,
    /// Whether a repair was done.
    pub repaired: bool,
}

/// Checks everything stored, blobs by their digests; repairs when asked.
pub fn verify(store: &Store, repair: bool) -> Result<Verified, Failure> {
    let report = store.verify(VerifyDepth::Content, &|| ControlFlow::Continue(()))?;
    if repair {
        let control = PruneControl { on_wait: &wait_silently, interrupt: &|| ControlFlow::Continue(()) };
        store.repair(&report, control)?;
    }
    Ok(Verified {
        problems: report.problems.iter().map(ToString::to_string).collect(),
        leftovers: report.garbage.len(),
        checked: report.blobs + report.layers + report.images,
        repaired: repair,
    })
}
