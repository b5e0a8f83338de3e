//! Whom to believe, and how to get there: every place in which a host's settings say how its registries are reached.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::bench::Bench;
use crate::peers::has;
use crate::registry::{Guarded, Registry};
use crate::server::{Answer, Server};

/// A guarded registry, which holds `lib/app:1`, and a configuration that opens it.
struct Scene {
    guarded: Guarded,
}

impl Scene {
    fn new() -> Option<Self> {
        let guarded = Guarded::new()?;
        let auth = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"dTpwYXNzOndvcmQ=\"}}}}}}", guarded.host);
        guarded.bench.context("docker", [("config.json", &auth)]);
        let name = guarded.registry.name("lib/app:1");
        let _tagged = guarded.bench.rbuild(["tag", "busybox", &name]).run().ok();
        let _pushed = guarded.rbuild(&["push", &name]).run().ok();
        Some(Self { guarded })
    }

    /// Files below a directory that stands for `$XDG_CONFIG_HOME`.
    fn settings(&self, files: &[(&str, String)]) -> PathBuf {
        let dir = self.guarded.bench.path("settings");
        let _old = std::fs::remove_dir_all(&dir);
        for (file, text) in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    /// Pulls a name into a new store, with these settings and variables.
    fn pull(&self, name: &str, files: &[(&str, String)], variables: &[(&str, &str)]) -> crate::bench::Ran {
        let settings = self.settings(files).display().to_string();
        let store = self.guarded.bench.path("puller");
        let mut call = self.guarded.rbuild_at(&store, &["pull", "-q", name]).env("XDG_CONFIG_HOME", &settings);
        for (variable, value) in variables {
            call = call.env(variable, value);
        }
        let ran = call.run();
        let _gone = std::fs::remove_dir_all(&store);
        ran
    }
}

#[test]
fn certificates_are_found_where_other_tools_have_them() {
    let Some(scene) = Scene::new() else { return };
    let (name, host) = (scene.guarded.registry.name("lib/app:1"), scene.guarded.host.clone());
    let ca = std::fs::read_to_string(&scene.guarded.ca).unwrap();
    let refused = scene.pull(&name, &[], &[]).fails(1).says("certificate");
    assert!(!refused.stderr.contains("pass"), "{}", refused.stderr);
    let certs = |place: &str| (format!("{place}/certs.d/{host}/ca.crt"), ca.clone());
    let hosts = |text: String| (format!("containerd/certs.d/{host}/hosts.toml"), text);
    let ca_path = &scene.guarded.ca;
    for (what, (file, text), works) in [
        ("docker's certs.d", certs("docker"), true),
        ("podman's certs.d", certs("containers"), true),
        ("another host's", ("docker/certs.d/other.example:5000/ca.crt".to_owned(), ca.clone()), false),
        ("hosts.toml", hosts(format!("server = \"https://{host}\"\nca = \"{ca_path}\"\n")), true),
        ("hosts.toml trusts everybody", hosts(format!("[host.\"https://{host}\"]\nskip_verify = true\n")), true),
        (
            "insecure-registries",
            ("docker/daemon.json".to_owned(), format!("{{\"insecure-registries\": [\"{host}\"]}}")),
            true,
        ),
        (
            "a network",
            ("docker/daemon.json".to_owned(), "{\"insecure-registries\": [\"127.0.0.0/8\"]}".to_owned()),
            true,
        ),
        (
            "registries.conf",
            (
                "containers/registries.conf".to_owned(),
                format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"),
            ),
            true,
        ),
    ] {
        let ran = scene.pull(&name, &[(&file, text)], &[]);
        assert_eq!(ran.code == 0, works, "{what}: {}", ran.stderr);
    }
    // What OpenSSL and Go read is read here: a bundle, or directories of files.
    let hashed = scene.guarded.bench.context("hashed", [("unused", "")]);
    let sum = Command::new("openssl")
        .args(["x509", "-hash", "-noout", "-in"])
        .arg(&scene.guarded.ca)
        .output()
        .unwrap()
        .stdout;
    let sum = String::from_utf8(sum).unwrap();
    std::fs::write(hashed.join(format!("{}.0", sum.trim())), &ca).unwrap();
    let hashed = hashed.display().to_string();
    for (variable, value, works) in [
        ("SSL_CERT_FILE", scene.guarded.ca.as_str(), true),
        ("SSL_CERT_FILE", "/dev/null", false),
        ("SSL_CERT_DIR", hashed.as_str(), true),
        ("SSL_CERT_DIR", &format!("/nonexistent:{hashed}"), true),
        ("SSL_CERT_DIR", "/nonexistent", false),
    ] {
        let ran = scene.pull(&name, &[], &[(variable, value)]);
        assert_eq!(ran.code == 0, works, "{variable}={value}: {}", ran.stderr);
    }
}

