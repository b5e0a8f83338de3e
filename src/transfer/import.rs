//! `import`: a root file system tar becomes an image of one layer.

use std::collections::BTreeMap;

use rbuild_cache::{BlobRole, ImageRecord, wait_silently};
use rbuild_image::layer::Decoder;
use rbuild_image::{Digest, History, ImageConfig, ImageRef, Platform, RuntimeConfig};
use rbuild_parser::{Source, parse};
use rbuild_solver::{Goal, NamedContext, Resolve, ResolveError, ResolvedImage, lower};

use super::Input;
use crate::cli::report::Failure;
use crate::engine::Engine;

/// A root file system to take in.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The tar, compressed or not.
    pub input: Input,
    /// Its name.
    pub name: Option<ImageRef>,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    /// Comment in the history.
    pub message: Option<String>,
    /// What the files are for.
    pub platform: Platform,
}

/// Takes a root file system in; gives the image's id.
pub fn import(engine: &Engine, request: &ImportRequest) -> Result<Digest, Failure> {
    let now = jiff::Timestamp::now();
    let mut config = ImageConfig::new(&request.platform);
    config.config = runtime_config(request)?;
    let store = engine.store()?;
    let lease = store.lease("import")?;
    let name = request.input.name();
    let unreadable = |error: &dyn std::error::Error| Failure::from_error(&format!("cannot import {name}"), error);
    let mut tar = Decoder::new(request.input.open()?).map_err(|error| unreadable(&error))?;
    let snapshot = store.snapshots().import(&mut tar, &lease).map_err(|error| unreadable(&error))?;
    let layer = snapshot.layer()?;
    config.created = Some(now.to_string());
    config.rootfs.diff_ids = vec![layer.diff_id];
    config.history = vec![History {
        created: Some(now.to_string()),
        comment: request.message.clone().unwrap_or_else(|| format!("Imported from {name}")),
        ..History::default()
    }];
    let bytes = config.to_json();
    let id = store.blobs_for(&lease, &wait_silently).put(&bytes)?;
    let record = ImageRecord {
        id,
        platform: request.platform.clone(),
        manifest: None,
        diff_ids: config.rootfs.diff_ids,
        snapshot: Some(snapshot.id()),
        size: layer.size,
        created_at: Some(now),
        blobs: BTreeMap::from([(id, BlobRole::Config)]),
    };
    store.images().put(&record, request.name.as_slice())?;
    Ok(id)
}

/// What `--change` instructions make of an empty config: the same lowering as in a build on scratch.
fn runtime_config(request: &ImportRequest) -> Result<RuntimeConfig, Failure> {
    let help =
        "known are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR";
    let wrong = |message: &str| Failure::usage(format!("--change: {message}"), help);
    let source = Source::new("--change", format!("FROM scratch\n{}\n", request.changes.join("\n")));
    let parsed = parse(&source);
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(wrong(&error.message));
    }
    let goal = Goal { platforms: vec![request.platform.clone()], ..Goal::new(Platform::host()) };
    let plan = lower(&source, &parsed.value, &goal, &Nothing)
        .map_err(|found| wrong(found.first().map_or("not an instruction of a Dockerfile", |first| &first.message)))?;
    let image = plan.platforms.into_iter().next().map(|platform| platform.image);
    let mut config = image.ok_or_else(|| wrong("no instruction"))?.config.config;
    if request.changes.is_empty() {
        config = RuntimeConfig::default();
    }
    // A default of builds, not of imports: an imported image says only what it was told to.
    if !request.changes.iter().any(|change| change.trim_start().to_ascii_uppercase().starts_with("WORKDIR")) {
        config.working_dir.clear();
    }
    Ok(config)
}

/// There is nothing outside: `--change` names no images.
struct Nothing;

impl Resolve for Nothing {
    fn image(&self, reference: &ImageRef, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError { message: format!("{reference}: --change cannot name images"), help: None })
    }

    fn context(&self, _: &str, _: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        Ok(None)
    }
}
