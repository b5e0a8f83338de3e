//! Against a scripted registry: resuming over processes, lost answers, forgotten sessions, tokens that expire,
//! cancellation, proxies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_image::credentials::{CredentialError, CredentialSource, Credentials, Fixed, Secret};
use rbuild_image::pull::{fetch_config, pull};
use rbuild_image::push::{PushRequest, push};
use rbuild_image::registry::{
    Cancel, Cause, ClearText, Client, ClientOptions, DnsSettings, HostConfig, ProxySettings, Pushed, RetryPolicy,
    Scheme, Silent, Timeouts,
};
use rbuild_image::{AttestationForm, Descriptor, Digest, ImageRef, MediaType, Platform, assemble_attestations};

use crate::memory::{MemoryStore, TestImage, noise};
use crate::server::{Answer, Request, Server};

pub(crate) fn options() -> ClientOptions {
    let retry = RetryPolicy { first_pause: Duration::from_millis(10), ..RetryPolicy::default() };
    ClientOptions { retry, ..ClientOptions::default() }
}

pub(crate) fn name(server: &Server) -> ImageRef {
    format!("{}/app:1", server.host).parse().unwrap()
}

/// What a registry with this one image answers to a pull.
fn serve(image: &TestImage, request: &Request) -> Answer {
    let last = request.path.rsplit('/').next().unwrap();
    if request.path.contains("/manifests/") {
        return Answer::body(200, image.manifest.clone()).with("Content-Type", MediaType::OciManifest.as_str());
    }
    let Some(bytes) = last.parse().ok().and_then(|digest| image.store.get(&digest)) else {
        return Answer::new(404);
    };
    match request.range() {
        None => Answer::body(200, bytes),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::body(206, bytes[from..].to_vec()).with("Content-Range", range)
        }
    }
}

