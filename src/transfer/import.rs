//! `import`: a root file system tar becomes an image of one layer.

use std::collections::BTreeMap;
use std::io::Read;

use rbuild_cache::{BlobRole, ImageRecord, Lease, Store, wait_silently};
use rbuild_image::layer::Decoder;
use rbuild_image::{Algorithm, ContainerPath, Digest, History, ImageConfig, ImageRef, Platform, RuntimeConfig};

use super::{Input, config_changes};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::fetch::{Fetching, download};
use crate::image_names::Known;

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
    config.config = config_changes::apply(RuntimeConfig::default(), &request.changes, &request.platform)?;
    let store = engine.store()?;
    let lease = store.lease("import")?;
    let name = request.input.name();
    let unreadable =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(&format!("cannot import {name}"), error);
    let mut tar = Decoder::new(open(engine, store, &lease, &request.input)?).map_err(|error| unreadable(&error))?;
    let snapshot = store.snapshots().import(&mut tar, &lease).map_err(|error| unreadable(&error))?;
    let layer = snapshot.layer()?;
    config.created = Some(now.to_string());
    config.rootfs.diff_ids = vec![layer.diff_id];
    config.history = vec![History {
        created: Some(now.to_string()),
        comment: request.message.clone().unwrap_or_else(|| match &request.input {
            Input::Stdin => "Imported from -".to_owned(),
            _ => format!("Imported from {name}"),
        }),
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
    let known = Known::of(store, &id);
    request.name.iter().for_each(|name| known.tell_of_name(store, name));
    known.tell(store, "import");
    Ok(id)
}

/// The tar's bytes; those behind a URL are fetched first.
fn open(engine: &Engine, store: &Store, lease: &Lease, input: &Input) -> Result<Box<dyn Read + Send>, Failure> {
    let Input::Url(url) = input else { return input.open() };
    const NAME: &str = "root";
    let with = Fetching { engine, store, lease, secrets: &[], ssh: &[] };
    let fetched = download(with, url, NAME, Algorithm::Sha256, &|_, _| {})?;
    let view = store.snapshots().view(Some(fetched.snapshot))?;
    Ok(Box::new(view.open(&ContainerPath::root().join(NAME.as_bytes()))?))
}
