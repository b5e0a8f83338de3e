//! Files on the web that are no part of a registry: one URL into a sink, with everything that registries get: proxies,
//! our own name look-ups, retries, resumed transfers, at most ten redirects and none from TLS to plain HTTP.
//!
//! Who asks decides what to do with validators: this file only sends `If-None-Match` and tells what came back.

use std::fmt::Write as _;
use std::io::{self, Read};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::MultiGzDecoder;
use ureq::http::header;
use ureq::http::{HeaderValue, Method, Uri};

use super::client::Client;
use super::error::{Action, Cause, Target};
use super::exchange::{Call, Reply, body_error};
use super::location::{BadLocation, Origin};
use super::retry::Retry;

/// An attempt that brought this many bytes has reached something.
const PROGRESS: u64 = 64 << 10;
/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct WebRequest<'a> {
    /// Where it is. A user name and password in it become an `Authorization` header for that place.
    pub url: &'a str,
    /// The value of an `Authorization` header. It goes to the URL's own origin only, over TLS or to this machine.
    pub authorization: Option<&'a str>,
    /// Entity tags of copies that are there already.
    pub known: &'a [String],
    /// The most bytes that are taken.
    pub limit: u64,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAnswer {
    /// HTTP status; of a fetched file 200 to 299, or 304.
    pub status: u16,
    /// The entity tag, as it was sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as it was sent.
    pub last_modified: Option<String>,
    /// The same as seconds since the epoch, where it is a date.
    pub modified: Option<i64>,
}

/// Takes a body.
pub trait WebSink {
    /// A body of `total` bytes, where that is known, begins. What came before is thrown away.
    fn begin(&mut self, total: Option<u64>) -> io::Result<()>;

    /// The next bytes.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A URL that could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {url}{}", Tries(*.attempts))]
pub struct WebError {
    /// The URL, without credentials.
    pub url: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed the last time.
    #[source]
    pub cause: Box<Cause>,
}

impl WebError {
    /// Whether the work was stopped on request.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.cause, Cause::Cancelled(_))
    }

    /// The HTTP status that the server refused with.
    pub fn status(&self) -> Option<u16> {
        match &*self.cause {
            Cause::Status { status, .. } | Cause::RetryAfterTooLong { status, .. } => Some(*status),
            Cause::Unauthorized { .. } => Some(401),
            _ => None,
        }
    }
}

struct Tries(u32);

impl std::fmt::Display for Tries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 > 1 { write!(f, " ({} attempts)", self.0) } else { Ok(()) }
    }
}

impl Client {
    /// Asks for a URL's headers only; the answer has whatever status the server gives.
    pub fn web_head(&self, request: &WebRequest<'_>) -> Result<WebAnswer, WebError> {
        self.web(request, |address, _| {
            let reply = self.send_web(address, request, Method::HEAD, None)?;
            let answer = answer(&reply);
            reply.discard();
            Ok(answer)
        })
    }

    /// Fetches a URL into `sink`, unless the answer is that one of the known copies is still right (304).
    pub fn web_get(&self, request: &WebRequest<'_>, sink: &mut dyn WebSink) -> Result<WebAnswer, WebError> {
        let mut transfer = Transfer { request, sink, taken: 0, validator: None };
        self.web(request, |address, retry| transfer.attempt(self, address, retry))
    }

    fn web<T>(
        &self,
        request: &WebRequest<'_>,
        mut attempt: impl FnMut(&Address, &mut Retry) -> Result<T, Cause>,
    ) -> Result<T, WebError> {
        let shown = without_credentials(request.url);
        let failed = |attempts, cause: Cause| WebError { url: shown.clone(), attempts, cause: Box::new(cause) };
        let address = Address::parse(request.url).map_err(|error| failed(1, Cause::Location(error)))?;
        let target = Target { registry: shown.clone(), repository: String::new(), item: None };
        self.tried(Action::Reach, target, self.retry_policy(), |retry| attempt(&address, retry))
            .map_err(|error| failed(error.attempts, *error.cause))
    }