#[test]
fn r31_a_partial_blob_of_an_earlier_process_is_completed() {
    let image = Arc::new(TestImage::new("partial", &[300_000]));
    let served = image.clone();
    let server = Server::start(move |request| serve(&served, request));
    let layer = &image.layers[0];
    let bytes = image.store.get(&layer.digest).unwrap();
    let store = MemoryStore::default();
    store.put_partial(layer.digest, &bytes[..200_000]);
    Client::new(options()).fetch_blob(&name(&server), layer, &store, &Silent).unwrap();
    assert_eq!(store.get(&layer.digest).unwrap(), bytes);
    let requests = server.requests();
    assert_eq!((requests.len(), requests[0].range()), (1, Some(200_000)));

    // All bytes are there, only the last step is missing: nothing is asked for.
    let store = MemoryStore::default();
    store.put_partial(layer.digest, &bytes);
    Client::new(options()).fetch_blob(&name(&server), layer, &store, &Silent).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn r31_a_damaged_partial_blob_is_fetched_anew() {
    let image = Arc::new(TestImage::new("damaged", &[300_000]));
    let served = image.clone();
    let server = Server::start(move |request| serve(&served, request));
    let layer = &image.layers[0];
    let store = MemoryStore::default();
    store.put_partial(layer.digest, &noise("something else", 100_000));
    Client::new(options()).fetch_blob(&name(&server), layer, &store, &Silent).unwrap();
    assert!(store.get(&layer.digest).is_some());
    let ranges: Vec<_> = server.requests().iter().map(Request::range).collect();
    assert_eq!(ranges, [Some(100_000), None]);
}

#[test]
fn wrong_bytes_are_never_kept() {
    // One byte changed, at each of many places and in each kind of document.
    let image = Arc::new(TestImage::new("flips", &[3000, 10]));
    let flip = Arc::new(Mutex::new((String::new(), 0)));
    let (served, spoil) = (image.clone(), flip.clone());
    let server = Server::start(move |request| {
        let answer = serve(&served, request);
        let (what, at) = spoil.lock().unwrap().clone();
        match answer {
            Answer::Full(status, headers, mut body) if request.path.contains(&what) => {
                let length = body.len();
                body[at % length] ^= 1 << (at % 8);
                Answer::Full(status, headers, body)
            }
            other => other,
        }
    });
    let pinned = name(&server).with_digest(image.digest());
    for what in ["/manifests/", &image.config.digest.to_string(), &image.layers[0].digest.to_string()] {
        for at in (0..3000).step_by(61) {
            *flip.lock().unwrap() = (what.to_owned(), at);
            let store = MemoryStore::default();
            let error = pull(&Client::new(options()), &pinned, &Platform::host(), &store, &Silent).unwrap_err();
            let fine = matches!(*error.cause, Cause::Mismatch(_) | Cause::Corrupt { .. });
            assert!(fine, "{what} {at}: {error:?}");
            assert!(store.digests().iter().all(|digest| image.digests().contains(digest)));
            assert!(store.get(&image.digest()).is_none(), "no manifest without its blobs");
        }
    }
}

#[test]
fn a_config_alone_moves_no_layer() {
    let image = Arc::new(TestImage::new("config", &[100_000, 100_000]));
    let served = image.clone();
    let server = Server::start(move |request| serve(&served, request));
    let client = Client::new(options());
    let resolved = rbuild_image::pull::resolve(&client, &name(&server), &Platform::host()).unwrap();
    assert_eq!(resolved.descriptor().digest, image.digest());
    let (bytes, config) = fetch_config(&client, &resolved).unwrap();
    assert_eq!((Digest::sha256(bytes), config.rootfs.diff_ids.len()), (image.config.digest, 2));
    assert_eq!(server.requests().len(), 2);
}

/// A registry that takes uploads as the specification says; `spoil` may answer first.
pub(crate) fn upload_server(
    spoil: impl Fn(&Request, &Mutex<Uploads>) -> Option<Answer> + Send + Sync + 'static,
) -> Server {
    let uploads = Mutex::new(Uploads::default());
    Server::start(move |request| {
        if let Some(answer) = spoil(request, &uploads) {
            return answer;
        }
        uploads.lock().unwrap().serve(request)
    })
}

#[derive(Default)]
pub(crate) struct Uploads {
    pub(crate) sessions: Vec<Option<Vec<u8>>>,
    pub(crate) blobs: Vec<Digest>,
}

impl Uploads {
    pub(crate) fn serve(&mut self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let last = path.rsplit('/').next().unwrap();
        if request.method == "HEAD" {
            let known = last.parse().is_ok_and(|digest| self.blobs.contains(&digest));
            return Answer::new(if known { 200 } else { 404 });
        }
        if path.contains("/manifests/") {
            return Answer::new(201);
        }
        if request.method == "POST" {
            self.sessions.push(Some(Vec::new()));
            return Answer::new(202).with("Location", format!("u{}?state=a", self.sessions.len() - 1));
        }
        let index: usize = last.trim_start_matches('u').parse().unwrap();
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return Answer::new(404) };
        session.extend_from_slice(&request.body);
        let range = format!("0-{}", session.len().saturating_sub(1));
        match request.method.as_str() {
            "PUT" => {
                let wanted: Digest = query.rsplit_once("digest=").unwrap().1.parse().unwrap();
                let actual = Digest::sha256(session);
                self.sessions[index] = None;
                if wanted != actual {
                    return Answer::new(400);
                }
                self.blobs.push(actual);
                Answer::new(201).with("Docker-Content-Digest", actual.to_string())
            }
            method => Answer::new(if method == "GET" { 204 } else { 202 })
                .with("Location", format!("/v2/app/blobs/uploads/u{index}?state=b"))
                .with("Range", range),
        }
    }
}

fn upload(server: &Server, size: usize, edit: impl FnOnce(&mut ClientOptions)) -> Result<Pushed, Cause> {
    let image = TestImage::new("upload", &[size]);
    let mut options = options();
    edit(&mut options);
    let client = Client::new(options);
    client.push_blob(&name(server), &image.layers[0], &[], &image.store, &Silent).map_err(|error| *error.cause)
}

