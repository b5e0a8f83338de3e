//! What is attested about an image: where it is found, and that the image does not change for it.

use serde_json::Value;

use crate::bench::Bench;
use crate::outputs::raw;
use crate::peers::has;
use crate::registry::Registry;

fn context(bench: &Bench) -> std::path::PathBuf {
    bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f\n")])
}

fn digest(bench: &Bench, name: &str) -> String {
    let shown = bench.rbuild(["manifest", "inspect", "--verbose", name]).run().ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["Descriptor"]["digest"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn attestations_beside_the_image_leave_its_digest_alone() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let build = |name: &str, more: &[&str]| {
        let output = format!("type=registry,name={},attestations=referrers", registry.name(name));
        let ran = bench.rbuild(["build", "--build-arg", "SOURCE_DATE_EPOCH=0", "-o", &output]).args(more);
        let _built = ran.arg(context(&bench)).run().ok();
        digest(&bench, &registry.name(name))
    };
    let want = build("app:plain", &[]);
    assert!(want.starts_with("sha256:"), "{want}");
    assert_eq!(build("app:1", &["--provenance=true", "--sbom=true"]), want);
    // Debian's registry knows nothing of referrers: their list is under a tag.
    let list = raw(&registry.name(&format!("app:{}", want.replace(':', "-"))));
    let [listed] = list["manifests"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(listed["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    let found = raw(&format!("{}@{}", registry.name("app"), listed["digest"].as_str().unwrap()));
    assert_eq!(found["subject"]["digest"], want.as_str());
    assert_eq!(found["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let types: Vec<_> = found["layers"].as_array().unwrap().iter().map(|l| &l["annotations"]).collect();
    assert_eq!(types[0]["in-toto.io/predicate-type"], "https://spdx.dev/Document");
    assert_eq!(types[1]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
    // Equal attestations are one; others join them.
    let _again = build("app:1", &["--provenance=true", "--sbom=true"]);
    let name = registry.name("app:1");
    let referrers = || {
        let shown = bench.rbuild(["manifest", "inspect", "--referrers", &name]).run().ok().stdout;
        serde_json::from_str::<Value>(&shown).unwrap()["manifests"].as_array().unwrap().len()
    };
    assert_eq!(referrers(), 1);
    let _other = build("app:1", &["--provenance=mode=max"]);
    assert_eq!(referrers(), 2);
    let _refused = bench
        .rbuild(["build", "--provenance=true", "-o", "type=image,name=x,attestations=referrers"])
        .arg(context(&bench))
        .run()
        .fails(2)
        .says("push=true");
}

#[test]
fn attestations_are_artefacts_where_that_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let output = format!("type=registry,name={},oci-artifact=true", registry.name("app:1"));
    let _built = bench.rbuild(["build", "--provenance=true", "-o", &output]).arg(context(&bench)).run().ok();
    let index = raw(&registry.name("app:1"));
    let [image, attestation] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    let manifest = raw(&format!("{}@{}", registry.name("app"), attestation["digest"].as_str().unwrap()));
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["subject"]["digest"], image["digest"]);
    assert_eq!(attestation["platform"]["os"], "unknown");
}

#[test]
fn an_attested_image_is_pulled_and_pushed_elsewhere_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    for (tag, more) in [("image", ""), ("artifact", ",oci-artifact=true")] {
        let (name, copy) = (registry.name(&format!("app:{tag}")), registry.name(&format!("copy:{tag}")));
        let output = format!("type=registry,name={name}{more}");
        let ran = bench.rbuild(["build", "--provenance=true", "--sbom=true", "-o", &output]);
        let _built = ran.arg(context(&bench)).run().ok();
        let store = bench.path(tag);
        let _pulled = bench.rbuild_at(&store, ["pull", &name]).run().ok();
        let _tagged = bench.rbuild_at(&store, ["tag", &name, &copy]).run().ok();
        let _pushed = bench.rbuild_at(&store, ["push", &copy]).run().ok();
        assert_eq!(raw(&copy), raw(&name));
        // A saved one, too.
        let back = registry.name(&format!("back:{tag}"));
        let _saved = bench.rbuild_at(&store, ["save", "--format=oci", "-o", "saved.tar", &name]).run().ok();
        let _copied = bench.rbuild(["image", "copy", "oci-archive:saved.tar", &back]).run().ok();
        assert_eq!(raw(&back), raw(&name));
        let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
    }
}

#[test]
fn all_platforms_of_an_image_are_saved() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let ran = bench.rbuild(["build", "--platform=linux/amd64,linux/arm64", "-t", "app:1"]);
    let _built = ran.arg(context(&bench)).run().ok();
    let one = registry.name("one:1");
    let _tagged = bench.rbuild(["tag", "app:1", &one]).run().ok();
    let _pushed = bench.rbuild(["push", "--platform=linux/amd64", &one]).run().ok();
    assert!(raw(&one)["manifests"].is_null());
    for (format, kind) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let _saved = bench.rbuild(["save", "--format", format, "-o", "all.tar", "app:1"]).run().ok();
        let store = bench.path(format);
        let _loaded = bench.rbuild_at(&store, ["load", "-i", "all.tar"]).run().ok();
        let name = registry.name(&format!("{format}:1"));
        let _copied = bench.rbuild(["image", "copy", &format!("{kind}:all.tar"), &name]).run().ok();
        assert_eq!(raw(&name)["manifests"].as_array().unwrap().len(), 2, "{format}");
        let one = ["save", "--platform=linux/arm64", "--format", format, "-o", "one.tar", "app:1"];
        let _one = bench.rbuild(one).run().ok();
        let name = registry.name(&format!("{format}:arm"));
        let _copied = bench.rbuild(["image", "copy", &format!("{kind}:one.tar"), &name]).run().ok();
        assert!(raw(&name)["manifests"].is_null(), "{format}");
    }
}