    fn send_web(
        &self,
        address: &Address,
        request: &WebRequest<'_>,
        method: Method,
        rest: Option<(u64, &str)>,
    ) -> Result<Reply, Cause> {
        let mut call = Call::new(method, address.uri.clone());
        if !request.known.is_empty() {
            call = call.header(header::IF_NONE_MATCH, request.known.join(", "));
        }
        if let Some((from, validator)) = rest {
            call = call.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, validator);
        }
        let text = request.authorization.map(str::to_owned).or_else(|| address.basic.clone());
        // Who writes a password into a plain address has decided how it travels.
        call.inline_credentials = request.authorization.is_none();
        let value = text.map(|text| HeaderValue::try_from(text).map_err(|error| Cause::Protocol(error.to_string())));
        let mut value = value.transpose()?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        self.send_any(&call, value.as_ref())
    }
}

struct Transfer<'a> {
    request: &'a WebRequest<'a>,
    sink: &'a mut dyn WebSink,
    /// Bytes of the body that the sink has.
    taken: u64,
    /// What says that the rest belongs to them: a strong entity tag, else a date.
    validator: Option<String>,
}

impl Transfer<'_> {
    fn attempt(&mut self, client: &Client, address: &Address, retry: &mut Retry) -> Result<WebAnswer, Cause> {
        let rest = self.validator.as_deref().filter(|_| self.taken > 0).map(|validator| (self.taken, validator));
        let reply = client.send_web(address, self.request, Method::GET, rest)?;
        let answer = answer(&reply);
        match reply.status {
            304 => {
                reply.discard();
                return Ok(answer);
            }
            206 if rest.is_some() && begins_at(&reply) == Some(self.taken) => {}
            206 | 416 => {
                // Another part than asked for: from the beginning next time.
                (self.taken, self.validator) = (0, None);
                return Err(Cause::WrongRange("it sent another part of the file".to_owned()));
            }
            200..=299 => {
                (self.taken, self.validator) = (0, validator(&reply));
            }
            _ => return Err(reply.into_error()),
        }
        self.receive(reply, retry)?;
        Ok(answer)
    }

    fn receive(&mut self, reply: Reply, retry: &mut Retry) -> Result<(), Cause> {
        let left = reply.text(header::CONTENT_LENGTH).and_then(|text| text.trim().parse::<u64>().ok());
        let encoded = reply.text(header::CONTENT_ENCODING).is_some_and(|text| text.eq_ignore_ascii_case("gzip"));
        let limit = self.request.limit;
        let total = left.map(|left| left.saturating_add(self.taken)).filter(|_| !encoded);
        if total.is_some_and(|total| total > limit) {
            return Err(Cause::TooLarge { limit });
        }
        if self.taken == 0 {
            self.sink.begin(total).map_err(Cause::Storage)?;
        }
        let mut body: Box<dyn Read> = Box::new(reply.into_body());
        if encoded {
            // A part of it could not be continued.
            self.validator = None;
            body = Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(BUFFER, body)));
        }
        let (mut buffer, mut fresh) = (vec![0; BUFFER], 0);
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(body_error(error)),
            };
            super::cancel::check()?;
            self.taken += read as u64;
            fresh += read as u64;
            if self.taken > limit {
                return Err(Cause::TooLarge { limit });
            }
            self.sink.take(&buffer[..read]).map_err(Cause::Storage)?;
            if fresh >= PROGRESS {
                retry.progressed();
                fresh = 0;
            }
        }
        match total {
            Some(wanted) if self.taken < wanted => Err(Cause::Short { wanted, got: self.taken }),
            _ => Ok(()),
        }
    }
}

