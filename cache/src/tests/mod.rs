//! What only several processes, or several parts of the store together, can show.

mod builds;
mod ceiling;
mod child;
mod collection;
mod crash;
mod errors;
mod failpoints;
mod full_disk;
mod images;
mod ingest;
mod kept_forms;
mod leases;
mod locks;
mod mounts;
mod opening;
mod records;
mod repair;
mod simulation;
pub(crate) mod tars;

use std::ops::ControlFlow;

use crate::gc::PruneControl;
use crate::lock::wait_silently;
use crate::store::Store;
use crate::verify::{VerifyDepth, VerifyReport};

/// Never interrupts, never complains.
pub(crate) const PATIENT: PruneControl<'static> =
    PruneControl { on_wait: &wait_silently, interrupt: &|| ControlFlow::Continue(()) };

pub(crate) fn verify(store: &Store) -> VerifyReport {
    store.verify(VerifyDepth::Content, &|| ControlFlow::Continue(())).unwrap()
}

/// Asserts that every promise is kept.
#[track_caller]
pub(crate) fn assert_sound(store: &Store) {
    assert_eq!(verify(store).problems, []);
}
