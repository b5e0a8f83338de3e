//! One request and its answer: connections, proxies and redirects. No retries, no authentication of its own.
//!
//! Redirects are followed here and not by the HTTP library, so that it is one rule in one place what goes along: the
//! `Authorization` header only to the origin it was made for, never from TLS to plain HTTP, at most ten hops.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ureq::http::header::{self, HeaderMap, HeaderName};
use ureq::http::{HeaderValue, Method, Request, Response, Uri, request};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, AsSendBody, Body, BodyReader, Proxy, SendBody};

use super::error::{self, Cause};
use super::hosts::HostTable;
use super::location::{self, BadLocation, Origin};
use super::options::{ClearText, ClientOptions, HostConfig, Timeouts};
use super::proxy::ProxySettings;
use super::resolver::{DnsSettings, StubResolver};
use super::retry::retry_after;
use super::tls::TlsConnector;
use super::transport::SocketConnector;

/// Redirects in a row that are followed.
const MAX_REDIRECTS: u32 = 10;
/// The most bytes of response headers.
const MAX_HEADERS: usize = 64 << 10;
/// Headers that say where a request goes and where it ends: settings have no say in these.
const FRAMING: [HeaderName; 4] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
/// Bodies of redirects and errors up to this size are read to the end, so that the connection can be used again.
const DRAIN: u64 = 16 << 10;

/// What is sent with a request.
pub(super) enum Payload<'a> {
    /// Nothing; methods that usually have a body say that it is empty.
    Empty,
    /// Bytes in memory.
    Bytes(&'a [u8]),
    /// A stream of known length, opened anew for every attempt.
    Stream {
        /// Exactly this many bytes.
        length: u64,
        /// Opens it.
        open: &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>,
    },
    /// A stream of unknown length, sent in chunks.
    Unbounded {
        /// Opens it.
        open: &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>,
    },
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload<'a>,
    /// How long the answer may take, when not as long as usual.
    pub(super) answer_within: Option<Duration>,
    /// Whether the address itself held the credentials, so that they may go wherever it leads.
    pub(super) inline_credentials: bool,
}

impl Call<'_> {
    pub(super) fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            headers: Vec::new(),
            payload: Payload::Empty,
            answer_within: None,
            inline_credentials: false,
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// An answer; its body is still on the way.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Who answered, after redirects.
    pub(super) uri: Uri,
    body: BodyReader<'static>,
    timeouts: Timeouts,
}

impl Reply {
    /// A header's text.
    pub(super) fn text(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a stream with a lower limit on its speed.
    pub(super) fn into_body(self) -> Metered<BodyReader<'static>> {
        Metered::new(self.body, &self.timeouts)
    }

    /// Reads the whole body, which may have at most `limit` bytes.
    pub(super) fn into_bytes(self, limit: u64) -> Result<Vec<u8>, Cause> {
        let announced = self.text(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Cause::TooLarge { limit });
        }
        let mut bytes = Vec::new();
        self.into_body().take(limit + 1).read_to_end(&mut bytes).map_err(body_error)?;
        if bytes.len() as u64 > limit { Err(Cause::TooLarge { limit }) } else { Ok(bytes) }
    }

    /// Reads away a short body, so that the connection can be used again.
    pub(super) fn discard(self) {
        // A failure costs nothing but the connection.
        drop(io::copy(&mut self.into_body().take(DRAIN), &mut io::sink()));
    }

    /// Turns an answer that is not wanted into an error with what the server says.
    pub(super) fn into_error(self) -> Cause {
        let status = self.status;
        let retry_after = self.text(header::RETRY_AFTER).and_then(|value| retry_after(value, self.text(header::DATE)));
        let mut body = Vec::new();
        // Half an explanation is better than none.
        drop(self.into_body().take(DRAIN).read_to_end(&mut body));
        let detail = error::detail(&body);
        if status == 401 { Cause::Unauthorized { detail } } else { Cause::Status { status, detail, retry_after } }
    }
}

/// The cause behind a failure to read a body.
pub(super) fn body_error(error: io::Error) -> Cause {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<SlowBody>()) {
        Some(slow) => Cause::TooSlow { bytes: slow.bytes, over: slow.over },
        None => Cause::from_io(error),
    }
}

/// Passes bytes on as long as enough of them pass.
pub(super) struct Metered<R> {
    inner: R,
    window: Duration,
    least: u64,
    since: Instant,
    bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("too slow")]
struct SlowBody {
    bytes: u64,
    over: Duration,
}

