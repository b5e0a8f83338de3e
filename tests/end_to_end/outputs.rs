//! What becomes of a build's result: in registries, in archives, in Docker, with notes and attestations.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bench::Bench;
use crate::peers::{has, run};
use crate::registry::{Guarded, Registry, make_certificate};

/// A context with one layer of files and one of a step.
fn context(bench: &Bench) -> PathBuf {
    bench.context("ctx", [("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo made > /g\n"), ("f", "f\n")])
}

pub(crate) fn raw(name: &str) -> Value {
    let text =
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("docker://{name}")));
    serde_json::from_str(&text).expect("JSON")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).expect("JSON")
}

#[test]
fn a_build_pushes_all_its_names_and_tells_what_it_made() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let names = ["team/app:1", "team/app:2", "other/app:1"].map(|name| registry.name(name));
    let ran = bench.rbuild(["build", "--push", "--metadata-file=m.json", "--annotation=org.x=y"]);
    let _pushed = ran.args(names.iter().flat_map(|name| ["-t", name])).arg(context(&bench)).run().ok();
    let metadata = json(&bench.path("m.json"));
    assert_eq!(metadata["image.name"].as_str().unwrap().split(',').count(), 3);
    for name in &names {
        let seen = run(Command::new("skopeo").args(["inspect", "--tls-verify=false"]).arg(format!("docker://{name}")));
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["Digest"], metadata["containerimage.digest"]);
        assert_eq!(raw(name)["annotations"], serde_json::json!({"org.x": "y"}));
    }
    // The second repository takes the layers from the first; none is sent twice.
    let requests = registry.requests();
    let sent = requests.iter().filter(|line| line.starts_with("PUT") && line.contains("/other/app/blobs/")).count();
    let mounted = requests.iter().filter(|line| line.starts_with("POST") && line.contains("mount=")).count();
    assert_eq!((sent, mounted), (0, 4), "{requests:#?}");
    // What was kept is what was pushed.
    let before = requests.len();
    let _again = bench.rbuild(["push", &names[0]]).run().ok();
    assert!(registry.requests()[before..].iter().all(|line| !line.starts_with("POST")), "a blob was sent again");
}

