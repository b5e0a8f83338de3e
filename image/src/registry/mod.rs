//! The distribution protocol (OCI distribution-spec, Docker registry API v2): a blocking client.
//!
//! `client` is the face; below it `exchange` sends one request over `transport` and `tls` to addresses from
//! `resolver`, `token` and `challenge` authenticate, `retry` decides about trying again, `mirror` about whom to ask,
//! and `download`, `upload` and `upload_stream` move blobs; `web` fetches what is in no registry. Nothing here reads the environment or knows where blobs are kept.

pub(crate) mod cancel;
mod challenge;
mod client;
mod dns;
mod download;
mod error;
mod exchange;
mod hosts;
mod listing;
mod location;
mod mirror;
mod options;
mod proxy;
mod referrers;
mod resolver;
mod retry;
mod tls;
mod tls_over;
mod token;
mod transfer;
mod transport;
mod upload;
mod upload_session;
mod upload_stream;
mod web;

pub use cancel::{Cancel, Cancelled};
pub use challenge::{BadChallenge, Challenge};
pub use client::{Client, FetchedManifest};
pub use error::{Action, Cause, RegistryError, Target};
pub use hosts::{InvalidNetwork, IpNetwork};
pub use location::BadLocation;
pub use options::{
    Access, ClearText, ClientCertificate, ClientOptions, HostConfig, Mirror, MirrorServes, RepositoryRule, Scheme,
    Timeouts, Told, TrustRoots, Verify,
};
pub use proxy::ProxySettings;
pub use resolver::{DnsSettings, ResolveError};
pub use retry::RetryPolicy;
pub use tls::TlsSetupError;
pub use tls_over::TlsOver;
pub use transfer::{Silent, TransferSink, TransferState};
pub use upload::Pushed;
pub use upload_stream::UnfinishedBlob;
pub use web::{WebAnswer, WebError, WebRequest, WebSink, without_credentials};

pub(crate) use transfer::in_parallel;
