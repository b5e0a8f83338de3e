//! Credential helpers: programs named `docker-credential-NAME` that keep secrets in a key ring
//! (protocol: docker-credential-helpers). One word as argument, text or JSON on standard input, JSON on standard output.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{CredentialError, Credentials, Secret};

/// The most bytes that are read from a helper.
const MAX_OUTPUT: u64 = 1 << 20;
/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper program.
#[derive(Clone, Debug)]
pub(super) struct Helper {
    program: PathBuf,
    /// Helpers may ask people for a pass phrase, but not forever.
    timeout: Duration,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

impl Helper {
    /// The helper `name`: from the first of `directories` that has it, or without any from where programs are found.
    pub(super) fn new(name: &str, directories: &[PathBuf], timeout: Duration) -> Result<Self, CredentialError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(fine) {
            return Err(CredentialError::HelperName { name: name.chars().take(100).collect() });
        }
        let file = format!("docker-credential-{name}");
        let mut places = directories.iter().map(|directory| directory.join(&file));
        let first = directories.first().map_or_else(|| PathBuf::from(&file), |directory| directory.join(&file));
        let program = places.find(|place| place.is_file()).unwrap_or(first);
        Ok(Self { program, timeout })
    }

    /// What the helper has for a server; `None` when it has nothing.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>, CredentialError> {
        let outcome = self.run("get", server.as_bytes())?;
        if !outcome.success {
            let text = String::from_utf8_lossy(&outcome.output);
            if text.contains("credentials not found") {
                return Ok(None);
            }
            return Err(self.failed(&text));
        }
        let answer: Answer =
            serde_json::from_slice(&outcome.output).map_err(|_| self.error("its answer is not a credential"))?;
        if answer.secret.expose().is_empty() {
            return Ok(None);
        }
        Ok(Some(if answer.username == TOKEN_USER {
            Credentials::Identity { username: answer.username, token: answer.secret }
        } else {
            Credentials::Password { username: answer.username, password: answer.secret }
        }))
    }

    /// Hands a credential over for keeping.
    pub(super) fn store(&self, server: &str, credentials: &Credentials) -> Result<(), CredentialError> {
        let (username, secret) = match credentials {
            Credentials::Password { username, password } => (username.as_str(), password),
            Credentials::Identity { token, .. } | Credentials::Registry { token } => (TOKEN_USER, token),
        };
        let entry = Entry { server, username, secret: secret.expose() };
        let input = serde_json::to_vec(&entry).expect("three texts are always JSON");
        self.done("store", &input)
    }

    /// Has a credential forgotten; one that is not there is no error.
    pub(super) fn erase(&self, server: &str) -> Result<(), CredentialError> {
        let outcome = self.run("erase", server.as_bytes())?;
        let text = String::from_utf8_lossy(&outcome.output);
        if outcome.success || text.contains("not found") { Ok(()) } else { Err(self.failed(&text)) }
    }

    fn done(&self, word: &str, input: &[u8]) -> Result<(), CredentialError> {
        let outcome = self.run(word, input)?;
        if outcome.success { Ok(()) } else { Err(self.failed(&String::from_utf8_lossy(&outcome.output))) }
    }

    fn error(&self, reason: impl Into<String>) -> CredentialError {
        CredentialError::Helper { program: self.program.display().to_string(), reason: reason.into() }
    }

    fn failed(&self, output: &str) -> CredentialError {
        let line = output.lines().next().unwrap_or_default();
        let text: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        self.error(if text.is_empty() { "it failed without saying why".to_owned() } else { text })
    }

    fn run(&self, word: &str, input: &[u8]) -> Result<Outcome, CredentialError> {
        let mut child = Command::new(&self.program)
            .arg(word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => self.error("the program is not installed"),
                _ => self.error(error.to_string()),
            })?;
        let mut to = child.stdin.take().expect("the input was made a pipe");
        let mut from = child.stdout.take().expect("the output was made a pipe");
        let input = input.to_vec();
        // Both ends on threads of their own: a helper may answer before it has read, or do neither. They end with
        // the child, whose death closes the pipes.
        std::thread::spawn(move || drop(to.write_all(&input)));
        let (sender, output) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = from.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes).map(|_| bytes);
            drop(sender.send(read));
        });
        let end = Instant::now() + self.timeout;
        let status = self.wait(&mut child, end)?;
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let output = output.recv_timeout(left).map_err(|_| self.error("it left its output open"))?;
        let output = output.map_err(|error| self.error(error.to_string()))?;
        Ok(Outcome { success: status, output })
    }

    fn wait(&self, child: &mut Child, end: Instant) -> Result<bool, CredentialError> {
        loop {
            let reason = match child.try_wait() {
                Ok(Some(status)) => return Ok(status.success()),
                Ok(None) if crate::registry::cancel::check().is_err() => "cancelled",
                Ok(None) if Instant::now() >= end => "it did not answer in time",
                Ok(None) => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Err(error) => return Err(self.error(error.to_string())),
            };
            // It may have ended by itself meanwhile; then there is nothing left to stop.
            drop(child.kill());
            drop(child.wait());
            return Err(self.error(reason));
        }
    }
}

