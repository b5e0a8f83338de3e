//! The system's git as a child that can do as little as possible: an environment of our own, no configuration but ours,
//! no hooks, no filters, no prompts, four transports. A child and its helpers form a process group, which is killed when
//! the build is cancelled.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rbuild_solver::CancelToken;
use rustix::process::{Pid, Signal, kill_process_group};

use super::git_name::PROTOCOLS;
use crate::config::Settings;

/// How often a running child is looked at.
const SLICE: Duration = Duration::from_millis(20);
/// The most bytes of output that are kept.
const MAX_OUTPUT: u64 = 64 << 20;
/// The most bytes of messages that are kept.
const MAX_MESSAGES: u64 = 64 << 10;

/// Settings of every call; they outrank what a repository's own configuration says, in submodules too.
const CONFIG: [&str; 22] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.symlinks=true",
    "core.askPass=",
    "core.alternateRefsCommand=",
    "credential.helper=",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "init.defaultBranch=master",
    "init.templateDir=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "transfer.bundleURI=false",
    "advice.detachedHead=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1024",
    "http.lowSpeedTime=60",
];

/// A call that did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// There is no git.
    #[error("git is not installed: repositories are fetched with the system's git")]
    Missing,
    /// It cannot be started or waited for.
    #[error("cannot run git")]
    Run(#[source] io::Error),
    /// It failed.
    #[error("git {command}: {messages}")]
    Failed {
        /// The subcommand.
        command: String,
        /// What it said.
        messages: String,
    },
    /// The build was stopped.
    #[error("interrupted")]
    Cancelled,
}

impl GitError {
    /// Whether the server cannot do what was asked for because the history is to be cut or a commit has no name.
    pub(super) fn wants_more_history(&self) -> bool {
        let signs = ["--depth", "shallow", "not our ref", "unadvertised object"];
        matches!(self, Self::Failed { messages, .. } if signs.iter().any(|sign| messages.contains(sign)))
    }
}

/// Runs git.
#[derive(Debug)]
pub(super) struct Git<'a> {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    cancel: &'a CancelToken,
}

impl<'a> Git<'a> {
    /// Finds git. `private` is a directory of ours for what ssh wants to remember; `agent` the socket of an ssh agent;
    /// `header` a header for the URLs that begin with the first part.
    pub(super) fn new(
        settings: &Settings,
        cancel: &'a CancelToken,
        private: &Path,
        agent: Option<&Path>,
        header: Option<(&str, &str)>,
    ) -> Result<Self, GitError> {
        let path = settings.path.clone().unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
        let program = find(&path).ok_or(GitError::Missing)?;
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| environment.push((name.into(), value.to_owned()));
        set("PATH", &path);
        set("GIT_CEILING_DIRECTORIES", private.as_os_str());
        set("GIT_ALLOW_PROTOCOL", PROTOCOLS.join(":").as_ref());
        set("GIT_SSH_COMMAND", ssh_command(private, agent).as_ref());
        for (name, value) in [
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_PROTOCOL_FROM_USER", "0"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_SSH_VARIANT", "ssh"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
        ] {
            set(name, value.as_ref());
        }
        for (name, value) in &settings.proxies {
            set(name, value.as_ref());
        }
        if let Some(file) = &settings.ssl_cert_file {
            set("GIT_SSL_CAINFO", file.as_os_str());
        }
        if let Some(directory) = &settings.ssl_cert_dir {
            set("GIT_SSL_CAPATH", directory.as_os_str());
        }
        if let Some(agent) = agent {
            set("SSH_AUTH_SOCK", agent.as_os_str());
        }
        // Not among the arguments: those are everybody's to read.
        if let Some((scope, header)) = header {
            set("GIT_CONFIG_COUNT", "1".as_ref());
            set("GIT_CONFIG_KEY_0", format!("http.{scope}.extraheader").as_ref());
            set("GIT_CONFIG_VALUE_0", format!("Authorization: {header}").as_ref());
        }
        Ok(Self { program, environment, cancel })
    }

    /// Runs one command in `directory` and gives what it prints.
    pub(super) fn run(&self, directory: &Path, arguments: &[&str]) -> Result<String, GitError> {
        if self.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let mut command = Command::new(&self.program);
        for setting in CONFIG {
            command.args(["-c", setting]);
        }
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tracing::debug!(?arguments, "git");
        let mut child = command.process_group(0).spawn().map_err(GitError::Run)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, output, messages) = std::thread::scope(|threads| {
            let output = threads.spawn(move || kept(stdout, MAX_OUTPUT));
            let messages = threads.spawn(move || kept(stderr, MAX_MESSAGES));
            let status = self.wait(&mut child);
            if status.is_err() {
                kill(&mut child);
            }
            let joined = |thread: std::thread::ScopedJoinHandle<'_, String>| thread.join().unwrap_or_default();
            (status, joined(output), joined(messages))
        });
        if status? {
            return Ok(output);
        }
        let name = arguments.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
        let said: Vec<&str> = messages.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let messages = if said.is_empty() { "it failed without saying why".to_owned() } else { said.join(" ") };
        Err(GitError::Failed { command: name.to_owned(), messages })
    }

    fn wait(&self, child: &mut Child) -> Result<bool, GitError> {
        loop {
            if let Some(status) = child.try_wait().map_err(GitError::Run)? {
                return Ok(status.success());
            }
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            std::thread::sleep(SLICE);
        }
    }
}

