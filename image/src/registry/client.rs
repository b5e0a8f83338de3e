//! The face of the room: manifests and configs into memory, blobs into a sink, everything verified before it is
//! returned. A [`Client`] is cheap to clone and used from many threads; it remembers tokens, connections and which
//! loopback registries speak TLS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::http::header;
use ureq::http::{HeaderValue, Method, Uri};

use super::cancel::Cancel;
use super::error::{Action, Cause, RegistryError, Target};
use super::exchange::{Call, Http, Reply};
use super::hosts::HostTable;
use super::location::{BadLocation, Origin};
use super::mirror::{self, Endpoint, RepositoryName, Wanted, Wire};
use super::options::ClientOptions;
use super::retry::{Retry, RetryPolicy, Verdict};
use super::token::{Auth, Authorization, Realm, Refused, Scopes};
use crate::descriptor::{Descriptor, DescriptorMismatch};
use crate::digest::Digest;
use crate::document::{Document, DocumentError, MAX_MANIFEST_BYTES};
use crate::media_type::MediaType;
use crate::reference::ImageRef;

/// The manifest types that we understand, most wanted first.
const ACCEPT: [MediaType; 4] =
    [MediaType::OciIndex, MediaType::DockerManifestList, MediaType::OciManifest, MediaType::DockerManifest];
/// The digest of an answer's content, by its server.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";
/// Attempts with one mirror before the next is asked.
const MIRROR_ATTEMPTS: u32 = 2;

/// A client for all registries.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    cancel: Cancel,
}

struct Shared {
    http: Http,
    auth: Auth,
    hosts: HostTable,
    retry: RetryPolicy,
    parallel: usize,
    upload_chunk: Option<u64>,
    /// What was found out about hosts of which settings say nothing.
    wires: Mutex<BTreeMap<String, Wire>>,
}

/// A manifest or index as a registry gave it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes, verified.
    pub bytes: Vec<u8>,
    /// What it says.
    pub document: Document,
}

impl Client {
    /// Makes a client. Nothing is read or connected yet.
    pub fn new(options: ClientOptions) -> Self {
        let hosts = HostTable::of(&options);
        let http = Http::new(&options, mirror::by_authority(&hosts));
        let shared = Shared {
            http,
            auth: Auth::new(options.credentials),
            hosts,
            retry: options.retry,
            parallel: options.parallel.max(1),
            upload_chunk: options.upload_chunk,
            wires: Mutex::default(),
        };
        Self { shared: Arc::new(shared), cancel: options.cancel }
    }

