//! What a user wants, as plain data without any trace of a command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_executor::Resources;
use rbuild_image::registry::without_credentials;
use rbuild_image::{Flavour, ImageRef, Platform};
use rbuild_solver::StepName;

use crate::annotation::Annotate;
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::embed::Error;
use crate::remote_cache::spec::{CacheExport, CacheImport, ExistingBlobs};

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
    /// Notes for the manifests and indexes of all outputs (`--annotation`).
    pub annotations: Vec<Annotation>,
    /// Whether images say where they come from (`--provenance`).
    pub provenance: Option<Provenance>,
    /// Whether images list their packages (`--sbom`).
    pub sbom: bool,
    /// Whether the result is the same wherever and whenever it is built (`--reproducible`).
    pub reproducible: bool,
    /// At most this many steps run at once; by default those that keep processors busy share them, and others run beside.
    pub jobs: Option<usize>,
    /// Whether cached steps show what they said when they ran.
    pub show_cached_logs: bool,
    /// Whether people are told why steps ran.
    pub explain: Explain,
    /// Whether people are told what rbuild itself spent its time with (`--timings`).
    pub show_timings: bool,
    /// A file for the build's trace in Chrome's format (`--trace`).
    pub trace: Option<PathBuf>,
    /// A file that gets the plain view as well (`--log-file`).
    pub log_file: Option<PathBuf>,
    /// The forge that is told of failures and findings (`--annotate`).
    pub annotate: Option<Annotate>,
    /// Whether hints follow the build (`--hints`, `--no-hints`); where it is not said, a terminal decides.
    pub hints: Option<bool>,
}

/// What is attested about where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// How much.
    pub mode: ProvenanceMode,
    /// Who builds, as a URL.
    pub builder_id: String,
    /// Whether the user says that the result can be made again, byte by byte.
    pub reproducible: bool,
    /// Whether it is for images only, not for files.
    pub inline_only: bool,
}

impl Default for Provenance {
    fn default() -> Self {
        Self { mode: ProvenanceMode::Min, builder_id: String::new(), reproducible: false, inline_only: false }
    }
}

/// How much is attested about where an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Nothing that could be private.
    Min,
    /// With arguments, Dockerfile and steps.
    Max,
}

/// The address in [`BuildRequest::extra_hosts`] that stands for this machine, seen from a step.
pub const HOST_GATEWAY: &str = "host-gateway";

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
    /// A build of a directory's `Dockerfile` as `rbuild build DIRECTORY` does it; a relative path counts from the working
    /// directory. Everything else is a field.
    pub fn directory(context: impl AsRef<Path>) -> Self {
        let context = std::path::absolute(&context).unwrap_or_else(|_| context.as_ref().to_owned());
        Self {
            context: ContextInput::Directory(context),
            dockerfile: DockerfileInput::Default,
            named_contexts: Vec::new(),
            tags: Vec::new(),
            build_args: Vec::new(),
            labels: Vec::new(),
            target: None,
            platforms: Vec::new(),
            cache: CacheChoice::Use,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            no_cache_steps: Vec::new(),
            cache_max_age: None,
            pull: false,
            network: BuildNetwork::Default,
            allow: Vec::new(),
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            resources: Resources::default(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            outputs: vec![Output::Image(ImageOutput::default())],
            annotations: Vec::new(),
            provenance: None,
            sbom: false,
            reproducible: false,
            jobs: None,
            show_cached_logs: false,
            explain: Explain::Later,
            log_file: None,
            annotate: None,
            hints: None,
            show_timings: false,
            trace: None,
        }
    }

    /// The same, with one more name for the result.
    pub fn tag(mut self, name: &str) -> Result<Self, Error> {
        let name: ImageRef = name.parse().map_err(Failure::from)?;
        crate::image_names::check_new(&name)?;
        self.tags.push(name.tag_or_latest());
        Ok(self)
    }

    /// The same, with one more build argument.
    #[must_use]
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.push((name.into(), value.into()));
        self
    }

    /// Whether the result has the time that the user says, not that of the build.
    pub fn is_timeless(&self) -> bool {
        self.reproducible
            || self.build_args.iter().any(|(name, value)| name == "SOURCE_DATE_EPOCH" && !value.is_empty())
    }

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
    /// An image in the store, in registries, or both.
    Image(ImageOutput),
    /// Only the cache is filled.
    CacheOnly,
    /// An image archive.
    Archive(ArchiveOutput),
    /// An image in the Docker daemon of this machine.
    Docker(ImageForm),
    /// The root file system as a tar; `-` is standard output.
    Tar(Destination, FilesForm),
    /// The root file system as files below a directory.
    Local(PathBuf, FilesForm),
}

