//! What is waited for is named, with who has it and since when: every row of the table in `docs/troubleshooting.md`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bench::{Bench, Call};
use crate::peers::{has, run};
use crate::registry::Registry;
use crate::sharing::{Said, Watched, go, runs, wait_until, waiting_step};

/// A lock of a store, held as another process would.
struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    fn take(store: &Path, name: &str) -> Self {
        let path = store.join("locks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        file.lock().unwrap();
        file.write_all(br#"{"pid":4711,"command":"rbuild elsewhere","since":"2026-01-02T03:04:05Z"}"#).unwrap();
        Self { file, path }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
        let _free = self.file.unlock();
    }
}

/// Who calls waits for `what`, says so, and goes on when it is free.
fn waits(call: Call, held: Held, what: &str) {
    let mut child = call.start();
    let said = Said::of(&mut child);
    let words = format!("waiting for {what}, held by pid 4711 (rbuild elsewhere), since 2026-01-02T03:04:05Z");
    wait_until(&words, || said.has(&words) || child.try_wait().unwrap().is_some());
    assert!(said.has(&words), "no {words:?} in:\n{}", said.text());
    drop(held);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", said.text());
}

/// What the page says can be waited for.
fn documented() -> BTreeSet<&'static str> {
    let page = include_str!("../../docs/troubleshooting.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| waiting for |")).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(|line| line.split(" | ").next().unwrap()[2..].trim()).collect()
}

#[test]
fn each_of_what_the_page_names_is_waited_for_by_name() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    // Steps and cache mounts, of another build.
    let step = waiting_step(&bench, "runs");
    let locked = step.replacen("RUN ", "RUN --mount=type=cache,id=mine,target=/mine,sharing=locked ", 1);
    let text = format!("FROM busybox AS same\n{step}\nFROM busybox AS locked\n{locked} && : first\n");
    let text = text + &format!("FROM busybox AS other\n{locked} && : second\n");
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    for (first, second, what) in [("same", "same", "the same step"), ("locked", "other", "cache mount mine")] {
        let before = runs(&bench, "runs");
        let first = Watched::target(&bench, first, &context);
        wait_until("the first build runs the step", || runs(&bench, "runs") == before + 1);
        let second = Watched::target(&bench, second, &context);
        let words = format!("waiting for {what}, held by pid {} (", first.child.id());
        wait_until(&words, || second.says(&words) && second.says("), since 20"));
        go(&bench, "runs");
        for build in [first, second] {
            let (code, said) = build.end();
            assert_eq!(code, 0, "{said}");
        }
        std::fs::remove_file(crate::sharing::counted(&bench, "go").unwrap()).unwrap();
    }

    // What a registry has, for a build and for a pull.
    let registry = Registry::start(&bench.path("registry"));
    let name = registry.name("team/app:1");
    let context = bench.context("app", [("Dockerfile", "FROM busybox\nCOPY file /\n"), ("file", "content\n")]);
    let _pushed = bench.rbuild(["build", "--push", "-t", &name]).arg(&context).run().ok();
    let manifest = run(std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{name}")));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let blob = manifest["layers"][1]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let layers = bench.rbuild(["image", "inspect", "-f", "{{json .RootFS.Layers}}", &name]).run().ok().stdout;
    let layers: Vec<String> = serde_json::from_str(&layers).unwrap();
    let layer = layers[1].strip_prefix("sha256:").unwrap();
    let stores = ["one", "two", "three", "four"].map(|store| bench.path(store));
    let from = bench.context("from", [("Dockerfile", &format!("FROM {name}\n"))]);
    let pull = |store: &Path| bench.rbuild_at(store, ["pull", &name]);
    let build = |store: &Path| bench.rbuild_at(store, ["build", "--progress=plain"]).arg(&from);
    let of_blob = |store: &Path| Held::take(store, &format!("blob-sha256-{blob}"));
    let of_layer = |store: &Path| Held::take(store, &format!("layer-{layer}"));
    for store in &stores {
        let _made = bench.rbuild_at(store, ["images"]).run().ok();
    }
    waits(pull(&stores[0]), of_blob(&stores[0]), &format!("blob sha256:{}", &blob[..12]));
    waits(pull(&stores[1]), of_layer(&stores[1]), &format!("layer sha256:{}", &layer[..12]));
    waits(build(&stores[2]), of_blob(&stores[2]), &format!("blob sha256:{}", &blob[..12]));
    waits(build(&stores[3]), of_layer(&stores[3]), &format!("layer sha256:{}", &layer[..12]));

    // Collections.
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let held = Held::take(&stores[0], &format!("collection-{nothing}"));
    waits(bench.rbuild_at(&stores[0], ["cache", "prune"]), held, "another collection");

    let tested = ["the same step", "cache mount …", "blob …", "layer …", "another collection"];
    assert_eq!(documented(), BTreeSet::from(tested));
}
