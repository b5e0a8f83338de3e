//! The closed set of operations, as plain serialisable data: what a vertex does, not where or when.
//!
//! Inputs are positions into [`crate::Vertex::inputs`]; nothing here names a vertex, a snapshot or a host path, so an
//! op may travel to another machine.

use rbuild_image::{ContainerPath, Digest, ImageRef, Platform};
use serde::{Deserialize, Serialize};

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Brings something in from outside.
    Source(Source),
    /// Runs a process; `inputs[0]` is its root file system.
    Run(Box<RunOp>),
    /// Writes files; `inputs[0]` is the root file system they are added to.
    File(FileOp),
}

/// Something from outside the build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// An image; its product is the snapshot of its topmost layer.
    Image(Box<ImageSource>),
    /// A directory of the user's, read in place; its product is [`crate::Product::Context`].
    Context(ContextSource),
    /// One file fetched by URL; its product is a snapshot with that file at the root.
    Http(HttpSource),
    /// A git checkout; its product is a snapshot with the tree at the root.
    Git(GitSource),
}

/// An image by digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSource {
    /// The reference as the user wrote it, with defaults applied.
    pub reference: ImageRef,
    /// Digest of the platform's manifest, or of the config where the image was imported and has no manifest.
    pub digest: Digest,
    /// Which platform's image this is.
    pub platform: Platform,
}

/// A build context: the main one (`""`) or a named one (`--build-context`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContextSource {
    /// Name; empty for the main context.
    pub name: String,
}

/// A file behind a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where it is.
    pub url: String,
    /// What it must hash to.
    pub checksum: Option<Digest>,
    /// The name it gets: from the URL's path (BuildKit's rule).
    pub filename: String,
}

/// A git repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GitSource {
    /// Remote, without fragment.
    pub remote: String,
    /// Branch, tag or commit; empty for the remote's default branch.
    pub reference: String,
    /// Directory inside the repository.
    pub subdir: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// Commit the reference must resolve to (a prefix is enough).
    pub checksum: Option<String>,
    /// The commit, once pinned.
    pub commit: Option<String>,
    /// The times of the files.
    pub times: GitTimes,
    /// Whether the commit is fetched by its own name, not by that of a branch or tag.
    pub fetch_by_commit: bool,
}

/// The times that files of a repository get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GitTimes {
    /// That of the commit, so that a commit is the same files everywhere.
    #[default]
    Commit,
    /// That of the checkout.
    Checkout,
}

/// A `RUN` step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunOp {
    /// Program and arguments, the shell included.
    pub argv: Vec<String>,
    /// `NAME=value` in order: the image's environment, then build arguments. `HOME` is added when the step starts.
    pub env: Vec<String>,
    /// Which variables in `env` come from `ARG`; only told, not part of the key.
    pub arguments: Vec<String>,
    /// Proxy arguments, set in the step but not part of its key.
    pub proxy_env: Vec<String>,
    /// Working directory; created by an earlier vertex.
    pub cwd: ContainerPath,
    /// User as written (`name`, `uid`, with `:group`); empty is root.
    pub user: String,
    /// `RUN --mount=…` in order, and here-document scripts.
    pub mounts: Vec<RunMount>,
    /// The network.
    pub network: RunNetwork,
    /// Confinement.
    pub security: RunSecurity,
    /// What it runs for (and, where that differs from the machine, is emulated as).
    pub platform: Platform,
    /// Host name inside.
    pub hostname: String,
    /// Additional lines of `/etc/hosts`, as `(host, address)`.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// `--ulimit`, as `(name, soft, hard)`.
    pub ulimits: Vec<(String, u64, u64)>,
}

/// The network of a `RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunNetwork {
    /// The engine's default.
    Default,
    /// Only loopback.
    None,
    /// The host's; needs an entitlement.
    Host,
}

/// The confinement of a `RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunSecurity {
    /// The default sandbox.
    Sandbox,
    /// All capabilities and devices; needs an entitlement.
    Insecure,
}

/// One mount of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunMount {
    /// Where it appears. Empty for a secret that is only an environment variable.
    pub target: Option<ContainerPath>,
    /// What it shows.
    pub kind: RunMountKind,
}

