//! `rbuild` as a library: builds images from Dockerfiles, without a daemon.
//!
//! ```no_run
//! use rbuild::{BuildRequest, Engine, progress::Mode};
//!
//! fn main() -> Result<(), rbuild::Error> {
//!     rbuild::init()?; // first of all: steps are started by this program itself
//!     let engine = Engine::from_environment()?;
//!     let request = BuildRequest::directory(".").tag("hello:0.1")?.build_arg("GREETING", "Hello");
//!     let built = engine.build(&request, Mode::Plain)?;
//!     println!("{}", built.image_id.expect("an image was asked for"));
//!     Ok(())
//! }
//! ```
//!
//! - [`init`] begins `main`. [`Engine`] opens the store that its [`Settings`] name when it is first needed; several engines, in
//!   this process or in others, may work on one store at the same time.
//! - [`BuildRequest`] has a field for whatever the command line can say, [`request`] the types of these fields. Nothing in it
//!   is read from the environment: what [`Settings`] says about it (`SOURCE_DATE_EPOCH`, proxies) is for the caller to hand on.
//! - [`Engine::build`] gives a [`BuildResult`], or an [`Error`] that knows what to do about it. The progress view that
//!   [`progress::Mode`] names goes to standard error; [`Mode::None`](progress::Mode::None) is silent.
//! - [`CancelToken::cancel`] on [`Engine::cancel`] stops a build from another thread; what ran goes with it.
//!
//! The command line in [`cli`] is a thin layer over the same calls.

mod advice;
pub mod annotation;
mod background;
pub mod build;
pub mod build_record;
pub mod cache_view;
pub mod cli;
pub mod config;
pub mod context;
mod dockerfile;
pub mod doctor;
mod embed;
pub mod engine;
pub mod evaluate;
pub mod exit_code;
mod failure_help;
mod fetch;
mod file_changes;
mod foreign;
mod graph_view;
pub mod image_names;
mod interrupt;
pub mod output;
pub mod progress;
mod reap;
pub mod remote_cache;
mod report_page;
pub mod request;
mod resolve;
mod ssh_agents;
pub mod timings;
pub mod transfer;
pub mod verify;
pub mod worker;

pub use build::BuildResult;
pub use config::Settings;
pub use embed::{Error, init};
pub use engine::Engine;
pub use rbuild_solver::{CancelReason, CancelToken};
pub use request::BuildRequest;