struct Outcome {
    success: bool,
    output: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(script: &str) -> (tempfile::TempDir, Helper) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        // Written by another process: a child that another test starts at this moment would have it open, and what is open for
        // writing cannot be executed.
        let mut writing = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writing.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(writing.wait().unwrap().success());
        let helper =
            Helper::new("test", &["/nonexistent".into(), dir.path().to_owned()], Duration::from_millis(1500)).unwrap();
        (dir, helper)
    }

    #[test]
    fn a_helper_gives_what_it_has() {
        let (_dir, found) = helper(
            r#"read server; [ "$1" = get ] && printf '{"ServerURL":"%s","Username":"u","Secret":"hunter2"}' "$server""#,
        );
        let want = Credentials::Password { username: "u".into(), password: Secret::new("hunter2") };
        assert_eq!(found.get("r.example\n").unwrap(), Some(want));
        let (_dir, token) = helper(r#"printf '{"Username":"<token>","Secret":"t"}'"#);
        assert!(matches!(token.get("x").unwrap(), Some(Credentials::Identity { .. })));
        let (_dir, none) = helper("echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(none.get("x").unwrap(), None);
    }

    #[test]
    fn helpers_that_misbehave_are_errors() {
        for (script, want) in [
            (r"printf 'locked\033[2J'; exit 1", "locked[2J"),
            ("exit 3", "without saying why"),
            ("echo nonsense", "not a credential"),
            ("exec sleep 60", "did not answer in time"),
        ] {
            let (_dir, helper) = helper(script);
            let error = helper.get("x").unwrap_err().to_string();
            assert!(error.contains(want), "{script}: {error}");
            assert!(!error.contains('\u{1b}'));
        }
        let missing = Helper::new("absent", &["/nonexistent".into()], Duration::from_secs(1)).unwrap();
        assert!(missing.get("x").unwrap_err().to_string().contains("not installed"));
        for name in ["", "../x", "a b", "a;b"] {
            assert!(Helper::new(name, &[], Duration::from_secs(1)).is_err(), "{name}");
        }
    }

    #[test]
    fn helpers_store_and_erase() {
        let (dir, helper) = helper(r#"cat > "$(dirname "$0")/$1""#);
        let credentials = Credentials::Password { username: "u".into(), password: Secret::new("p") };
        helper.store("r.example", &credentials).unwrap();
        let stored = std::fs::read_to_string(dir.path().join("store")).unwrap();
        assert_eq!(stored, r#"{"ServerURL":"r.example","Username":"u","Secret":"p"}"#);
        helper.erase("r.example").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("erase")).unwrap(), "r.example");
    }
}
