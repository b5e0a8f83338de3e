//! Images between registries, archives and stores: whole, once, and the same at both ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bench::Bench;
use crate::peers::{has, run};
use crate::registry::{Cable, Registry};

/// Bytes that do not compress.
pub(crate) fn noise(mut seed: u64, size: usize) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    (0..size / 8).flat_map(|_| next()).collect()
}

/// A build of two platforms without any step to run; gives its context.
fn two_platforms(bench: &Bench) -> std::path::PathBuf {
    let text = "FROM scratch\nARG TARGETARCH\nCOPY both /both\nCOPY $TARGETARCH /own\nCMD [\"/own\"]\n";
    bench.context("ctx", [("Dockerfile", text), ("both", "both\n"), ("amd64", "a\n"), ("arm64", "b\n")])
}

fn digest(name: &str) -> String {
    let text =
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("docker://{name}")));
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("sha256:{}", out.split(' ').next().unwrap())
}

#[test]
fn an_image_of_several_platforms_keeps_its_digest_wherever_it_is_copied() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let [one, two] = ["one", "two"].map(|dir| Registry::start(&bench.path(dir)));
    let (name, other) = (one.name("team/app:1"), two.name("mirror/app:1"));
    let ran = bench.rbuild(["build", "--platform=linux/amd64,linux/arm64", "--provenance=true", "--push", "-t", &name]);
    let _pushed = ran.arg(two_platforms(&bench)).run().ok();
    let want = digest(&name);
    let copy = |from: &str, to: &str| bench.rbuild(["image", "copy", from, to]).run().ok().stdout.trim().to_owned();
    assert_eq!(copy(&name, &other), want);
    assert_eq!(digest(&other), want);
    // Within one registry nothing moves.
    let before = one.requests().len();
    assert_eq!(copy(&name, &one.name("again/app:1")), want);
    assert!(
        one.requests()[before..]
            .iter()
            .all(|line| !line.starts_with("PATCH") && !line.contains("GET /v2/team/app/blobs"))
    );
    // Out into files, and back.
    assert_eq!(copy(&other, "oci-archive:a.tar:1"), want);
    assert_eq!(copy("oci-archive:a.tar:1", "oci:layout:1"), want);
    assert_eq!(copy("oci:layout", &two.name("back/app:1")), want);
    assert_eq!(digest(&two.name("back/app:1")), want);
    // From the store of the builder, which has all of it.
    let _again = bench.rbuild(["push", &name]).run().ok();
    assert_eq!(digest(&name), want);
    assert_eq!(copy(&format!("store:{name}"), &two.name("stored/app:1")), want);

    // One platform, chosen by whoever pulls; variants of it count as it.
    let store = bench.path("puller");
    for (platform, architecture) in [("linux/arm64/v8", "arm64"), ("linux/amd64", "amd64")] {
        let pulled = bench.rbuild_at(&store, ["image", "copy", "--platform", platform, &other, "store:picked"]);
        let _pulled = pulled.run().ok();
        let _saved =
            bench.rbuild_at(&store, ["image", "copy", "--platform", platform, "store:picked", "docker-archive:p.tar"]);
        let seen = bench.rbuild_at(&store, ["inspect", "picked"]).run().ok().stdout;
        assert!(seen.contains(&format!("\"Architecture\": \"{architecture}\"")) || platform != "linux/amd64", "{seen}");
    }
    // Who has one platform of several pushes that one, and is told so; a copy is whole.
    let (one_of_two, store) = (two.name("alone/app:1"), bench.path("alone"));
    let _pulled = bench.rbuild_at(&store, ["pull", &other]).run().ok();
    let _tagged = bench.rbuild_at(&store, ["tag", &other, &one_of_two]).run().ok();
    let _pushed = bench.rbuild_at(&store, ["push", &one_of_two]).run().ok().says("Not all platforms of").says(&want);
    assert_ne!(digest(&one_of_two), want);
    let _absent = bench.rbuild(["pull", "--platform=linux/s390x", &name]).run().fails(1).says("linux/s390x");
    let shown = bench.rbuild(["manifest", "inspect", &name]).run().ok().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 4);
    let raw = bench.rbuild(["manifest", "inspect", "--raw", &name]).run().ok().stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&raw).unwrap(), shown);
    let _unknown = bench.rbuild(["image", "copy", &name, "oci:layout"]).run().fails(1).says("not empty");
}

