//! What can go wrong between us and a registry, with what it was about. Text from servers is cut and escaped here.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::cancel::Cancelled;
use super::challenge::BadChallenge;
use super::location::BadLocation;
use super::resolver::ResolveError;
use super::retry::Again;
use super::tls::TlsSetupError;
use crate::credentials::CredentialError;
use crate::descriptor::DescriptorMismatch;
use crate::digest::Digest;
use crate::document::DocumentError;
use crate::platform::Platform;

/// The most bytes of a server's text that an error carries.
const MAX_DETAIL: usize = 512;

/// An operation on a registry that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {target}{}", Tries(*.attempts))]
pub struct RegistryError {
    /// What was being done.
    pub action: Action,
    /// To what.
    pub target: Box<Target>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed the last time.
    #[source]
    pub cause: Box<Cause>,
}

impl RegistryError {
    /// Whether the work was stopped on request.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.cause, Cause::Cancelled(_))
    }

    /// Whether the registry wants to know who asks, or does not let this one.
    pub fn is_unauthorized(&self) -> bool {
        matches!(*self.cause, Cause::Unauthorized { .. } | Cause::Status { status: 403, .. })
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.cause, Cause::Status { status: 404, .. })
    }

    /// Whether the registry could not be reached or did not answer, so that a copy we have may serve instead.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            *self.cause,
            Cause::Resolve(_) | Cause::Network(_) | Cause::Disconnected | Cause::Timeout(_) | Cause::Proxy(_)
        ) || matches!(*self.cause, Cause::Status { status: 500.., .. })
    }
}

struct Tries(u32);

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " ({} attempts)", self.0) } else { Ok(()) }
    }
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Talking to the registry at all.
    Reach,
    /// Listing tags or repositories.
    List,
    /// Looking a tag up.
    Resolve,
    /// Getting a manifest or an index.
    FetchManifest,
    /// Getting a config or a layer.
    FetchBlob,
    /// Sending a config or a layer.
    PushBlob,
    /// Sending a manifest or an index.
    PushManifest,
}

