//! What a command line that makes no sense counts as.
//!
//! Commands that Docker has, too, end as there: with 125 for a flag that is unknown or has a bad value, with 1 for words that are
//! missing, too many, or no command. `build` and what only rbuild has end with 2.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::report::Failure;
use crate::exit_code::Exit;

/// Commands whose exit codes are Docker's.
const DOCKERS: [&str; 43] = [
    "attach",
    "commit",
    "container",
    "cp",
    "create",
    "diff",
    "events",
    "exec",
    "export",
    "image",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "network",
    "pause",
    "port",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "search",
    "start",
    "stats",
    "stop",
    "system",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "volume",
    "wait",
];

/// Flags whose values only Docker's daemon judges, when the command line counts as right already.
const JUDGED_LATE: [&str; 6] = ["--signal", "--restart", "--driver", "--type", "--name", "--change"];

/// Shows clap's message (help and version are answers, the rest are errors) about a line of this command; gives the exit code.
pub(super) fn show(error: &clap::Error, command: Option<&str>) -> Exit {
    let shown = error.print();
    match (error.use_stderr(), shown) {
        (false, Ok(())) => Exit::Success,
        (false, Err(_)) => Exit::Failure,
        (true, _) => exit(error, command),
    }
}

/// What a command found wrong with its own line counts as.
pub(super) fn as_dockers(failure: Failure, command: Option<&str>) -> Failure {
    if failure.exit() == Exit::Usage && is_dockers(command) { failure.with_exit(Exit::Failure) } else { failure }
}

fn is_dockers(command: Option<&str>) -> bool {
    command.is_some_and(|command| DOCKERS.contains(&command))
}

/// What a line that clap has refused counts as.
pub(super) fn exit(error: &clap::Error, command: Option<&str>) -> Exit {
    if !is_dockers(command) {
        return Exit::Usage;
    }
    match error.kind() {
        // `container` alone: its help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Success,
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            Exit::Failure
        }
        kind => match flag(error) {
            // A word too many, or the value of one.
            None => Exit::Failure,
            Some(flag) if kind == ErrorKind::ValueValidation || kind == ErrorKind::InvalidValue => {
                let judged_late = JUDGED_LATE.iter().any(|late| flag.strip_prefix(late).is_some_and(ends_name));
                if judged_late && command != Some("run") { Exit::Failure } else { Exit::Engine }
            }
            Some(_) => Exit::Engine,
        },
    }
}

/// The flag that the error is about, as clap writes it: `--signal <SIGNAL>`.
fn flag(error: &clap::Error) -> Option<String> {
    let name = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) => names.first().cloned(),
        _ => None,
    };
    name.filter(|name| name.starts_with('-'))
}

fn ends_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([' ', '='])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command, first_word, with_default_command};

    fn code(line: &str) -> Exit {
        let words: Vec<std::ffi::OsString> = format!("rbuild {line}").split_whitespace().map(Into::into).collect();
        let words = with_default_command(words);
        let error = command().try_get_matches_from(&words).expect_err(line);
        exit(&error, words.get(first_word(&words)).and_then(|word| word.to_str()))
    }

    #[test]
    fn flags_give_125_and_words_give_1_as_in_docker() {
        for (line, want) in [
            ("run --badflag", Exit::Engine),
            ("run", Exit::Failure),
            ("create --badflag", Exit::Engine),
            ("ps --badflag", Exit::Engine),
            ("--root /x ps --badflag", Exit::Engine),
            ("ps x", Exit::Failure),
            ("start", Exit::Failure),
            ("start --bad", Exit::Engine),
            ("rename a", Exit::Failure),
            ("rename a b c", Exit::Failure),
            ("run --network", Exit::Engine),
            ("run --pull=weird busybox", Exit::Engine),
            ("container", Exit::Success),
            ("container bogus", Exit::Failure),
            ("volume rm", Exit::Failure),
            ("images --bad", Exit::Engine),
            ("kill -s BOGUS web", Exit::Failure),
            ("run --restart=maybe busybox", Exit::Engine),
            ("update --restart=maybe web", Exit::Failure),
            ("update --memory=x web", Exit::Engine),
            ("create --name=! busybox", Exit::Failure),
            ("rename web w!b", Exit::Failure),
            ("build --bad .", Exit::Usage),
            ("doctor --bad", Exit::Usage),
        ] {
            assert_eq!(code(line), want, "{line}");
        }
    }

    #[test]
    fn dockers_commands_are_commands() {
        for name in DOCKERS {
            assert!(command().find_subcommand(name).is_some(), "{name}");
        }
    }
}