/// Kinds of `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunMountKind {
    /// `type=bind`: part of another vertex's product (or of an empty tree); writes are thrown away.
    Bind {
        /// Position in the vertex's inputs; `None` for `from=scratch`.
        input: Option<usize>,
        /// What of it.
        source: ContainerPath,
        /// Whether the step may write (to a throw-away copy).
        writable: bool,
    },
    /// `type=cache`.
    Cache {
        /// Identity; equal ids share content.
        id: String,
        /// Sharing between concurrent steps.
        sharing: CacheSharing,
        /// What a new cache starts from; `None` starts empty.
        input: Option<usize>,
        /// What of `input`.
        source: ContainerPath,
        /// Whether the step may write.
        writable: bool,
        /// Mode of a new cache's root.
        mode: u32,
        /// Owner of a new cache's root.
        uid: u32,
        /// Group of a new cache's root.
        gid: u32,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// `type=secret`; its value never enters a key.
    Secret {
        /// Which secret.
        id: String,
        /// Variable that gets the value.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// File mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `type=ssh`: an agent's socket.
    Ssh {
        /// Which agent.
        id: String,
        /// Whether the step fails without it.
        required: bool,
        /// Socket mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A file made by the front end (a here-document with a shebang).
    Inline {
        /// The bytes.
        content: String,
        /// File mode.
        mode: u32,
    },
}

/// How concurrent steps share a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheSharing {
    /// All at once.
    Shared,
    /// Another copy for each writer at the same time.
    Private,
    /// One after another.
    Locked,
}

/// A step that writes files into one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileOp {
    /// What is done, in order.
    pub actions: Vec<FileAction>,
    /// Whether the layer may depend on the files of `inputs[0]`.
    pub linking: Linking,
}

/// `COPY --link`: whether a layer depends on what it is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Linking {
    /// Destination symlinks, existing directories and owners' names of the parent count.
    Dependent,
    /// The layer is made as if on an empty root, then put on top of `inputs[0]`.
    Independent,
}

/// One action of a [`FileOp`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileAction {
    /// Copies files.
    Copy(CopyAction),
    /// Makes a file (a `COPY` or `ADD` here-document).
    Write(WriteAction),
    /// Makes a directory and its parents (`WORKDIR`).
    MakeDir(MakeDirAction),
}

/// `COPY` or `ADD` of one source, from one input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopyAction {
    /// Position in the vertex's inputs; `None` for `--from=scratch`.
    pub input: Option<usize>,
    /// The source as written after expansion: may hold wildcards, `.` and `..` (which stops at the root).
    pub source: String,
    /// Where to; a trailing slash means a directory. Already joined with the working directory.
    pub dest: String,
    /// Owner as written, e.g. `app:staff`; `None` keeps the source's ids (0:0 from a context).
    pub chown: Option<String>,
    /// Mode as written: octal or symbolic.
    pub chmod: Option<String>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// Keep the source's parent directories.
    pub parents: bool,
    /// What happens to archives.
    pub unpack: Unpack,
    /// Whether a missing source fails (not with wildcards).
    pub required: bool,
    /// The times that files get: their own, or for all of them this many seconds since the epoch.
    pub mtime: Option<i64>,
    /// Mode of a file that came by URL and has no `--chmod`: 0600.
    pub default_mode: Option<u32>,
    /// Whether a directory source puts its content into `dest` (COPY and ADD) or itself (git with its own name).
    pub contents: bool,
}

impl CopyAction {
    /// A copy that changes nothing: what `source` names, or what is in it when it is a directory, with its own owners, modes
    /// and times.
    pub fn as_is(input: Option<usize>, source: String, dest: String) -> Self {
        Self {
            input,
            source,
            dest,
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
            unpack: Unpack::Never,
            required: true,
            mtime: None,
            default_mode: None,
            contents: true,
        }
    }
}

/// What happens to an archive that is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unpack {
    /// It is copied as a file (`COPY`, `ADD --unpack=false`, URLs).
    Never,
    /// A local tar, recognised by content, is unpacked (`ADD`).
    Archives,
}

/// A file with given bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WriteAction {
    /// Name it would have as a source (used when `dest` is a directory).
    pub name: String,
    /// Where to; a trailing slash means a directory.
    pub dest: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// Owner as written.
    pub chown: Option<String>,
    /// Mode as written; 0644 without.
    pub chmod: Option<String>,
}

/// A directory with its parents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MakeDirAction {
    /// The directory.
    pub path: ContainerPath,
    /// Owner of what is created: the step's current user as written; `None` is 0:0.
    pub owner: Option<String>,
    /// Mode of what is created.
    pub mode: u32,
}