/// Ends a child with its helpers.
fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        tracing::debug!(%error, "git had ended by itself");
    }
    drop(child.wait());
}

/// Reads to the end, and keeps the beginning as text.
fn kept(pipe: Option<impl Read>, most: u64) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut bytes = Vec::new();
    // Half of what it said is better than nothing.
    drop(pipe.by_ref().take(most).read_to_end(&mut bytes));
    drop(io::copy(&mut pipe, &mut io::sink()));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find(path: &OsStr) -> Option<PathBuf> {
    let directories = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join("git")).find(|program| {
        std::fs::metadata(program).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// ssh without the user's configuration and keys. Hosts that the user knows must be who they were; others are accepted
/// as they come and remembered only in `private`.
fn ssh_command(private: &Path, agent: Option<&Path>) -> String {
    let known = private.join("known_hosts");
    let agent = if agent.is_some() { "SSH_AUTH_SOCK" } else { "none" };
    let options = [
        "BatchMode=yes".to_owned(),
        "ConnectTimeout=20".to_owned(),
        "ServerAliveInterval=15".to_owned(),
        "StrictHostKeyChecking=accept-new".to_owned(),
        format!("UserKnownHostsFile=\"{}\" ~/.ssh/known_hosts", known.display()),
        format!("IdentityAgent={agent}"),
        "IdentityFile=none".to_owned(),
        "ForwardAgent=no".to_owned(),
        "PermitLocalCommand=no".to_owned(),
    ];
    let quoted = options.map(|option| format!(" -o '{}'", option.replace('\'', r"'\''")));
    format!("ssh -F /dev/null{}", quoted.concat())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn git<'a>(private: &Path, cancel: &'a CancelToken) -> Git<'a> {
        let settings = Settings { proxies: std::collections::BTreeMap::new(), ..Settings::from_environment() };
        Git::new(&settings, cancel, private, None, Some(("https://h/", "Bearer s3cret"))).unwrap()
    }

    #[test]
    fn nothing_of_the_surroundings_is_read() {
        let private = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let git = git(private.path(), &cancel);
        git.run(private.path(), &["init", "-q", "--template="]).unwrap();
        let origins = git.run(private.path(), &["config", "--list", "--show-origin"]).unwrap();
        let foreign: Vec<_> = origins
            .lines()
            .filter(|line| !line.starts_with("command line:") && !line.starts_with("file:.git/config"))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(origins.contains("http.https://h/.extraheader=Authorization: Bearer s3cret"));
        assert!(!private.path().join(".git/hooks").exists(), "no template");
    }

    #[test]
    fn only_four_transports_are_left() {
        let private = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let git = git(private.path(), &cancel);
        for remote in ["file:///etc", "ext::sh -c 'touch owned'", "/etc", "fd::3"] {
            let error = git.run(private.path(), &["ls-remote", "--", remote]).unwrap_err().to_string();
            assert!(error.contains("not allowed"), "{remote}: {error}");
        }
        assert!(!private.path().join("owned").exists());
    }

    #[test]
    fn cancellation_ends_it_with_its_helpers() {
        let private = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        // Accepts and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/r.git", silent.local_addr().unwrap());
        let began = Instant::now();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                cancel.cancel(rbuild_solver::CancelReason::Interrupt);
            });
            let error = git(private.path(), &cancel).run(private.path(), &["ls-remote", "--", &url]).unwrap_err();
            assert!(matches!(error, GitError::Cancelled), "{error}");
        });
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn ssh_has_no_keys_of_its_own() {
        let command = ssh_command(Path::new("/a b'c"), None);
        assert!(command.starts_with("ssh -F /dev/null -o 'BatchMode=yes'"));
        assert!(command.contains(r#"-o 'UserKnownHostsFile="/a b'\''c/known_hosts" ~/.ssh/known_hosts'"#), "{command}");
        assert!(command.contains("-o 'IdentityAgent=none'") && command.contains("-o 'IdentityFile=none'"));
    }

    #[test]
    fn errors_say_whose_git_is_meant() {
        for (error, words) in [
            (GitError::Missing, "git is not installed: repositories are fetched with the system's git"),
            (GitError::Run(io::ErrorKind::PermissionDenied.into()), "cannot run git"),
            (
                GitError::Failed { command: "fetch".into(), messages: "fatal: no such ref".into() },
                "git fetch: fatal: no such ref",
            ),
            (GitError::Cancelled, "interrupted"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
