//! What the caller decides about registries: plain data, filled from flags, files and the environment by others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cancel::Cancel;
use super::hosts::IpNetwork;
use super::proxy::ProxySettings;
use super::resolver::DnsSettings;
use super::retry::RetryPolicy;
use crate::credentials::{Anonymous, CredentialSource, Secret};

/// Everything a [`Client`](super::Client) needs to know.
#[derive(Clone)]
pub struct ClientOptions {
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Where user names, passwords and tokens come from; asked only after a challenge.
    pub credentials: Arc<dyn CredentialSource>,
    /// Settings by registry host, with port where one is written: `localhost:5000`, `docker.io`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Asked first for the content of registries that `hosts` does not name (containerd's `_default`).
    pub default_mirrors: Vec<Mirror>,
    /// Where repositories are that are not asked for at their own registry.
    pub repositories: Vec<RepositoryRule>,
    /// Networks whose registries may do without TLS and certificates, where `hosts` does not name them.
    pub insecure_networks: Vec<IpNetwork>,
    /// Proxies.
    pub proxy: ProxySettings,
    /// Which certificate authorities are trusted for every host.
    pub trust: TrustRoots,
    /// Where names are looked up.
    pub dns: DnsSettings,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// Transfers at once, per pull or push.
    pub parallel: usize,
    /// The body of one upload request holds at most this many bytes; `None` sends a blob in one.
    pub upload_chunk: Option<u64>,
    /// Asked during every wait.
    pub cancel: Cancel,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            credentials: Arc::new(Anonymous),
            hosts: BTreeMap::new(),
            default_mirrors: Vec::new(),
            repositories: Vec::new(),
            insecure_networks: Vec::new(),
            proxy: ProxySettings::default(),
            trust: TrustRoots::default(),
            dns: DnsSettings::default(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            parallel: 4,
            upload_chunk: None,
            cancel: Cancel::never(),
        }
    }
}

/// Settings of one registry host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// TLS or not.
    pub scheme: Scheme,
    /// Whether the server must prove who it is.
    pub verify: Verify,
    /// What may be sent to it without TLS.
    pub clear_text: ClearText,
    /// PEM files with certificate authorities trusted for this host, beside the general ones.
    pub ca_files: Vec<PathBuf>,
    /// What we prove ourselves with.
    pub client_certificate: Option<ClientCertificate>,
    /// Asked before the host itself when pulling, in this order.
    pub mirrors: Vec<Mirror>,
    /// Sent with every request to this host, and to no other.
    pub headers: Vec<(String, Secret)>,
    /// Whether anything may be pushed to it, where that is said; else it may.
    pub push: Option<Access>,
}

/// TLS or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// TLS; loopback hosts without certificate settings may speak plain HTTP.
    #[default]
    Default,
    /// TLS only.
    Https,
    /// Plain HTTP only.
    Http,
    /// Whichever it speaks.
    Either,
}

/// Whether a server must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// By a certificate that leads to a trusted authority.
    #[default]
    Certificate,
    /// Not at all.
    Nothing,
}

/// What may be sent over plain HTTP to a host that is not loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClearText {
    /// Requests without credentials.
    #[default]
    NoCredentials,
    /// Anything, passwords included.
    Anything,
}

/// A client certificate and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key (PKCS#1, PKCS#8 or SEC1).
    pub key: PathBuf,
}

/// A registry that holds copies of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is: `https://mirror.example`, or `https://host/prefix` when repositories lie below a prefix.
    /// Without a scheme the settings of the host decide.
    pub location: String,
    /// What it is asked for.
    pub serves: MirrorServes,
    /// Whether it is told for which registry it is asked (`?ns=`, as containerd does): one mirror may serve several.
    pub told: Told,
    /// Where its API is, when not at `/v2`: `/sub/v2`. Then `location` has no path.
    pub api: Option<String>,
}

impl Mirror {
    /// One at a location, which knows whose content it has.
    pub fn at(location: impl Into<String>, serves: MirrorServes) -> Self {
        Self { location: location.into(), serves, told: Told::Nothing, api: None }
    }
}

/// Whether a mirror is told whose content is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// It knows.
    #[default]
    Nothing,
    /// The registry's name.
    Registry,
}

/// Where repositories whose names begin in one way are asked for (an entry of `registries.conf`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryRule {
    /// How names begin: `quay.io/team`, `docker.io/library/debian`, or `*.example.com` for all hosts below it.
    pub prefix: String,
    /// What stands in its place, after all mirrors: `other.example/team`.
    pub location: String,
    /// What stands in its place first.
    pub mirrors: Vec<Mirror>,
    /// Whether such repositories may be used.
    pub access: Access,
}

/// Whether repositories may be used: fetched from and sent to, or what else is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// They may.
    #[default]
    Allowed,
    /// They may not.
    Blocked,
}

impl RepositoryRule {
    /// What follows the prefix in a name (`HOST/REPOSITORY`): empty or beginning with a slash.
    pub(super) fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = match self.prefix.strip_prefix('*') {
            Some(domain) => {
                let (host, path) = name.split_once('/')?;
                let (domain, below) = domain.split_once('/').map_or((domain, ""), |(domain, below)| (domain, below));
                let host_fits = host.len() > domain.len() && host.ends_with(domain);
                let path = host_fits.then_some(&name[name.len() - path.len() - 1..])?;
                if below.is_empty() { path } else { path[1..].strip_prefix(below)? }
            }
            None => name.strip_prefix(&self.prefix)?,
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorServes {
    /// Tags and digests.
    #[default]
    All,
    /// Only what is named by digest: its tags may be old.
    Digests,
}

/// Which certificate authorities are trusted. What is not given is read where the system has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustRoots {
    /// A PEM bundle (what `SSL_CERT_FILE` names).
    pub file: Option<PathBuf>,
    /// Directories of PEM files (what `SSL_CERT_DIR` names).
    pub directories: Vec<PathBuf>,
}

/// How long to wait for what. There is no limit on a whole transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a name, a connection and its TLS handshake.
    pub connect: Duration,
    /// From the end of the request to the end of the answer's headers.
    pub headers: Duration,
    /// Like `headers`, for the request that ends an upload: registries on object stores copy the blob before they
    /// answer it.
    pub commit: Duration,
    /// For the next byte, in either direction.
    pub idle: Duration,
    /// Over this time …
    pub low_speed_window: Duration,
    /// … at least this many bytes a second must pass.
    pub low_speed_bytes: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            commit: Duration::from_secs(300),
            idle: Duration::from_secs(30),
            low_speed_window: Duration::from_secs(60),
            low_speed_bytes: 1024,
        }
    }
}
