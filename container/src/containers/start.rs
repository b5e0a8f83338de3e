//! What the start of a container needs, and how a process in the foreground is connected to its caller. The start itself is
//! its monitor's ([`super::supervise`]).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rbuild_cache::snapshot::{SnapshotError, Writable};
use rbuild_cache::view::View;
use rbuild_cache::{Hold, Lease, PathError};
use rbuild_executor::users::{self, MAX_USER_FILE, User, UserError};
use rbuild_executor::{Exceptions, ExitStatus, Process, SandboxSpec, SpawnError, Stdio, StdioFd, Warning, WindowSize};
use rbuild_image::ContainerPath;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::connect::Connected;
use super::create::ETC_FILES;
use super::{Containers, FindError, LoadError, RemoveError, UpdateError};
use crate::config::{ContainerConfig, ContainerMount, ContainerMountSource};
use crate::document::AtPath;
use crate::events::Event;
use crate::exit::ContainerExit;
use crate::id::ContainerId;
use crate::inbox::SignalInbox;
use crate::monitor::CallerStreams;
use crate::mounts::{InvalidTie, MissingSource, tie};
use crate::network::{NameServerError, NetworkError, PortTaken, UplinkError};
use crate::record::ContainerRecord;
use crate::relay::{self, Ended};
use crate::request::Console;
use crate::sandbox::{StartFacts, sandbox};
use crate::signal::Signal;
use crate::status::InvalidChange;
use crate::terminal::{RawTerminal, copy_size, size};

/// What a start in the foreground is connected to.
pub struct Foreground<'a> {
    /// The caller's streams.
    pub streams: CallerStreams,
    /// Signals to pass on.
    pub signals: &'a mut SignalInbox,
    /// Told what this host does not allow, before the container runs.
    pub warn: &'a mut dyn FnMut(&Warning),
}

impl std::fmt::Debug for Foreground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreground").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// How a container in the foreground ended.
#[derive(Debug)]
pub struct Outcome {
    /// How its process ended.
    pub exit: ContainerExit,
    /// Why part of its output did not reach the caller.
    pub lost_output: Option<io::Error>,
}