pub(crate) fn methods(server: &Server) -> String {
    server.requests().iter().map(|request| request.method.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn small_blobs_take_three_requests_and_large_ones_four() {
    let server = upload_server(|_, _| None);
    assert_eq!(upload(&server, 0, |_| {}).unwrap(), Pushed::Uploaded);
    assert_eq!(upload(&server, 1000, |_| {}).unwrap(), Pushed::Uploaded);
    assert_eq!(upload(&server, 1000, |_| {}).unwrap(), Pushed::Present);
    assert_eq!(methods(&server), "HEAD POST PUT HEAD POST PUT HEAD");
    let server = upload_server(|_, _| None);
    upload(&server, 2_000_000, |_| {}).unwrap();
    assert_eq!(methods(&server), "HEAD POST PATCH PUT");
    assert_eq!(server.requests()[2].header("content-range"), None);
    let server = upload_server(|_, _| None);
    upload(&server, 2_500_000, |options| options.upload_chunk = Some(1_000_000)).unwrap();
    assert_eq!(methods(&server), "HEAD POST PATCH PATCH PATCH PUT");
    assert_eq!(server.requests()[4].header("content-range"), Some("2000000-2499999"));
}

#[test]
fn r34_an_interrupted_upload_goes_on_where_the_registry_is() {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, uploads| {
        if request.method == "PATCH" && first.swap(false, Ordering::SeqCst) {
            // Half of it arrived, and the answer was lost.
            let mut uploads = uploads.lock().unwrap();
            let half = request.body[..request.body.len() / 2].to_vec();
            uploads.sessions[0].as_mut().unwrap().extend(half);
            return Some(Answer::Close);
        }
        None
    });
    upload(&server, 2_000_000, |_| {}).unwrap();
    assert_eq!(methods(&server), "HEAD POST PATCH GET PATCH PUT");
    let requests = server.requests();
    assert_eq!(requests[4].body.len(), 1_000_000);
    assert_eq!(requests[4].header("content-range"), Some("1000000-1999999"));
}

#[test]
fn r34_a_forgotten_session_is_begun_anew_once() {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, uploads| {
        if request.method == "PUT" && first.swap(false, Ordering::SeqCst) {
            uploads.lock().unwrap().sessions[0] = None;
        }
        None
    });
    upload(&server, 2_000_000, |_| {}).unwrap();
    assert_eq!(methods(&server), "HEAD POST PATCH PUT POST PATCH PUT");

    let server = upload_server(|request, _| (request.method == "PUT").then(|| Answer::new(404)));
    let cause = upload(&server, 1000, |_| {}).unwrap_err();
    assert!(matches!(cause, Cause::Status { status: 404, .. }), "{cause:?}");
    assert_eq!(methods(&server), "HEAD POST PUT POST PUT");
}

#[test]
fn r34_the_lost_answer_to_the_last_request_is_no_loss() {
    for size in [1000, 2_000_000] {
        let first = AtomicBool::new(true);
        let server = upload_server(move |request, uploads| {
            if request.method == "PUT" && first.swap(false, Ordering::SeqCst) {
                uploads.lock().unwrap().serve(request);
                return Some(Answer::Close);
            }
            None
        });
        upload(&server, size, |_| {}).unwrap();
        assert!(methods(&server).ends_with("PUT HEAD"), "{}", methods(&server));
    }
}

#[test]
fn a_registry_may_take_its_time_to_end_an_upload() {
    let slow = |method: &'static str| {
        upload_server(move |request, _| {
            if request.method == method {
                std::thread::sleep(Duration::from_millis(900));
            }
            None
        })
    };
    let impatient = |options: &mut ClientOptions| {
        options.retry.attempts = 1;
        options.timeouts = Timeouts {
            headers: Duration::from_millis(300),
            idle: Duration::from_millis(300),
            commit: Duration::from_secs(20),
            ..Timeouts::default()
        };
    };
    upload(&slow("PUT"), 2_000_000, impatient).unwrap();
    let cause = upload(&slow("PATCH"), 2_000_000, impatient).unwrap_err();
    assert!(matches!(cause, Cause::Timeout(_)), "{cause:?}");
}

