//! `RUN`: a step's op becomes a sandbox on an active snapshot; its output becomes events, its end a commit or a failure.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rbuild_cache::snapshot::{Active, Snapshot};
use rbuild_container::Reachable;
use rbuild_executor::{
    Access, AppArmor, Confinement, DEFAULT_CAPABILITIES, Durability, Exceptions, ExitStatus, Init, KernelPaths, Mount,
    MountPoint, MountSource, NetworkMode, Process, ProcessSpec, Rlimit, SandboxSpec, Seccomp, SpawnError, Stdio,
    StdioFd, Usage, users,
};
use rbuild_image::ContainerPath;
use rbuild_solver::{
    Control, Event, Executed, Job, JobError, Product, RunNetwork, RunOp, RunSecurity, StepUsage, Used, VertexFailure,
    VertexId,
};

use super::EngineWorker;
use super::attend::{WAITING, attend};
use super::failure::{FailJob, chain, failed};
use super::host_files;
use super::network::{After, Lent, refused};
use super::run_mounts::{self, Prepared};
use super::user_files;
use crate::failure_help::{self, FailedStep, SEE_OUTPUT, Space, Tail};
use crate::request::Entitlement;

/// What is being done while a step's files are made durable.
pub(super) const KEEPING: &str = "cannot keep the step's files";

/// Runs a step; gives the snapshot that it made, while the sandbox of a step that did well is still taken down.
pub(super) fn exec<'a>(
    worker: &'a EngineWorker<'_>,
    job: &Job,
    op: &RunOp,
    control: Control<'a>,
) -> Result<Executed<'a>, JobError> {
    check_entitlements(worker, op)?;
    let networked = op.network == RunNetwork::Default;
    if networked {
        worker.networks.prepare(worker.lease, worker.store.now()).map_err(|error| refused(&error))?;
    }
    let parent = match job.inputs.first() {
        Some(Product::Snapshot(parent)) => *parent,
        Some(Product::Context(_)) | None => None,
    };
    let active =
        worker.snapshots.prepare(parent, worker.lease).or_fail("cannot prepare the step's root file system")?;
    let (user_files, user) = user_of(worker, &active, op)?;
    let prepared = run_mounts::prepare(worker, job, op, control)?;
    let lent = networked.then(|| worker.networks.take(worker.lease)).transpose().map_err(|error| refused(&error))?;
    let spec = specification(worker, op, &active, &user, &prepared, lent.as_ref())?;
    let not_started = |error: &SpawnError| not_started(error, op, &active);
    let ran = run(worker, &spec, job.id, control, &not_started);
    // Only a privileged step can have changed it.
    let after = if op.security == RunSecurity::Sandbox { After::Reuse } else { After::Discard };
    let still = match ran {
        Ok(still) if still.status.success() => {
            let same_users = !active.changes(user_files::DIRECTORY).or_fail(KEEPING)?;
            let made = active.commit_soon(worker.lease).or_fail(KEEPING)?;
            if same_users {
                worker.user_files.same(made, user_files);
            }
            // None of its processes is left.
            if let Some(lent) = lent {
                lent.give_back(after);
            }
            let vertex = job.id;
            let end = move || {
                let usage = still.end(worker, vertex, control)?.usage;
                drop(prepared);
                Ok(StepUsage { processor: usage.user + usage.system, memory_peak: usage.memory_peak })
            };
            return Ok(Executed { product: Product::Snapshot(Some(made)), used: Used::AtEnd(Box::new(end)) });
        }
        other => other,
    };
    let ended = still.and_then(|still| still.end(worker, job.id, control));
    if let Some(lent) = lent {
        lent.give_back(after);
    }
    let Ended { status, usage, said, lost } = ended?;
    drop(prepared);
    if lost {
        return Err(was_lost(op));
    }
    let help = || {
        let said = worker.engine.mask().text(&said);
        failure_help::of_step(&FailedStep {
            op,
            files: active.parent_view().as_ref(),
            said: &said,
            code: status.code(),
            as_root: user.ids.uid == 0,
            oom_kills: usage.oom_kills,
            memory_limit: worker.resources.memory,
            disk: &|| Space::of(&worker.engine.settings().root),
        })
    };
    Err(not_completed(status, op, help))
}

fn check_entitlements(worker: &EngineWorker<'_>, op: &RunOp) -> Result<(), JobError> {
    let wanted = [
        (op.network == RunNetwork::Host, Entitlement::NetworkHost, "network.host"),
        (op.security == RunSecurity::Insecure, Entitlement::SecurityInsecure, "security.insecure"),
    ];
    for (wants, entitlement, name) in wanted {
        if wants && !worker.allow.contains(&entitlement) {
            return Err(JobError::Failed(VertexFailure {
                message: format!("{name} is not allowed"),
                help: Some(format!("grant it with --allow {name}")),
                exit_code: None,
            }));
        }
    }
    Ok(())
}

