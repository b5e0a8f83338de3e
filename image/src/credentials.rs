//! Who we are to registries: user names, passwords, tokens. Secrets cannot be printed by accident.

mod docker_config;
mod helper;

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

pub use docker_config::{DockerConfig, KeptIn};

/// A text that prints as `****`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for those who send or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Password {
        /// The user.
        username: String,
        /// The password, or an access token in its place.
        password: Secret,
    },
    /// A refresh token that a token service exchanges for short-lived ones.
    Identity {
        /// The user.
        username: String,
        /// The refresh token.
        token: Secret,
    },
    /// A token that the registry itself takes.
    Registry {
        /// The token.
        token: Secret,
    },
}

/// Where credentials come from.
pub trait CredentialSource: Send + Sync {
    /// The credentials for a registry, by the name that references give it: `docker.io`, `localhost:5000`.
    fn get(&self, registry: &str) -> Result<Option<Credentials>, CredentialError>;
}

/// No credentials for anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl CredentialSource for Anonymous {
    fn get(&self, _: &str) -> Result<Option<Credentials>, CredentialError> {
        Ok(None)
    }
}

/// The same credentials for one registry and nobody else.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The registry.
    pub registry: String,
    /// What it gets.
    pub credentials: Credentials,
}

impl CredentialSource for Fixed {
    fn get(&self, registry: &str) -> Result<Option<Credentials>, CredentialError> {
        Ok((registry == self.registry).then(|| self.credentials.clone()))
    }
}

/// Credentials that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what Docker writes.
    #[error("{} is not a Docker configuration: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what the file holds.
        reason: String,
    },
    /// The file names a program that cannot be one.
    #[error(
        "{name:?} is not the name of a credential helper; see credsStore and credHelpers of the Docker configuration"
    )]
    HelperName {
        /// The name.
        name: String,
    },
    /// A credential helper failed.
    #[error("credential helper {program}: {reason}")]
    Helper {
        /// Which program.
        program: String,
        /// What it did; never what it printed as a credential.
        reason: String,
    },
}

/// The key under which Docker keeps Docker Hub's credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How Docker's file and helpers name a registry.
fn server_key(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// The registry that a key of Docker's file names: `https://index.docker.io/v1/` is `docker.io`.
pub fn registry_of_key(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let credentials = Credentials::Password { username: "u".into(), password: Secret::new("hunter2") };
        let text = format!("{credentials:?} {}", Secret::new("hunter2"));
        assert!(!text.contains("hunter2") && text.contains("****"), "{text}");
    }

    #[test]
    fn keys_name_registries() {
        for (key, registry) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(registry_of_key(key), registry, "{key}");
        }
        assert_eq!(server_key("docker.io"), HUB_KEY);
    }

    #[test]
    fn errors_name_the_file_or_the_program() {
        for (error, words) in [
            (
                CredentialError::File {
                    action: "read",
                    path: "/home/u/.docker/config.json".into(),
                    source: std::io::ErrorKind::PermissionDenied.into(),
                },
                "cannot read /home/u/.docker/config.json",
            ),
            (
                CredentialError::Format { path: "/x/config.json".into(), reason: "auth is not base64".into() },
                "/x/config.json is not a Docker configuration: auth is not base64",
            ),
            (
                CredentialError::HelperName { name: "../x".into() },
                r#""../x" is not the name of a credential helper; see credsStore and credHelpers of the Docker configuration"#,
            ),
            (
                CredentialError::Helper {
                    program: "docker-credential-pass".into(),
                    reason: "it is not installed".into(),
                },
                "credential helper docker-credential-pass: it is not installed",
            ),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