#[test]
fn all_tags_are_pushed_and_pulled() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let name = |tag: &str| registry.name(&format!("team/app:{tag}"));
    for tag in ["1", "2"] {
        let context = bench.context(tag, [("Dockerfile", &format!("FROM busybox\nLABEL v={tag}\n"))]);
        let _built = bench.build(&name(tag), &context).ok();
    }
    let _tagged = bench.rbuild(["tag", &name("1"), &name("latest")]).run().ok();
    let pushed = bench.rbuild(["push", "-a", &registry.name("team/app")]).run().ok().stdout;
    let tags: Vec<_> = pushed.lines().filter_map(|line| line.split_once(": digest")).map(|(tag, _)| tag).collect();
    assert_eq!(tags, ["1", "2", "latest"]);
    let store = bench.path("other");
    let _pulled = bench.rbuild_at(&store, ["pull", "-a", &registry.name("team/app")]).run().ok();
    let listed = bench.rbuild_at(&store, ["images"]).run().ok().stdout;
    assert_eq!(listed.lines().filter(|line| line.contains("team/app")).count(), 3, "{listed}");
    let both = bench.rbuild(["push", &name("1"), &name("2")]).run().ok().stdout;
    assert_eq!(both.lines().count(), 2);
    let _wrong = bench.rbuild(["pull", "-a", &name("1")]).run().fails(1).says("--all-tags");
}

#[test]
fn a_killed_pull_goes_on_where_it_was_and_two_pulls_fetch_once() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY big /\n")]);
    std::fs::write(context.join("big"), noise(7, 16 << 20)).unwrap();
    let _pushed = bench.rbuild(["build", "--push", "-t", &registry.name("big:1")]).arg(&context).run().ok();

    // Two at once: the second waits for the first.
    let pulls = [0, 1].map(|_| bench.rbuild_at(&bench.path("both"), ["pull", &registry.name("big:1")]).start());
    for pull in pulls {
        assert!(pull.wait_with_output().unwrap().status.success());
    }
    // Lines with more than six digits of bytes: the layer, not the config, which everybody looks at.
    let is_layer = |line: &&str| {
        let bytes = line.rsplit("\" ").nth(1).and_then(|rest| rest.split(' ').nth(1)?.parse::<u64>().ok());
        line.contains("GET /v2/big/blobs/") && bytes.is_some_and(|bytes| bytes > 1_000_000)
    };
    let layers = |log: &str| log.lines().filter(is_layer).count();
    let log = || {
        let _settled = registry.requests();
        std::fs::read_to_string(bench.path("registry/access.log")).unwrap()
    };
    let before = log();
    assert_eq!(layers(&before), 1, "the layer came once: {before}");

    // One that is killed somewhere in the layer: the next one asks for the rest.
    let cable = Cable::to(&registry, 9 << 20);
    let store = bench.path("killed");
    let mut child = bench.rbuild_at(&store, ["pull", &format!("127.0.0.1:{}/big:1", cable.port)]).start();
    let partial = || {
        let files = std::fs::read_dir(store.join("tmp/ingest")).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
    };
    for _ in 0..600 {
        if partial() > 4 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    let _killed = child.wait().unwrap();
    let there = partial();
    assert!(there > 4 << 20, "nothing came within half a minute");
    let _pulled = bench.rbuild_at(&store, ["pull", &registry.name("big:1")]).run().ok();
    let after = log();
    let rest = after.lines().filter(|line| line.contains("/blobs/") && line.contains("\" 206 ")).count();
    assert_eq!(rest, 1, "the rest was asked for: {after}");
    let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
}

