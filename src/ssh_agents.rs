//! The agents of a build (`--ssh`): the user's own by their sockets, and for key files the system's ssh-agent, which
//! lives as long as the build and knows those keys only.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rbuild_cache::Lease;

use crate::cli::report::Failure;
use crate::config::Settings;
use crate::request::{SshInput, SshSource};

/// The largest file that is taken for a key.
const MAX_KEY: u64 = 64 << 10;
/// How long an agent may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// Agents by id; dropping it ends those that were started.
#[derive(Debug, Default)]
pub(crate) struct SshAgents {
    sockets: Vec<(String, PathBuf)>,
    started: Vec<Child>,
}

impl SshAgents {
    /// Makes every agent of a request ready.
    pub(crate) fn start(settings: &Settings, lease: &Lease, inputs: &[SshInput]) -> Result<Self, Failure> {
        let mut agents = Self::default();
        for input in inputs {
            let socket = match &input.source {
                SshSource::Socket(socket) => socket.clone(),
                SshSource::Keys(keys) => agents
                    .start_with_keys(settings, lease, keys)
                    .map_err(|failure| failure.within(&format!("--ssh {}", input.id)))?,
            };
            agents.sockets.push((input.id.clone(), socket));
        }
        Ok(agents)
    }

    /// The agents, as `(id, socket)`.
    pub(crate) fn sockets(&self) -> &[(String, PathBuf)] {
        &self.sockets
    }

    fn start_with_keys(&mut self, settings: &Settings, lease: &Lease, keys: &[PathBuf]) -> Result<PathBuf, Failure> {
        let socket = lease.scratch_name("keys")?;
        let path = settings.path.clone().unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
        let program = |name: &str| {
            let mut command = Command::new(name);
            command.env_clear().env("PATH", &path).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let child = program("ssh-agent").arg("-D").arg("-a").arg(&socket).stderr(Stdio::null()).spawn();
        self.started.push(child.map_err(|error| not_started("ssh-agent", &error))?);
        let began = Instant::now();
        while fs::symlink_metadata(&socket).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(Failure::new("ssh-agent does not listen"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        for key in keys {
            // Nobody is asked for a passphrase: a build that waits for one would wait for ever.
            let mut command = program("ssh-add");
            command.arg("-q").arg("-").env("SSH_AUTH_SOCK", &socket);
            command.env("SSH_ASKPASS", "/bin/false").env("SSH_ASKPASS_REQUIRE", "force");
            add(command, key)?;
        }
        Ok(socket)
    }
}

impl Drop for SshAgents {
    fn drop(&mut self) {
        for child in &mut self.started {
            // It may have ended by itself; its keys are gone either way.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// Gives one key to an agent, whatever the mode of its file.
fn add(mut command: Command, key: &Path) -> Result<(), Failure> {
    let unreadable = |error: io::Error| Failure::new(format!("cannot read key {}: {error}", key.display()));
    let mut bytes = Vec::new();
    fs::File::open(key).and_then(|file| file.take(MAX_KEY).read_to_end(&mut bytes)).map_err(unreadable)?;
    let child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| not_started("ssh-add", &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read its key says so below.
        let _said_below = stdin.write_all(&bytes);
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("cannot use key {}: {}", key.display(), said.trim()))
        .with_help("it has to be a private key without passphrase; for others use an agent: --ssh default"))
}

fn not_started(name: &str, error: &io::Error) -> Failure {
    Failure::new(format!("cannot start {name}: {error}"))
        .with_help("key files need the system's OpenSSH client; or name an agent's socket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_cache::{OpenOptions, Store};

    /// The answer of `ssh-add -l`, or of ssh-keygen making `path`.
    fn tool(program: &str, args: &[&str], socket: Option<&Path>) -> Option<String> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        if let Some(socket) = socket {
            command.env("SSH_AUTH_SOCK", socket);
        }
        command.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn key_files_are_served_until_the_end() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        for (name, passphrase) in [("one", ""), ("two", ""), ("locked", "secret")] {
            let file = path(name).display().to_string();
            let args = ["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", &file];
            if tool("ssh-keygen", &args, None).is_none() {
                println!("SKIPPED: ssh-keygen is not installed");
                return;
            }
        }
        let store = Store::open(&path("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let settings = Settings::from_environment();
        let start = |keys: &[&str]| {
            let keys = SshSource::Keys(keys.iter().map(|name| path(name)).collect());
            SshAgents::start(&settings, &lease, &[SshInput { id: "default".to_owned(), source: keys }])
        };
        let agents = start(&["one", "two"]).unwrap();
        let [(id, socket)] = agents.sockets() else { panic!("one agent") };
        assert_eq!(id, "default");
        let socket = socket.clone();
        let listed = tool("ssh-add", &["-l"], Some(&socket)).unwrap();
        assert!(listed.contains(" one (ED25519)") && listed.contains(" two (ED25519)"), "{listed}");
        drop(agents);
        assert!(!tool("ssh-add", &["-l"], Some(&socket)).unwrap().contains("ED25519"), "the agent is still there");
        let failure = start(&["locked"]).unwrap_err();
        assert!(failure.message().contains("cannot use key"), "{}", failure.message());
    }
}
