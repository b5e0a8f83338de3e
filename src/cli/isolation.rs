//! As whom rbuild works: root as it is, anybody else as root of a user namespace of theirs, unless told otherwise.

use std::ffi::OsString;
use std::os::fd::AsFd;

use clap::ValueEnum;
use rbuild_container::Containers;
use rbuild_executor::IdMap;
use rbuild_executor::user_namespace::{self, Caller};

use super::Command;
use super::report::{self, Failure};
use crate::config::Settings;
use crate::embed::cannot_enter;

/// What steps and containers are confined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Isolation {
    /// Root's own powers where there are any, else a user namespace.
    Auto,
    /// Root's own powers.
    Root,
    /// A user namespace, for root, too.
    Rootless,
}

/// Starts the program again as root of a user namespace where that is wanted: then this does not return.
pub(super) fn choose(
    asked: Option<Isolation>,
    command: &Command,
    settings: &Settings,
    arguments: &[OsString],
) -> Result<(), Failure> {
    let isolation = match (asked, settings.isolation.as_deref()) {
        (Some(isolation), _) => isolation,
        (None, None) => Isolation::Auto,
        (None, Some(text)) => Isolation::from_str(text, false).map_err(|_| {
            Failure::new(format!("RBUILD_ISOLATION={text:?} is no isolation")).with_help("use auto, root or rootless")
        })?,
    };
    let (uid, gid) = settings.ids;
    let root = uid == 0;
    let wanted = match isolation {
        Isolation::Auto => !root,
        Isolation::Root if root => false,
        Isolation::Root => {
            return Err(Failure::new("--isolation root needs root")
                .with_help("run as root, or leave it out to work in a user namespace of this user"));
        }
        Isolation::Rootless => settings.user_namespace.is_none(),
    };
    if !wanted || !command.uses_store() {
        if settings.user_namespace.as_ref().is_some_and(IdMap::is_single) && command.runs_programs() {
            report::story(
                "note: there is only one user id, so chown to other users fails in steps and is left out of layers; \
                 rbuild doctor says how to get more\n",
            );
        }
        return Ok(());
    }
    let caller = Caller { uid, gid, path: settings.path.as_deref() };
    let inside = command.works_inside().and_then(|text| Containers::peek_process(&settings.root, text));
    let error = match inside {
        Some(process) => user_namespace::join(process.as_fd(), arguments),
        None => user_namespace::enter(caller, arguments),
    };
    if let Command::Doctor(_) = command {
        // What does not work is its answer.
        return Ok(());
    }
    Err(cannot_enter(&error))
}