/// How the files of a result leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesForm {
    /// Whether platforms get directories.
    pub split: Split,
    /// What the names of attestations begin with, which lie among the files.
    pub attestation_prefix: String,
    /// What becomes of files that are in the directory and not in the result.
    pub others: OtherFiles,
}

/// What becomes of files that are in a directory and not in the result that it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherFiles {
    /// They stay.
    #[default]
    Kept,
    /// They go: the directory becomes what the result is.
    Removed,
}

/// Whether the files of each platform get a directory of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Where there are several platforms.
    #[default]
    Several,
    /// Always.
    Always,
    /// Never: platforms must not have the same file.
    Never,
}

/// An image for the store and for registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOutput {
    /// How it looks.
    pub form: ImageForm,
    /// Whether the store keeps it.
    pub store: bool,
    /// Whether and how registries get it.
    pub push: Option<PushAs>,
    /// Whether the registries may do without TLS and certificates that can be verified.
    pub insecure: bool,
    /// Whether the store also has it as `NAME@DIGEST`.
    pub canonical: bool,
    /// What an image without a name is called in the store, with its digest behind.
    pub dangling: Option<ImageRef>,
}

impl Default for ImageOutput {
    /// Kept in the store, and pushed nowhere.
    fn default() -> Self {
        Self { form: ImageForm::default(), store: true, push: None, insecure: false, canonical: false, dangling: None }
    }
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushAs {
    /// Under its names.
    Tags,
    /// Only by its digest.
    Digest,
}

/// What an image looks like when it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// Its names; the request's tags where empty.
    pub names: Vec<ImageRef>,
    /// How layers are compressed.
    pub compression: Compression,
    /// What becomes of layers that came compressed otherwise.
    pub existing: ExistingBlobs,
    /// Whose media types; OCI's where nothing is said.
    pub flavour: Option<Flavour>,
    /// Notes for this output alone.
    pub annotations: Vec<Annotation>,
    /// Whether file times later than `SOURCE_DATE_EPOCH` become it.
    pub rewrite_timestamp: bool,
    /// Where attestations go, and as what.
    pub attestations: AttestAs,
}

/// Where attestations go, and as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttestAs {
    /// Into the image's index, as images for no platform.
    #[default]
    Index,
    /// Into the image's index, as artefacts whose subject is the image.
    IndexedArtifact,
    /// Beside the image in its repository, as artefacts that refer to it: the image stays what it is without.
    Referrer,
}

impl Default for ImageForm {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            compression: Compression::Gzip(None),
            existing: ExistingBlobs::Kept,
            flavour: None,
            annotations: Vec::new(),
            rewrite_timestamp: false,
            attestations: AttestAs::Index,
        }
    }
}

impl ImageForm {
    /// Whether nothing but names was asked for.
    pub fn is_plain(&self) -> bool {
        *self == Self { names: self.names.clone(), ..Self::default() }
    }
}

/// A note for tools and people in a manifest, an index or a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Where it goes.
    pub place: AnnotationPlace,
    /// For which platform's manifest; all where none is said.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: String,
}

/// Where an annotation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// Into manifests.
    Manifest,
    /// Into the index, beside what names a manifest.
    ManifestDescriptor,
    /// Into the index.
    Index,
    /// Beside what names the index or manifest in an OCI layout.
    IndexDescriptor,
}

/// An image archive to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOutput {
    /// Its format.
    pub format: ArchiveFormat,
    /// Where it goes.
    pub dest: Destination,
    /// How the image looks.
    pub form: ImageForm,
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