    /// The same client, whose work stops when `cancel` says so.
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { shared: self.shared.clone(), cancel }
    }

    /// What stops this client's work.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// How many transfers run at once.
    pub fn parallel(&self) -> usize {
        self.shared.parallel
    }

    pub(super) fn commit_timeout(&self) -> Duration {
        self.shared.http.timeouts().commit
    }

    pub(super) fn upload_chunk(&self) -> Option<u64> {
        self.shared.upload_chunk
    }

    /// Checks that a registry can be talked to, with the credentials that it asks for.
    pub fn check_login(&self, registry: &str) -> Result<(), RegistryError> {
        let endpoint = self.registry_endpoint(registry);
        let target = Target { registry: registry.to_owned(), repository: String::new(), item: None };
        self.tried(Action::Reach, target, self.shared.retry, |_| {
            let reply = self.request(&endpoint, "", &Scopes::default(), &|uri| Call::new(Method::GET, uri))?;
            if reply.status == 200 {
                reply.discard();
                return Ok(());
            }
            Err(reply.into_error())
        })
    }

    /// Finds out what a tag stands for, without fetching it.
    pub fn resolve(&self, name: &ImageRef) -> Result<Descriptor, RegistryError> {
        let name = name.tag_or_latest();
        self.ask_endpoints(Action::Resolve, &name, item(&name), wanted(&name), |endpoint, _| {
            let path = manifest_path(endpoint, &name);
            let reply = self.request(endpoint, &path, &Scopes::pull(&repository(endpoint, &name)), &|uri| {
                Call::new(Method::HEAD, uri).header(header::ACCEPT, accept())
            })?;
            let described = match reply.status {
                200 => describe(&reply, &name),
                408 | 429 | 500.. => return Err(reply.into_error()),
                _ => None,
            };
            match described {
                Some(descriptor) => Ok(descriptor),
                // Old registries know no HEAD or leave headers out, and errors explain themselves only to a GET.
                None => self.manifest_from(endpoint, &name, None).map(|fetched| fetched.descriptor),
            }
        })
    }

    /// Fetches the manifest or index that a reference names.
    pub fn fetch_manifest(&self, name: &ImageRef) -> Result<FetchedManifest, RegistryError> {
        let name = name.tag_or_latest();
        self.ask_endpoints(Action::FetchManifest, &name, item(&name), wanted(&name), |endpoint, _| {
            self.manifest_from(endpoint, &name, None)
        })
    }

    /// Fetches the manifest or index that `expected` describes from the repository of `name`.
    pub fn fetch_described(&self, name: &ImageRef, expected: &Descriptor) -> Result<FetchedManifest, RegistryError> {
        let by_digest = name.with_digest(expected.digest);
        self.ask_endpoints(Action::FetchManifest, &by_digest, item(&by_digest), Wanted::Digest, |endpoint, _| {
            self.manifest_from(endpoint, &by_digest, Some(expected))
        })
    }

    /// Fetches a small blob, a config for example, into memory.
    pub fn fetch_bytes(&self, name: &ImageRef, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let item = Some(blob.digest.to_string());
        self.ask_endpoints(Action::FetchBlob, name, item, Wanted::Digest, |endpoint, _| {
            if blob.size > limit {
                return Err(Cause::TooLarge { limit });
            }
            let path = blob_path(endpoint, name, &blob.digest);
            let scopes = Scopes::pull(&repository(endpoint, name));
            let reply = self.request(endpoint, &path, &scopes, &|uri| Call::new(Method::GET, uri))?;
            if reply.status != 200 {
                return Err(reply.into_error());
            }
            let bytes = reply.into_bytes(blob.size)?;
            if bytes.len() as u64 != blob.size {
                return Err(Cause::Short { wanted: blob.size, got: bytes.len() as u64 });
            }
            blob.verify(&bytes)?;
            Ok(bytes)
        })
    }

    pub(super) fn manifest_from(
        &self,
        endpoint: &Endpoint,
        name: &ImageRef,
        expected: Option<&Descriptor>,
    ) -> Result<FetchedManifest, Cause> {
        let path = manifest_path(endpoint, name);
        let scopes = Scopes::pull(&repository(endpoint, name));
        let reply = self
            .request(endpoint, &path, &scopes, &|uri| Call::new(Method::GET, uri).header(header::ACCEPT, accept()))?;
        if reply.status != 200 {
            return Err(reply.into_error());
        }
        let encoding = reply.text(header::CONTENT_ENCODING).unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            return Err(Cause::Encoding(super::error::escaped(encoding.as_bytes())));
        }
        let declared = declared_type(&reply);
        if let Some(found) = &declared
            && !(found.is_manifest() || found.is_index() || found.is_schema1())
        {
            return Err(DocumentError::NotAnImage { found: found.clone() }.into());
        }
        let claimed = reply.text(CONTENT_DIGEST).map(str::to_owned);
        let bytes = reply.into_bytes(MAX_MANIFEST_BYTES)?;
        let digest = match expected.map(|expected| expected.digest).or(name.digest().copied()) {
            Some(digest) => digest,
            None => Digest::sha256(&bytes),
        };
        let actual = Digest::compute(digest.algorithm(), &bytes);
        if actual != digest {
            return Err(DescriptorMismatch::Digest { want: digest, got: actual }.into());
        }
        check_claim(claimed.as_deref(), &actual)?;
        if let Some(expected) = expected {
            expected.verify(&bytes)?;
        }
        let expected_type = expected.map(|expected| &expected.media_type);
        if let (Some(found), Some(wanted)) = (&declared, expected_type)
            && found != wanted
        {
            return Err(DocumentError::TypeMismatch { declared: wanted.clone(), found: found.clone() }.into());
        }
        let document = Document::parse(&bytes, expected_type.or(declared.as_ref()))?;
        let media_type = expected_type.cloned().or(declared).unwrap_or_else(|| document.media_type());
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok(FetchedManifest { descriptor, bytes, document })
    }

    /// Asks mirrors and registry in turn until one has what is wanted.
    pub(super) fn ask_endpoints<T>(
        &self,
        action: Action,
        name: &ImageRef,
        item: Option<String>,
        wanted: Wanted,
        mut attempt: impl FnMut(&Endpoint, &mut Retry) -> Result<T, Cause>,
    ) -> Result<T, RegistryError> {
        // Whatever stands in its place: what is blocked is the name.
        self.check_allowed(action, &super::upload::target(name, item.clone()))?;
        let endpoints = mirror::endpoints(&self.shared.hosts, name, wanted);
        let mut last = None;
        for endpoint in &endpoints {
            let retry = match endpoint.is_mirror {
                true => RetryPolicy { attempts: self.shared.retry.attempts.min(MIRROR_ATTEMPTS), ..self.shared.retry },
                false => self.shared.retry,
            };
            let target = Target {
                registry: endpoint.registry.clone(),
                repository: repository(endpoint, name),
                item: item.clone(),
            };
            match self.tried(action, target, retry, |retry| attempt(endpoint, retry)) {
                Err(error) if endpoint.is_mirror && !error.is_cancelled() => {
                    tracing::info!(mirror = %endpoint.authority, %error, cause = %error.cause, "the mirror did not help");
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.expect("the registry itself is always among the endpoints and returns"))
    }

    /// Tries until it works, or makes no sense any more.
    pub(super) fn tried<T>(
        &self,
        action: Action,
        target: Target,
        policy: RetryPolicy,
        mut attempt: impl FnMut(&mut Retry) -> Result<T, Cause>,
    ) -> Result<T, RegistryError> {
        self.check_allowed(action, &target)?;
        let _scope = self.cancel.enter();
        let mut retry = Retry::new(policy);
        loop {
            retry.begin();
            let cause = match attempt(&mut retry) {
                Ok(done) => return Ok(done),
                Err(cause) => cause,
            };
            let last = match retry.failed(cause.again()) {
                Ok(Verdict::Retry) => {
                    tracing::debug!(%action, %target, attempts = retry.attempts(), %cause, "trying again");
                    continue;
                }
                Ok(Verdict::GiveUp) => cause,
                Ok(Verdict::TooLong(asked)) => match cause {
                    Cause::Status { status, .. } => Cause::RetryAfterTooLong { status, asked },
                    other => other,
                },
                Err(cancelled) => Cause::Cancelled(cancelled),
            };
            return Err(RegistryError {
                action,
                target: Box::new(target),
                attempts: retry.attempts(),
                cause: Box::new(last),
            });
        }
    }

    /// Fails where settings of this host forbid the repository, or to push to its registry.
    fn check_allowed(&self, action: Action, target: &Target) -> Result<(), RegistryError> {
        let (hosts, registry) = (&self.shared.hosts, &target.registry);
        let cause = match hosts.blocked(registry, &target.repository) {
            Some(prefix) => Cause::Blocked { prefix: prefix.to_owned() },
            None if action.is_push() && !hosts.takes_pushes(registry) => Cause::NoPush { registry: registry.clone() },
            None => return Ok(()),
        };
        Err(RegistryError { action, target: Box::new(target.clone()), attempts: 0, cause: Box::new(cause) })
    }

    /// Sends a request below the API of an endpoint, with authentication where it is asked for.
    pub(super) fn request<'a>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        scopes: &Scopes,
        make: &dyn Fn(Uri) -> Call<'a>,
    ) -> Result<Reply, Cause> {
        let wire = self.wire(endpoint);
        let result = self.authorized(endpoint, scopes, &make(address(endpoint, wire, path)?));
        if wire != Wire::Undecided {
            return result;
        }
        let doubtful = match &result {
            Ok(reply) => reply.status == 400,
            Err(Cause::Disconnected | Cause::Protocol(_) | Cause::Network(_)) => true,
            Err(_) => return result,
        };
        if doubtful && self.speaks_tls(endpoint)? {
            self.decide(endpoint, Wire::Tls);
            return self.authorized(endpoint, scopes, &make(address(endpoint, Wire::Tls, path)?));
        }
        if result.is_ok() {
            self.decide(endpoint, Wire::Plain);
        }
        result
    }

    /// Sends a request to any address; credentials go along only to the endpoint itself.
    pub(super) fn authorized(&self, endpoint: &Endpoint, scopes: &Scopes, call: &Call<'_>) -> Result<Reply, Cause> {
        let (http, auth) = (&self.shared.http, &self.shared.auth);
        let origin = Origin::of(&call.uri).ok_or(Cause::Location(BadLocation::Missing))?;
        if origin != self.origin(endpoint)? {
            return http.send(call, None);
        }
        let realm = Realm { registry: &endpoint.registry, origin };
        let mut authorization: Option<Authorization> = auth.ready(http, &realm, scopes)?;
        loop {
            let reply = http.send(call, authorization.as_ref().map(|authorization| &authorization.value))?;
            if reply.status != 401 || Origin::of(&reply.uri).as_ref() != Some(&realm.origin) {
                return Ok(reply);
            }
            match auth.challenged(http, &realm, scopes, &reply.headers, authorization.as_ref()) {
                Ok(next) => authorization = Some(next),
                Err(Refused::Again) => return Err(reply.into_error()),
                Err(Refused::Failed(cause)) => return Err(cause),
            }
            reply.discard();
        }
    }

    /// Sends a request to any address, with these credentials for its own origin.
    pub(super) fn send_any(&self, call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<Reply, Cause> {
        self.shared.http.send(call, authorization)
    }

    /// Sends a request that never carries credentials.
    pub(super) fn send_plain(&self, call: &Call<'_>) -> Result<Reply, Cause> {
        self.shared.http.send(call, None)
    }

    /// The origin of an endpoint, as far as it is known whether it speaks TLS.
    fn origin(&self, endpoint: &Endpoint) -> Result<Origin, Cause> {
        Origin::of(&self.base(endpoint)?).ok_or(Cause::Location(BadLocation::Missing))
    }

    /// The address of an endpoint's API, as far as it is known whether it speaks TLS.
    pub(super) fn base(&self, endpoint: &Endpoint) -> Result<Uri, Cause> {
        address(endpoint, self.wire(endpoint), "")
    }

    fn wire(&self, endpoint: &Endpoint) -> Wire {
        match endpoint.wire {
            Wire::Undecided => {
                let wires = self.shared.wires.lock().expect("no panic while held");
                wires.get(&endpoint.authority).copied().unwrap_or(Wire::Undecided)
            }
            decided => decided,
        }
    }

    fn decide(&self, endpoint: &Endpoint, wire: Wire) {
        self.shared.wires.lock().expect("no panic while held").insert(endpoint.authority.clone(), wire);
    }

    /// Whether a loopback registry that did not take plain HTTP answers a TLS greeting.
    fn speaks_tls(&self, endpoint: &Endpoint) -> Result<bool, Cause> {
        let call = Call::new(Method::GET, address(endpoint, Wire::Tls, "")?);
        match self.shared.http.send(&call, None) {
            Ok(reply) => {
                reply.discard();
                Ok(true)
            }
            Err(Cause::Tls(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) => Ok(true),
            Err(cause @ (Cause::Cancelled(_) | Cause::TlsSetup(_))) => Err(cause),
            Err(_) => Ok(false),
        }
    }

    /// The registry itself, never a mirror.
    pub(super) fn registry_endpoint(&self, registry: &str) -> Endpoint {
        mirror::origin_endpoint(&self.shared.hosts, registry)
    }

    /// The endpoint to which content is sent.
    pub(super) fn push_endpoint(&self, name: &ImageRef) -> Endpoint {
        self.registry_endpoint(name.registry())
    }

    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.shared.retry
    }
}

/// The address of `path` below the API of an endpoint.
fn address(endpoint: &Endpoint, wire: Wire, path: &str) -> Result<Uri, Cause> {
    let scheme = if wire == Wire::Tls { "https" } else { "http" };
    let mut text = format!("{scheme}://{}{}{path}", endpoint.authority, endpoint.api);
    if let Some(namespace) = &endpoint.namespace {
        text.push_str(if path.contains('?') { "&ns=" } else { "?ns=" });
        text.push_str(&super::location::escape_query(namespace));
    }
    text.parse().map_err(|_| Cause::Location(BadLocation::Syntax(text)))
}

/// The repository as this endpoint calls it.
pub(super) fn repository(endpoint: &Endpoint, name: &ImageRef) -> String {
    match &endpoint.repository {
        RepositoryName::Below(prefix) => format!("{prefix}{}", name.repository()),
        RepositoryName::Exactly(repository) => repository.clone(),
    }
}

pub(super) fn blob_path(endpoint: &Endpoint, name: &ImageRef, digest: &Digest) -> String {
    format!("{}/blobs/{digest}", repository(endpoint, name))
}

pub(super) fn manifest_path(endpoint: &Endpoint, name: &ImageRef) -> String {
    let item = item(name).unwrap_or_else(|| "latest".to_owned());
    format!("{}/manifests/{item}", repository(endpoint, name))
}

/// The digest of a reference, else its tag.
pub(super) fn item(name: &ImageRef) -> Option<String> {
    name.digest().map(ToString::to_string).or_else(|| name.tag().map(str::to_owned))
}

fn wanted(name: &ImageRef) -> Wanted {
    if name.digest().is_some() { Wanted::Digest } else { Wanted::Tag }
}

fn accept() -> String {
    ACCEPT.map(|media_type| media_type.as_str().to_owned()).join(", ")
}

/// The type that the server declares; types that say nothing are none.
fn declared_type(reply: &Reply) -> Option<MediaType> {
    let text = reply.text(header::CONTENT_TYPE)?.split(';').next()?.trim();
    match text {
        "" | "application/json" | "application/octet-stream" | "text/plain" => None,
        other => Some(MediaType::from(other)),
    }
}

/// What a HEAD says of a manifest, if it says everything and nothing false.
fn describe(reply: &Reply, name: &ImageRef) -> Option<Descriptor> {
    let media_type = declared_type(reply).filter(|found| found.is_manifest() || found.is_index())?;
    let digest: Digest = reply.text(CONTENT_DIGEST)?.parse().ok()?;
    let size = reply.text(header::CONTENT_LENGTH)?.parse().ok().filter(|size| *size > 0)?;
    if name.digest().is_some_and(|wanted| *wanted != digest) || size > MAX_MANIFEST_BYTES {
        return None;
    }
    Some(Descriptor::new(media_type, digest, size))
}

/// Refuses an answer whose server calls it by another digest. A claim in another algorithm cannot be compared.
pub(super) fn check_claim(claimed: Option<&str>, actual: &Digest) -> Result<(), Cause> {
    let Some(Ok(claim)) = claimed.map(str::parse::<Digest>) else { return Ok(()) };
    if claim.algorithm() == actual.algorithm() && claim != *actual {
        return Err(Cause::FalseDigest { claimed: claim.to_string(), actual: *actual });
    }
    Ok(())
}