#[test]
fn what_containerd_may_not_push_to_is_not_pushed_to() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let (name, host) = (registry.name("lib/app:1"), format!("127.0.0.1:{}", registry.port()));
    let _tagged = bench.rbuild(["tag", "busybox", &name]).run().ok();
    let context = bench.context("app", [("Dockerfile", "FROM busybox\nRUN echo was built\n")]);
    let with = |capabilities: &str, args: &[&str]| {
        let text = format!("server = \"http://{host}\"\ncapabilities = [{capabilities}]\n");
        let settings = bench.context("settings", [(&*format!("containerd/certs.d/{host}/hosts.toml"), text.as_str())]);
        bench.rbuild(args).env("XDG_CONFIG_HOME", &settings.display().to_string())
    };
    let refused = with("\"pull\", \"resolve\"", &["push", &name]).run().fails(1);
    let refused = refused.says("hosts.toml leaves push out of the capabilities of 127.0.0.1");
    assert!(refused.stderr.contains(&format!("[registry.\"{host}\"]")), "{}", refused.stderr);
    let build = ["build", "--progress=plain", "--push", "-t", &name, context.to_str().unwrap()];
    let refused = with("\"pull\"", &build).run().fails(1).says("leaves push out");
    assert!(!refused.stderr.contains("was built"), "it is refused before anything is built: {}", refused.stderr);
    let _pushed = with("\"pull\", \"push\"", &["push", &name]).run().ok();
    let _pulled = with("\"pull\", \"resolve\"", &["pull", &name]).run().ok();
}