#[test]
fn a_range_that_may_mean_one_byte_or_none_is_not_trusted() {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, _| {
        (request.method == "PATCH" && first.swap(false, Ordering::SeqCst)).then_some(Answer::Close)
    });
    upload(&server, 2_000_000, |_| {}).unwrap();
    assert_eq!(methods(&server), "HEAD POST PATCH GET POST PATCH PUT");
}

#[test]
fn a_referrer_is_listed_by_whom_the_registry_says() {
    let image = TestImage::new("referrer", &[10]);
    let subject = Descriptor::of(MediaType::OciManifest, &image.manifest);
    let attested = assemble_attestations(&subject, vec![("t".to_owned(), b"{}".to_vec())], AttestationForm::Artifact);
    let blobs = MemoryStore::default();
    for (_, bytes) in attested.layers.iter().chain([&attested.config, &attested.manifest]) {
        blobs.put(bytes);
    }
    let lines = |knows: bool| {
        let server = upload_server(move |request, _| match (request.method.as_str(), knows) {
            ("GET", _) if request.path.contains("/manifests/sha256-") => Some(Answer::new(404)),
            ("PUT", true) if request.path.contains("/manifests/sha256:") => {
                Some(Answer::new(201).with("OCI-Subject", "sha256:x"))
            }
            _ => None,
        });
        let by_digest = name(&server).with_digest(attested.manifest.0.digest);
        let request = PushRequest {
            name: &by_digest,
            tags: &[],
            media_type: &MediaType::OciManifest,
            bytes: &attested.manifest.1,
            mount_from: &[],
            there: &BTreeSet::new(),
        };
        push(&Client::new(options()), &request, &blobs, &Silent).unwrap();
        server.lines().into_iter().filter(|line| line.contains("/manifests/")).collect::<Vec<_>>()
    };
    let (own, tag) = (attested.manifest.0.digest.to_string(), subject.digest.to_string().replace(':', "-"));
    let put = format!("PUT /v2/app/manifests/{own}");
    assert_eq!(lines(true), std::slice::from_ref(&put));
    assert_eq!(lines(false), [put, format!("GET /v2/app/manifests/{tag}"), format!("PUT /v2/app/manifests/{tag}")]);
}

#[test]
fn nothing_is_named_before_it_is_there() {
    let server = upload_server(|_, _| None);
    let image = TestImage::new("order", &[10, 2_000_000, 30]);
    let request = PushRequest {
        name: &name(&server),
        tags: &["extra".to_owned()],
        media_type: &MediaType::OciManifest,
        bytes: &image.manifest,
        mount_from: &[],
        there: &BTreeSet::new(),
    };
    push(&Client::new(options()), &request, &image.store, &Silent).unwrap();
    let lines = server.lines();
    assert_eq!(lines[lines.len() - 2..], ["PUT /v2/app/manifests/1", "PUT /v2/app/manifests/extra"]);
    assert!(lines[..lines.len() - 2].iter().all(|line| line.contains("/blobs/")), "{lines:?}");

    // A blob that we do not have stops the push before anything is named.
    let server = upload_server(|_, _| None);
    let request = PushRequest { name: &name(&server), ..request };
    let error = push(&Client::new(options()), &request, &MemoryStore::default(), &Silent).unwrap_err();
    assert!(matches!(*error.cause, Cause::Storage(_)), "{error:?}");
    assert!(!server.lines().iter().any(|line| line.contains("manifests")));
}