#[test]
fn a_layer_leaves_while_it_is_compressed_and_is_the_same_either_way() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY big /\nCOPY Dockerfile /small\n")]);
    std::fs::write(context.join("big"), noise(11, 6 << 20)).unwrap();
    let methods = |from: usize| -> Vec<String> {
        let blobs = registry.requests().split_off(from).into_iter().filter(|line| line.contains("/blobs/"));
        blobs.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let count = |methods: &[String], method: &str| methods.iter().filter(|known| *known == method).count();
    // Nobody knows what the large layer becomes: it is not asked for, and goes in one stream.
    let _built = bench.build("app", &context).ok();
    let _tagged = bench.rbuild(["tag", "app", &registry.name("one:1")]).run().ok();
    let _pushed = bench.rbuild(["push", &registry.name("one:1")]).run().ok();
    let streamed = methods(0);
    assert_eq!(count(&streamed, "PATCH"), 1, "{streamed:?}");
    assert_eq!(count(&streamed, "HEAD"), 2, "the small layer and the config: {streamed:?}");
    // From a store that knows it, whole.
    let _tagged = bench.rbuild(["tag", "app", &registry.name("two:1")]).run().ok();
    let seen = registry.requests().len();
    let _again = bench.rbuild(["push", &registry.name("two:1")]).run().ok();
    assert_eq!(count(&methods(seen), "HEAD"), 3);
    assert_eq!(digest(&registry.name("one:1")), digest(&registry.name("two:1")));
    // With times that are given, others make the same layers: they are asked for.
    let seen = registry.requests().len();
    for (store, repository) in [("clean-1", "three"), ("clean-2", "three"), ("clean-3", "one")] {
        let store = bench.path(store);
        let ran = bench.rbuild_at(&store, ["build", "--reproducible", "--push", "-t"]);
        let _pushed = ran.arg(registry.name(&format!("{repository}:2"))).arg(&context).run().ok();
    }
    assert_eq!(count(&methods(seen), "PATCH"), 2, "once for each repository: {:?}", methods(seen));
    assert_eq!(digest(&registry.name("three:2")), digest(&registry.name("one:2")));
    let store = bench.path("puller");
    let _pulled = bench.rbuild_at(&store, ["pull", &registry.name("one:1")]).run().ok();
    let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
}

#[test]
fn an_image_is_verified_by_building_it_again() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo made > /g\n"), ("f", "f\n")]);
    let _built = bench.rbuild(["build", "--reproducible", "-t", "app:1"]).arg(&context).run().ok();
    let ran = bench.rbuild(["verify", "app:1"]).arg(&context).run().ok();
    assert!(ran.stdout.starts_with("app:1 is reproduced: sha256:"), "{}", ran.stdout);
    std::fs::write(context.join("f"), "g\n").unwrap();
    let ran = bench.rbuild(["verify", "app:1"]).arg(&context).run().fails(1);
    assert!(ran.stdout.contains("/f: another content"), "{}", ran.stdout);
    let wild = bench.context("wild", [("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /u\n")]);
    let _built = bench.rbuild(["build", "--reproducible", "-t", "wild"]).arg(&wild).run().ok();
    let ran = bench.rbuild(["verify", "wild"]).arg(&wild).run().fails(1);
    assert!(ran.stdout.contains("/u: another content"), "{}", ran.stdout);
    let _typo = bench.rbuild(["verify", "app:1", "--push"]).arg(&context).run().fails(2);
}

#[test]
fn steps_for_other_machines_are_refused_before_the_build() {
    let Some(bench) = Bench::with_busybox() else { return };
    if std::fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|list| list.count() > 2) {
        eprintln!("SKIPPED: this machine has interpreters for foreign programs");
        return;
    }
    let text = "FROM scratch AS other\nCOPY --from=busybox / /\nRUN [\"/bin/true\"]\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let ran = bench.rbuild(["build", "--progress=plain", "--platform=linux/s390x"]).arg(context).run();
    let ran = ran.fails(1).says("cannot run programs for linux/s390x");
    assert!(!ran.stderr.contains("DONE"), "nothing was begun: {}", ran.stderr);
}

#[test]
fn one_image_in_two_forms_leaves_in_the_form_of_its_repository() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f\n")]);
    let names = ["gzip", "zstd"].map(|form| {
        let name = registry.name(&format!("{form}:1"));
        let output = format!("type=registry,name={name},compression={form},force-compression=true");
        let _pushed = bench.rbuild(["build", "-o", &output]).arg(&context).run().ok();
        name
    });
    let store = bench.path("puller");
    let before = names.each_ref().map(|name| {
        let _pulled = bench.rbuild_at(&store, ["pull", name]).run().ok();
        digest(name)
    });
    assert_ne!(before[0], before[1]);
    let ids = bench.rbuild_at(&store, ["inspect", "-f", "{{.Id}}", &names[0], &names[1]]).run().ok().stdout;
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids[0], ids[1], "one image");
    let _again = bench.rbuild_at(&store, ["push", &names[0], &names[1]]).run().ok();
    assert_eq!(names.each_ref().map(|name| digest(name)), before);
}