fn user_of(
    worker: &EngineWorker<'_>,
    active: &Snapshot<Active>,
    op: &RunOp,
) -> Result<(user_files::Known, users::User), JobError> {
    let user = if op.user.is_empty() { "0:0" } else { &op.user };
    let (known, found) = worker.user_files.lookup(active.parent(), active.parent_view(), user);
    let found = found.map_err(|error| {
        failed(format!("process {:?} did not complete successfully: {error}", shown(op)))
            .help("USER names a user of the image; create it in an earlier step, or use a number")
    })?;
    Ok((known, found))
}

/// The whole specification of a step's sandbox.
fn specification(
    worker: &EngineWorker<'_>,
    op: &RunOp,
    active: &Snapshot<Active>,
    user: &users::User,
    prepared: &Prepared,
    lent: Option<&Lent>,
) -> Result<SandboxSpec, JobError> {
    let (network, reachable) = match (op.network, lent) {
        (RunNetwork::Host, _) => (NetworkMode::Host, Reachable::All),
        (RunNetwork::Default, Some(lent)) => {
            let uplink = lent.uplink();
            (uplink.namespace().mode(), uplink.name_server().map_or(Reachable::NotLoopback, Reachable::Only))
        }
        (RunNetwork::None | RunNetwork::Default, _) => (NetworkMode::None, Reachable::NotLoopback),
    };
    let here = match (op.network, lent) {
        // It is this machine's own network.
        (RunNetwork::Host, _) => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        (RunNetwork::Default, Some(lent)) => lent.uplink().gateway(),
        (RunNetwork::None | RunNetwork::Default, _) => None,
    };
    let hosts = host_files::hosts(&op.hostname, &op.extra_hosts, here).ok_or_else(|| {
        failed("--add-host: host-gateway is not there: from the step's network this machine is out of reach")
            .help("as root the step's network is a bridge, which has it; --network=host has it, too")
    })?;
    let mut mounts =
        vec![text_mount("/etc/resolv.conf", worker.resolver().resolv_conf(reachable)), text_mount("/etc/hosts", hosts)];
    mounts.extend(prepared.mounts.iter().cloned());
    let mut env = op.env.clone();
    env.extend(op.proxy_env.iter().cloned());
    env.extend(prepared.env.iter().cloned());
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let confinement = match op.security {
        RunSecurity::Sandbox => Confinement {
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            apparmor: AppArmor::HostDefault,
            kernel_paths: KernelPaths::Masked,
        },
        RunSecurity::Insecure => Confinement {
            capabilities: rbuild_executor::ALL_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
            no_new_privileges: false,
            seccomp: Seccomp::Unconfined,
            apparmor: AppArmor::Unconfined,
            kernel_paths: KernelPaths::Open,
        },
    };
    Ok(SandboxSpec {
        id: worker.sandbox_id(),
        rootfs: active.rootfs().or_fail("cannot describe the step's root file system")?,
        // Committing the snapshot syncs it as a whole.
        durability: Durability::AtCommit,
        root_access: Access::ReadWrite,
        mounts,
        process: ProcessSpec {
            argv: op.argv.clone(),
            env,
            cwd: op.cwd.clone(),
            user: user.ids.clone(),
            rlimits: op.ulimits.iter().map(rlimit).collect(),
            terminal: false,
        },
        hostname: op.hostname.clone(),
        network,
        confinement,
        resources: worker.resources.clone(),
        shm_size: op.shm_size,
        init: Init::Reaper,
        exceptions: Exceptions::default(),
    })
}

fn rlimit((name, soft, hard): &(String, u64, u64)) -> Rlimit {
    Rlimit { name: name.to_uppercase(), soft: *soft, hard: *hard }
}

fn text_mount(target: &str, text: String) -> Mount {
    Mount {
        target: ContainerPath::new(target),
        source: MountSource::File { content: text.into_bytes(), mode: 0o644, uid: 0, gid: 0 },
        access: Access::ReadOnly,
        mount_point: MountPoint::Removed,
    }
}

/// Starts the sandbox, passes its output on, waits until the program has ended and its files stay as they are. A stop asked for
/// by the token ends it.
fn run(
    worker: &EngineWorker<'_>,
    spec: &SandboxSpec,
    vertex: VertexId,
    control: Control<'_>,
    not_started: &dyn Fn(&SpawnError) -> JobError,
) -> Result<Still, JobError> {
    let (mut process, output) = match start(worker, spec, vertex) {
        // Nothing of the step ran yet: another process can start it.
        Err(StartError::Spawn(SpawnError::SpawnerGone { .. })) => start(worker, spec, vertex),
        other => other,
    }
    .map_err(|error| match error {
        StartError::Spawn(error) => not_started(&error),
        StartError::Other(error) => error,
    })?;
    worker.tell_limits(process.warnings(), control);
    let tail = Mutex::new(Tail::default());
    let emit = |stream, data: &[u8]| {
        if data.is_empty() {
            return;
        }
        tail.lock().unwrap_or_else(PoisonError::into_inner).take(data);
        control.events.emit(Event::Log { vertex, stream, data: data.to_vec(), at: worker.now() });
    };
    let status = attend(&mut process, output, control.cancel, &emit);
    let said = tail.into_inner().unwrap_or_else(PoisonError::into_inner).text();
    match status {
        Ok(status) => Ok(Still { process, status, said }),
        Err(error) => {
            tell_usage(&process, vertex, worker, control);
            Err(error)
        }
    }
}

