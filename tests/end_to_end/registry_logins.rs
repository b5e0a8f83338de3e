//! Who may come in: `login` and `logout` with passwords, helpers and a terminal, and tokens that run out on the way.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::peers::has;
use crate::registry::{Guarded, Registry};
use crate::server::{Answer, Request, Server};
use crate::terminal::Terminal;
use crate::transfers::noise;

/// Docker's configuration, as it is by now.
fn config(bench: &Bench) -> Value {
    serde_json::from_slice(&std::fs::read(bench.path("docker/config.json")).unwrap()).unwrap()
}

/// A program named `docker-credential-NAME` in a directory of its own; gives the path to look in.
fn helper(bench: &Bench, name: &str, script: &str) -> String {
    let place = bench.context("helpers", []).join(format!("docker-credential-{name}"));
    std::fs::write(&place, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", place.parent().unwrap().display())
}

#[test]
fn login_and_logout_say_and_keep_what_docker_does() {
    let Some(guarded) = Guarded::new() else { return };
    let host = guarded.host.as_str();
    let ran = guarded.rbuild(&["login", "-u", "u", "-p", "pass:word", host]).run().ok();
    assert_eq!(ran.stdout, "Login Succeeded\n");
    let file = guarded.bench.path("docker/config.json");
    assert_eq!(
        ran.stderr,
        format!(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n\
             WARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            file.display()
        )
    );
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(config(&guarded.bench)["auths"][host]["auth"], STANDARD.encode("u:pass:word"));
    // By its address, as people copy it; what is kept is tried first.
    let ran = guarded.rbuild(&["login", &format!("https://{host}/v2/")]).run().ok();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("Login Succeeded\n", "Authenticating with existing credentials...\n")
    );
    // What is refused is not kept, and what was kept stays.
    let ran = guarded.rbuild(&["login", "-u", "u", "--password-stdin", host]).input("wrong").run().fails(1);
    assert!(ran.stderr.contains("authentication required") && !ran.stderr.contains("stored"), "{}", ran.stderr);
    assert_eq!(config(&guarded.bench)["auths"][host]["auth"], STANDARD.encode("u:pass:word"));
    let _empty =
        guarded.rbuild(&["login", "-u", "u", "--password-stdin", host]).input("\n").run().fails(1).says("empty");
    for wrong in [&["login", "--password-stdin", host][..], &["login", "-u", "u", "-p", "x", "--password-stdin", host]]
    {
        assert_ne!(guarded.rbuild(wrong).input("x").run().code, 0, "{wrong:?}");
    }
    let _nobody = guarded.rbuild(&["login", "-u", "u", host]).run().fails(1).says("no terminal");

    let out = || guarded.rbuild(&["logout", &format!("https://{host}")]).run().ok().stdout;
    assert_eq!(out(), format!("Removing login credentials for {host}\n"));
    assert_eq!(out(), format!("Not logged in to {host}\n"));
    assert_eq!(config(&guarded.bench)["auths"], json!({}));
    let _gone = guarded.rbuild(&["pull", &guarded.registry.name("x/y:1")]).run().fails(1).says("rbuild login");
}

#[test]
fn what_is_missing_is_asked_for_on_a_terminal_and_the_password_is_not_shown() {
    let Some(guarded) = Guarded::new() else { return };
    if !has("tmux") {
        return;
    }
    let script = format!(
        "env DOCKER_CONFIG={} SSL_CERT_FILE={} {} login {}; echo ended $?; sleep 60",
        guarded.bench.path("docker").display(),
        guarded.ca,
        env!("CARGO_BIN_EXE_rbuild"),
        guarded.host
    );
    let terminal = Terminal::start(&guarded.bench, 90, 20, &script);
    terminal.screen("Username:");
    terminal.tmux(&["send-keys", "u", "Enter"]);
    terminal.screen("Password:");
    terminal.tmux(&["send-keys", "pass:word", "Enter"]);
    let screen = terminal.screen("ended").join("\n");
    assert!(screen.contains("Login Succeeded") && screen.contains("ended 0"), "{screen}");
    assert!(!screen.contains("pass:word"), "{screen}");
    assert_eq!(config(&guarded.bench)["auths"][&guarded.host]["auth"], STANDARD.encode("u:pass:word"));
}