impl<R> Metered<R> {
    pub(super) fn new(inner: R, timeouts: &Timeouts) -> Self {
        let least = timeouts.low_speed_bytes.saturating_mul(timeouts.low_speed_window.as_secs());
        Self { inner, window: timeouts.low_speed_window, least, since: Instant::now(), bytes: 0 }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let amount = self.inner.read(buf)?;
        self.bytes += amount as u64;
        let over = self.since.elapsed();
        if amount > 0 && over >= self.window {
            if self.bytes < self.least {
                return Err(io::Error::other(SlowBody { bytes: self.bytes, over }));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(amount)
    }
}

/// The HTTP side of a client.
pub(super) struct Http {
    user_agent: String,
    timeouts: Timeouts,
    proxy: ProxySettings,
    dns: DnsSettings,
    trust: super::options::TrustRoots,
    hosts: HostTable,
    /// One agent, with its own connections, per proxy; the empty name is none.
    agents: Mutex<BTreeMap<String, Agent>>,
}

impl Http {
    /// `hosts` by authority.
    pub(super) fn new(options: &ClientOptions, hosts: HostTable) -> Self {
        Self {
            user_agent: options.user_agent.clone(),
            timeouts: options.timeouts,
            proxy: options.proxy.clone(),
            dns: options.dns.clone(),
            trust: options.trust.clone(),
            hosts,
            agents: Mutex::default(),
        }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn agent(&self, origin: &Origin) -> Result<Agent, Cause> {
        let proxy = self.proxy.choose(origin).unwrap_or_default();
        let mut agents = self.agents.lock().expect("no panic while held");
        if let Some(agent) = agents.get(proxy) {
            return Ok(agent.clone());
        }
        let through = if proxy.is_empty() { None } else { Some(Proxy::new(proxy)?) };
        let config = Agent::config_builder()
            .proxy(through)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADERS)
            .user_agent(self.user_agent.as_str())
            .accept_encoding("identity")
            .timeout_resolve(Some(self.timeouts.connect))
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_recv_response(Some(self.timeouts.headers))
            .timeout_per_read(Some(self.timeouts.idle))
            .timeout_per_write(Some(self.timeouts.idle))
            .input_buffer_size(128 << 10)
            .output_buffer_size(128 << 10)
            .max_idle_connections_per_host(8)
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(SocketConnector)
                .chain(TlsConnector::new(self.trust.clone(), self.hosts.clone()));
        let agent = Agent::with_parts(config, connector, StubResolver::new(self.dns.clone()));
        agents.insert(proxy.to_owned(), agent.clone());
        Ok(agent)
    }

    /// Sends a request and follows redirects. `authorization` goes to the request's own origin only.
    pub(super) fn send(&self, call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<Reply, Cause> {
        let home = Origin::of(&call.uri).ok_or(Cause::Location(BadLocation::Missing))?;
        let mut uri = call.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&uri).ok_or(Cause::Location(BadLocation::Missing))?;
            let secret = authorization.filter(|_| origin == home);
            if secret.is_some() && !call.inline_credentials {
                self.may_carry_credentials(&origin)?;
            }
            let reply = self.send_once(call, &uri, &origin, secret)?;
            let again = match reply.status {
                301..=303 => matches!(call.method, Method::GET | Method::HEAD),
                307 | 308 => true,
                _ => false,
            };
            if !again {
                return Ok(reply);
            }
            let target = location::follow(&uri, reply.text(header::LOCATION).unwrap_or_default())?;
            reply.discard();
            uri = target;
        }
        Err(Cause::Location(BadLocation::TooMany(MAX_REDIRECTS)))
    }

    /// Sends a request whose body is secret: redirects are answers like any other.
    pub(super) fn send_unredirected(&self, call: &Call<'_>) -> Result<Reply, Cause> {
        let origin = Origin::of(&call.uri).ok_or(Cause::Location(BadLocation::Missing))?;
        self.send_once(call, &call.uri, &origin, None)
    }

    /// Fails when a password or token sent to `origin` could be read on the way.
    pub(super) fn may_carry_credentials(&self, origin: &Origin) -> Result<(), Cause> {
        let allowed = |host: &HostConfig| host.clear_text == ClearText::Anything;
        if origin.tls || origin.is_loopback() || self.hosts.get(&origin.authority()).is_some_and(allowed) {
            return Ok(());
        }
        Err(Cause::ClearText { host: origin.authority() })
    }

    fn send_once(
        &self,
        call: &Call<'_>,
        uri: &Uri,
        origin: &Origin,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Cause> {
        let agent = self.agent(origin)?;
        let mut request = Request::builder().method(call.method.clone()).uri(uri.clone());
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        for (name, value) in self.hosts.get(&origin.authority()).into_iter().flat_map(|host| &host.headers) {
            let ours = call.headers.iter().any(|(known, _)| known.as_str().eq_ignore_ascii_case(name))
                || FRAMING.iter().any(|framing| framing.as_str().eq_ignore_ascii_case(name))
                || (authorization.is_some() && name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()));
            if !ours {
                request = request.header(name, value.expose());
            }
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        tracing::debug!(method = %call.method, %origin, path = uri.path(), "request");
        let response = match &call.payload {
            Payload::Empty if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) => {
                run(&agent, request, (), call.answer_within)
            }
            Payload::Empty => run(&agent, request, &[][..], call.answer_within),
            Payload::Bytes(bytes) => run(&agent, request, *bytes, call.answer_within),
            Payload::Stream { length, open } => {
                let mut reader = Metered::new(open().map_err(Cause::Storage)?, &self.timeouts);
                let request = request.header(header::CONTENT_LENGTH, *length);
                run(&agent, request, SendBody::from_reader(&mut reader), call.answer_within)
            }
            // Whoever makes the bytes may be slow.
            Payload::Unbounded { open } => {
                let mut reader = open().map_err(Cause::Storage)?;
                run(&agent, request, SendBody::from_reader(&mut reader), call.answer_within)
            }
        }?;
        let (parts, body) = response.into_parts();
        tracing::debug!(status = parts.status.as_u16(), "answer");
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            uri: uri.clone(),
            body: body.into_reader(),
            timeouts: self.timeouts,
        })
    }
}

fn run<S: AsSendBody>(
    agent: &Agent,
    request: request::Builder,
    body: S,
    answer_within: Option<Duration>,
) -> Result<Response<Body>, Cause> {
    let request = request.body(body).map_err(|error| Cause::Protocol(error.to_string()))?;
    let request = match answer_within {
        None => request,
        Some(limit) => {
            let patient = agent.configure_request(request).timeout_recv_response(Some(limit));
            patient.timeout_per_read(Some(limit)).build()
        }
    };
    Ok(agent.run(request)?)
}
