//! `rbuild` as a library: builds images from Dockerfiles, without a daemon.
//!
//! [`engine::Engine`] opens a store; [`build::build`] takes a [`request::BuildRequest`] and gives a
//! [`build::BuildResult`]. The command line in [`cli`] is a thin layer over the same calls.

mod advice;
pub mod build;
pub mod build_record;
pub mod cache_view;
pub mod cli;
pub mod config;
pub mod context;
mod dockerfile;
pub mod doctor;
pub mod engine;
pub mod evaluate;
pub mod exit_code;
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
pub mod transfer;
pub mod verify;
pub mod worker;
