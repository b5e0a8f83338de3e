//! Authentication: what goes into the `Authorization` header, and when.
//!
//! Nothing is sent before a registry has asked for it. Then the demand is remembered per registry, and tokens per
//! registry and scope until shortly before they expire. Passwords go to the registry itself (Basic) or to the token
//! service that it names (Bearer), and to that only over TLS or when it is the registry's own plain-HTTP address.
//! One thread fetches a token; others that need the same wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::header::{self, HeaderMap};
use ureq::http::{HeaderValue, Method, Uri};

use super::cancel::{self, SLICE};
use super::challenge::Challenge;
use super::error::{Cause, escaped};
use super::exchange::{Call, Http, Payload};
use super::location::{self, Origin};
use crate::credentials::{CredentialError, CredentialSource, Credentials, Secret};

/// The most bytes of a token service's answer.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token lives when its service does not say (token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Tokens are renewed this long before they expire, or at half of a short life.
const MARGIN: Duration = Duration::from_secs(20);

/// What a token must allow: actions by resource (`repository:library/debian:pull`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Reading a repository.
    pub(super) fn pull(repository: &str) -> Self {
        let mut scopes = Self::default();
        scopes.add(&format!("repository:{repository}:pull"));
        scopes
    }

    /// Listing the repositories of a registry.
    pub(super) fn catalog() -> Self {
        let mut scopes = Self::default();
        scopes.add("registry:catalog:*");
        scopes
    }

    /// Reading and writing a repository.
    pub(super) fn push(repository: &str) -> Self {
        let mut scopes = Self::default();
        scopes.add(&format!("repository:{repository}:pull,push"));
        scopes
    }

    /// Reading another repository as well.
    pub(super) fn and_pull(mut self, repository: &str) -> Self {
        self.add(&format!("repository:{repository}:pull"));
        self
    }

    /// Adds the scopes of a challenge, which are separated by spaces. The last colon precedes the actions.
    fn add(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace().take(16) {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                let known = self.0.entry(resource.to_owned()).or_default();
                known.extend(actions.split(',').map(str::to_owned));
            }
        }
    }

    fn texts(&self) -> Vec<String> {
        let joined = |actions: &BTreeSet<String>| actions.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        self.0.iter().map(|(resource, actions)| format!("{resource}:{}", joined(actions))).collect()
    }
}

/// A registry as authentication sees it.
pub(super) struct Realm<'a> {
    /// Under which name credentials are kept.
    pub(super) registry: &'a str,
    /// Its origin.
    pub(super) origin: Origin,
}

/// A header value, and whether asking again would give the same.
pub(super) struct Authorization {
    pub(super) value: HeaderValue,
    /// Made for this very exchange: if it is refused, the next one will be too.
    fresh: bool,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

struct Token {
    value: HeaderValue,
    renew: Instant,
}

#[derive(Default)]
struct Known {
    challenge: Option<Challenge>,
    tokens: BTreeMap<Scopes, Token>,
    credentials: Option<Found>,
    busy: bool,
}

/// What the source of credentials has for a registry.
#[derive(Clone)]
enum Found {
    /// This, or nothing.
    Credentials(Option<Credentials>),
    /// It cannot say, and why. Much that is public can be read all the same.
    Trouble(Arc<CredentialError>),
}

/// What is known about the registries that a client talks to.
pub(super) struct Auth {
    source: Arc<dyn CredentialSource>,
    known: Mutex<BTreeMap<Origin, Known>>,
    idle: Condvar,
}

impl Auth {
    pub(super) fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self { source, known: Mutex::default(), idle: Condvar::new() }
    }