fn answer(reply: &Reply) -> WebAnswer {
    let last_modified = reply.text(header::LAST_MODIFIED).map(str::to_owned);
    WebAnswer {
        status: reply.status,
        etag: reply.text(header::ETAG).map(str::trim).filter(|etag| !etag.is_empty()).map(str::to_owned),
        modified: last_modified.as_deref().and_then(modified),
        last_modified,
    }
}

/// Reads a date of HTTP (RFC 9110 §5.6.7): the usual form and the two that are obsolete.
fn modified(text: &str) -> Option<i64> {
    let text = text.trim();
    let zone = jiff::tz::TimeZone::UTC;
    for format in ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"] {
        if let Ok(civil) = jiff::civil::DateTime::strptime(format, text) {
            return civil.to_zoned(zone).ok().map(|zoned| zoned.timestamp().as_second());
        }
    }
    None
}

/// What may stand in `If-Range`: no weak tag.
fn validator(reply: &Reply) -> Option<String> {
    let strong = reply.text(header::ETAG).filter(|etag| etag.starts_with('"'));
    strong.or_else(|| reply.text(header::LAST_MODIFIED)).map(str::to_owned)
}

/// Where the body of a 206 begins.
fn begins_at(reply: &Reply) -> Option<u64> {
    let range = reply.text(header::CONTENT_RANGE)?.trim().strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// A URL as the wire wants it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// Without user, password and fragment; with everything escaped that must be.
    uri: Uri,
    /// The header that user and password make.
    basic: Option<String>,
}

impl Address {
    fn parse(url: &str) -> Result<Self, BadLocation> {
        let shown = || BadLocation::Syntax(without_credentials(url));
        let url = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").ok_or_else(shown)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(BadLocation::Scheme(without_credentials(url)));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let mut text = format!("{}://{host}", scheme.to_ascii_lowercase());
        if !path.starts_with('/') {
            text.push('/');
        }
        for byte in path.bytes() {
            if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _infallible = write!(text, "%{byte:02X}");
            }
        }
        let uri: Uri = text.parse().map_err(|_| shown())?;
        if Origin::of(&uri).is_none_or(|origin| origin.host.is_empty()) {
            return Err(shown());
        }
        let basic = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut plain = unescaped(name);
            plain.push(b':');
            plain.extend(unescaped(password));
            format!("Basic {}", BASE64_STANDARD.encode(plain))
        });
        Ok(Self { uri, basic })
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let byte = pair.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// A URL as it may be shown and remembered: user and password become `xxxxx`.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) => {
            let shown = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
            format!("{scheme}://{shown}@{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_fit_for_the_wire() {
        for (url, want) in [
            ("http://h/a b?c=ü#frag", "http://h/a%20b?c=%C3%BC"),
            ("HTTPS://h", "https://h/"),
            ("http://h?x=1", "http://h/?x=1"),
            ("http://u:p%40w@h:81/x", "http://h:81/x"),
            ("http://[::1]:80/x%20y", "http://[::1]:80/x%20y"),
        ] {
            assert_eq!(Address::parse(url).unwrap().uri.to_string(), want, "{url}");
        }
        assert_eq!(Address::parse("http://u:p%40w@h/").unwrap().basic.as_deref(), Some("Basic dTpwQHc="));
        assert_eq!(Address::parse("http://h/a@b").unwrap().basic, None);
        for bad in ["", "h/x", "file:///etc/passwd", "http://", "http:///x", "http://a b/"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        for (url, want) in [
            ("https://u:p@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://token@h/x?y@z", "https://xxxxx@h/x?y@z"),
            ("https://a@b@h", "https://xxxxx@h"),
            ("https://h/a@b", "https://h/a@b"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_credentials(url), want);
        }
    }

    #[test]
    fn dates_of_all_three_forms_are_read() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(modified(text), Some(784_111_777), "{text}");
        }
        assert_eq!(modified("yesterday"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_url_is_an_address_or_refused(url in "(https?://)?\\PC{0,40}") {
            drop(Address::parse(&url));
            drop(without_credentials(&url));
        }
    }
}
