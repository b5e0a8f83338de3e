//! `--cache-to` and `--cache-from`: what one store made, another does not make again.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, Ran};
use crate::peers::{has, run};
use crate::registry::{Cable, Registry};

/// A registry with a base image, and stores that have nothing.
struct Site {
    /// Ends before the bench looks what is left.
    registry: Registry,
    bench: Bench,
}

impl Site {
    fn new() -> Option<Self> {
        let bench = Bench::with_busybox()?;
        if !has("docker-registry") {
            return None;
        }
        let registry = Registry::start(&bench.path("registry"));
        let base = registry.name("base:1");
        let _named = bench.rbuild(["tag", "busybox", &base]).run().ok();
        let _pushed = bench.rbuild(["push", &base]).run().ok();
        Some(Self { bench, registry })
    }

    fn store(&self, name: &str) -> PathBuf {
        self.bench.path(format!("store-{name}"))
    }

    /// A project of two stages: what the first makes is only copied from.
    fn project(&self, extra: &str) -> PathBuf {
        let base = self.registry.name("base:1");
        let dockerfile = format!(
            "FROM {base} AS build\nCOPY a /a\nRUN cat /proc/uptime > /stamp && head -c 300000 /dev/urandom > /big\n\
             FROM {base}\nRUN cat /proc/uptime > /own\nCOPY --from=build /stamp /stamp\n{extra}"
        );
        self.bench.context("ctx", [("Dockerfile", dockerfile.as_str()), ("a", "1")])
    }

    fn build(&self, store: &str, context: &Path, args: &[&str]) -> Ran {
        let call = self.bench.rbuild_at(&self.store(store), ["build", "--progress=plain", "-t", "app"]);
        call.args(args).arg(context).run()
    }

    fn image_id(&self, store: &str) -> String {
        self.bench.rbuild_at(&self.store(store), ["images", "-q", "--no-trunc", "app"]).run().ok().stdout
    }

    fn shell(&self, store: &str, script: &str) -> String {
        let args = ["run", "--rm", "--network=none", "app", "sh", "-c", script];
        self.bench.rbuild_at(&self.store(store), args).run().ok().stdout
    }

    fn spec(&self, tail: &str) -> String {
        format!("type=registry,ref={}{tail}", self.registry.name("app:cache"))
    }
}

/// How many steps ran; base images and contexts are none.
fn ran_steps(ran: &Ran) -> usize {
    ran.stderr.lines().filter(|line| line.contains(" DONE ")).count()
}

#[test]
fn a_second_store_runs_nothing_and_gives_the_same_image() {
    let Some(site) = Site::new() else { return };
    let context = site.project("RUN echo end >> /own\n");
    for (number, tail) in
        [",mode=max", ",mode=max,image-manifest=false", ",mode=max,oci-mediatypes=false,compression=zstd"]
            .into_iter()
            .enumerate()
    {
        let (first, second) = (format!("a{number}"), format!("b{number}"));
        let _made = site.build(&first, &context, &["--cache-to", &site.spec(tail)]).ok();
        let again = site.build(&second, &context, &["--cache-from", &site.spec("")]).ok();
        assert_eq!(again.stderr.matches("CACHED").count(), 6, "{tail}: {}", again.stderr);
        assert_eq!(site.image_id(&second), site.image_id(&first), "{tail}");
        assert_eq!(site.shell(&second, "cat /own /stamp"), site.shell(&first, "cat /own /stamp"));
    }
}

#[test]
fn what_is_not_used_is_not_fetched() {
    let Some(site) = Site::new() else { return };
    let context = site.project("RUN echo end >> /own\n");
    let _made = site.build("a", &context, &["--cache-to", &site.spec(",mode=max")]).ok();
    let before = site.registry.requests().len();
    let _again = site.build("b", &context, &["--cache-from", &site.spec("")]).ok();
    let got: Vec<String> = site.registry.requests().split_off(before);
    let blobs =
        |repository: &str| got.iter().filter(|line| line.starts_with(&format!("GET /v2/{repository}/blobs/"))).count();
    // The config; base image, three layers of the result. Nothing of the first stage, which is larger.
    assert_eq!(blobs("app"), 5, "{got:#?}");
    // A build that the store answers alone asks nobody.
    let before = site.registry.requests().len();
    let _cached = site.build("b", &context, &["--cache-from", &site.spec("")]).ok();
    let got: Vec<String> = site.registry.requests().split_off(before);
    assert!(!got.iter().any(|line| line.contains("/v2/app/")), "{got:#?}");
}