#[test]
fn the_right_to_push_is_asked_for_before_anything_is_built() {
    // The registry is to end before the bench looks for what is left.
    let Some(Guarded { bench, registry, ca, host }) = Guarded::new() else { return };
    let name = registry.name("team/app:1");
    let push = || bench.rbuild(["build", "--progress=plain", "--push", "-t", &name]).arg(context(&bench));
    // Nobody vouches for the registry, then nobody for us.
    let ran = push().run().fails(1).says("certificate");
    assert!(!ran.stderr.contains("[2/3]"), "{}", ran.stderr);
    let ran = push().env("SSL_CERT_FILE", &ca).run().fails(1).says("login");
    assert!(!ran.stderr.contains("[2/3]"), "{}", ran.stderr);
    let login = |password: &str| {
        bench.rbuild(["login", "-u", "u", "--password-stdin", &host]).env("SSL_CERT_FILE", &ca).input(password).run()
    };
    let _wrong = login("nonsense").fails(1);
    let _right = login("pass:word\n").ok();
    let _pushed = push().env("SSL_CERT_FILE", &ca).run().ok();
    // The same by our configuration file, which other stores read as well.
    let config = format!("[registry.\"{host}\"]\nca = [\"{ca}\"]\n");
    std::fs::write(bench.path("config.toml"), config).unwrap();
    let file = bench.path("config.toml").display().to_string();
    let _pulled = bench.rbuild_at(&bench.path("other"), ["pull", &name]).env("RBUILD_CONFIG", &file).run().ok();
    let _out = bench.rbuild(["logout", &host]).run().ok();
    let ran = bench.rbuild_at(&bench.path("third"), ["pull", &name]).env("RBUILD_CONFIG", &file).run().fails(1);
    assert!(!ran.stderr.contains("pass:word"), "{}", ran.stderr);
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") {
        return;
    }
    let [registry, mirror] = ["registry", "mirror"].map(|dir| Registry::start(&bench.path(dir)));
    let _tagged = bench.rbuild(["tag", "busybox", &registry.name("lib/base:1")]).run().ok();
    let _pushed = bench.rbuild(["push", &registry.name("lib/base:1")]).run().ok();
    let config = |location: String| {
        std::fs::write(
            bench.path("config.toml"),
            format!("[registry.\"127.0.0.1:{}\"]\nmirrors = [\"http://{location}\"]\n", registry.port()),
        )
        .unwrap();
    };
    let pull = |store: &str| {
        let file = bench.path("config.toml").display().to_string();
        bench.rbuild_at(&bench.path(store), ["pull", &registry.name("lib/base:1")]).env("RBUILD_CONFIG", &file).run()
    };
    // A mirror that has nothing: the registry has it.
    config(format!("127.0.0.1:{}", mirror.port()));
    let _first = pull("one").ok();
    assert!(mirror.requests().iter().any(|line| line.contains("/v2/lib/base/manifests/1")));
    // A mirror that has it, below a prefix: the registry is not asked.
    let copied = mirror.name("hub/lib/base:1");
    let _tagged = bench.rbuild(["tag", "busybox", &copied]).run().ok();
    let _copied = bench.rbuild(["push", &copied]).run().ok();
    config(format!("127.0.0.1:{}/hub", mirror.port()));
    let before = registry.requests().len();
    let _second = pull("two").ok();
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn reproducible_images_do_not_depend_on_store_time_or_the_way_a_base_came() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _saved = bench.rbuild(["save", "-o", "base.tar", "busybox"]).run().ok();
    let other = bench.path("other");
    let _loaded = bench.rbuild_at(&other, ["load", "-i", "base.tar"]).run().ok();
    let context = context(&bench);
    let mut archives = Vec::new();
    // Each keeps its layers in its own way, and compresses with as many threads as it likes.
    let probe = bench.rbuild_at(&bench.path("probe"), ["load", "-i", "base.tar"]).env("RBUILD_SNAPSHOTTER", "erofs");
    let tars = if probe.run().code == 0 { "erofs" } else { "directory" };
    if tars == "directory" {
        eprintln!("SKIPPED: this kernel mounts no layers that are tars");
    }
    for (store, threads, snapshotter) in [(bench.store(), "1", "directory"), (other, "4", tars)] {
        let ran = bench.rbuild_at(&store, ["build", "--reproducible", "-t", "app", "--iidfile=id"]);
        let ran = ran.env("RBUILD_SNAPSHOTTER", snapshotter);
        let ran = ran.args(["-o", "type=oci,dest=a.tar", "-o", "type=image"]).arg(&context);
        let _built = ran.env("RAYON_NUM_THREADS", threads).run().ok();
        archives.push((std::fs::read(bench.path("a.tar")).unwrap(), std::fs::read(bench.path("id")).unwrap()));
        // Built again later, without any cache, it is still the same; files that a step makes now are from then.
        let times = bench.rbuild_at(&store, ["run", "--rm", "--network=none", "app", "stat", "-c", "%Y", "/f", "/g"]);
        assert_eq!(times.run().ok().stdout, "0\n0\n");
    }
    assert!(archives[0] == archives[1], "an imported and a loaded base gave two images");
}