    /// What to send with a first request: nothing, unless this registry has asked before.
    pub(super) fn ready(
        &self,
        http: &Http,
        realm: &Realm<'_>,
        scopes: &Scopes,
    ) -> Result<Option<Authorization>, Cause> {
        let turn = self.take_turn(&realm.origin)?;
        let challenge = match turn.with(|known| (known.challenge.clone(), known.token(scopes))) {
            (_, Some(value)) => return Ok(Some(Authorization { value, fresh: false })),
            (None, None) => return Ok(None),
            (Some(challenge), None) => challenge,
        };
        self.answer(http, realm, scopes, &challenge, &turn).map(Some)
    }

    /// What to send after a 401: `used` is what was sent with the refused request.
    pub(super) fn challenged(
        &self,
        http: &Http,
        realm: &Realm<'_>,
        scopes: &Scopes,
        headers: &HeaderMap,
        used: Option<&Authorization>,
    ) -> Result<Authorization, Refused> {
        if used.is_some_and(|used| used.fresh) {
            return Err(self.trouble(&realm.origin).map_or(Refused::Again, Refused::Failed));
        }
        let texts: Vec<String> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let challenge = Challenge::choose(texts.iter().map(String::as_str)).map_err(Cause::from)?;
        let turn = self.take_turn(&realm.origin)?;
        let other = turn.with(|known| {
            known.challenge = Some(challenge.clone());
            if let Some(used) = used {
                known.tokens.retain(|_, token| token.value != used.value);
            }
            known.token(scopes)
        });
        if let Some(value) = other {
            return Ok(Authorization { value, fresh: false });
        }
        Ok(self.answer(http, realm, scopes, &challenge, &turn)?)
    }

    /// Why credentials could not be read, when that may be why we are refused.
    fn trouble(&self, origin: &Origin) -> Option<Cause> {
        match self.lock().get(origin)?.credentials.as_ref()? {
            Found::Trouble(error) => Some(Cause::Credentials(error.clone())),
            Found::Credentials(_) => None,
        }
    }

    /// Waits until no other thread is authenticating with this registry.
    fn take_turn(&self, origin: &Origin) -> Result<Turn<'_>, Cause> {
        let mut known = self.lock();
        loop {
            cancel::check()?;
            let entry = known.entry(origin.clone()).or_default();
            if !entry.busy {
                entry.busy = true;
                return Ok(Turn { auth: self, origin: origin.clone() });
            }
            known = self.idle.wait_timeout(known, SLICE).expect("no panic while held").0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Origin, Known>> {
        self.known.lock().expect("no panic while held")
    }

    fn answer(
        &self,
        http: &Http,
        realm: &Realm<'_>,
        scopes: &Scopes,
        challenge: &Challenge,
        turn: &Turn<'_>,
    ) -> Result<Authorization, Cause> {
        let found = match turn.with(|known| known.credentials.clone()) {
            Some(found) => found,
            None => {
                let found = match self.source.get(realm.registry) {
                    Ok(credentials) => Found::Credentials(credentials),
                    Err(error) => Found::Trouble(Arc::new(error)),
                };
                cancel::check()?;
                turn.with(|known| known.credentials = Some(found.clone()));
                found
            }
        };
        let credentials = match (found, challenge) {
            (Found::Credentials(credentials), _) => credentials,
            (Found::Trouble(error), Challenge::Bearer { .. }) => {
                tracing::warn!(%error, registry = realm.registry, "cannot read credentials; trying without");
                None
            }
            (Found::Trouble(error), Challenge::Basic { .. }) => return Err(Cause::Credentials(error)),
        };
        let (value, life) = match (challenge, &credentials) {
            (_, Some(Credentials::Registry { token })) => (secret_header("Bearer ", token)?, None),
            (Challenge::Basic { .. }, Some(Credentials::Password { username, password })) => {
                (basic(username, password)?, None)
            }
            (Challenge::Basic { .. }, Some(Credentials::Identity { .. })) => {
                let detail = "the registry wants a password, but only an identity token is stored".to_owned();
                return Err(Cause::Unauthorized { detail });
            }
            (Challenge::Basic { .. }, None) => {
                return Err(Cause::Unauthorized { detail: "no credentials are stored for this registry".to_owned() });
            }
            (Challenge::Bearer { realm: service, service: name, scope }, credentials) => {
                let address = check_service(service, &realm.origin)?;
                let mut wanted = scopes.clone();
                wanted.add(scope.as_deref().unwrap_or_default());
                let (value, life) = fetch(http, &address, name.as_deref(), &wanted, credentials.as_ref()).map_err(
                    |cause| match cause {
                        Cause::Unauthorized { .. } => self.trouble(&realm.origin).unwrap_or(cause),
                        other => other,
                    },
                )?;
                (value, Some(life))
            }
        };
        if let Some(life) = life {
            let keep = life.saturating_sub(MARGIN).max(life / 2);
            let token = Token { value: value.clone(), renew: Instant::now() + keep };
            turn.with(|known| known.tokens.insert(scopes.clone(), token));
        }
        Ok(Authorization { value, fresh: true })
    }
}

/// Why there is nothing more to send after a 401.
pub(super) enum Refused {
    /// What was just made for it was refused.
    Again,
    /// Nothing can be made.
    Failed(Cause),
}

impl From<Cause> for Refused {
    fn from(cause: Cause) -> Self {
        Self::Failed(cause)
    }
}

impl Known {
    fn token(&self, scopes: &Scopes) -> Option<HeaderValue> {
        self.tokens.get(scopes).filter(|token| token.renew > Instant::now()).map(|token| token.value.clone())
    }
}

/// The right to authenticate with one registry; ends when dropped.
struct Turn<'a> {
    auth: &'a Auth,
    origin: Origin,
}