#[test]
fn a_changed_step_runs_on_what_is_fetched() {
    let Some(site) = Site::new() else { return };
    let context = site.project("RUN echo one >> /own\n");
    let _made = site.build("a", &context, &["--cache-to", &site.spec(",mode=max")]).ok();
    let context = site.project("RUN echo two >> /own\n");
    let changed = site.build("b", &context, &["--cache-from", &site.spec("")]).ok();
    let own = site.shell("b", "cat /own");
    assert!(own.ends_with("two\n"), "{own}");
    assert_eq!(own.lines().next(), site.shell("a", "cat /own").lines().next(), "an earlier step ran again");
    assert!(changed.stderr.matches("CACHED").count() >= 4, "{}", changed.stderr);
}

#[test]
fn min_has_what_is_in_the_image_and_max_has_all() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let directory = site.bench.path("caches");
    let spec = |tag: &str, mode: &str| format!("type=local,dest={},tag={tag},mode={mode}", directory.display());
    let (min, max) = (spec("small", "min"), spec("large", "max"));
    let _made = site.build("a", &context, &["--cache-to", &min, "--cache-to", &max]).ok();
    // Another COPY of the same stage: the stage's result is wanted.
    let changed = site.project("COPY --from=build /big /big\n");
    let from = |tag: &str| format!("type=local,src={},tag={tag}", directory.display());
    let _large = site.build("max", &changed, &["--cache-from", &from("large")]).ok();
    assert_eq!(site.shell("max", "md5sum < /stamp"), site.shell("a", "md5sum < /stamp"));
    let small = site.build("min", &changed, &["--cache-from", &from("small")]).ok();
    assert_eq!(site.shell("min", "cat /own"), site.shell("a", "cat /own"), "{}", small.stderr);
    // The first store has it all: its own build of the change runs one step.
    let own = site.build("a", &changed, &[]).ok();
    assert_eq!(own.stderr.matches("CACHED").count(), 5, "{}", own.stderr);
}

#[test]
fn several_caches_are_asked_in_order_and_local_ones_by_digest() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let dest = site.bench.path("cache");
    let _made = site.build("a", &context, &["--cache-to", &format!("type=local,dest={}", dest.display())]).ok();
    let index: serde_json::Value = serde_json::from_slice(&fs::read(dest.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "latest");
    let nothing = format!("type=local,src={}", site.bench.path("nothing").display());
    let right = format!("type=local,src={},digest={digest}", dest.display());
    let again = site
        .build(
            "b",
            &context,
            &["--cache-from", &nothing, "--cache-from", &site.registry.name("no/cache"), "--cache-from", &right],
        )
        .ok()
        .says("there is none yet");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert_eq!(site.image_id("b"), site.image_id("a"));
}

#[test]
fn an_image_carries_its_cache() {
    let Some(site) = Site::new() else { return };
    let context = site.project("RUN echo end >> /own\n");
    let name = site.registry.name("app:1");
    let first = site
        .bench
        .rbuild_at(&site.store("a"), ["build", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "app", "-t", &name]);
    let _made = first.arg(&context).run().ok();
    let _pushed = site.bench.rbuild_at(&site.store("a"), ["push", &name]).run().ok();
    let again = site.build("b", &context, &["--cache-from", &name, "--cache-to", "type=inline"]).ok();
    // The target is answered, so the first stage, which the image does not have, is not needed.
    assert_eq!(again.stderr.matches("CACHED").count(), 6, "{}", again.stderr);
    assert_eq!(site.image_id("b"), site.image_id("a"), "carrying a cache does not change from build to build");
    // An image of the store will do, without any registry; one built on it does not inherit its cache.
    let saved = site.bench.path("app.tar");
    let _saved = site.bench.rbuild_at(&site.store("b"), ["save", "-o"]).arg(&saved).arg("app").run().ok();
    let _loaded = site.bench.rbuild_at(&site.store("c"), ["load", "-i"]).arg(&saved).run().ok();
    let third = site.build("c", &context, &["--cache-from", "app", "--cache-to", "type=inline"]).ok();
    assert_eq!(third.stderr.matches("CACHED").count(), 6, "{}", third.stderr);
    assert_eq!(site.shell("c", "cat /own /stamp"), site.shell("a", "cat /own /stamp"));
    let child = site.bench.context("child", [("Dockerfile", "FROM app\nRUN true\n")]);
    let _child = site.build("c", &child, &[]).ok();
    let config = site.bench.rbuild_at(&site.store("c"), ["inspect", "app"]).run().ok().stdout;
    assert!(!config.contains("moby.buildkit.cache.v0"));
}