#[test]
fn a_helper_of_the_registry_comes_before_the_common_one_and_both_before_the_file() {
    let Some(guarded) = Guarded::new() else { return };
    let host = guarded.host.as_str();
    let name = guarded.registry.name("team/app:1");
    let _tagged = guarded.rbuild(&["tag", "busybox", &name]).run().ok();
    let answer = |user: &str, secret: &str| {
        format!("cat >/dev/null; echo '{{\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}'")
    };
    let path = helper(&guarded.bench, "right", &answer("u", "pass:word"));
    helper(&guarded.bench, "wrong", &answer("u", "nonsense"));
    helper(&guarded.bench, "none", "echo credentials not found in native keychain; exit 1");
    let bad = json!({"auth": STANDARD.encode("u:nonsense")});
    for (config, works) in [
        (json!({"credHelpers": {host: "right"}, "credsStore": "wrong", "auths": {host: bad}}), true),
        (json!({"credHelpers": {"other.example": "wrong"}, "credsStore": "right", "auths": {host: bad}}), true),
        (json!({"credHelpers": {host: "wrong"}, "credsStore": "right"}), false),
        (json!({"credsStore": "none", "auths": {host: {"auth": STANDARD.encode("u:pass:word")}}}), false),
        (json!({"auths": {format!("https://{host}/v1/"): {"auth": STANDARD.encode("u:pass:word")}}}), true),
    ] {
        guarded.bench.context("docker", [("config.json", &config.to_string())]);
        let ran = guarded.rbuild(&["push", &name]).env("PATH", &path).run();
        assert_eq!(ran.code == 0, works, "{config}: {}", ran.stderr);
        assert!(!ran.stderr.contains("pass:word") && !ran.stderr.contains("nonsense"), "{}", ran.stderr);
    }
}