impl Turn<'_> {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(self.auth.lock().entry(self.origin.clone()).or_default())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.with(|known| known.busy = false);
        self.auth.idle.notify_all();
    }
}

/// The address of the token service, if it may be told secrets.
fn check_service(text: &str, registry: &Origin) -> Result<Uri, Cause> {
    let refuse = |reason| Cause::Realm { realm: text.chars().take(200).collect(), reason };
    let uri: Uri = text.parse().map_err(|_| refuse("it is not a valid address"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refuse("it names a user"));
    }
    let origin = Origin::of(&uri).ok_or_else(|| refuse("it is not an http or https address"))?;
    if !origin.tls && origin != *registry {
        return Err(refuse("it is another host and has no TLS"));
    }
    Ok(uri)
}

/// Asks a token service (distribution's token and OAuth2 specifications).
fn fetch(
    http: &Http,
    address: &Uri,
    service: Option<&str>,
    scopes: &Scopes,
    credentials: Option<&Credentials>,
) -> Result<(HeaderValue, Duration), Cause> {
    let texts = scopes.texts();
    let bytes = match credentials {
        Some(Credentials::Identity { token, .. }) => {
            let mut form = format!(
                "grant_type=refresh_token&client_id=rbuild&refresh_token={}",
                location::escape_query(token.expose())
            );
            for (name, value) in service.iter().map(|service| ("service", *service)) {
                form.push_str(&format!("&{name}={}", location::escape_query(value)));
            }
            form.push_str(&format!("&scope={}", location::escape_query(&texts.join(" "))));
            // The form itself is the secret, so it must not go further than the service's own origin.
            let origin = Origin::of(address).ok_or(Cause::Location(location::BadLocation::Missing))?;
            http.may_carry_credentials(&origin)?;
            let mut call = Call::new(Method::POST, address.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            call.payload = Payload::Bytes(form.as_bytes());
            let reply = http.send_unredirected(&call)?;
            if reply.status == 200 { reply.into_bytes(MAX_ANSWER)? } else { return Err(refused(reply.into_error())) }
        }
        other => {
            let mut pairs: Vec<(&str, &str)> = service.iter().map(|service| ("service", *service)).collect();
            pairs.extend(texts.iter().map(|scope| ("scope", scope.as_str())));
            let password = match other {
                Some(Credentials::Password { username, password }) => {
                    pairs.push(("account", username));
                    Some(basic(username, password)?)
                }
                _ => None,
            };
            let call = Call::new(Method::GET, location::with_query(address, &pairs)?);
            let reply = http.send(&call, password.as_ref())?;
            if reply.status == 200 { reply.into_bytes(MAX_ANSWER)? } else { return Err(refused(reply.into_error())) }
        }
    };
    read_token(&bytes)
}

/// A token service that says no to who we are means that credentials are wrong or missing.
fn refused(cause: Cause) -> Cause {
    match cause {
        Cause::Status { status: 400 | 403, detail, .. } => Cause::Unauthorized { detail },
        other => other,
    }
}

fn read_token(bytes: &[u8]) -> Result<(HeaderValue, Duration), Cause> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<Secret>,
        #[serde(default)]
        access_token: Option<Secret>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: Answer =
        serde_json::from_slice(bytes).map_err(|error| Cause::Token(escaped(error.to_string().as_bytes())))?;
    let nonempty = |token: Option<Secret>| token.filter(|token| !token.expose().is_empty());
    let token = nonempty(answer.token)
        .or(nonempty(answer.access_token))
        .ok_or_else(|| Cause::Token("its answer has no token".to_owned()))?;
    let life = answer.expires_in.filter(|seconds| *seconds > 0).map_or(DEFAULT_LIFE, Duration::from_secs);
    // Clocks and services err: nothing is believed for longer than a day.
    Ok((secret_header("Bearer ", &token)?, life.min(Duration::from_secs(86_400))))
}