/// A registry that wants tokens, of which each is good for so many requests.
fn token_server(image: Arc<TestImage>, uses: usize, life: u64) -> Server {
    let left = Mutex::new((0usize, 0usize));
    Server::start(move |request| {
        let authorization = request.header("authorization").unwrap_or_default().to_owned();
        let mut left = left.lock().unwrap();
        if request.path.starts_with("/token") {
            *left = (left.0 + 1, uses);
            let form = String::from_utf8_lossy(&request.body).into_owned();
            let known = authorization == "Basic dTpwdw==" || form.contains("refresh_token=id%2Btoken");
            if !known {
                return Answer::body(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#);
            }
            return Answer::body(200, format!(r#"{{"token":"t{}","expires_in":{life}}}"#, left.0));
        }
        if authorization != format!("Bearer t{}", left.0) || left.1 == 0 {
            let host = request.header("host").unwrap();
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="s x",scope="repository:app:pull""#);
            return Answer::new(401).with("WWW-Authenticate", challenge);
        }
        left.1 -= 1;
        serve(&image, request)
    })
}

fn with_credentials(server: &Server, credentials: Credentials) -> Client {
    let credentials = Arc::new(Fixed { registry: server.host.clone(), credentials });
    Client::new(ClientOptions { credentials, ..options() })
}

fn user(password: &str) -> Credentials {
    Credentials::Password { username: "u".into(), password: Secret::new(password) }
}

#[test]
fn tokens_are_fetched_once_and_renewed_when_refused() {
    let image = Arc::new(TestImage::new("token", &[1000, 2000, 3000, 4000, 5000]));
    let server = token_server(image.clone(), 1000, 300);
    let store = MemoryStore::default();
    pull(&with_credentials(&server, user("pw")), &name(&server), &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());
    let lines = server.lines();
    assert_eq!(lines[1], "GET /token?service=s%20x&scope=repository:app:pull&account=u");
    assert_eq!(lines.iter().filter(|line| line.contains("/token")).count(), 1, "{lines:?}");
    assert_eq!(server.requests()[0].header("authorization"), None, "nothing before a challenge");

    // Each token is good for two requests. One transfer at a time, so that none uses up what another just got.
    let server = token_server(image.clone(), 2, 300);
    let store = MemoryStore::default();
    let credentials = Arc::new(Fixed { registry: server.host.clone(), credentials: user("pw") });
    let client = Client::new(ClientOptions { credentials, parallel: 1, ..options() });
    pull(&client, &name(&server), &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());
    assert!(server.lines().iter().filter(|line| line.contains("/token")).count() >= 3);

    // Each token lives for a second: it is renewed before it is refused.
    let server = token_server(image.clone(), 1000, 1);
    let client = with_credentials(&server, user("pw"));
    client.fetch_manifest(&name(&server)).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    client.fetch_manifest(&name(&server)).unwrap();
    let lines = server.lines();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines[3].contains("/token"), "{lines:?}");
}

#[test]
fn wrong_and_other_credentials() {
    let image = Arc::new(TestImage::new("wrong", &[10]));
    let server = token_server(image.clone(), 10, 300);
    let error = with_credentials(&server, user("no")).resolve(&name(&server)).unwrap_err();
    assert!(matches!(&*error.cause, Cause::Unauthorized { detail } if detail == "who? (UNAUTHORIZED)"), "{error:?}");
    assert_eq!(server.requests().len(), 2);

    let identity = Credentials::Identity { username: "u".into(), token: Secret::new("id+token") };
    let server = token_server(image, 10, 300);
    with_credentials(&server, identity).resolve(&name(&server)).unwrap();
    let request = &server.requests()[1];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    let form = String::from_utf8(request.body.clone()).unwrap();
    assert!(form.starts_with("grant_type=refresh_token&") && form.contains("&service=s%20x&"), "{form}");
}

#[test]
fn what_is_public_needs_no_credential_helper() {
    struct Broken;
    impl CredentialSource for Broken {
        fn get(&self, _: &str) -> Result<Option<Credentials>, CredentialError> {
            Err(CredentialError::Helper { program: "docker-credential-x".into(), reason: "not there".into() })
        }
    }
    let image = Arc::new(TestImage::new("public", &[10]));
    let server = Server::start(move |request| {
        let host = request.header("host").unwrap();
        let authorized = request.header("authorization").is_some();
        let challenge = format!(r#"Bearer realm="http://{host}/token""#);
        match request.path.as_str() {
            path if path.starts_with("/token") => Answer::body(200, r#"{"token":"anonymous"}"#),
            path if path.contains("/secret/") => Answer::new(401).with("WWW-Authenticate", challenge),
            path if path.contains("/basic/") => Answer::new(401).with("WWW-Authenticate", "Basic realm=x"),
            _ if authorized => serve(&image, request),
            _ => Answer::new(401).with("WWW-Authenticate", challenge),
        }
    });
    let client = Client::new(ClientOptions { credentials: Arc::new(Broken), ..options() });
    client.fetch_manifest(&name(&server)).unwrap();
    for hidden in ["secret/app", "basic/app"] {
        let error = client.fetch_manifest(&format!("{}/{hidden}", server.host).parse().unwrap()).unwrap_err();
        assert!(matches!(*error.cause, Cause::Credentials(_)), "{error:?}");
    }
}

#[test]
fn tags_and_repositories_are_listed_over_pages() {
    let server = Server::start(|request| {
        let page = |names: &[&str], next: &str| {
            let key = if request.path.contains("_catalog") { "repositories" } else { "tags" };
            let answer = Answer::body(200, serde_json::json!({ "name": "app", key: names }).to_string());
            if next.is_empty() { answer } else { answer.with("Link", next) }
        };
        match request.path.as_str() {
            "/v2/app/tags/list?n=1000" => page(&["b", "a"], r#"</v2/app/tags/list?n=2&last=a>; rel="next""#),
            "/v2/app/tags/list?n=2&last=a" => page(&["c", "a"], ""),
            "/v2/_catalog?n=1000" => page(&["x/y"], ""),
            "/v2/loop/tags/list?n=1000" => page(&["a"], r#"</v2/loop/tags/list?n=1000>; rel="next""#),
            "/v2/away/tags/list?n=1000" => page(&["a"], r#"<http://elsewhere.example/v2/>; rel="next""#),
            "/v2/none/tags/list?n=1000" => Answer::body(200, r#"{"name":"none","tags":null}"#),
            _ => Answer::new(404),
        }
    });
    let client = Client::new(options());
    let tags = |repository: &str| client.tags(&format!("{}/{repository}", server.host).parse().unwrap());
    assert_eq!(tags("app").unwrap(), ["a", "b", "c"]);
    assert_eq!(tags("none").unwrap(), [""; 0]);
    assert_eq!(client.repositories(&server.host).unwrap(), ["x/y"]);
    assert!(matches!(*tags("loop").unwrap_err().cause, Cause::Listing(_)));
    assert!(matches!(*tags("away").unwrap_err().cause, Cause::Listing(_)));
    assert!(tags("missing").unwrap_err().is_not_found());
}

#[test]
fn r35_every_wait_ends_soon_after_cancellation_and_partial_data_stays() {
    let image = Arc::new(TestImage::new("cancel", &[400_000]));
    let layer = image.layers[0].clone();
    let body = image.store.get(&layer.digest).unwrap();
    type Script = Box<dyn Fn(&Request) -> Answer + Send + Sync>;
    let waits: Vec<(&str, Script)> = vec![
        ("headers", Box::new(|_| Answer::Silence)),
        ("body", Box::new(move |_| Answer::Stall(200, body.clone(), 250_000))),
        ("retry-after", Box::new(|_| Answer::new(503).with("Retry-After", "50"))),
        ("back-off", Box::new(|_| Answer::Close)),
        (
            "token",
            Box::new(|request| match request.path.starts_with("/token") {
                true => Answer::Silence,
                false => Answer::new(401).with(
                    "WWW-Authenticate",
                    format!(r#"Bearer realm="http://{}/token""#, request.header("host").unwrap()),
                ),
            }),
        ),
    ];
    for (what, script) in waits {
        let server = Server::start(script);
        // A busy machine may let us sleep longer than we asked for: the best of a few tries is what we are about.
        let best = (0..4).map(|_| cancelled_fetch(what, &server, &layer)).min().unwrap();
        assert!(best < Duration::from_millis(200), "{what} took {best:?} to end");
    }
}

/// How long it takes from asking for the end to the end.
fn cancelled_fetch(what: &str, server: &Server, layer: &Descriptor) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let retry = RetryPolicy { first_pause: Duration::from_secs(20), ..RetryPolicy::default() };
    let cancel = Cancel::when(move || asked.load(Ordering::SeqCst));
    let client = Client::new(ClientOptions { retry, cancel, ..ClientOptions::default() });
    let store = MemoryStore::default();
    let took = std::thread::scope(|threads| {
        let fetch = threads.spawn(|| {
            let error = client.fetch_blob(&name(server), layer, &store, &Silent).unwrap_err();
            (error, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!fetch.is_finished(), "{what} waits");
        let asked_at = Instant::now();
        stop.store(true, Ordering::SeqCst);
        let (error, ended) = fetch.join().unwrap();
        assert!(error.is_cancelled(), "{what}: {error:?}");
        ended - asked_at
    });
    assert_eq!(store.partial(&layer.digest), (what == "body").then_some(250_000), "{what}");
    took
}

#[test]
fn one_failed_layer_stops_the_others() {
    let image = Arc::new(TestImage::new("stop", &[10, 400_000]));
    let served = image.clone();
    let missing = image.layers[0].digest.to_string();
    let slow = image.layers[1].digest.to_string();
    let server = Server::start(move |request| {
        if request.path.ends_with(&missing) {
            std::thread::sleep(Duration::from_millis(200));
            return Answer::new(404);
        }
        if request.path.ends_with(&slow) { Answer::Silence } else { serve(&served, request) }
    });
    let start = Instant::now();
    let store = MemoryStore::default();
    let error = pull(&Client::new(options()), &name(&server), &Platform::host(), &store, &Silent).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn at_most_so_many_transfers_at_once() {
    let image = Arc::new(TestImage::new("parallel", &[1000, 2000, 3000, 4000, 5000, 6000]));
    let served = image.clone();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (now.clone(), most.clone());
    let server = Server::start(move |request| {
        let running_now = running.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(running_now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        running.fetch_sub(1, Ordering::SeqCst);
        serve(&served, request)
    });
    let client = Client::new(ClientOptions { parallel: 3, ..options() });
    pull(&client, &name(&server), &Platform::host(), &MemoryStore::default(), &Silent).unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn proxies_are_used_and_passwords_need_tls() {
    let image = Arc::new(TestImage::new("proxy", &[1000]));
    let served = image.clone();
    let proxy = Server::start(move |request| match request.method.as_str() {
        "CONNECT" => Answer::Tunnel,
        _ if request.header("authorization").is_some() => serve(&served, request),
        _ if request.path.contains("/private/") => Answer::new(401).with("WWW-Authenticate", "Basic realm=x"),
        _ => serve(&served, request),
    });
    let with = |clear_text| {
        let host = HostConfig { scheme: Scheme::Http, clear_text, ..HostConfig::default() };
        let credentials = Arc::new(Fixed { registry: "r.example:5000".into(), credentials: user("pw") });
        Client::new(ClientOptions {
            proxy: ProxySettings { http: Some(format!("http://pu:pp@{}", proxy.host)), ..ProxySettings::default() },
            hosts: [("r.example:5000".to_owned(), host)].into(),
            dns: DnsSettings { hosts: "/nonexistent".into(), resolv_conf: "/nonexistent".into(), port: 1 },
            credentials,
            ..options()
        })
    };
    let client = with(ClearText::NoCredentials);
    let fetched = client.fetch_manifest(&"r.example:5000/app:1".parse().unwrap()).unwrap();
    assert_eq!(fetched.bytes, image.manifest);
    let connect = &proxy.requests()[0];
    assert_eq!((connect.method.as_str(), connect.path.as_str()), ("CONNECT", "r.example:5000"));
    assert_eq!(connect.header("proxy-authorization"), Some("Basic cHU6cHA="));
    assert_eq!(proxy.requests()[1].header("proxy-authorization"), None);

    let private: ImageRef = "r.example:5000/private/app:1".parse().unwrap();
    let error = client.fetch_manifest(&private).unwrap_err();
    assert!(matches!(&*error.cause, Cause::ClearText { host } if host == "r.example:5000"), "{error:?}");
    assert!(proxy.requests().iter().all(|request| request.header("authorization").is_none()));
    with(ClearText::Anything).fetch_manifest(&private).unwrap();
}

#[test]
fn hosts_that_are_not_there_are_named() {
    let dns = DnsSettings { hosts: "/nonexistent".into(), resolv_conf: "/nonexistent".into(), port: 1 };
    let retry = RetryPolicy { attempts: 2, ..options().retry };
    let client = Client::new(ClientOptions { dns, retry, ..options() });
    let error = client.resolve(&"r.example/app".parse().unwrap()).unwrap_err();
    assert!(matches!(*error.cause, Cause::Resolve(_)) && error.is_unreachable(), "{error:?}");
    assert!(error.cause.to_string().starts_with("cannot look up r.example"), "{}", error.cause);

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = Client::new(options()).resolve(&format!("{closed}/app").parse().unwrap()).unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot resolve {closed}/app:latest"));
    assert!(start.elapsed() < Duration::from_secs(1), "a refused connection is not tried again");
}

#[test]
fn r33_a_descriptor_that_is_too_large_is_refused_before_a_request() {
    let server = Server::start(|_| Answer::new(500));
    let blob = Descriptor::new(MediaType::OciConfig, Digest::sha256("x"), 9 << 20);
    let error = Client::new(options()).fetch_bytes(&name(&server), &blob, 8 << 20).unwrap_err();
    assert!(matches!(*error.cause, Cause::TooLarge { .. }), "{error:?}");
    assert!(server.requests().is_empty());
}

#[test]
fn passwords_and_headers_stay_with_the_origin_that_they_are_for() {
    // The same host on another port, as a registry sends people to where its blobs are.
    let image = Arc::new(TestImage::new("redirect", &[3000]));
    let served = image.clone();
    let storage = Server::start(move |request| serve(&served, request));
    let (served, elsewhere) = (image.clone(), storage.host.clone());
    let registry = Server::start(move |request| match request.path.as_str() {
        _ if request.header("authorization") != Some("Basic dTpwdw==") => {
            Answer::new(401).with("WWW-Authenticate", "Basic realm=x")
        }
        path if path.contains("/blobs/") && path.starts_with("/v2/once/") => {
            Answer::new(307).with("Location", format!("/again{path}"))
        }
        path if path.contains("/blobs/") => {
            let path = path.replace("/again/v2/once/", "/v2/");
            Answer::new(307).with("Location", format!("http://{elsewhere}{path}"))
        }
        _ => serve(&served, request),
    });
    let headers = vec![("X-Team".to_owned(), Secret::new("ours")), ("Host".to_owned(), Secret::new("lie.example"))];
    let host = HostConfig { headers, ..HostConfig::default() };
    let client = Client::new(ClientOptions {
        credentials: Arc::new(Fixed { registry: registry.host.clone(), credentials: user("pw") }),
        hosts: [(registry.host.clone(), host)].into(),
        ..options()
    });
    for repository in ["app", "once"] {
        let store = MemoryStore::default();
        let name = format!("{}/{repository}:1", registry.host).parse().unwrap();
        pull(&client, &name, &Platform::host(), &store, &Silent).unwrap();
        assert_eq!(store.digests(), image.digests());
    }
    let seen = registry.requests();
    assert!(
        seen.iter().any(|request| request.path.starts_with("/again/") && request.header("authorization").is_some())
    );
    assert!(seen.iter().all(|request| request.header("x-team") == Some("ours")));
    assert!(seen.iter().all(|request| request.header("host") == Some(registry.host.as_str())));
    assert!(!storage.requests().is_empty());
    for request in storage.requests() {
        assert_eq!((request.header("authorization"), request.header("x-team")), (None, None), "{}", request.path);
    }
}
