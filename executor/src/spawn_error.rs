//! Why a sandbox did not start.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

/// Why a sandbox did not start. Travels from the sandbox to its owner, so every cause is an errno.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SpawnError {
    /// The program is not in the image.
    #[error("{program}: executable not found in the image")]
    NotFound {
        /// As it was given.
        program: String,
    },
    /// The program is there and cannot be executed.
    #[error("{program}: {reason}")]
    NotExecutable {
        /// As it was given.
        program: String,
        /// What is wrong with it.
        reason: NotExecutable,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {path}")]
    Cwd {
        /// The directory, inside the root.
        path: ContainerPath,
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// The root file system cannot be mounted.
    #[error("cannot mount the root file system")]
    Rootfs {
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// Layers cannot be put over each other.
    #[error("cannot put layers over each other: {reason}")]
    Stacking {
        /// What was tried, and why it does not work.
        reason: String,
    },
    /// The source of a mount cannot be opened.
    #[error("cannot open {path}, the source of the mount at {target}")]
    MountSource {
        /// Where it would have appeared.
        target: ContainerPath,
        /// The host path, or the path inside the tree it comes from.
        path: PathBuf,
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// Something cannot be mounted inside.
    #[error("cannot mount {target}")]
    Mount {
        /// Where it would have appeared.
        target: ContainerPath,
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// The image has a symlink where the kernel's file systems must be (rule S-16).
    #[error("{target} of the image is a symbolic link; refusing to mount over what it leads to")]
    MountOverSymlink {
        /// `/proc`, `/sys` or `/dev`.
        target: ContainerPath,
    },
    /// The network namespace cannot be entered.
    #[error("cannot enter the network namespace {path}")]
    Network {
        /// Its `ns` file.
        path: PathBuf,
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// A limit was asked for that this host cannot apply.
    #[error("cannot apply the limit {limit}: {reason}")]
    Limit {
        /// The option's name, e.g. `memory`.
        limit: String,
        /// The missing piece and what to do.
        reason: String,
    },
    /// The program's user or group cannot exist in this user namespace.
    #[error("{kind} {id} is not among the ids that this user may use; /etc/subuid and /etc/subgid can give it more")]
    UnmappedId {
        /// `user` or `group`.
        kind: Cow<'static, str>,
        /// Its number inside.
        id: u32,
    },
    /// The specification contradicts itself.
    #[error("invalid sandbox: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The kernel lacks something that there is no substitute for.
    #[error("this host lacks {feature}, which sandboxes need")]
    Unsupported {
        /// The feature and where it comes from.
        feature: String,
    },
    /// Another step of the set-up failed.
    #[error("cannot {step}")]
    Setup {
        /// What was tried.
        step: String,
        /// Why.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
    /// The sandbox died before it could start the program.
    #[error("the sandbox was killed while it was being set up")]
    Died,
    /// The sandbox that was to be entered has ended.
    #[error("the sandbox has ended")]
    SandboxGone,
    /// The process that starts sandboxes is gone.
    #[error("the process that starts sandboxes has ended")]
    SpawnerGone {
        /// What the socket said.
        #[source]
        #[serde(with = "errno")]
        source: io::Error,
    },
}

/// What keeps a file from being executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NotExecutable {
    /// No execute permission, or a directory, or a file system mounted `noexec`.
    #[error("permission denied")]
    Permission,
    /// Neither a binary for this machine nor a script with `#!`.
    #[error("exec format error: it is neither a program for this machine nor a script that begins with #!")]
    Format,
    /// The file exists; the interpreter or dynamic loader that it names does not.
    #[error("its interpreter or dynamic loader is not in the image")]
    Interpreter,
    /// Anything else, as the kernel's error number.
    #[error("it cannot be executed (os error {0})")]
    Other(i32),
}

impl SpawnError {
    /// The exit code Docker gives: 127 not found, 126 not executable, 125 everything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } | Self::NotExecutable { reason: NotExecutable::Interpreter, .. } => 127,
            Self::NotExecutable { .. } | Self::Cwd { .. } => 126,
            _ => 125,
        }
    }

    /// A step of the set-up that failed.
    pub(crate) fn setup(step: &str, source: impl Into<io::Error>) -> Self {
        Self::Setup { step: step.to_owned(), source: source.into() }
    }
}

/// An I/O error on the wire: its number, or its text when it has none.
mod errno {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::io;

    #[derive(Serialize, Deserialize)]
    enum Wire {
        Number(i32),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(error: &io::Error, serializer: S) -> Result<S::Ok, S::Error> {
        error.raw_os_error().map_or_else(|| Wire::Text(error.to_string()), Wire::Number).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<io::Error, D::Error> {
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Number(number) => io::Error::from_raw_os_error(number),
            Wire::Text(text) => io::Error::other(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors travel from the sandbox to its owner; each arrives with its words.
    #[test]
    fn each_error_has_its_words_and_keeps_them_on_the_way() {
        let denied = || io::Error::from_raw_os_error(13);
        let target = || ContainerPath::new("/proc");
        let not_executable = |reason| SpawnError::NotExecutable { program: "/x".to_owned(), reason };
        let errors = [
            SpawnError::NotFound { program: "nginx".to_owned() },
            not_executable(NotExecutable::Permission),
            not_executable(NotExecutable::Format),
            not_executable(NotExecutable::Interpreter),
            not_executable(NotExecutable::Other(40)),
            SpawnError::Cwd { path: target(), source: denied() },
            SpawnError::Rootfs { source: denied() },
            SpawnError::Stacking { reason: "overlayfs: no such device".to_owned() },
            SpawnError::MountSource { target: target(), path: "/src".into(), source: denied() },
            SpawnError::Mount { target: target(), source: denied() },
            SpawnError::MountOverSymlink { target: target() },
            SpawnError::Network { path: "/run/netns/a".into(), source: denied() },
            SpawnError::Limit { limit: "memory".to_owned(), reason: "no controller".to_owned() },
            SpawnError::UnmappedId { kind: "user".into(), id: 70000 },
            SpawnError::Invalid { reason: "no program".to_owned() },
            SpawnError::Unsupported { feature: "pidfd (Linux 5.3)".to_owned() },
            SpawnError::setup("set the host name", denied()),
            SpawnError::Died,
            SpawnError::SandboxGone,
            SpawnError::SpawnerGone { source: denied() },
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        nginx: executable not found in the image
        /x: permission denied
        /x: exec format error: it is neither a program for this machine nor a script that begins with #!
        /x: its interpreter or dynamic loader is not in the image
        /x: it cannot be executed (os error 40)
        cannot enter the working directory /proc
        cannot mount the root file system
        cannot put layers over each other: overlayfs: no such device
        cannot open /src, the source of the mount at /proc
        cannot mount /proc
        /proc of the image is a symbolic link; refusing to mount over what it leads to
        cannot enter the network namespace /run/netns/a
        cannot apply the limit memory: no controller
        user 70000 is not among the ids that this user may use; /etc/subuid and /etc/subgid can give it more
        invalid sandbox: no program
        this host lacks pidfd (Linux 5.3), which sandboxes need
        cannot set the host name
        the sandbox was killed while it was being set up
        the sandbox has ended
        the process that starts sandboxes has ended
        ");
        for error in errors {
            let sent = serde_json::to_string(&error).unwrap();
            let arrived: SpawnError = serde_json::from_str(&sent).unwrap();
            assert_eq!(arrived.to_string(), error.to_string());
            assert_eq!(arrived.exit_code(), error.exit_code());
        }
    }
}