#[test]
fn mirrors_of_containerd_and_podman_are_asked_as_they_are_set() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let name = registry.name("hub/lib/app:1");
    let _tagged = bench.rbuild(["tag", "busybox", &name]).run().ok();
    let _pushed = bench.rbuild(["push", &name]).run().ok();
    // A front whose API is below /sub: it takes only who sends the header, and hands everything on.
    let (port, seen) = (registry.port(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    let front = Server::start(move |request| {
        log.lock().unwrap().push(request.path.clone());
        match (request.header("x-team"), request.path.strip_prefix("/sub/v2/lib/")) {
            (Some("ours"), Some(rest)) => {
                Answer::new(307).with("Location", format!("http://127.0.0.1:{port}/v2/hub/lib/{rest}"))
            }
            _ => Answer::new(403),
        }
    });
    let at = |file: &str, text: &str| {
        let settings = bench.path("settings");
        let _old = std::fs::remove_dir_all(&settings);
        let path = settings.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        settings.display().to_string()
    };
    let pull = |settings: &str, name: &str| {
        let store = bench.path("puller");
        let _old = std::fs::remove_dir_all(&store);
        bench.rbuild_at(&store, ["pull", "-q", name]).env("XDG_CONFIG_HOME", settings).run()
    };
    let host = &front.host;
    let toml = "containerd/certs.d/x.invalid/hosts.toml";
    let with_header = format!("[host.\"http://{host}/sub\"]\n[host.\"http://{host}/sub\".header]\nx-team = \"ours\"\n");
    let _below_a_path = pull(&at(toml, &with_header), "x.invalid/lib/app:1").ok();
    assert!(seen.lock().unwrap().iter().all(|path| path.starts_with("/sub/v2/lib/app/")), "{seen:?}");
    let _no_header = pull(&at(toml, &format!("[host.\"http://{host}/sub\"]\n")), "x.invalid/lib/app:1").fails(1);
    let own_path = format!("[host.\"http://127.0.0.1:{port}/v2/hub\"]\noverride_path = true\n");
    let _api_said_whole = pull(&at(toml, &own_path), "x.invalid/lib/app:1").ok();
    let resolve_only =
        format!("[host.\"http://127.0.0.1:{port}/v2/hub\"]\noverride_path = true\ncapabilities = [\"resolve\"]\n");
    let _not_for_pulling = pull(&at(toml, &resolve_only), "x.invalid/lib/app:1").fails(1);

    let conf = "containers/registries.conf";
    let mirror = format!(
        "[[registry]]\nprefix = \"x.invalid/lib\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:{port}/hub/lib\"\ninsecure = true\n"
    );
    let _mirrored = pull(&at(conf, &mirror), "x.invalid/lib/app:1").ok();
    let rewritten =
        format!("[[registry]]\nprefix = \"*.invalid\"\nlocation = \"127.0.0.1:{port}/hub\"\ninsecure = true\n");
    let _elsewhere = pull(&at(conf, &rewritten), "x.invalid/lib/app:1").ok();
    let drop_in = at("containers/registries.conf.d/10.conf", &rewritten);
    let _dropped_in = pull(&drop_in, "a.b.invalid/lib/app:1").ok();
    let blocked = format!("{rewritten}blocked = true\n");
    let _blocked = pull(&at(conf, &blocked), "x.invalid/lib/app:1").fails(1).says("blocks");
}

#[test]
fn proxies_are_those_that_go_programs_use() {
    let Some(bench) = Bench::new() else { return };
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let proxy = Server::start(move |request| {
        log.lock().unwrap().push(format!("{} {}", request.method, request.path));
        Answer::new(403)
    });
    let through = format!("http://{}", proxy.host);
    let pull = |name: &str, variables: &[(&str, &str)]| {
        asked.lock().unwrap().clear();
        let mut call = bench.rbuild(["pull", "-q", name]);
        for (variable, value) in variables {
            call = call.env(variable, value);
        }
        let ran = call.run().fails(1);
        (asked.lock().unwrap().join(","), ran.stderr)
    };
    let name = "r.invalid:5000/app:1";
    for (variables, proxied) in [
        (vec![("https_proxy", through.as_str())], true),
        (vec![("HTTPS_PROXY", through.as_str())], true),
        (vec![("HTTPS_PROXY", proxy.host.as_str())], true),
        // TLS is asked of it, so this is not its proxy.
        (vec![("http_proxy", through.as_str())], false),
        (vec![("HTTPS_PROXY", through.as_str()), ("NO_PROXY", "invalid")], false),
        (vec![("HTTPS_PROXY", through.as_str()), ("no_proxy", ".invalid")], false),
        (vec![("HTTPS_PROXY", through.as_str()), ("NO_PROXY", "r.invalid:5000")], false),
        (vec![("HTTPS_PROXY", through.as_str()), ("NO_PROXY", "r.invalid:5001,10.0.0.0/8")], true),
        (vec![("HTTPS_PROXY", through.as_str()), ("NO_PROXY", "*")], false),
    ] {
        let (asked, said) = pull(name, &variables);
        match proxied {
            true => assert_eq!(
                (asked.as_str(), said.contains("proxy")),
                ("CONNECT r.invalid:5000", true),
                "{variables:?}: {said}"
            ),
            false => assert_eq!(asked, "", "{variables:?}: {said}"),
        }
    }
    // Addresses in networks, and loopback, which is never proxied.
    let network = [("HTTPS_PROXY", through.as_str()), ("NO_PROXY", "127.0.0.0/8,192.0.2.0/24")];
    assert_eq!(pull("127.0.0.1:1/app:1", &[network[0]]).0, "");
    assert_eq!(pull("198.51.100.7:5000/app:1", &network).0, "CONNECT 198.51.100.7:5000");
}
