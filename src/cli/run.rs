//! stub
use super::report::Failure;
use crate::engine::Engine;
use crate::exit_code::Exit;
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {}
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {}
#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {}
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {}
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {}
pub(super) fn execute(_: RunArgs, _: &Engine) -> Result<Exit, Failure> {
    unimplemented!()
}
pub(super) fn create(_: CreateArgs, _: &Engine) -> Result<Exit, Failure> {
    unimplemented!()
}
pub(super) fn list(_: &PsArgs, _: &Engine) -> Result<Exit, Failure> {
    unimplemented!()
}
pub(super) fn remove(_: &RmArgs, _: &Engine) -> Result<Exit, Failure> {
    unimplemented!()
}
pub(super) fn export(_: &ExportArgs, _: &Engine) -> Result<Exit, Failure> {
    unimplemented!()
}