#[test]
fn helpers_that_fail_or_talk_nonsense_are_named_and_what_is_public_needs_none() {
    let Some(guarded) = Guarded::new() else { return };
    let public = Registry::start(&guarded.bench.path("public"));
    let private = guarded.registry.name("team/app:1");
    for name in [&private, &public.name("app:1")] {
        let _tagged = guarded.rbuild(&["tag", "busybox", name]).run().ok();
    }
    for (script, said) in [
        ("echo the key ring is locked; exit 1", "the key ring is locked"),
        ("exit 3", "without saying why"),
        ("echo hunter2 hunter2", "not a credential"),
        ("head -c 3000000 /dev/zero", ""),
        ("kill -9 $$", "without saying why"),
    ] {
        let path = helper(&guarded.bench, "odd", script);
        guarded.bench.context("docker", [("config.json", "{\"credsStore\":\"odd\"}")]);
        let ran = guarded.rbuild(&["push", &private]).env("PATH", &path).run().fails(1);
        assert!(ran.stderr.contains("docker-credential-odd") && ran.stderr.contains(said), "{script}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        let _public = guarded.rbuild(&["push", &public.name("app:1")]).env("PATH", &path).run().ok();
    }
    guarded.bench.context("docker", [("config.json", "{\"credsStore\":\"absent\"}")]);
    let _absent = guarded.rbuild(&["push", &private]).run().fails(1).says("not installed");
}

/// A registry that lets in whoever has a token of its own token service, which gives one to `u` with `pass:word`.
#[derive(Default)]
struct Tokens {
    /// By repository and digest: `team/app@sha256:…`.
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    session: Vec<u8>,
    /// For how many requests each token is good still.
    tokens: Vec<u32>,
    /// How many requests a token is good for.
    life: u32,
    /// What was asked for with tokens.
    asked: Vec<String>,
    mounts: bool,
}

fn letting_in(state: &Mutex<Tokens>, request: &Request) -> Answer {
    let mut state = state.lock().unwrap();
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let host = request.header("host").unwrap().to_owned();
    if path == "/token" {
        state.asked.push(query.to_owned());
        if request.header("authorization") != Some(&format!("Basic {}", STANDARD.encode("u:pass:word"))) {
            return Answer::new(401);
        }
        let life = state.life;
        state.tokens.push(life);
        let token = format!("t{}", state.tokens.len() - 1);
        return Answer::body(200, json!({"token": token, "expires_in": 3600}).to_string());
    }
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer t")?.parse::<usize>().ok());
    let Some(uses) = token.and_then(|token| state.tokens.get_mut(token)).filter(|uses| **uses > 0) else {
        let realm = format!("Bearer realm=\"http://{host}/token\",service=\"here\"");
        return Answer::new(401).with("Www-Authenticate", realm);
    };
    *uses -= 1;
    let item = path.rsplit('/').next().unwrap().to_owned();
    let rest = path.trim_start_matches("/v2/");
    let repository = rest.split("/blobs/").next().unwrap().split("/manifests/").next().unwrap().to_owned();
    let known = |found: Option<&Vec<u8>>, kind: &str| match found {
        None => Answer::new(404),
        Some(bytes) => {
            let digest = rbuild_image::Digest::sha256(bytes).to_string();
            Answer::body(200, bytes.clone()).with("Content-Type", kind).with("Docker-Content-Digest", digest)
        }
    };
    match request.method.as_str() {
        "GET" | "HEAD" if path.contains("/manifests/") => {
            known(state.manifests.get(&item), "application/vnd.oci.image.manifest.v1+json")
        }
        "GET" | "HEAD" if path.contains("/blobs/sha256:") => {
            known(state.blobs.get(&format!("{repository}@{item}")), "application/octet-stream")
        }
        "PUT" if path.contains("/manifests/") => {
            let digest = rbuild_image::Digest::sha256(&request.body).to_string();
            state.manifests.insert(digest.clone(), request.body.clone());
            state.manifests.insert(item, request.body.clone());
            Answer::new(201).with("Docker-Content-Digest", digest)
        }
        "POST" => {
            if let Some((digest, from)) = query.strip_prefix("mount=").and_then(|rest| rest.split_once("&from=")) {
                let from = from.replace("%2F", "/");
                let there = state.blobs.get(&format!("{from}@{digest}")).cloned();
                if let (true, Some(bytes)) = (state.mounts, there) {
                    state.blobs.insert(format!("{repository}@{digest}"), bytes);
                    return Answer::new(201).with("Docker-Content-Digest", digest);
                }
            }
            state.session.clear();
            Answer::new(202).with("Location", format!("/v2/{repository}/blobs/uploads/s"))
        }
        "PATCH" => {
            state.session.extend(&request.body);
            let range = format!("0-{}", state.session.len() - 1);
            Answer::new(202).with("Location", path).with("Range", range)
        }
        "PUT" => {
            state.session.extend(&request.body);
            let bytes = std::mem::take(&mut state.session);
            let digest = rbuild_image::Digest::sha256(&bytes).to_string();
            assert!(query.contains(&digest), "{query}");
            state.blobs.insert(format!("{repository}@{digest}"), bytes);
            Answer::new(201)
        }
        "DELETE" => Answer::new(204),
        _ => Answer::new(if path == "/v2/" { 200 } else { 404 }),
    }
}

struct TokenScene {
    bench: Bench,
    server: Server,
    state: Arc<Mutex<Tokens>>,
}

impl TokenScene {
    /// An image with one layer of three megabytes, and a registry whose tokens are good for so many requests.
    fn new(life: u32) -> Option<Self> {
        let bench = Bench::new()?;
        let state = Arc::new(Mutex::new(Tokens { life, ..Tokens::default() }));
        let shared = Arc::clone(&state);
        let server = Server::start(move |request| letting_in(&shared, request));
        let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY big /\n")]);
        std::fs::write(context.join("big"), noise(5, 3 << 20)).unwrap();
        let auths = json!({"auths": {&server.host: {"auth": STANDARD.encode("u:pass:word")}}});
        bench.context("docker", [("config.json", &auths.to_string())]);
        Some(Self { bench, server, state })
    }

    fn rbuild(&self, store: &Path, args: &[&str]) -> crate::bench::Call {
        let config: PathBuf = self.bench.path("docker");
        self.bench.rbuild_at(store, args).env("DOCKER_CONFIG", &config.display().to_string())
    }
}

#[test]
fn tokens_that_run_out_while_an_image_moves_are_renewed() {
    // Refused in the middle of everything, a stream of three megabytes included; then never.
    for life in [2, 3, 1000] {
        let Some(scene) = TokenScene::new(life) else { return };
        let name = format!("{}/team/app:1", scene.server.host);
        let store = scene.bench.store();
        let ran = scene.rbuild(&store, &["build", "-q", "--push", "-t", &name]).arg(scene.bench.path("ctx")).run();
        let _pushed = ran.ok();
        let _pulled = scene.rbuild(&scene.bench.path("other"), &["pull", &name]).run().ok();
        let state = scene.state.lock().unwrap();
        assert!(
            state
                .asked
                .iter()
                .all(|query| query.contains("service=here") && query.contains("scope=repository:team/app:pull"))
        );
        match life {
            1000 => assert_eq!(state.tokens.len(), 2, "one to push, one to pull: {:?}", state.asked),
            _ => assert!(state.tokens.len() > 3, "{:?}", state.asked),
        }
        assert_eq!(state.blobs.len(), 2);
    }
}

#[test]
fn blobs_are_mounted_from_where_they_are_and_sent_where_that_is_refused() {
    for mounts in [true, false] {
        let Some(scene) = TokenScene::new(1000) else { return };
        scene.state.lock().unwrap().mounts = mounts;
        let store = scene.bench.store();
        let [one, two] = ["one", "two"].map(|repository| format!("{}/{repository}/app:1", scene.server.host));
        let ran = scene.rbuild(&store, &["build", "-q", "--push", "-t", &one]).arg(scene.bench.path("ctx")).run();
        let _pushed = ran.ok();
        let _tagged = scene.rbuild(&store, &["tag", &one, &two]).run().ok();
        let seen = scene.server.lines().len();
        let _copied = scene.rbuild(&store, &["push", &two]).run().ok();
        let state = scene.state.lock().unwrap();
        assert_eq!(state.blobs.len(), 4, "two in each repository");
        let sent = scene.server.lines()[seen..].iter().filter(|line| line.starts_with("PATCH")).count();
        assert_eq!(sent, usize::from(!mounts), "{:?}", &scene.server.lines()[seen..]);
    }
}
