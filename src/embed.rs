//! What programs need that use rbuild as a library: how their `main` begins, and an error that is a [`std::error::Error`].
//!
//! Nothing here prints, and no signal is caught: who embeds rbuild stops a build with [`Engine::cancel`].

use std::fmt;

use rbuild_executor::user_namespace::{self, Caller, EnterError};

use crate::build::BuildResult;
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::engine::Engine;
use crate::progress::Mode;
use crate::request::BuildRequest;

/// Why something failed: what people are told, and what they can do about it.
#[derive(Debug)]
pub struct Error(Failure);

impl Error {
    /// What failed and why, without what to do about it.
    pub fn message(&self) -> &str {
        self.0.message()
    }

    /// What can be done about it.
    pub fn help(&self) -> Option<&str> {
        self.0.help()
    }

    /// What the program `rbuild` would show: with the place in the Dockerfile, and all mistakes where there are several.
    pub fn report(&self) -> String {
        self.0.report()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())?;
        self.0.help().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// Has to be the first call of `main`, before any thread exists: the processes that start sandboxes are this program, started
/// anew, and become what they are here. In an ordinary user's hands, or with `RBUILD_ISOLATION=rootless`, the program also starts
/// anew as root of a user namespace, so that what stands before this call runs twice.
pub fn init() -> Result<(), Error> {
    rbuild_executor::reexec_entry();
    rbuild_executor::raise_open_files();
    let settings = Settings::from_environment();
    let (uid, gid) = settings.ids;
    if uid == 0 && settings.isolation.as_deref() != Some("rootless") || settings.user_namespace.is_some() {
        return Ok(());
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    let error = user_namespace::enter(Caller { uid, gid, path: settings.path.as_deref() }, &arguments);
    Err(cannot_enter(&error).into())
}

/// Says that an ordinary user cannot work here.
pub(crate) fn cannot_enter(error: &EnterError) -> Failure {
    let help = match error {
        EnterError::Refused { .. } => {
            "run as root, or let ordinary users make user namespaces: \
             sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
        }
        _ => "rbuild doctor says what this host offers",
    };
    Failure::from_error("cannot work without root here", error).with_help(help)
}

impl Engine {
    /// An engine with the store and the configuration that the program `rbuild` would use in this environment.
    pub fn from_environment() -> Result<Self, Error> {
        let settings = Settings::from_environment();
        let stacking = crate::cli::stacking_of(&settings)?;
        Ok(Self::new(Settings { stacking, ..settings }))
    }

    /// Builds; the view that `mode` says goes to standard error.
    pub fn build(&self, request: &BuildRequest, mode: Mode) -> Result<BuildResult, Error> {
        Ok(crate::build::build(self, request, mode)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let error = Error::from(Failure::usage("no such thing", "take another"));
        assert_eq!(error.to_string(), "no such thing (take another)");
        assert_eq!((error.message(), error.help()), ("no such thing", Some("take another")));
        assert!(error.report().contains("help: take another"), "{}", error.report());
    }

    #[test]
    fn the_example_is_the_one_that_people_read() {
        let example = include_str!("../examples/build_image.rs");
        let lines = &example[example.find("use rbuild").expect("it uses this library")..];
        let readme = include_str!("../README.md");
        assert!(
            readme.contains(&format!("```rust\n{lines}```")),
            "README.md shows other lines than examples/build_image.rs"
        );
        let shown: String = include_str!("lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .fold(String::new(), |all, line| all + line.strip_prefix(' ').unwrap_or(line) + "\n");
        assert!(shown.contains(lines), "src/lib.rs shows other lines than examples/build_image.rs");
        let code = lines.lines().skip_while(|line| !line.contains("fn main")).count();
        assert!(code <= 12, "about ten lines: {code}");
    }
}