fn basic(username: &str, password: &Secret) -> Result<HeaderValue, Cause> {
    secret_header("Basic ", &Secret::new(STANDARD.encode(format!("{username}:{}", password.expose()))))
}

fn secret_header(scheme: &str, secret: &Secret) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{}", secret.expose()))
        .map_err(|_| Cause::Token("it has characters that a header must not have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_merge_by_resource() {
        let mut scopes = Scopes::push("a/b").and_pull("c");
        scopes.add("repository:a/b:push,pull,delete registry:catalog:* junk");
        assert_eq!(scopes.texts(), ["registry:catalog:*", "repository:a/b:delete,pull,push", "repository:c:pull"]);
        assert_eq!(Scopes::pull("h:5000/x").texts(), ["repository:h:5000/x:pull"]);
    }

    #[test]
    fn passwords_go_to_tls_or_the_registry_itself() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        let plain = origin("http://127.0.0.1:5000/");
        let tls = origin("https://r.example/");
        for (realm, registry, fine) in [
            ("https://auth.example/token", &tls, true),
            ("https://auth.example/token", &plain, true),
            ("http://127.0.0.1:5000/token", &plain, true),
            ("http://127.0.0.1:5001/token", &plain, false),
            ("http://r.example/token", &tls, false),
            ("https://u:p@auth.example/token", &tls, false),
            ("file:///etc/passwd", &tls, false),
            ("/token", &tls, false),
            ("", &tls, false),
        ] {
            assert_eq!(check_service(realm, registry).is_ok(), fine, "{realm} for {registry}");
        }
    }

    #[test]
    fn token_answers() {
        let life = |text: &str| read_token(text.as_bytes()).map(|(_, life)| life.as_secs()).ok();
        assert_eq!(life(r#"{"token":"t"}"#), Some(60));
        assert_eq!(life(r#"{"access_token":"t","expires_in":300,"issued_at":"2020"}"#), Some(300));
        assert_eq!(life(r#"{"token":"t","expires_in":99999999999}"#), Some(86_400));
        assert_eq!(life(r#"{"token":"","access_token":"u"}"#), Some(60));
        for bad in ["{}", "", "<html>", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":5}"#] {
            assert!(read_token(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(0u8.., 0..300)) {
            drop(read_token(&bytes));
        }
    }
}
