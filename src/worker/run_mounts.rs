//! `RUN --mount=…`: what a step's mounts show, made ready before it starts and put away after it ended.

use std::fs;
use std::io;
use std::path::Path;

use rbuild_cache::snapshot::{Active, Snapshot};
use rbuild_cache::{CacheMount, CacheMountRequest, MountSharing, SnapshotId, Waiting};
use rbuild_executor::{Access, Mount, MountPoint, MountSource, Rootfs};
use rbuild_image::ContainerPath;
use rbuild_solver::{
    CacheSharing, Control, CopyAction, Event, FileAction, FileOp, Job, JobError, Linking, Product, RunMountKind, RunOp,
    VertexFailure,
};

use super::failure::{FailJob, failed};
use super::ssh_agent::AgentRelay;
use super::{EngineWorker, file};
use crate::request::SecretSource;

/// Where agents' sockets appear, unless the mount says otherwise (BuildKit's choice).
const AGENT_DIRECTORY: &str = "/run/buildkit/ssh_agent";

/// Mounts and variables of one step, and what must live as long as it runs.
#[derive(Default)]
pub(super) struct Prepared {
    /// The mounts, in order.
    pub(super) mounts: Vec<Mount>,
    /// Variables that mounts bring along.
    pub(super) env: Vec<String>,
    caches: Vec<CacheMount>,
    throw_away: Vec<Snapshot<Active>>,
    agents: Vec<AgentRelay>,
}

/// Makes a step's mounts ready.
pub(super) fn prepare(
    worker: &EngineWorker<'_>,
    job: &Job,
    op: &RunOp,
    control: Control<'_>,
) -> Result<Prepared, JobError> {
    let mut prepared = Prepared::default();
    for mount in &op.mounts {
        let target = mount.target.clone();
        match &mount.kind {
            RunMountKind::Bind { input, source, writable } => {
                let source = bind(worker, job, *input, source, &mut prepared, control)?;
                prepared.add(target, source, access(*writable));
            }
            RunMountKind::Cache { id, sharing, input, source, writable, mode, uid, gid } => {
                let from = Start { input: *input, source };
                let owner = Owner { mode: *mode, uid: *uid, gid: *gid };
                let cache = cache(worker, job, id, *sharing, from, owner, control)?;
                prepared.add(target, MountSource::Bind { path: cache.path().to_owned() }, access(*writable));
                prepared.caches.push(cache);
            }
            RunMountKind::Tmpfs { size } => {
                prepared.add(target, MountSource::Tmpfs { size: *size, mode: 0o1777 }, Access::ReadWrite);
            }
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                let value = secret(worker, id, *required)?;
                if let Some(name) = env {
                    let text = value.clone().unwrap_or_default();
                    prepared.env.push(format!("{name}={}", String::from_utf8_lossy(&text)));
                }
                if let Some(content) = value.filter(|_| target.is_some()) {
                    let file = MountSource::File { content, mode: *mode, uid: *uid, gid: *gid };
                    prepared.add(target, file, Access::ReadOnly);
                }
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => {
                ssh(worker, id, *required, Owner { mode: *mode, uid: *uid, gid: *gid }, target, &mut prepared)?;
            }
            RunMountKind::Inline { content, mode } => {
                let file = MountSource::File { content: content.clone().into_bytes(), mode: *mode, uid: 0, gid: 0 };
                prepared.add(target, file, Access::ReadOnly);
            }
        }
    }
    Ok(prepared)
}

impl Prepared {
    fn add(&mut self, target: Option<ContainerPath>, source: MountSource, access: Access) {
        if let Some(target) = target {
            self.mounts.push(Mount { target, source, access, mount_point: MountPoint::Removed });
        }
    }
}

fn access(writable: bool) -> Access {
    if writable { Access::ReadWrite } else { Access::ReadOnly }
}

/// What a bind mount shows: always a throw-away overlay, so that writes go nowhere.
fn bind(
    worker: &EngineWorker<'_>,
    job: &Job,
    input: Option<usize>,
    source: &ContainerPath,
    prepared: &mut Prepared,
    control: Control<'_>,
) -> Result<MountSource, JobError> {
    let snapshot = match input.and_then(|input| job.inputs.get(input)) {
        None => None,
        Some(Product::Snapshot(snapshot)) => *snapshot,
        Some(Product::Context(_)) => context_as_snapshot(worker, job, input, source, control)?,
    };
    let view = worker.snapshots.view(snapshot).or_fail("cannot read what is mounted")?;
    let found = view.stat(source.as_bytes()).or_fail("cannot read what is mounted")?;
    if found.is_none() && !source.is_root() {
        return Err(failed(format!("failed to compute cache key: \"{source}\": not found"))
            .help("--mount=source= names a path inside the context or stage it comes from"));
    }
    let active = worker.snapshots.prepare(snapshot, worker.lease).or_fail("cannot prepare a mount")?;
    let mounted = match active.rootfs().or_fail("cannot prepare a mount")? {
        Rootfs::Overlay { lowers, upper, work } => {
            MountSource::Overlay { lowers, upper, work, subpath: source.clone() }
        }
        Rootfs::Directory(root) => MountSource::BindInside { root, subpath: source.clone() },
    };
    prepared.throw_away.push(active);
    Ok(mounted)
}

