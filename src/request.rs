//! What a user wants, as plain data without any trace of a command line.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_executor::Resources;
use rbuild_image::registry::without_credentials;
use rbuild_image::{ImageRef, Platform};
use rbuild_solver::StepName;

use crate::config::Settings;
use crate::remote_cache::spec::{CacheExport, CacheImport};

/// A build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Where the build context comes from.
    pub context: ContextInput,
    /// Where the Dockerfile comes from.
    pub dockerfile: DockerfileInput,
    /// Named contexts (`--build-context`), in the order given.
    pub named_contexts: Vec<(String, String)>,
    /// Names the result gets.
    pub tags: Vec<ImageRef>,
    /// `--build-arg`, in order; a name without value took the environment's.
    pub build_args: Vec<(String, String)>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// Stage to build; the last one by default.
    pub target: Option<String>,
    /// Platforms to build for; the host's by default.
    pub platforms: Vec<Platform>,
    /// Which steps may be answered from the cache.
    pub cache: CacheChoice,
    /// Caches elsewhere that are looked in, in the order given.
    pub cache_from: Vec<CacheImport>,
    /// Caches elsewhere that are written.
    pub cache_to: Vec<CacheExport>,
    /// Steps that run again whatever is cached (`--no-cache-step`).
    pub no_cache_steps: Vec<StepName>,
    /// Results that are older are not used (`--cache-max-age`).
    pub cache_max_age: Option<Duration>,
    /// Whether base images are looked up in their registries again.
    pub pull: bool,
    /// Network of `RUN` steps that name none.
    pub network: BuildNetwork,
    /// Entitlements granted with `--allow`.
    pub allow: Vec<Entitlement>,
    /// `--add-host`, as `(host, address)`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`, as `(name, soft, hard)`.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Limits that control groups enforce on each `RUN` step.
    pub resources: Resources,
    /// `--secret`.
    pub secrets: Vec<SecretInput>,
    /// `--ssh`.
    pub ssh: Vec<SshInput>,
    /// What becomes of the result.
    pub outputs: Vec<Output>,
    /// At most this many steps run at once; by default those that keep processors busy share them, and others run beside.
    pub jobs: Option<usize>,
    /// Whether cached steps show what they said when they ran.
    pub show_cached_logs: bool,
    /// Whether people are told why steps ran.
    pub explain: Explain,
}

/// Whether people are told why steps ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explain {
    /// Only when they ask later.
    #[default]
    Later,
    /// When the build ends.
    AtEnd,
}

impl BuildRequest {
    /// What is built, whoever builds it: the place of the Dockerfile. Its steps are compared with each other first.
    pub fn project(&self, settings: &Settings) -> String {
        let context = match &self.context {
            ContextInput::Directory(directory) => directory.display().to_string(),
            ContextInput::Url(url) => without_credentials(url),
            ContextInput::Stdin | ContextInput::Empty => "-".to_owned(),
        };
        match (&self.dockerfile, &self.context) {
            (DockerfileInput::Default, _) => format!("{context}/Dockerfile"),
            (DockerfileInput::Path(path), ContextInput::Directory(_)) => settings.absolute(path).display().to_string(),
            (DockerfileInput::Path(path), _) => format!("{context}/{}", path.display()),
            (DockerfileInput::Url(url), _) => without_credentials(url),
            (DockerfileInput::Stdin, _) => format!("{context}/-"),
        }
    }
}

/// Where a build context comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextInput {
    /// A directory.
    Directory(PathBuf),
    /// Standard input: a tar, or a Dockerfile alone with an empty context.
    Stdin,
    /// A tar, a Dockerfile or a repository behind a URL.
    Url(String),
    /// No files: the Dockerfile came alone.
    Empty,
}

/// Where the Dockerfile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileInput {
    /// `Dockerfile` in the context.
    Default,
    /// A file named with `-f`: relative to the working directory, or inside a context that is not a directory.
    Path(PathBuf),
    /// A file behind a URL.
    Url(String),
    /// Standard input.
    Stdin,
}

/// Which steps may be answered from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChoice {
    /// All.
    Use,
    /// None (`--no-cache`).
    Ignore,
    /// All but those of these stages (`--no-cache-filter`).
    IgnoreStages(Vec<String>),
}

/// Network of `RUN` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The engine's default.
    Default,
    /// Only loopback.
    None,
    /// The host's. Naming it on the command line grants it, as in Docker.
    Host,
}

/// What a build may do beyond the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInput {
    /// The id that `RUN --mount=type=secret` names.
    pub id: String,
    /// Its value's place.
    pub source: SecretSource,
}

/// An agent that steps and repositories may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshInput {
    /// The id that `RUN --mount=type=ssh` names.
    pub id: String,
    /// Where its keys are.
    pub source: SshSource,
}

/// Where an agent's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// An agent's socket.
    Socket(PathBuf),
    /// Files with private keys, for an agent of the build's own.
    Keys(Vec<PathBuf>),
}

/// A secret's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable of rbuild's environment.
    Variable(String),
}

/// What becomes of a build's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An image in the store.
    Store,
    /// Only the cache is filled.
    CacheOnly,
    /// An image archive.
    Archive(ArchiveOutput),
    /// The root file system as a tar; `-` is standard output.
    Tar(Destination),
    /// The root file system as files below a directory.
    Local(PathBuf),
}

/// An image archive to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOutput {
    /// Its format.
    pub format: ArchiveFormat,
    /// Where it goes.
    pub dest: Destination,
    /// How layers are compressed.
    pub compression: Compression,
    /// Names inside the archive; the request's tags where empty.
    pub names: Vec<ImageRef>,
    /// Whether file times later than `SOURCE_DATE_EPOCH` become it.
    pub rewrite_timestamp: bool,
}

/// Formats of image archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// OCI image layout in a tar.
    Oci,
    /// What `docker load` reads.
    Docker,
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file, made in one piece: complete or not at all.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A directory (an OCI layout with `tar=false`).
    Directory(PathBuf),
}

/// How layers are compressed when they leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    Uncompressed,
    /// gzip, with a level.
    Gzip(Option<i32>),
    /// zstd, with a level.
    Zstd(Option<i32>),
}
