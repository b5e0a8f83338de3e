//! Where an image comes from: SLSA provenance, version 1, with the fields that BuildKit fills. Of the smaller mode, `min`,
//! no value that the user gave is part: no build arguments, no labels, no names of secrets. `max` has these, the
//! Dockerfile and the steps; never the value of a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::Platform;
use rbuild_image::registry::without_credentials;
use rbuild_solver::{Op, RunNetwork, Source};
use serde_json::{Map, Value, json};

use super::{Attester, package_url};
use crate::build_record::checkout;
use crate::request::{ContextInput, Provenance, ProvenanceMode};

/// The predicate's type.
pub(super) const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What the fields mean.
const BUILD_TYPE: &str = "https://github.com/rbuild/rbuild/blob/main/docs/attestations.md";

/// The predicate about one platform's image.
pub(super) fn predicate(attester: &Attester<'_>, asked: &Provenance, platform: &Platform) -> Value {
    let (request, mode) = (attester.request, asked.mode);
    let mut parameters = Map::new();
    parameters.insert("configSource".to_owned(), config_source(attester));
    parameters.insert("request".to_owned(), request_of(attester, mode));
    let mut internal = Map::new();
    internal.insert("builderPlatform".to_owned(), Platform::host().to_string().into());
    if mode == ProvenanceMode::Max {
        internal.insert("buildConfig".to_owned(), build_config(attester));
    }
    let dependencies = dependencies(attester, platform);
    let mut metadata = Map::new();
    if let (Some(build), Some((began, ended))) = (&attester.build, attester.times) {
        metadata.insert("invocationId".to_owned(), build.clone().into());
        metadata.insert("startedOn".to_owned(), began.to_string().into());
        metadata.insert("finishedOn".to_owned(), ended.to_string().into());
    }
    let local = matches!(request.context, ContextInput::Directory(_) | ContextInput::Stdin);
    let is_complete = mode == ProvenanceMode::Max;
    let completeness = json!({ "request": is_complete, "resolvedDependencies": !local });
    metadata.insert("buildkit_completeness".to_owned(), completeness);
    metadata.insert("buildkit_hermetic".to_owned(), is_hermetic(attester).into());
    metadata.insert("buildkit_reproducible".to_owned(), (asked.reproducible || request.reproducible).into());
    let mut more = Map::new();
    if mode == ProvenanceMode::Max {
        let dockerfile = attester.dockerfile;
        let text = STANDARD.encode(dockerfile.text());
        let infos = json!([{ "filename": dockerfile.name(), "language": "Dockerfile", "data": text }]);
        more.insert("source".to_owned(), json!({ "locations": locations(attester), "infos": infos }));
    }
    more.extend(version_control(attester).map(|vcs| ("vcs".to_owned(), vcs)));
    if !more.is_empty() {
        metadata.insert("buildkit_metadata".to_owned(), Value::Object(more));
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": internal,
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": { "id": asked.builder_id, "version": { "rbuild": env!("CARGO_PKG_VERSION") } },
            "metadata": metadata,
        },
    })
}

/// Where the instructions come from.
fn config_source(attester: &Attester<'_>) -> Value {
    let mut source = Map::new();
    if let ContextInput::Url(url) = &attester.request.context {
        source.insert("uri".to_owned(), without_credentials(url).into());
        source.extend(commit_of(attester, url).map(|commit| ("digest".to_owned(), json!({ "sha1": commit }))));
    }
    let path = attester.dockerfile.name().rsplit('/').next().unwrap_or_default();
    source.insert("path".to_owned(), path.into());
    Value::Object(source)
}

/// The commit that a repository's URL came to.
fn commit_of(attester: &Attester<'_>, url: &str) -> Option<String> {
    attester.graph.ids().find_map(|id| match &attester.graph.vertex(id).op {
        Op::Source(Source::Git(git)) if url.starts_with(&git.remote) => git.commit.clone(),
        _ => None,
    })
}

/// Whether no step could reach a network.
fn is_hermetic(attester: &Attester<'_>) -> bool {
    let offline = |op: &Op| match op {
        Op::Run(run) => run.network == RunNetwork::None,
        _ => true,
    };
    attester.graph.ids().all(|id| offline(&attester.graph.vertex(id).op))
}

