//! stub
use super::EngineWorker;
use rbuild_cache::snapshot::{Active, Snapshot};
use rbuild_cache::view::View;
use rbuild_image::{ContainerPath, ContentDigest};
use rbuild_solver::{Control, FileOp, Job, JobError, Product};
use std::path::Path;
pub(super) fn exec(_: &EngineWorker<'_>, _: &Job, _: &FileOp, _: Control<'_>) -> Result<Product, JobError> {
    unimplemented!()
}
pub(super) fn perform(
    _: &EngineWorker<'_>,
    _: &Job,
    _: &FileOp,
    _: &Snapshot<Active>,
    _: Control<'_>,
) -> Result<(), JobError> {
    unimplemented!()
}
pub(super) fn selection_digest(
    _: &EngineWorker<'_>,
    _: &Job,
    _: usize,
    _: Control<'_>,
) -> Result<ContentDigest, JobError> {
    unimplemented!()
}
pub(super) fn copy_tree(_: &View, _: &ContainerPath, _: &Path) -> std::io::Result<()> {
    unimplemented!()
}