impl Action {
    /// Whether it changes what a registry has.
    pub(super) fn is_push(self) -> bool {
        matches!(self, Self::PushBlob | Self::PushManifest)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach => "reach registry",
            Self::List => "list",
            Self::Resolve => "resolve",
            Self::FetchManifest => "fetch manifest",
            Self::FetchBlob => "fetch blob",
            Self::PushBlob => "push blob",
            Self::PushManifest => "push manifest",
        })
    }
}

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The registry, as references name it.
    pub registry: String,
    /// The repository; empty when the registry as a whole is meant.
    pub repository: String,
    /// The tag or digest.
    pub item: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        if !self.repository.is_empty() {
            write!(f, "/{}", self.repository)?;
        }
        match &self.item {
            Some(item) if item.contains(':') => write!(f, "@{item}"),
            Some(item) => write!(f, ":{item}"),
            None => Ok(()),
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Stopped on request.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The connection failed.
    #[error("network error")]
    Network(#[source] io::Error),
    /// The server closed the connection in the middle.
    #[error("the server closed the connection early")]
    Disconnected,
    /// Nothing happened in time.
    #[error("timed out {0}")]
    Timeout(&'static str),
    /// Data came, but too slowly.
    #[error("too slow: {bytes} bytes in {} seconds", over.as_secs())]
    TooSlow {
        /// How many bytes passed.
        bytes: u64,
        /// In which time.
        over: Duration,
    },
    /// The certificate or the handshake is wrong.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// Certificates or keys of ours cannot be used.
    #[error(transparent)]
    TlsSetup(#[from] TlsSetupError),
    /// What came is not HTTP as we accept it.
    #[error("not a valid HTTP answer: {0}")]
    Protocol(String),
    /// The proxy does not let us through.
    #[error("proxy: {0}")]
    Proxy(String),
    /// The server refuses.
    #[error("the server answered {status}{}", Detail(.detail))]
    Status {
        /// HTTP status.
        status: u16,
        /// What it says, cut and escaped.
        detail: String,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// The server asks for a longer pause than we wait.
    #[error("the server answered {status} and asks to come back after {} seconds, which is longer than we wait", asked.as_secs())]
    RetryAfterTooLong {
        /// HTTP status.
        status: u16,
        /// The pause.
        asked: Duration,
    },
    /// Credentials are missing or wrong.
    #[error("authentication required{}", Detail(.detail))]
    Unauthorized {
        /// What it says, cut and escaped.
        detail: String,
    },
    /// The registry's demand cannot be read.
    #[error(transparent)]
    Challenge(#[from] BadChallenge),
    /// The token service is at a place to which no credentials go.
    #[error("the registry's token service {realm:?} is refused: {reason}")]
    Realm {
        /// What the registry named, cut.
        realm: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token service's answer is unusable.
    #[error("the token service gave no token: {0}")]
    Token(String),
    /// Credentials would be readable on the way.
    #[error("credentials are not sent to {host} without TLS")]
    ClearText {
        /// Who would have got them.
        host: String,
    },
    /// Credentials are asked for and cannot be had.
    #[error("authentication required, but the credentials cannot be read")]
    Credentials(#[source] Arc<CredentialError>),
    /// A list of tags or repositories is unusable.
    #[error("the registry's list cannot be used: {0}")]
    Listing(&'static str),
    /// The server sends us where we do not go.
    #[error("refused to follow the server")]
    Location(#[from] BadLocation),
    /// More bytes than announced or allowed.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The server announces another size than the descriptor.
    #[error("the server offers {offered} bytes, the descriptor says {wanted}")]
    WrongSize {
        /// By the descriptor.
        wanted: u64,
        /// By the server.
        offered: u64,
    },
    /// The body ended before its size.
    #[error("the body ended after {got} of {wanted} bytes")]
    Short {
        /// By the descriptor.
        wanted: u64,
        /// What came.
        got: u64,
    },
    /// A part of a blob was asked for, another one came.
    #[error("the server answered with another part of the blob: {0}")]
    WrongRange(String),
    /// The bytes are not what their digest says.
    #[error("content does not match its digest")]
    Mismatch(#[from] DescriptorMismatch),
    /// The sink found that the bytes are not what their digest says.
    #[error("content of {digest} does not match its digest or size")]
    Corrupt {
        /// What was wanted.
        digest: Digest,
        /// What the sink says.
        #[source]
        source: io::Error,
    },
    /// The server calls the content by another digest than it has.
    #[error("the server says the digest is {claimed}, the content has {actual}")]
    FalseDigest {
        /// The server's claim.
        claimed: String,
        /// What it is.
        actual: Digest,
    },
    /// Settings of this host forbid the repository.
    #[error("registries.conf blocks {prefix}")]
    Blocked {
        /// By which entry.
        prefix: String,
    },
    /// Settings of this host forbid to push to the registry.
    #[error("hosts.toml leaves push out of the capabilities of {registry}")]
    NoPush {
        /// Which.
        registry: String,
    },
    /// The body is compressed although that was not asked for.
    #[error("the answer is encoded as {0}, which was not asked for")]
    Encoding(String),
    /// Not a manifest, index or config as they must be.
    #[error("invalid image document")]
    Document(#[from] DocumentError),
    /// A manifest, but not of an image.
    #[error("not a container image: its config is {found}")]
    NotAnImage {
        /// The config's media type, escaped.
        found: String,
    },
    /// No image for the platform.
    #[error("no image for platform {wanted}; there is {}", list(.available))]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// Indexes in indexes, too deep.
    #[error("indexes are nested deeper than {0}")]
    Nesting(usize),
    /// Reading from or writing to our own store failed.
    #[error("cannot read or write local storage")]
    Storage(#[source] io::Error),
}

impl Cause {
    /// Whether and when it makes sense to try again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Disconnected | Self::Timeout(_) | Self::TooSlow { .. } | Self::Short { .. } => Again::Pause,
            Self::WrongRange(_) | Self::Resolve(ResolveError::NoAnswer { .. }) => Again::Pause,
            Self::Network(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NotConnected => Again::Pause,
                _ => Again::Never,
            },
            Self::Status { status: 408 | 429 | 500 | 502 | 503 | 504, retry_after, .. } => {
                retry_after.map_or(Again::Pause, Again::After)
            }
            _ => Again::Never,
        }
    }

    /// Whether the connection broke, so that it is unknown what the server did with the request.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            Self::Disconnected | Self::Timeout(_) | Self::Network(_) => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

impl From<ureq::Error> for Cause {
    fn from(error: ureq::Error) -> Self {
        use ureq::Timeout;
        match error {
            ureq::Error::Io(error) => Self::from_io(error),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => Self::Timeout("connecting"),
            ureq::Error::Timeout(Timeout::RecvResponse) => Self::Timeout("waiting for an answer"),
            ureq::Error::Timeout(_) => Self::Timeout("waiting for data"),
            ureq::Error::Rustls(error) => Self::Tls(error),
            ureq::Error::ConnectProxyFailed(reason) => Self::Proxy(escaped(reason.as_bytes())),
            ureq::Error::InvalidProxyUrl => Self::Proxy("the proxy's address is not valid".to_owned()),
            ureq::Error::Other(inner) => match inner.downcast::<Cancelled>() {
                Ok(cancelled) => Self::Cancelled(*cancelled),
                Err(inner) => match inner.downcast::<ResolveError>() {
                    Ok(error) => Self::Resolve(*error),
                    Err(inner) => match inner.downcast::<TlsSetupError>() {
                        Ok(error) => Self::TlsSetup(*error),
                        Err(inner) => Self::Protocol(escaped(inner.to_string().as_bytes())),
                    },
                },
            },
            other => Self::Protocol(escaped(other.to_string().as_bytes())),
        }
    }
}

impl Cause {
    /// The cause behind an error of a socket or a body.
    pub(super) fn from_io(error: io::Error) -> Self {
        let wraps_ureq = error.get_ref().is_some_and(|inner| inner.is::<ureq::Error>());
        if wraps_ureq {
            return ureq::Error::from(error).into();
        }
        if error.get_ref().is_some_and(|inner| inner.is::<LocalRead>()) {
            return Self::Storage(error);
        }
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::Tls(tls.clone());
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Disconnected,
            _ => Self::Network(error),
        }
    }
}

/// Marks a failure to read what is being sent, to tell it from a failure to send it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read what is to be sent")]
pub(super) struct LocalRead(#[source] pub(super) io::Error);

struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A server's text, cut to 512 bytes, with everything escaped that a terminal could obey.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_DETAIL)]);
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c == '\n' || c == '\r' || c == '\t' {
            out.push(' ');
        } else if c.is_control() || bidi {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    let mut end = out.len().min(MAX_DETAIL);
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out
}

/// What the body of an error says: the distribution-spec's list of errors, else the text itself.
pub(super) fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) if !errors.is_empty() => {
            let texts: Vec<String> =
                errors.iter().take(4).map(|one| format!("{} ({})", one.message, one.code)).collect();
            escaped(texts.join("; ").as_bytes())
        }
        _ => escaped(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r36_server_text_is_cut_and_escaped() {
        let page = b"<html>\x1b]0;owned\x07\x1b[2Jgone</html>\r\n".repeat(200);
        let text = detail(&page);
        assert!(text.len() <= MAX_DETAIL, "{}", text.len());
        assert!(text.chars().all(|c| !c.is_control()), "{text}");
        assert!(text.starts_with("<html>\\u{1b}]0;owned\\u{7}"), "{text}");
        assert_eq!(escaped("a\u{202e}b\u{9b}c".as_bytes()), "a\\u{202e}b\\u{9b}c");
        assert_eq!(
            detail(br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{}}]}"#),
            "no\\u{1b}[31m (DENIED)"
        );
        assert_eq!(detail(b""), "");
        assert_eq!(detail(br#"{"errors":[]}"#), r#"{"errors":[]}"#);
    }

    #[test]
    fn r36_errors_name_what_they_are_about() {
        let target = |item: Option<&str>| Target {
            registry: "r.example".into(),
            repository: "a/b".into(),
            item: item.map(str::to_owned),
        };
        let error = |item, attempts| RegistryError {
            action: Action::FetchBlob,
            target: Box::new(target(item)),
            attempts,
            cause: Box::new(Cause::Status { status: 404, detail: "gone".into(), retry_after: None }),
        };
        assert_eq!(error(Some("t"), 1).to_string(), "cannot fetch blob r.example/a/b:t");
        assert_eq!(error(Some("sha256:ab"), 3).to_string(), "cannot fetch blob r.example/a/b@sha256:ab (3 attempts)");
        assert_eq!(error(None, 1).cause.to_string(), "the server answered 404: gone");
    }

    #[test]
    fn each_cause_has_its_words() {
        use std::io::ErrorKind::PermissionDenied;

        let digest = Digest::sha256("");
        let credentials = CredentialError::HelperName { name: "x/y".into() };
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let causes = [
            Cause::Cancelled(Cancelled),
            Cause::Network(io::ErrorKind::ConnectionRefused.into()),
            Cause::Disconnected,
            Cause::Timeout("connecting"),
            Cause::TooSlow { bytes: 7, over: Duration::from_secs(30) },
            Cause::Tls(rustls::Error::DecryptError),
            Cause::TlsSetup(TlsSetupError::NoRoots),
            Cause::Protocol("no status line".into()),
            Cause::Proxy("403 Forbidden".into()),
            Cause::Status { status: 500, detail: String::new(), retry_after: None },
            Cause::Status { status: 403, detail: "no (DENIED)".into(), retry_after: None },
            Cause::RetryAfterTooLong { status: 429, asked: Duration::from_secs(3600) },
            Cause::Unauthorized { detail: String::new() },
            Cause::Unauthorized { detail: "log in first (UNAUTHORIZED)".into() },
            Cause::Challenge(BadChallenge::Missing),
            Cause::Realm { realm: "http://x/token".into(), reason: "it is not reached over TLS" },
            Cause::Token("the answer is no JSON".into()),
            Cause::ClearText { host: "r.example".into() },
            Cause::Credentials(Arc::new(credentials)),
            Cause::Listing("it never ends"),
            Cause::Location(BadLocation::UserInfo),
            Cause::TooLarge { limit: 4096 },
            Cause::WrongSize { wanted: 10, offered: 11 },
            Cause::Short { wanted: 10, got: 9 },
            Cause::WrongRange("bytes 5-9/10".into()),
            Cause::Mismatch(DescriptorMismatch::Size { digest, want: 1, got: 2 }),
            Cause::Corrupt { digest, source: PermissionDenied.into() },
            Cause::FalseDigest { claimed: "sha256:00".into(), actual: digest },
            Cause::Blocked { prefix: "r.example/private".into() },
            Cause::NoPush { registry: "r.example".into() },
            Cause::Encoding("br".into()),
            Cause::Document(DocumentError::TooManyLayers { count: 1000 }),
            Cause::NotAnImage { found: "application/vnd.cncf.helm.config.v1+json".into() },
            Cause::NoPlatform { wanted: platform("linux/s390x"), available: vec![] },
            Cause::NoPlatform {
                wanted: platform("linux/s390x"),
                available: vec![platform("linux/amd64"), platform("linux/arm64")],
            },
            Cause::Nesting(4),
            Cause::Storage(PermissionDenied.into()),
            Cause::Storage(io::Error::other(LocalRead(PermissionDenied.into()))),
        ];
        let words: Vec<String> = causes.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        cancelled
        network error
        the server closed the connection early
        timed out connecting
        too slow: 7 bytes in 30 seconds
        TLS: cannot decrypt peer's message
        no certificate authorities found on this system; install ca-certificates or set SSL_CERT_FILE
        not a valid HTTP answer: no status line
        proxy: 403 Forbidden
        the server answered 500
        the server answered 403: no (DENIED)
        the server answered 429 and asks to come back after 3600 seconds, which is longer than we wait
        authentication required
        authentication required: log in first (UNAUTHORIZED)
        the registry wants authentication and does not say how
        the registry's token service "http://x/token" is refused: it is not reached over TLS
        the token service gave no token: the answer is no JSON
        credentials are not sent to r.example without TLS
        authentication required, but the credentials cannot be read
        the registry's list cannot be used: it never ends
        refused to follow the server
        the answer is longer than 4096 bytes
        the server offers 11 bytes, the descriptor says 10
        the body ended after 9 of 10 bytes
        the server answered with another part of the blob: bytes 5-9/10
        content does not match its digest
        content of sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 does not match its digest or size
        the server says the digest is sha256:00, the content has sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
        registries.conf blocks r.example/private
        hosts.toml leaves push out of the capabilities of r.example
        the answer is encoded as br, which was not asked for
        invalid image document
        not a container image: its config is application/vnd.cncf.helm.config.v1+json
        no image for platform linux/s390x; there is none
        no image for platform linux/s390x; there is linux/amd64, linux/arm64
        indexes are nested deeper than 4
        cannot read or write local storage
        cannot read or write local storage
        "#);
        assert_eq!(LocalRead(PermissionDenied.into()).to_string(), "cannot read what is to be sent");
    }

    proptest::proptest! {
        #[test]
        fn no_server_text_reaches_a_terminal_raw(body in proptest::collection::vec(0u8.., 0..1500)) {
            let text = detail(&body);
            proptest::prop_assert!(text.len() <= MAX_DETAIL);
            proptest::prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