/// What a local context is a checkout of. Nobody has verified that: files may differ from the commit.
fn version_control(attester: &Attester<'_>) -> Option<Value> {
    let ContextInput::Directory(directory) = &attester.request.context else { return None };
    let checkout = checkout(directory)?;
    let mut out = Map::new();
    out.extend(checkout.remote.map(|remote| ("source".to_owned(), without_credentials(&remote).into())));
    out.extend(checkout.revision.map(|revision| ("revision".to_owned(), revision.into())));
    (!out.is_empty()).then_some(Value::Object(out))
}

/// The lines of the Dockerfile that each step stands on.
fn locations(attester: &Attester<'_>) -> Value {
    let mut out = Map::new();
    for (number, id) in attester.graph.ids().enumerate() {
        let line = attester.graph.vertex(id).origin.line;
        if line > 0 {
            let range = json!([{ "start": { "line": line }, "end": { "line": line } }]);
            out.insert(format!("step{number}"), json!({ "locations": [{ "ranges": range }] }));
        }
    }
    Value::Object(out)
}

/// What the user asked for.
fn request_of(attester: &Attester<'_>, mode: ProvenanceMode) -> Value {
    let request = attester.request;
    let mut out = Map::new();
    out.insert("frontend".to_owned(), "dockerfile.v0".into());
    if mode == ProvenanceMode::Max {
        let mut args = Map::new();
        args.extend(request.target.iter().map(|target| ("target".to_owned(), target.clone().into())));
        args.extend(request.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone().into())));
        args.extend(request.labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone().into())));
        let named = |(name, place): &(String, String)| (format!("context:{name}"), without_credentials(place).into());
        args.extend(request.named_contexts.iter().map(named));
        out.insert("args".to_owned(), Value::Object(args));
        if !request.secrets.is_empty() {
            let secrets = request.secrets.iter().map(|secret| json!({ "id": secret.id })).collect();
            out.insert("secrets".to_owned(), secrets);
        }
        if !request.ssh.is_empty() {
            out.insert("ssh".to_owned(), request.ssh.iter().map(|ssh| json!({ "id": ssh.id })).collect());
        }
    }
    let locals = match request.context {
        ContextInput::Directory(_) => json!([{ "name": "context" }, { "name": "dockerfile" }]),
        _ => json!([]),
    };
    out.insert("locals".to_owned(), locals);
    Value::Object(out)
}

/// What the build took from elsewhere: images, repositories, files by URL.
fn dependencies(attester: &Attester<'_>, platform: &Platform) -> Vec<Value> {
    let mut found = Vec::new();
    for id in attester.graph.ids() {
        let Op::Source(source) = &attester.graph.vertex(id).op else { continue };
        let dependency = match source {
            Source::Image(image) if image.platform == *platform || image.platform == Platform::host() => json!({
                "uri": package_url(&image.reference, &image.platform),
                "digest": { image.digest.algorithm().name(): image.digest.hex() },
            }),
            Source::Git(git) => json!({
                "uri": format!("{}#{}", without_credentials(&git.remote), git.reference),
                "digest": git.commit.iter().map(|commit| ("sha1".to_owned(), commit.clone().into())).collect::<Map<_, _>>(),
            }),
            Source::Http(http) => {
                let digest = http.checksum.iter().map(|sum| (sum.algorithm().name().to_owned(), sum.hex().into()));
                json!({ "uri": without_credentials(&http.url), "digest": digest.collect::<Map<_, _>>() })
            }
            Source::Image(_) | Source::Context(_) => continue,
        };
        if !found.contains(&dependency) {
            found.push(dependency);
        }
    }
    found
}

/// The steps and what they stand on, in the order of the graph.
fn build_config(attester: &Attester<'_>) -> Value {
    let graph = attester.graph;
    let number = |id| graph.ids().position(|other| other == id).unwrap_or_default();
    let steps = graph.ids().map(|id| {
        let vertex = graph.vertex(id);
        let inputs: Vec<String> = graph.inputs(id).into_iter().map(|input| format!("step{}", number(input))).collect();
        json!({ "id": format!("step{}", number(id)), "name": vertex.name, "inputs": inputs })
    });
    json!({ "steps": steps.collect::<Vec<_>>() })
}
