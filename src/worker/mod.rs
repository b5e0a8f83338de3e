//! Where the plan meets the machine: the real [`Worker`]. One room for each kind of work.

mod attend;
mod failure;
pub mod file;
mod host_files;
mod memory;
mod network;
mod run;
mod run_mounts;
mod source_git;
mod source_http;
mod source_image;
mod ssh_agent;
mod user_files;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rbuild_cache::snapshot::Snapshots;
use rbuild_cache::{FileIndex, Lease, Listing, SnapshotId, Store};
use rbuild_container::HostResolver;
use rbuild_executor::{Resources, Spawner};
use rbuild_image::ContentDigest;
use rbuild_solver::{Control, Event, Executed, Job, JobError, Op, Pinned, Product, Source, VertexId, Worker};

use crate::cli::report::Failure;
use crate::context::{ContextFiles, LocalContext};
use crate::engine::Engine;
use crate::fetch::Fetching;
use crate::request::{Entitlement, SecretInput};
use failure::{FailJob, failed};
pub use network::Closing;
use network::StepNetworks;
pub(crate) use network::keeper::keep as keep_network;
use user_files::UserFiles;

/// Does the work of one build.
pub struct EngineWorker<'a> {
    engine: &'a Engine,
    store: &'a Store,
    snapshots: Snapshots,
    lease: &'a Lease,
    contexts: BTreeMap<String, LocalContext>,
    allow: &'a [Entitlement],
    resources: &'a Resources,
    secrets: &'a [SecretInput],
    ssh: &'a [(String, PathBuf)],
    resolver: OnceLock<HostResolver>,
    began: Instant,
    /// The last vertex that runs a program.
    last_program: Option<VertexId>,
    sandboxes: AtomicU64,
    networks: StepNetworks,
    user_files: UserFiles,
    told_limits: AtomicBool,
    /// What is known of the files of each context, loaded once for all steps that read it.
    file_indexes: Mutex<BTreeMap<String, Arc<FileIndex>>>,
    downloads: source_http::Downloads,
    commits: source_git::Commits,
}

/// What a worker is made of.
pub struct Parts<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Its store.
    pub store: &'a Store,
    /// Holds what the build makes and reads.
    pub lease: &'a Lease,
    /// Build contexts by name; the main one is `""`.
    pub contexts: BTreeMap<String, LocalContext>,
    /// What steps may do beyond the default.
    pub allow: &'a [Entitlement],
    /// Limits of each `RUN` step.
    pub resources: &'a Resources,
    /// Secrets.
    pub secrets: &'a [SecretInput],
    /// Agents, as `(id, socket)`.
    pub ssh: &'a [(String, PathBuf)],
    /// When the build began.
    pub began: Instant,
    /// The last vertex that runs a program, in the order of the graph.
    pub last_program: Option<VertexId>,
}

impl<'a> EngineWorker<'a> {
    /// Makes a worker.
    pub fn new(parts: Parts<'a>) -> Result<Self, Failure> {
        let Parts { engine, store, lease, contexts, allow, resources, secrets, ssh, began, last_program } = parts;
        // What is wrong with it is told before steps run.
        engine.network_linger()?;
        Ok(Self {
            engine,
            store,
            snapshots: store.snapshots(),
            lease,
            contexts,
            allow,
            resources,
            secrets,
            ssh,
            resolver: OnceLock::new(),
            began,
            last_program,
            sandboxes: AtomicU64::new(0),
            networks: StepNetworks::new(store, engine.settings()),
            user_files: UserFiles::default(),
            told_limits: AtomicBool::new(false),
            file_indexes: Mutex::default(),
            downloads: source_http::Downloads::default(),
            commits: source_git::Commits::default(),
        })
    }

    /// Takes down what the steps needed of the host. No more steps run.
    pub fn close(&self) -> Closing {
        self.networks.close()
    }

    /// What is known of the files of a context, for all that read it.
    fn file_index(&self, name: &str, path: &Path) -> io::Result<Arc<FileIndex>> {
        let mut indexes = self.file_indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indexes.get(name) {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.store.file_index(&std::path::absolute(path)?)?);
        indexes.insert(name.to_owned(), Arc::clone(&index));
        Ok(index)
    }

    /// Keeps what was learned of contexts, for later builds; to be called when no step runs any more.
    pub fn remember_contexts(&self) {
        let indexes = std::mem::take(&mut *self.file_indexes.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, index) in indexes {
            // It is only a memory.
            match Arc::into_inner(index).map(FileIndex::save) {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(name, %error, "digests of context files are not remembered"),
                None => tracing::debug!(name, "digests of context files are still in use"),
            }
        }
    }