#[test]
fn imported_images_are_no_cache_unless_named() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let name = site.registry.name("app:1");
    let first = site.bench.rbuild_at(&site.store("a"), ["build", "--cache-to", "type=inline", "-t", &name]);
    let _made = first.arg(&context).run().ok();
    let _pushed = site.bench.rbuild_at(&site.store("a"), ["push", &name]).run().ok();
    let _pulled = site.bench.rbuild_at(&site.store("b"), ["pull", &name]).run().ok();
    let fresh = site.build("b", &context, &[]).ok();
    assert_eq!(fresh.stderr.matches("CACHED").count(), 0, "{}", fresh.stderr);
}

#[test]
fn skopeo_reads_and_copies_a_cache() {
    let Some(site) = Site::new() else { return };
    if !has("skopeo") {
        return;
    }
    let context = site.project("");
    let _made = site.build("a", &context, &["--cache-to", &site.spec(",mode=max")]).ok();
    let raw = run(Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{}", site.registry.name("app:cache"))));
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let unpacked = |layer: &serde_json::Value| layer["annotations"]["containerd.io/uncompressed"].is_string();
    assert!(manifest["layers"].as_array().unwrap().iter().all(unpacked), "{raw}");
    let layout = site.bench.path("copied");
    run(Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false"])
        .arg(format!("docker://{}", site.registry.name("app:cache")))
        .arg(format!("oci:{}:latest", layout.display())));
    let again = site.build("b", &context, &["--cache-from", &format!("type=local,src={}", layout.display())]).ok();
    assert_eq!(again.stderr.matches("CACHED").count(), 5, "{}", again.stderr);
}

#[test]
fn a_registry_that_dies_while_fetching_costs_time_only() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let _made = site.build("a", &context, &["--cache-to", &site.spec(",mode=max")]).ok();
    // Enough for manifest and config, not for the layers.
    let cable = Cable::to(&site.registry, 200_000);
    let cut = format!("127.0.0.1:{}/app:cache", cable.port);
    let again = site.build("b", &context, &["--cache-from", &cut]).ok().says("going on without");
    assert!(ran_steps(&again) >= 3, "{}", again.stderr);
    assert_ne!(site.shell("b", "cat /own"), "");
    // What came half is no poison: the whole cache serves afterwards.
    let _verified = site.bench.rbuild_at(&site.store("b"), ["cache", "verify"]).run().ok();
    let _healed = site.build("c", &context, &["--cache-from", &site.spec("")]).ok();
    assert_eq!(site.image_id("c"), site.image_id("a"));
}

#[test]
fn damaged_layers_are_refused() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let _made = site.build("a", &context, &["--cache-to", &site.spec(",mode=max")]).ok();
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    for path in site.registry.blobs() {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) && size(&path) < 200_000 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let again = site.build("b", &context, &["--cache-from", &site.spec("")]).ok().says("going on without");
    assert!(ran_steps(&again) >= 1, "{}", again.stderr);
    let _verified = site.bench.rbuild_at(&site.store("b"), ["cache", "verify"]).run().ok();
    assert_ne!(site.shell("b", "cat /own"), site.shell("a", "cat /own"));
}

