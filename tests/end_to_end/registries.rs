//! Registries as a host's settings describe them, credentials as its helpers keep them, and what is said of packages.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::bench::Bench;
use crate::peers::{has, run};
use crate::registry::{Guarded, Registry};

#[test]
fn what_docker_knows_of_mirrors_holds_here_too() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let copied = registry.name("library/only-here:1");
    let _tagged = bench.rbuild(["tag", "busybox", &copied]).run().ok();
    let _pushed = bench.rbuild(["push", &copied]).run().ok();
    let settings =
        bench.context("settings", [("docker/daemon.json", ""), ("containerd/certs.d/x.example/hosts.toml", "")]);
    let daemon = format!("{{\"registry-mirrors\": [\"http://127.0.0.1:{}\"]}}", registry.port());
    std::fs::write(settings.join("docker/daemon.json"), daemon).unwrap();
    let hosts = format!("[host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", registry.port());
    std::fs::write(settings.join("containerd/certs.d/x.example/hosts.toml"), hosts).unwrap();
    let settings = settings.display().to_string();
    for (store, name) in [("one", "only-here:1"), ("two", "x.example/library/only-here:1")] {
        let _pulled = bench.rbuild_at(&bench.path(store), ["pull", name]).env("XDG_CONFIG_HOME", &settings).run().ok();
        let listed = bench.rbuild_at(&bench.path(store), ["images"]).run().ok().stdout;
        assert!(listed.contains("only-here"), "{listed}");
    }
}

#[test]
fn what_registries_conf_blocks_is_neither_pulled_nor_pushed() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "[[registry]]\nlocation = \"shut.example\"\nblocked = true\n[[registry]]\nprefix = \"shut.example/open\"\n\
                location = \"127.0.0.1:1/open\"\n";
    let settings = bench.context("settings", [("containers/registries.conf", text)]).display().to_string();
    let said = "registries.conf blocks shut.example";
    let _pull = bench.rbuild(["pull", "shut.example/a"]).env("XDG_CONFIG_HOME", &settings).run().fails(1).says(said);
    let _tagged = bench.rbuild(["tag", "busybox", "shut.example/a/b:1"]).run().ok();
    let _push =
        bench.rbuild(["push", "shut.example/a/b:1"]).env("XDG_CONFIG_HOME", &settings).run().fails(1).says(said);
    let elsewhere = bench.rbuild(["pull", "shut.example/open/a"]).env("XDG_CONFIG_HOME", &settings).run().fails(1);
    assert!(!elsewhere.stderr.contains("blocks"), "a longer prefix says otherwise: {}", elsewhere.stderr);
}

#[test]
fn credentials_are_kept_by_a_helper_that_is_on_the_path() {
    // The registry is to end before the bench looks for what is left.
    let Some(Guarded { bench, registry, ca, host }) = Guarded::new() else { return };
    let helper = bench.context("bin", []).join("docker-credential-drawer");
    let drawer = bench.path("drawer");
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat >{0};; get) cat {0} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};; erase) rm -f {0};; esac\n",
        drawer.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = bench.context("docker", [("config.json", "{\"credsStore\": \"drawer\", \"kept\": true}")]);
    // Not the last directory of the path, and not the first.
    let path = format!("/usr/sbin:{}:/usr/bin:/bin", helper.parent().unwrap().display());
    let config_dir = config.display().to_string();
    let with = |args: &[&str]| {
        bench.rbuild(args).env("PATH", &path).env("DOCKER_CONFIG", &config_dir).env("SSL_CERT_FILE", &ca)
    };
    let _in = with(&["login", "-u", "u", "--password-stdin", &host]).input("pass:word").run().ok();
    assert!(std::fs::read_to_string(&drawer).unwrap().contains("pass:word"));
    let file = std::fs::read_to_string(config.join("config.json")).unwrap();
    assert!(!file.contains("pass") && file.contains("kept"), "{file}");
    let name = registry.name("team/app:1");
    let _tagged = bench.rbuild(["tag", "busybox", &name]).run().ok();
    let _pushed = with(&["push", &name]).run().ok();
    let _out = with(&["logout", &host]).run().ok();
    assert!(!drawer.exists());
    let _refused = with(&["push", &name]).run().fails(1);
}

#[test]
fn packages_are_listed_and_attached() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let name = registry.name("team/app:1");
    let context = bench.context(
        "ctx",
        [
            ("Dockerfile", "FROM busybox\nCOPY root /\n"),
            ("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            (
                "root/var/lib/dpkg/status",
                "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n",
            ),
            ("root/app/Cargo.lock", "version = 3\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n"),
        ],
    );
    let mut documents = Vec::new();
    for _ in 0..2 {
        let ran = bench.rbuild(["build", "--push", "--sbom=true", "--reproducible", "-t", &name]);
        let _pushed = ran.arg(&context).run().ok();
        let raw = |name: &str| -> Value {
            let shown = run(Command::new("skopeo")
                .args(["inspect", "--raw", "--tls-verify=false"])
                .arg(format!("docker://{name}")));
            serde_json::from_str(&shown).unwrap()
        };
        let attestation = raw(&name)["manifests"][1]["digest"].as_str().unwrap().to_owned();
        let layer = raw(&format!("{}@{attestation}", registry.name("team/app")))["layers"][0].clone();
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], "https://spdx.dev/Document");
        let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let blob = registry.blobs().into_iter().find(|path| path.to_string_lossy().contains(&hex)).unwrap();
        documents.push(std::fs::read(blob).unwrap());
    }
    assert_eq!(documents[0], documents[1], "equal images have equal lists");
    let statement: Value = serde_json::from_slice(&documents[0]).unwrap();
    let document = &statement["predicate"];
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    let urls: Vec<&str> = document["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(urls, ["pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12", "pkg:cargo/serde@1.0.1"]);
    let old =
        bench.context("old", [("Dockerfile", "FROM scratch\nCOPY Packages /var/lib/rpm/\n"), ("Packages", "bdb")]);
    let _refused =
        bench.rbuild(["build", "--sbom=true", "-o", "type=oci,dest=x.tar"]).arg(old).run().fails(1).says("Berkeley DB");
    assert!(!bench.path("x.tar").exists());
}
