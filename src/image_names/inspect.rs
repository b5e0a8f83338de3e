//! `inspect`: an image's details in the form of Docker's API (`GET /images/{name}/json`).

use std::collections::BTreeMap;

use rbuild_image::{Empty, ImageConfig};
use serde::Serialize;

/// What is known of an image beyond its config.
#[derive(Debug)]
pub(super) struct About {
    /// Digest of the config.
    pub(super) id: String,
    /// Names with a tag.
    pub(super) tags: Vec<String>,
    /// Names with a digest.
    pub(super) digests: Vec<String>,
    /// Bytes of all layers, unpacked.
    pub(super) size: u64,
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    comment: String,
    created: Option<String>,
    author: String,
    config: ConfigView,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    size: u64,
    #[serde(rename = "RootFS")]
    root_fs: RootFsView,
}

/// The runtime config, with Docker's empty values.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigView {
    user: String,
    exposed_ports: Option<BTreeMap<String, Empty>>,
    env: Vec<String>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<rbuild_image::Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    args_escaped: bool,
    volumes: Option<BTreeMap<String, Empty>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFsView {
    #[serde(rename = "Type")]
    kind: &'static str,
    layers: Vec<String>,
}

impl Inspection {
    /// Puts config and surroundings together.
    pub(super) fn new(config: ImageConfig, about: About) -> Self {
        let runtime = config.config;
        let some = |map: BTreeMap<String, Empty>| (!map.is_empty()).then_some(map);
        Self {
            id: about.id,
            repo_tags: about.tags,
            repo_digests: about.digests,
            comment: config.history.last().map(|last| last.comment.clone()).unwrap_or_default(),
            created: config.created,
            author: config.author,
            config: ConfigView {
                user: runtime.user,
                exposed_ports: some(runtime.exposed_ports),
                env: runtime.env,
                cmd: runtime.cmd,
                healthcheck: runtime.healthcheck,
                args_escaped: runtime.args_escaped,
                volumes: some(runtime.volumes),
                working_dir: runtime.working_dir,
                entrypoint: runtime.entrypoint,
                on_build: Some(runtime.on_build).filter(|triggers| !triggers.is_empty()),
                labels: Some(runtime.labels).filter(|labels| !labels.is_empty()),
                stop_signal: runtime.stop_signal,
                shell: runtime.shell,
            },
            architecture: config.architecture,
            variant: config.variant,
            os: config.os,
            size: about.size,
            root_fs: RootFsView {
                kind: "layers",
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
        }
    }
}
