//! `inspect`: an image's details in the form of Docker's API (`GET /images/{name}/json`).

use std::collections::BTreeMap;

use rbuild_image::{Descriptor, Empty, ImageConfig};
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
    /// When it came in.
    pub(super) stored: String,
    /// The manifest that it came with.
    pub(super) manifest: Option<Descriptor>,
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    created: Option<String>,
    docker_version: String,
    author: String,
    config: ConfigView,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    size: u64,
    virtual_size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFsView,
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor: Option<Descriptor>,
}

/// The runtime config, with Docker's empty values.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigView {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<rbuild_image::Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    args_escaped: bool,
    image: String,
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

/// How the layers become one tree; the name is what Docker's containerd store says of the same method.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<BTreeMap<String, String>>,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFsView {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

impl Inspection {
    /// Puts config and surroundings together.
    pub(super) fn new(config: ImageConfig, about: About) -> Self {
        let runtime = config.config;
        let some = |map: BTreeMap<String, Empty>| (!map.is_empty()).then_some(map);
        let text = |extra: &serde_json::Map<String, serde_json::Value>, name: &str| {
            extra.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        Self {
            id: about.id,
            repo_tags: about.tags,
            repo_digests: about.digests,
            parent: text(&config.extra, "parent"),
            comment: match text(&config.extra, "comment") {
                none if none.is_empty() => config.history.last().map(|last| last.comment.clone()).unwrap_or_default(),
                comment => comment,
            },
            created: config.created,
            docker_version: text(&config.extra, "docker_version"),
            author: config.author,
            config: ConfigView {
                hostname: text(&runtime.extra, "Hostname"),
                domainname: text(&runtime.extra, "Domainname"),
                user: runtime.user,
                attach_stdin: false,
                attach_stdout: false,
                attach_stderr: false,
                exposed_ports: runtime.exposed_ports,
                tty: false,
                open_stdin: false,
                stdin_once: false,
                env: Some(runtime.env).filter(|env| !env.is_empty()),
                cmd: runtime.cmd,
                healthcheck: runtime.healthcheck,
                args_escaped: runtime.args_escaped,
                image: text(&runtime.extra, "Image"),
                volumes: some(runtime.volumes),
                working_dir: runtime.working_dir,
                entrypoint: runtime.entrypoint,
                on_build: Some(runtime.on_build).filter(|triggers| !triggers.is_empty()),
                labels: Some(runtime.labels).filter(|labels| !labels.is_empty()),
                stop_signal: runtime.stop_signal,
                shell: runtime.shell,
            },
            architecture: config.architecture,
            variant: config.variant.filter(|variant| !variant.is_empty()),
            os: config.os,
            os_version: config.os_version.filter(|version| !version.is_empty()),
            size: about.size,
            virtual_size: about.size,
            graph_driver: GraphDriver { data: None, name: "overlayfs" },
            root_fs: RootFsView {
                kind: "layers",
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata { last_tag_time: about.stored },
            descriptor: about.manifest,
        }
    }
}