/// A container that was not started, or could not be followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// One of its volumes cannot be had.
    #[error(transparent)]
    Volume(#[from] crate::volumes::VolumeError),
    /// There is none (any more).
    #[error("no such container: {id}")]
    NotFound {
        /// Which.
        id: ContainerId,
    },
    /// Another process runs it.
    #[error("container {} is already running", id.short())]
    AlreadyRunning {
        /// Which.
        id: ContainerId,
    },
    /// A signal that was meant to end it came before it ran.
    #[error("interrupted by {signal} before the container ran")]
    Interrupted {
        /// Which.
        signal: Signal,
    },
    /// Its state does not allow it.
    #[error(transparent)]
    State(#[from] InvalidChange),
    /// Its user or group is not in its files.
    #[error(transparent)]
    User(#[from] UserError),
    /// A bind mount's source is not shared with anybody.
    #[error(transparent)]
    Tie(#[from] InvalidTie),
    /// A bind mount's source is not there.
    #[error("bind source path does not exist: {}", path.display())]
    BindSource {
        /// Which.
        path: PathBuf,
    },
    /// Its network cannot be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// There is no way out of its network.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// Its sandbox did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Its files cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It cannot be removed, though it was to go with its process.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// A port of the host cannot be had.
    #[error("cannot publish the container's ports")]
    Port(#[from] PortTaken),
    /// Its ports cannot be served.
    #[error("cannot serve the container's ports")]
    Relay(#[source] io::Error),
    /// Its names cannot be served.
    #[error(transparent)]
    Names(#[from] NameServerError),
    /// Its way out cannot be chosen.
    #[error("cannot set the container's routes")]
    Routes(#[source] io::Error),
    /// Nothing of this machine can be reached from its network.
    #[error("host-gateway: the container's network is served by a process, through which this machine is out of reach")]
    HostGateway,
    /// The container whose network it is to share does not run.
    #[error("cannot join network of a non running container: {}", id.short())]
    SharedNotRunning {
        /// That container.
        id: ContainerId,
    },
    /// The container whose namespace it is to share does not run.
    #[error("cannot join {kind} of a non running container: {}", id.short())]
    JoinedNotRunning {
        /// `PID` or `IPC`.
        kind: &'static str,
        /// That container.
        id: ContainerId,
    },
    /// The container whose memory it is to share did not agree to that.
    #[error("container {}: non-shareable IPC (hint: use --ipc=shareable for the donor container)", id.short())]
    NotShareable {
        /// That container.
        id: ContainerId,
    },
    /// A device is not there.
    #[error("error gathering device information while adding custom device \"{}\"", path.display())]
    Device {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is where a device should be.
    #[error("error gathering device information while adding custom device \"{}\": not a device node", path.display())]
    NotADevice {
        /// Which.
        path: PathBuf,
    },
    /// There is no container whose network it could share.
    #[error(transparent)]
    Shared(#[from] FindError),
    /// Its streams cannot be connected.
    #[error("cannot connect the container's streams")]
    Streams(#[source] io::Error),
    /// Its process cannot be followed.
    #[error("cannot follow the container's process")]
    Follow(#[source] io::Error),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

impl StartError {
    /// What the failed start counts as.
    pub fn exit(&self) -> ContainerExit {
        match self {
            Self::Spawn(error) => match error.exit_code() {
                127 => ContainerExit::NotFound,
                126 => ContainerExit::NotExecutable,
                _ => ContainerExit::Failed,
            },
            Self::Interrupted { signal } => ContainerExit::Signal(*signal),
            _ => ContainerExit::Failed,
        }
    }
}

/// Signals that would have ended the caller, had it not collected them for the container.
pub(super) const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

impl Containers {
    /// Records that a container could not be started.
    pub(super) fn record_failure(&self, id: &ContainerId, error: &StartError) -> Result<(), StartError> {
        let (exit, text) = (error.exit(), error.to_string());
        self.record(id, |record| {
            record.state.fail_to_start(exit, text);
            Ok(())
        })
    }

    /// Records that a container runs; one that was removed meanwhile must not, or nobody would see it.
    pub(super) fn record_start(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), UpdateError>,
    ) -> Result<(), StartError> {
        match self.update(id, change) {
            Ok(_) => Ok(()),
            Err(UpdateError::Gone { id }) => Err(StartError::NotFound { id }),
            Err(UpdateError::State(error)) => Err(error.into()),
            Err(UpdateError::Load(error)) => Err(error.into()),
        }
    }

    /// Records what happened to a container; one that was removed by force meanwhile needs no record.
    pub(super) fn record(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), UpdateError>,
    ) -> Result<(), StartError> {
        self.record_telling(id, change, Vec::new)
    }

    /// The same; tells what follows from the change, too.
    pub(super) fn record_telling(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), UpdateError>,
        following: impl FnOnce() -> Vec<Event>,
    ) -> Result<(), StartError> {
        match self.update_telling(id, change, following) {
            Ok(_) | Err(UpdateError::Gone { .. }) => Ok(()),
            Err(UpdateError::State(error)) => Err(error.into()),
            Err(UpdateError::Load(error)) => Err(error.into()),
        }
    }

    pub(super) fn sandbox_of(
        &self,
        record: &ContainerRecord,
        connected: &Connected,
        exceptions: Exceptions,
        lease: &Lease,
    ) -> Result<SandboxSpec, StartError> {
        if let Some(snapshot) = record.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        let writable = self.writable(record);
        let (user, groups) = look_up_user(&record.config.user, &record.config, &writable)?;
        for mount in &record.config.mounts {
            if let ContainerMountSource::Bind { path, missing, manner } = &mount.source {
                let path = bind_source(path, *missing)?;
                tie::check(&path, manner.propagation).at("look at", &path)??;
            }
        }
        let sources = self.mount_sources(record)?;
        let directory = connected.etc_files().map_or_else(|| self.directory(&record.id), Path::to_owned);
        let etc = ETC_FILES.iter().map(|name| (*name, directory.join(name))).collect();
        let rootfs = writable.rootfs()?;
        let facts = StartFacts { rootfs, user, groups, sources, network: connected.mode(), etc, exceptions };
        Ok(sandbox(&record.id, &record.config, facts))
    }

    /// Where the content of a container's mounts is, in their order; `None` for what is in memory.
    pub(super) fn mount_sources(&self, record: &ContainerRecord) -> Result<Vec<Option<PathBuf>>, StartError> {
        let source = |mount: &ContainerMount| match &mount.source {
            ContainerMountSource::Volume { name, .. } => Ok(Some(self.volume_source(name)?)),
            ContainerMountSource::Bind { path, missing, .. } => bind_source(path, *missing).map(Some),
            ContainerMountSource::Tmpfs { .. } => Ok(None),
        };
        record.config.mounts.iter().map(source).collect()
    }
}

/// Why a user cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookUpError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<LookUpError> for StartError {
    fn from(error: LookUpError) -> Self {
        match error {
            LookUpError::User(error) => error.into(),
            LookUpError::Snapshot(error) => error.into(),
        }
    }
}

/// Looks up user and groups in the container's own files, which may be changed by it (S-22).
pub(super) fn look_up_user(
    user: &str,
    config: &ContainerConfig,
    writable: &Writable,
) -> Result<(User, Vec<u32>), LookUpError> {
    let view = writable.view()?;
    let user = users::lookup_with(|path| read_user_file(&view, path), user)?;
    let mut groups = Vec::new();
    if !config.group_add.is_empty() {
        let file = read_user_file(&view, &ContainerPath::new("/etc/group")).unwrap_or_default();
        for group in &config.group_add {
            groups.push(users::find_group(&file, group)?);
        }
    }
    Ok((user, groups))
}

fn read_user_file(view: &View, path: &ContainerPath) -> io::Result<Vec<u8>> {
    view.read_regular(path.as_bytes(), MAX_USER_FILE)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Where the source of a bind mount really is: the user's own paths are followed, symlinks included.
fn bind_source(path: &Path, missing: MissingSource) -> Result<PathBuf, StartError> {
    if missing == MissingSource::CreateDirectory && !path.exists() {
        std::fs::create_dir_all(path).at("create", path)?;
    }
    #[expect(clippy::disallowed_methods, reason = "a path of the host that its user typed, not one from an image")]
    match std::fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::BindSource { path: path.to_owned() }),
        Err(error) => Ok(Err(error).at("open", path)?),
    }
}

pub(super) fn exit_of(status: ExitStatus) -> ContainerExit {
    match status {
        ExitStatus::Exited(code) => ContainerExit::Code(code.to_le_bytes()[0]),
        ExitStatus::Signaled(number) => Signal::from_number(number).map_or(ContainerExit::Lost, ContainerExit::Signal),
        ExitStatus::OomKilled => ContainerExit::OutOfMemory,
    }
}

/// The two sides of a container's streams before it runs.
pub(super) struct Connection {
    console: Console,
    caller: CallerStreams,
    inner: Option<Stdio>,
    /// Our ends of the pipes: input, output, error.
    input: Option<OwnedFd>,
    outputs: Vec<OwnedFd>,
}

impl Connection {
    pub(super) fn new(console: Console, caller: CallerStreams) -> io::Result<Self> {
        if console.terminal {
            let inner = Some(Stdio::terminal());
            return Ok(Self { console, caller, inner, input: None, outputs: Vec::new() });
        }
        let (output, inner_output) = pipe_with(PipeFlags::CLOEXEC)?;
        let (error, inner_error) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdin, input) = if console.interactive {
            let (inner_input, input) = pipe_with(PipeFlags::CLOEXEC)?;
            (StdioFd::Fd(inner_input), Some(input))
        } else {
            (StdioFd::Null, None)
        };
        let inner = Stdio { stdin, stdout: StdioFd::Fd(inner_output), stderr: StdioFd::Fd(inner_error) };
        Ok(Self { console, caller, inner: Some(inner), input, outputs: vec![output, error] })
    }

    /// The container's side; closed here when the process has it.
    pub(super) fn take_inner(&mut self) -> Stdio {
        self.inner.take().expect("taken once, by the one start this connection is made for")
    }

    /// The first size of the container's terminal: the caller's.
    pub(super) fn window(&self) -> Option<WindowSize> {
        if self.console.terminal { size(&self.caller.output) } else { None }
    }

    /// Begins to copy.
    pub(super) fn relay(mut self, process: &mut Process) -> io::Result<Relays> {
        let ended = Ended::new()?;
        let mut relays = Relays { ended, outputs: Vec::new(), raw: None, window: None };
        if self.console.terminal {
            let terminal = process.take_terminal().ok_or_else(|| io::Error::other("the sandbox has no terminal"))?;
            let window = Window { caller: self.caller.output.try_clone()?, container: terminal.try_clone()? };
            relays.window = Some(window);
            if self.console.interactive {
                // Before the first output: whoever answers it types into the container already.
                relays.raw = RawTerminal::enter(rustix::fd::AsFd::as_fd(&self.caller.input))?;
            }
            relays.outputs.push(relay::output(terminal.try_clone()?, self.caller.output, &relays.ended)?);
            if self.console.interactive {
                drop(relay::input(self.caller.input, terminal, &relays.ended)?);
            }
            return Ok(relays);
        }
        for (from, to) in self.outputs.drain(..).zip([self.caller.output, self.caller.error]) {
            relays.outputs.push(relay::output(from, to, &relays.ended)?);
        }
        if let Some(input) = self.input {
            // Not joined: it may be waiting for a key that nobody presses.
            drop(relay::input(self.caller.input, input, &relays.ended)?);
        }
        Ok(relays)
    }
}

/// The caller's window and the container's, which follows it.
struct Window {
    caller: OwnedFd,
    container: OwnedFd,
}

impl Window {
    fn copy(&self) -> io::Result<()> {
        copy_size(&self.caller, &self.container)
    }
}

/// Streams that are being copied.
pub(super) struct Relays {
    ended: Ended,
    outputs: Vec<JoinHandle<io::Result<()>>>,
    raw: Option<RawTerminal>,
    window: Option<Window>,
}

impl Relays {
    /// The container's process has ended: waits until all of its output has reached the caller.
    pub(super) fn finish(self) -> io::Result<()> {
        self.ended.announce()?;
        let mut result = Ok(());
        for output in self.outputs {
            let copied = output.join().unwrap_or_else(|_| Err(io::Error::other("an output relay panicked")));
            result = result.and(copied);
        }
        drop(self.raw);
        result
    }
}

/// Passes signals on until the process has ended.
pub(super) fn follow(process: &mut Process, relays: &Relays, signals: &mut SignalInbox) -> io::Result<ExitStatus> {
    loop {
        for signal in signals.take() {
            match (&relays.window, signal) {
                // The kernel tells the container's processes when the size of their terminal changes.
                (Some(window), Signal::WINCH) => window.copy()?,
                _ => process.signal(signal.number())?,
            }
        }
        let mut ready = [
            PollFd::from_borrowed_fd(process.pidfd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.readiness(), PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) if !ready[0].revents().is_empty() => return process.wait(),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