#[test]
fn provenance_is_attached_as_buildkit_attaches_it() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let name = registry.name("team/app:1");
    let build = |more: &[&str]| {
        let ran = bench.rbuild(["build", "-t", &name, "--push", "--build-arg", "PASS=hunter2"]).args(more);
        let _built = ran.arg(context(&bench)).run().ok();
        raw(&name)
    };
    let plain = build(&[]);
    assert!(plain["manifests"].is_null(), "attestations only where they are asked for");
    for (mode, shows) in [("mode=min", false), ("mode=max,builder-id=https://ci.example/7,reproducible=true", true)] {
        let index = build(&["--provenance", mode]);
        let [image, attestation] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
        let notes = &attestation["annotations"];
        assert_eq!(notes["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(notes["vnd.docker.reference.digest"], image["digest"]);
        let repository = registry.name("team/app");
        let manifest = raw(&format!("{repository}@{}", attestation["digest"].as_str().unwrap()));
        let layer = &manifest["layers"][0];
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
        let blob = layer["digest"].as_str().unwrap().replace(':', "-");
        let blob = registry.blobs().into_iter().find(|path| path.to_string_lossy().contains(&blob[7..])).unwrap();
        let statement = json(&blob);
        let subject = image["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(statement["subject"][0]["digest"]["sha256"], subject);
        let definition = &statement["predicate"]["buildDefinition"];
        assert_eq!(definition["resolvedDependencies"][0]["uri"], "pkg:docker/busybox@latest?platform=linux%2Famd64");
        assert_eq!(statement.to_string().contains("hunter2"), shows, "{statement}");
        let details = &statement["predicate"]["runDetails"];
        assert_eq!(details["builder"]["id"], if shows { "https://ci.example/7" } else { "" });
        assert_eq!(details["metadata"]["buildkit_hermetic"], false, "a step had a network");
        assert_eq!(details["metadata"]["buildkit_reproducible"], shows);
        let lines = details["metadata"]["buildkit_metadata"]["source"]["locations"].as_object();
        assert_eq!(lines.is_some_and(|lines| !lines.is_empty()), shows, "{details}");
    }
    // Whoever pulls gets the image, not what is said about it.
    let _pulled = bench.rbuild_at(&bench.path("other"), ["pull", &name]).run().ok();
    let ran = bench.rbuild_at(&bench.path("other"), ["run", "--rm", "--network=none", &name, "cat", "/g"]);
    assert_eq!(ran.run().ok().stdout, "made\n");
}

/// A Docker daemon of the test's own.
pub(crate) struct Dockerd {
    child: Child,
    socket: PathBuf,
    /// Where it speaks TLS, and has its certificates.
    port: u16,
    certificates: PathBuf,
}

impl Dockerd {
    /// Starts one, or says why the test is skipped.
    pub(crate) fn start(bench: &Bench) -> Option<Self> {
        if !has("dockerd") || !has("docker") {
            return None;
        }
        let dir = bench.path("docker");
        std::fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("docker.sock");
        let certificates = dir.join("certificates");
        std::fs::create_dir_all(&certificates).unwrap();
        make_certificate(&certificates);
        for (from, to) in [("ca.crt", "ca.pem"), ("server.crt", "cert.pem"), ("server.key", "key.pem")] {
            std::fs::copy(certificates.join(from), certificates.join(to)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
        let child = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .args([path("data-root", "data"), path("exec-root", "exec"), path("pidfile", "pid")])
            .arg(format!("--host=unix://{}", socket.display()))
            .args([&format!("--host=tcp://127.0.0.1:{port}"), "--tlsverify"])
            .args([path("tlscacert", "certificates/ca.pem"), path("tlscert", "certificates/cert.pem")])
            .arg(path("tlskey", "certificates/key.pem"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = Self { child, socket, port, certificates };
        for _ in 0..600 {
            if daemon.docker(["version"]).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success() {
                return Some(daemon);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("SKIPPED: dockerd does not start here: {}", std::fs::read_to_string(dir.join("log")).unwrap());
        None
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) fn docker<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]).args(args).stdin(Stdio::null());
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.child.wait();
    }
}

#[test]
fn docker_gets_the_layers_that_it_lacks() {
    let Some(bench) = Bench::with_busybox() else { return };
    let Some(daemon) = Dockerd::start(&bench) else { return };
    let build = |text: &str| {
        let context = bench.context("ctx", [("Dockerfile", text)]);
        let ran = bench.rbuild(["build", "--progress=plain", "--load", "-t", "app:1", "--iidfile=id"]).arg(context);
        ran.env("DOCKER_HOST", &daemon.host()).run().ok().stderr
    };
    let said = build("FROM busybox\nRUN echo 1 > /f\nCMD [\"cat\", \"/f\"]\n");
    assert!(said.contains("2 layers sent, 0 were there"), "{said}");
    let said = build("FROM busybox\nRUN echo 1 > /f\nRUN echo 2 >> /f\nCMD [\"cat\", \"/f\"]\n");
    assert!(said.contains("1 layers sent, 2 were there"), "{said}");
    let id = run(&mut daemon.docker(["image", "inspect", "--format={{.Id}}", "app:1"]));
    assert_eq!(id.trim(), std::fs::read_to_string(bench.path("id")).unwrap());
    let ran = run(&mut daemon.docker(["run", "--rm", "--network=none", "app:1"]));
    assert_eq!(ran, "1\n2\n");
    // What it has is whole: it comes back as it went.
    run(daemon.docker(["save", "-o"]).arg(bench.path("back.tar")).arg("app:1"));
    let other = bench.path("other");
    let _loaded = bench.rbuild_at(&other, ["load", "-i", "back.tar"]).run().ok();
    let ran = bench.rbuild_at(&other, ["run", "--rm", "--network=none", "app:1"]).run().ok();
    assert_eq!(ran.stdout, "1\n2\n");
    // Over the network, where both ends prove who they are.
    let load = |certificates: &Path| {
        let ran = bench.rbuild(["build", "--load", "-t", "far:1", "--label=far=yes"]).arg(bench.path("ctx"));
        let ran = ran.env("DOCKER_HOST", &format!("tcp://127.0.0.1:{}", daemon.port)).env("DOCKER_TLS_VERIFY", "1");
        ran.env("DOCKER_CERT_PATH", &certificates.display().to_string()).run()
    };
    let said = load(&daemon.certificates).ok().stderr;
    assert!(said.contains("0 layers sent, 3 were there"), "{said}");
    assert_eq!(run(&mut daemon.docker(["run", "--rm", "--network=none", "far:1"])), "1\n2\n");
    std::fs::create_dir_all(bench.path("nothing")).unwrap();
    let _stranger = load(&bench.path("nothing")).fails(1).says("no Docker daemon answers");
    let _far = bench
        .rbuild(["build", "--load"])
        .arg(bench.path("ctx"))
        .env("DOCKER_HOST", "ssh://host")
        .run()
        .fails(1)
        .says("ssh:// cannot be used");
    let _nobody = bench
        .rbuild(["build", "--load"])
        .arg(bench.path("ctx"))
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .run()
        .fails(1)
        .says("no Docker daemon answers");
}

#[test]
fn files_of_several_platforms_are_split_or_must_not_meet() {
    let Some(bench) = Bench::new() else { return };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n";
    let dir = bench.context("ctx", [("Dockerfile", text), ("amd64/a", "a"), ("arm64/b", "b")]);
    let build =
        |output: &str| bench.rbuild(["build", "--platform=linux/amd64,linux/arm64", "-o", output]).arg(&dir).run();
    let _split = build("type=local,dest=split").ok();
    assert!(bench.path("split/linux_amd64/a").exists() && bench.path("split/linux_arm64/b").exists());
    let _merged = build("type=local,dest=merged,platform-split=false").ok();
    assert!(bench.path("merged/a").exists() && bench.path("merged/b").exists());
    std::fs::write(dir.join("arm64/a"), "other").unwrap();
    let _met = build("type=local,dest=met,platform-split=false").fails(1).says("cannot overwrite /a from linux/amd64");
    assert!(!bench.path("met").exists());
}

/// Inode and change time of a file: whether it is the same one, untouched.
fn identity(path: &Path) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::symlink_metadata(path).unwrap();
    (stat.ino(), stat.ctime(), stat.ctime_nsec())
}

#[test]
fn only_files_that_changed_are_written_into_a_directory() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox AS b\nCOPY f g same /o/\nRUN ln /o/f /o/linked && ln -s f /o/link && chmod 750 /o/g\nFROM scratch\nCOPY --from=b /o /\n";
    let dir = bench.context("ctx", [("Dockerfile", text), ("f", "ffff"), ("g", "gggg"), ("same", "same")]);
    let build = |more: &str| bench.rbuild(["build", "-o", &format!("type=local,dest=out{more}")]).arg(&dir).run();
    let _first = build("").ok();
    let out = bench.path("out");
    let (g, same) = (identity(&out.join("g")), identity(&out.join("same")));
    // Same size, other bytes; and a file that is not from here.
    std::fs::write(dir.join("g"), "GGGG").unwrap();
    std::fs::write(out.join("other"), "mine").unwrap();
    std::fs::create_dir(out.join("more")).unwrap();
    let _second = build("").ok();
    assert_eq!(identity(&out.join("same")), same, "it is as it was, and nobody touched it");
    assert_ne!(identity(&out.join("g")).0, g.0);
    assert_eq!(std::fs::read_to_string(out.join("g")).unwrap(), "GGGG");
    assert_eq!(std::fs::read_to_string(out.join("other")).unwrap(), "mine");
    // Somebody else's mode, name or kind is put right.
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(out.join("g"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::hard_link(out.join("same"), bench.path("elsewhere")).unwrap();
    std::fs::remove_file(out.join("link")).unwrap();
    std::fs::create_dir(out.join("link")).unwrap();
    let _third = build("").ok();
    assert_eq!(std::fs::metadata(out.join("g")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::metadata(out.join("same")).unwrap().nlink(), 1, "another name of it is no part of the result");
    assert_eq!(std::fs::read_link(out.join("link")).unwrap(), Path::new("f"));
    assert_eq!(std::fs::metadata(out.join("f")).unwrap().ino(), std::fs::metadata(out.join("linked")).unwrap().ino());
    // What the result lacks goes only where that is asked for.
    let _whole = build(",mode=delete").ok();
    assert!(!out.join("other").exists() && !out.join("more").exists() && out.join("same").exists());
    let _outside = bench
        .rbuild(["build", "-o", "type=local,dest=/nonexistent/rbuild,mode=delete"])
        .arg(&dir)
        .run()
        .fails(2)
        .says("--allow=buildx.local.delete");
}

#[test]
fn what_is_attested_about_files_lies_beside_them() {
    let Some(bench) = Bench::new() else { return };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n";
    let dir = bench.context("ctx", [("Dockerfile", text), ("amd64/d/a", "a"), ("arm64/b", "b")]);
    let attested = ["build", "--provenance=true", "--sbom=true"];
    let _local = bench.rbuild(attested).args(["--platform=linux/amd64", "-o", "out"]).arg(&dir).run().ok();
    let (provenance, sbom) = (json(&bench.path("out/provenance.json")), json(&bench.path("out/sbom.spdx.json")));
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(sbom["predicateType"], "https://spdx.dev/Document");
    // printf a | sha256sum
    let digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    assert_eq!(provenance["subject"], serde_json::json!([{"name": "d/a", "digest": {"sha256": digest}}]));
    // Platforms that share a directory have files of their own there.
    let both = ["--platform=linux/amd64,linux/arm64", "-o"];
    let _merged =
        bench.rbuild(attested).args(both).arg("type=local,dest=both,platform-split=false,attestation-prefix=x-");
    let _merged = _merged.arg(&dir).run().ok();
    let names = |dir: &str| {
        let mut names: Vec<String> = std::fs::read_dir(bench.path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("both"),
        [
            "b",
            "d",
            "x-provenance.linux_amd64.json",
            "x-provenance.linux_arm64.json",
            "x-sbom.spdx.linux_amd64.json",
            "x-sbom.spdx.linux_arm64.json"
        ]
    );
    let _split = bench.rbuild(attested).args(both).arg("type=local,dest=both,mode=delete").arg(&dir).run().ok();
    assert_eq!(names("both"), ["linux_amd64", "linux_arm64"]);
    assert_eq!(names("both/linux_arm64"), ["b", "provenance.json", "sbom.spdx.json"]);
    let _tar =
        bench.rbuild(attested).args(["--platform=linux/arm64", "-o", "type=tar,dest=out.tar"]).arg(&dir).run().ok();
    let listed = run(Command::new("tar").arg("-tvf").arg(bench.path("out.tar")));
    assert!(
        listed.lines().count() == 3 && listed.contains("-rw------- 0/0") && listed.contains(" sbom.spdx.json"),
        "{listed}"
    );
}

#[test]
fn the_store_knows_an_image_by_its_digest_where_that_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    let dir = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "f")]);
    let build = |output: &str| {
        let _built = bench.rbuild(["build", "--metadata-file=made", "-o", output]).arg(&dir).run().ok();
        json(&bench.path("made"))["containerimage.digest"].as_str().unwrap().to_owned()
    };
    let digest = build("type=image,name=app:1,name-canonical=true");
    let ran = bench.rbuild(["inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", "app:1"]).run().ok();
    assert_eq!(ran.stdout, format!("[app:1] [app@{digest}]\n"));
    let dangling = build("type=image,dangling-name-prefix=moby-dangling");
    let name = format!("moby-dangling@{dangling}");
    let ran = bench.rbuild(["inspect", "-f", "{{.RepoTags}}", &name]).run().ok();
    assert_eq!(ran.stdout, "[app:1]\n", "it is the same image");
}