/// The files of a context that a bind mount shows, as a snapshot: filtered by the ignore file and owned by root, as
/// every other reader of the context sees them.
fn context_as_snapshot(
    worker: &EngineWorker<'_>,
    job: &Job,
    input: Option<usize>,
    source: &ContainerPath,
    control: Control<'_>,
) -> Result<Option<SnapshotId>, JobError> {
    // The parent directories stay, so that the mount finds the same path inside; a file or directory comes alike.
    let copy = |dest: String| FileAction::Copy(CopyAction::as_is(input, source.to_string(), dest));
    let op = FileOp { actions: vec![copy(source.to_string())], linking: Linking::Independent };
    let active = worker.snapshots.prepare(None, worker.lease).or_fail("cannot prepare a mount")?;
    file::perform(worker, job, &op, &active, control)?;
    let committed = active.commit(worker.lease).or_fail("cannot prepare a mount")?;
    Ok(Some(committed.id()))
}

/// What a new cache starts from.
struct Start<'a> {
    input: Option<usize>,
    source: &'a ContainerPath,
}

/// Who a new file or directory belongs to.
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

fn cache(
    worker: &EngineWorker<'_>,
    job: &Job,
    id: &str,
    sharing: CacheSharing,
    start: Start<'_>,
    owner: Owner,
    control: Control<'_>,
) -> Result<CacheMount, JobError> {
    let from = match start.input.and_then(|input| job.inputs.get(input)) {
        Some(Product::Snapshot(snapshot)) => *snapshot,
        Some(Product::Context(_)) => context_as_snapshot(worker, job, start.input, start.source, control)?,
        None => None,
    };
    let identity = match from {
        Some(snapshot) => {
            let identity =
                worker.snapshots.rootfs_identity(Some(snapshot)).or_fail("cannot identify the cache's start")?;
            Some(format!("{identity} {}", start.source))
        }
        None => None,
    };
    let fill = |root: &Path| match from {
        Some(snapshot) => {
            let view = worker.snapshots.view(Some(snapshot))?;
            file::copy_tree(&view, start.source, root)
        }
        None => Ok(()),
    };
    let request = CacheMountRequest {
        id,
        base: identity.as_deref(),
        sharing: match sharing {
            CacheSharing::Shared => MountSharing::Shared,
            CacheSharing::Private => MountSharing::Private,
            CacheSharing::Locked => MountSharing::Locked,
        },
        mode: owner.mode,
        uid: owner.uid,
        gid: owner.gid,
        fill: &fill,
    };
    let said = std::sync::atomic::AtomicBool::new(false);
    let on_wait = |state: &Waiting<'_>| {
        if control.cancel.is_cancelled() {
            return std::ops::ControlFlow::Break(());
        }
        if !said.swap(true, std::sync::atomic::Ordering::Relaxed) {
            let holder = state.holder.as_ref().map_or_else(|| "another step".to_owned(), ToString::to_string);
            let reason = format!("cache mount {id}, held by {holder}");
            control.events.emit(Event::Waiting { vertex: job.id, reason, at: worker.now() });
        }
        std::ops::ControlFlow::Continue(())
    };
    match worker.store.cache_mounts().acquire(&request, worker.lease, &on_wait) {
        Ok(cache) => Ok(cache),
        Err(_) if control.cancel.is_cancelled() => Err(JobError::Cancelled),
        Err(error) => Err(error).or_fail(&format!("cannot use cache mount {id}")),
    }
}

fn secret(worker: &EngineWorker<'_>, id: &str, required: bool) -> Result<Option<Vec<u8>>, JobError> {
    let source = worker.secrets.iter().find(|secret| secret.id == id).map(|secret| &secret.source);
    let value = match source {
        Some(SecretSource::File(path)) => Some(fs::read(path).or_fail(&format!("cannot read secret {id}"))?),
        Some(SecretSource::Variable(name)) => {
            crate::config::Settings::user_variable(name).map(std::os::unix::ffi::OsStringExt::into_vec)
        }
        None => None,
    };
    if let Some(value) = &value {
        worker.engine.mask().learn(value);
    }
    match value {
        None if required => Err(JobError::Failed(VertexFailure {
            message: format!("secret {id}: not found"),
            help: Some(format!("give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE")),
            exit_code: None,
        })),
        value => Ok(value),
    }
}

fn ssh(
    worker: &EngineWorker<'_>,
    id: &str,
    required: bool,
    owner: Owner,
    target: Option<ContainerPath>,
    prepared: &mut Prepared,
) -> Result<(), JobError> {
    let number = prepared.agents.len();
    let target = target.unwrap_or_else(|| ContainerPath::new(format!("{AGENT_DIRECTORY}.{number}")));
    if !prepared.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
        prepared.env.push(format!("SSH_AUTH_SOCK={target}"));
    }
    let wanted = if id.is_empty() { "default" } else { id };
    let Some((_, agent)) = worker.ssh.iter().find(|(known, _)| known == wanted) else {
        if required {
            return Err(failed(format!("no SSH key {id:?} forwarded from the client"))
                .help("start an agent and give it with --ssh default, or --ssh ID=SOCKET"));
        }
        return Ok(());
    };
    let socket = worker.lease.scratch_name("agent").or_fail("cannot prepare an agent's socket")?;
    let relay = AgentRelay::start(&socket, agent, owner.mode, owner.uid, owner.gid)
        .map_err(|error: io::Error| failed(format!("cannot relay to the agent at {}: {error}", agent.display())))
        .map_err(JobError::from)?;
    prepared.add(Some(target), MountSource::Bind { path: relay.socket().to_owned() }, Access::ReadWrite);
    prepared.agents.push(relay);
    Ok(())
}