    fn spawner(&self) -> Result<Arc<Spawner>, JobError> {
        self.engine.spawner().map_err(|failure| failed(failure.message()).into())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How the host finds names; read for the first step that runs.
    fn resolver(&self) -> &HostResolver {
        self.resolver.get_or_init(HostResolver::read)
    }

    /// A name for the next sandbox: unique on the host while the lease lives.
    fn sandbox_id(&self) -> String {
        format!("build-{}-{}", self.lease.info().id, self.sandboxes.fetch_add(1, Ordering::Relaxed))
    }

    /// Says once what of the limits is not in force.
    fn tell_limits(&self, warnings: &[rbuild_executor::Warning], control: Control<'_>) {
        if warnings.is_empty() || self.told_limits.swap(true, Ordering::Relaxed) {
            return;
        }
        for warning in warnings {
            control.events.emit(Event::Warning { vertex: None, message: warning.to_string() });
        }
    }

    fn fetching(&self) -> Fetching<'_> {
        Fetching { engine: self.engine, store: self.store, lease: self.lease, secrets: self.secrets, ssh: self.ssh }
    }

    /// Whether an image is in the store, so that using it fetches nothing.
    pub(crate) fn has_image(&self, image: &rbuild_solver::ImageSource) -> bool {
        source_image::is_here(self, image)
    }

    fn context(&self, name: &str) -> Result<&LocalContext, JobError> {
        self.contexts.get(name).ok_or_else(|| failed(format!("there is no build context named {name:?}")).into())
    }
}

impl Worker for EngineWorker<'_> {
    fn pin(&self, source: &Source, control: Control<'_>) -> Result<Pinned, JobError> {
        let identity = match source {
            Source::Image(image) => Some(image.digest),
            Source::Context(_) => None,
            Source::Http(http) => return source_http::pin(self, http, control),
            Source::Git(git) => return source_git::pin(self, git, control),
        };
        Ok(Pinned { source: source.clone(), identity })
    }

    fn selection_digest(&self, job: &Job, input: usize, control: Control<'_>) -> Result<ContentDigest, JobError> {
        file::selection_digest(self, job, input, None, control)
    }

    fn selection_listing(
        &self,
        job: &Job,
        input: usize,
        control: Control<'_>,
    ) -> Result<Option<(ContentDigest, Listing)>, JobError> {
        let mut listing = Listing::default();
        let digest = file::selection_digest(self, job, input, Some(&mut listing), control)?;
        Ok(Some((digest, listing)))
    }

    fn rootfs_identity(&self, snapshot: Option<&SnapshotId>, _control: Control<'_>) -> Result<ContentDigest, JobError> {
        self.snapshots.rootfs_identity(snapshot.copied()).or_fail("cannot identify a root file system")
    }

    fn rebase(
        &self,
        made: &SnapshotId,
        parent: Option<&SnapshotId>,
        _control: Control<'_>,
    ) -> Result<Option<Product>, JobError> {
        let moved = self.snapshots.rebase(*made, parent.copied(), self.lease).or_fail("cannot store a layer")?;
        Ok(Some(Product::Snapshot(Some(moved.id()))))
    }

    fn settle(&self, product: &Product) -> Result<(), JobError> {
        match product {
            Product::Snapshot(Some(id)) => Ok(self.snapshots.settle_soon(*id).or_fail(run::KEEPING)?),
            Product::Snapshot(None) | Product::Context(_) => Ok(()),
        }
    }

    fn hurry(&self) {
        self.snapshots.hurry();
    }

    fn available_memory(&self) -> Option<u64> {
        memory::available()
    }

    fn exec<'a>(&'a self, job: &Job, control: Control<'a>) -> Result<Executed<'a>, JobError> {
        let product = match &job.vertex.op {
            Op::Source(Source::Image(image)) => source_image::exec(self, job, image, control),
            Op::Source(Source::Context(context)) => match &self.context(&context.name)?.files {
                ContextFiles::Directory(_) => Ok(Product::Context(context.name.clone())),
                ContextFiles::Snapshot(_) => Ok(Product::Context(context.name.clone())),
            },
            Op::Source(Source::Http(http)) => source_http::exec(self, job, http, control),
            Op::Source(Source::Git(git)) => source_git::exec(self, git, control),
            Op::Run(run) => return run::exec(self, job, run, control),
            Op::File(files) => file::exec(self, job, files, control),
        };
        product.map(Executed::from)
    }
}