#[test]
fn garbage_is_refused_with_a_warning() {
    let Some(site) = Site::new() else { return };
    let context = site.project("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let body = "<html>busy</html>";
            let status = if request[..length].starts_with(b"GET") { "200 OK" } else { "403 Forbidden" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    let from = format!("127.0.0.1:{port}/app:cache");
    let _built = site.build("a", &context, &["--cache-from", &from]).ok().says("going on without");
    let to = format!("type=registry,ref={from}");
    let context = site.project("RUN true\n");
    let _kept = site.build("a", &context, &["--cache-to", &to]).ok().says("cannot write the cache to registry");
    let _told = site.build("a", &context, &["--cache-to", &format!("{to},ignore-error=false")]).fails(1);
}

#[test]
fn a_registry_that_dies_while_pushing_does_not_fail_the_build() {
    let Some(mut site) = Site::new() else { return };
    let context = site.project(
        "RUN while [ ! -e /tmp/go ]; do sleep 0.1; c=$((c+1)); [ $c -gt 80 ] && break; done; echo late > /late\n",
    );
    let spec = site.spec(",mode=max");
    let call = site.bench.rbuild_at(&site.store("a"), ["build", "--progress=plain", "-t", "app", "--cache-to", &spec]);
    let child = call.arg(&context).start();
    // Layers go while later steps run: one is there long before the build ends.
    let mut pushed = false;
    for _ in 0..300 {
        pushed = site.registry.requests().iter().any(|line| line.starts_with("PUT /v2/app/blobs/uploads/"));
        if pushed {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    site.registry.kill();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(pushed, "nothing was pushed while a step ran: {stderr}");
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("cannot write the cache to registry"), "{stderr}");
    assert!(!site.registry.requests().iter().any(|line| line.starts_with("PUT /v2/app/manifests/")));
}

#[test]
fn secrets_are_in_no_cache() {
    let Some(site) = Site::new() else { return };
    let base = site.registry.name("base:1");
    let dockerfile = format!(
        "FROM {base}\nARG TOKEN\nRUN --mount=type=secret,id=s cat /run/secrets/s | md5sum > /sum\nRUN echo $TOKEN | md5sum > /t\n"
    );
    let context = site.bench.context("secret", [("Dockerfile", dockerfile.as_str())]);
    fs::write(site.bench.path("s"), "hush-hush-4711").unwrap();
    let dest = site.bench.path("cache");
    let spec = format!("type=local,dest={},mode=max,compression=uncompressed", dest.display());
    let args = ["--secret", "id=s,src=s", "--build-arg", "TOKEN=whisper-0815", "--cache-to", &spec];
    let _made = site.build("a", &context, &args).ok();
    let grep = |text: &str| {
        let found = Command::new("grep").args(["-r", "-l", text]).arg(&dest).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    };
    assert_eq!(grep("hush-hush-4711"), "");
    assert_eq!(grep("whisper-0815"), "", "build arguments are in no cache either");
    assert_ne!(grep("cacheconfig"), "");
}

#[test]
fn wrong_specs_are_refused_by_name() {
    let Some(bench) = Bench::new() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    for (flag, spec, want) in [
        ("--cache-to", "type=gha", "type=gha is not supported"),
        ("--cache-from", "type=s3,bucket=x", "type=s3 is not supported"),
        ("--cache-to", "type=azblob,name=x", "type=azblob is not supported"),
        ("--cache-from", "type=inline", "type=registry,ref=IMAGE"),
        ("--cache-to", "type=inline,mode=max", "mode=min"),
        ("--cache-to", "type=registry", "ref is missing"),
        ("--cache-to", "type=local", "dest is missing"),
        ("--cache-from", "type=local", "src is missing"),
        ("--cache-to", "ref=a/b", "type is missing"),
        ("--cache-to", "type=registry,ref=a/b,mode=all", "want min or max"),
        ("--cache-to", "type=registry,ref=a/b,compression=estargz", "estargz cannot be written"),
        ("--cache-to", "type=registry,ref=a/b,compression-level=12", "gzip has levels 0 to 9"),
        ("--cache-to", "type=registry,ref=a/b,oci-mediatypes=false,image-manifest=true", "needs oci-mediatypes=true"),
        ("--cache-to", "type=registry,ref=a/b,colour=red", "unknown attribute"),
        ("--cache-from", "type=registry,ref=a/UPPER", "ref=a/UPPER"),
        ("--cache-from", "type=local,src=x,digest=sha256:1", "digest=sha256:1"),
    ] {
        let _refused = bench.rbuild(["build", flag, spec]).arg(&context).run().fails(2).says(want);
    }
}