fn tell_usage(process: &Process, vertex: VertexId, worker: &EngineWorker<'_>, control: Control<'_>) {
    let usage = process.usage();
    control.events.emit(Event::Used {
        vertex,
        processor: u64::try_from((usage.user + usage.system).as_nanos()).unwrap_or(u64::MAX),
        memory: usage.memory_peak,
        processes: usage.pids_peak,
        read: usage.read,
        written: usage.written,
        at: worker.now(),
    });
}

/// A step's process has ended, and nobody writes to its files any more.
struct Still {
    process: Process,
    status: ExitStatus,
    /// The end of what it said, not masked.
    said: String,
}

impl Still {
    /// Waits until nothing of the sandbox is left; says what it used.
    fn end(mut self, worker: &EngineWorker<'_>, vertex: VertexId, control: Control<'_>) -> Result<Ended, JobError> {
        self.process.wait().or_fail(WAITING)?;
        tell_usage(&self.process, vertex, worker, control);
        let Self { process, status, said } = self;
        Ok(Ended { status, usage: process.usage(), said, lost: process.was_lost() })
    }
}

/// How a step's process ended.
struct Ended {
    status: ExitStatus,
    usage: Usage,
    /// The end of what it said, not masked.
    said: String,
    /// Whether its sandbox went with the process that started it.
    lost: bool,
}

fn was_lost(op: &RunOp) -> JobError {
    let shown = shown(op);
    failed(format!(
        "process {shown:?} was lost: the process that starts sandboxes was killed, and its sandboxes with it"
    ))
    .help("somebody killed it, or the machine ran out of memory; build again: what was done is cached")
}

enum StartError {
    Spawn(SpawnError),
    Other(JobError),
}

impl From<JobError> for StartError {
    fn from(error: JobError) -> Self {
        Self::Other(error)
    }
}

/// Starts the sandbox; gives it with the ends of its output that are read.
fn start(
    worker: &EngineWorker<'_>,
    spec: &SandboxSpec,
    vertex: VertexId,
) -> Result<(Process, [OwnedFd; 2]), StartError> {
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let stdio = Stdio { stdin: StdioFd::Null, stdout: StdioFd::Fd(out_write), stderr: StdioFd::Fd(err_write) };
    let spawner = worker.spawner()?;
    spawner.expect_another(worker.last_program.is_some_and(|last| vertex < last));
    let process = spawner.spawn(spec, stdio).map_err(StartError::Spawn)?;
    Ok((process, [out_read, err_read]))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), JobError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_fail("cannot make a pipe for the step's output")
}

fn not_started(error: &SpawnError, op: &RunOp, active: &Snapshot<Active>) -> JobError {
    let exit_code = match error {
        SpawnError::NotFound { .. } => Some(127),
        SpawnError::NotExecutable { .. } => Some(126),
        _ => None,
    };
    JobError::Failed(VertexFailure {
        message: chain(&format!("process {:?} did not complete successfully", shown(op)), error),
        help: Some(failure_help::not_started(error, op, active.parent_view().as_ref())),
        exit_code,
    })
}

/// The command as people see it in messages: its words, joined.
fn shown(op: &RunOp) -> String {
    op.argv.join(" ")
}

/// A step's process ended with anything but success.
fn not_completed(status: ExitStatus, op: &RunOp, help: impl FnOnce() -> Option<String>) -> JobError {
    let (code, why) = match status {
        ExitStatus::Exited(code @ 129..=192) => (code, format!(" (killed by signal {})", signal_name(code - 128))),
        ExitStatus::Exited(code) => (code, String::new()),
        ExitStatus::Signaled(signal) => (128 + signal, format!(" (killed by signal {})", signal_name(signal))),
        ExitStatus::OomKilled => (137, " (out of memory: killed by the kernel)".to_owned()),
    };
    let generally = || (code < 129).then(|| SEE_OUTPUT.to_owned());
    JobError::Failed(VertexFailure {
        message: format!("process {:?} did not complete successfully: exit code: {code}{why}", shown(op)),
        help: help().or_else(generally),
        exit_code: Some(code),
    })
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}
