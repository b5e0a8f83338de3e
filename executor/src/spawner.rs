//! The engine's end of the process that starts sandboxes.
//!
//! An engine has many threads and much memory, so it must not fork. It starts one small process with a single thread (the
//! same binary, in a form that nothing in a sandbox can write to, rule S-10) and sends it finished plans:
//!
//! ```text
//!   engine ── control ──▶ spawner ── clone3 ──▶ sandbox          one control socket for all
//!     ▲ ▲                    │ started, ended     │ leftovers, ready, failed
//!     │ └──── exit ──────────┘                    │              one pair of sockets
//!     └────── setup ──────────────────────────────┘              for each sandbox
//! ```
//!
//! The spawner ends, and kills every sandbox, when the engine's end of the control socket closes, which the kernel does even
//! for `kill -9`. A sandbox gets a parent-death signal for the case that the spawner dies.

mod ahead;
mod entering;
mod serve;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as ChildStdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cgroup::{GroupEvents, Warning};
use crate::channel::{self, SealedBytes};
use crate::init::ProgramEnded;
use crate::perform::SetupMessage;
use crate::plan::{self, HostFacts, Plan};
use crate::process::Process;
use crate::rootfs;
use crate::spawn_error::SpawnError;
use crate::spec::{ExecSpec, Rootfs, SandboxSpec};
use crate::stacking::{Stacker, StackingChoice, Stacks};
use crate::stdio::{Slot, Stdio, WindowSize};
use crate::sys::mount::{Depth, set_attributes};
use crate::user_namespace::current_ids;

pub use serve::reexec_entry;

/// How the spawner knows itself.
const ARGV0: &str = "rbuild-spawner";

/// Processes in a sandbox unless something else is asked for.
const DEFAULT_PIDS: u64 = 2048;

/// Starts sandboxes. May be used by several threads at once; dropping it kills what still runs.
#[derive(Debug)]
pub struct Spawner {
    /// Closed first when dropped.
    control: Option<OwnedFd>,
    child: Child,
    host: HostFacts,
    stacker: Stacker,
    /// Whether sandboxes like the last one are going to be asked for.
    another: AtomicBool,
}

/// To the spawner: start this. The plan, the two sockets, PID 1 of the sandbox that is to be entered, if one is, and the standard
/// descriptors travel along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) slots: [Slot; 3],
    /// How many mounts come along, before the standard descriptors.
    pub(crate) mounts: usize,
    /// First size of the terminal.
    pub(crate) window: Option<WindowSize>,
    /// Whether it is to prepare for one more of this kind.
    pub(crate) another: bool,
}

/// From the spawner and the sandbox's init, over the exit socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ExitMessage {
    /// It runs; the pidfd travels along.
    Started { started: i32, warnings: Vec<Warning> },
    /// It does not.
    NotStarted { not_started: SpawnError },
    /// PID 1 ended and was reaped, the cgroup is gone.
    Ended(Ended),
    /// The program ended; its init is about to.
    Program(ProgramEnded),
}

/// How PID 1 of a sandbox ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) wait_status: i32,
    pub(crate) user_micros: u64,
    pub(crate) system_micros: u64,
    pub(crate) max_rss: u64,
    pub(crate) oom_kills: u64,
    pub(crate) memory_peak: Option<u64>,
    pub(crate) pids_peak: Option<u64>,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

impl Ended {
    pub(crate) fn new(reaped: &crate::sys::process::Reaped, group: GroupEvents) -> Self {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            wait_status: reaped.status,
            user_micros: micros(reaped.user),
            system_micros: micros(reaped.system),
            max_rss: reaped.max_rss,
            oom_kills: group.oom_kills,
            memory_peak: group.memory_peak,
            pids_peak: group.pids_peak,
            read: reaped.read,
            written: reaped.written,
        }
    }
}

/// What the exit socket says first.
enum Beginning {
    Started(Started),
    NotStarted(SpawnError),
    /// Nobody has the other end any more.
    Silence,
}

/// A sandbox that was cloned.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) warnings: Vec<Warning>,
    /// How the program ended, where it did before the spawner said that it was started.
    pub(crate) program: Option<ProgramEnded>,
}

impl Spawner {
    /// Starts the process. The program's `main` must call [`reexec_entry`] before anything else.
    pub fn start() -> io::Result<Self> {
        if !serve::can_be_reexecuted() {
            return Err(io::Error::other("the program's main does not begin with the call that makes it one"));
        }
        let binary = protected_self()?;
        let (ours, theirs) = channel::pair()?;
        let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .arg0(ARGV0)
            .env_clear()
            // A signal of the terminal is for the engine, which decides what to do about it.
            .process_group(0)
            .stdin(ChildStdio::from(theirs))
            .stdout(ChildStdio::null())
            .spawn()?;
        let host = HostFacts {
            bounding: Capabilities::caller_bounding(),
            throttled_cpus: throttled_cpus(),
            open_files: crate::rlimit::inherited_open_files(),
            time_namespaces: Path::new("/proc/self/ns/time").exists(),
            default_pids: Some(DEFAULT_PIDS),
            apparmor: apparmor_profiles(),
            user_namespace: Some(current_ids()?).filter(|map| !map.is_identity()),
        };
        Ok(Self { control: Some(ours), child, host, stacker: Stacker::default(), another: AtomicBool::new(false) })
    }

    /// How the layers of its sandboxes are put over each other; by default with overlayfs, or by copying them where that does
    /// not work.
    #[must_use]
    pub fn with_stacking(mut self, choice: StackingChoice) -> Self {
        self.stacker = Stacker::new(choice);
        self
    }

    /// Says whether more sandboxes of the kind that is asked for next are to be expected: then one is prepared while that one
    /// runs, and starts in half the time. It costs as much as a start where it turns out not to be needed.
    pub fn expect_another(&self, another: bool) {
        self.another.store(another, Ordering::Relaxed);
    }

    /// Whether the process still runs. One that was killed took its sandboxes with it; a new one can be started.
    pub fn is_alive(&self) -> bool {
        let Some(control) = &self.control else { return false };
        let mut polled = [PollFd::new(control, PollFlags::empty())];
        match rustix::event::poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
            Err(_) => true,
        }
    }

    /// What plans made by this spawner depend on.
    pub fn host_facts(&self) -> &HostFacts {
        &self.host
    }

    /// Starts a sandbox; returns when its program runs, or with the reason why it does not.
    pub fn spawn(&self, spec: &SandboxSpec, stdio: Stdio) -> Result<Process, SpawnError> {
        self.spawn_in_window(spec, stdio, None)
    }

    /// Like [`Spawner::spawn`], with a terminal that has this size before the program can ask for it.
    pub fn spawn_in_window(
        &self,
        spec: &SandboxSpec,
        stdio: Stdio,
        window: Option<WindowSize>,
    ) -> Result<Process, SpawnError> {
        if stdio.uses_terminal() && !spec.process.terminal {
            return Err(SpawnError::Invalid { reason: "a descriptor is the terminal, and there is none".to_owned() });
        }
        let marks = self.host.overlay_marks();
        let (mut stacks, spec) = Stacks::prepare(&self.stacker, spec, marks)?;
        let mut plan = plan::plan(&spec, &self.host)?;
        if !stacks.mounts.is_empty() {
            plan.use_ready_mounts();
        }
        let plan = Plan::Sandbox(Box::new(plan));
        let begun = self.begin(&plan, stdio, window, &Along::Mounts(&stacks.mounts))?;
        // From here on only the sandbox uses them, and they end with it.
        stacks.mounts.clear();
        let backing = match &spec.rootfs {
            Rootfs::Overlay { upper, .. } => upper.clone(),
            Rootfs::Directory(path) => path.clone(),
        };
        begun.into_process(Some(backing), stacks)
    }

    /// Starts one more process in the sandbox whose PID 1 is behind the pidfd `sandbox`; returns when its program runs, or with
    /// the reason why it does not. It ends with this spawner.
    pub fn exec(
        &self,
        sandbox: BorrowedFd<'_>,
        spec: &ExecSpec,
        stdio: Stdio,
        window: Option<WindowSize>,
    ) -> Result<Process, SpawnError> {
        if stdio.uses_terminal() && !spec.process.terminal {
            return Err(SpawnError::Invalid { reason: "a descriptor is the terminal, and there is none".to_owned() });
        }
        let plan = Plan::Exec(Box::new(plan::exec(spec, &self.host)?));
        self.begin(&plan, stdio, window, &Along::Sandbox(sandbox))?.into_process(None, Stacks::default())
    }

    /// Sends a plan, and waits until something was started.
    fn begin(
        &self,
        plan: &Plan,
        stdio: Stdio,
        window: Option<WindowSize>,
        along: &Along<'_>,
    ) -> Result<Begun, SpawnError> {
        let gone = |source| SpawnError::SpawnerGone { source };
        let (setup, their_setup) = channel::pair().map_err(|e| SpawnError::setup("make a socket", e))?;
        let (exit, their_exit) = channel::pair().map_err(|e| SpawnError::setup("make a socket", e))?;
        let sockets = [their_setup.as_fd(), their_exit.as_fd()];
        self.request(plan, &stdio, window, sockets, along).map_err(gone)?;
        drop((their_setup, their_exit, stdio));
        match started(&exit).map_err(gone)? {
            Beginning::NotStarted(error) => Err(error),
            // It lives and did not answer: the request lost its descriptors on the way, where there was no room for them.
            Beginning::Silence if self.is_alive() => {
                Err(SpawnError::setup("pass a sandbox to the process that starts them", Errno::MFILE))
            }
            Beginning::Silence => Err(gone(io::ErrorKind::UnexpectedEof.into())),
            beginning => Ok(Begun { beginning, setup, exit }),
        }
    }

    fn request(
        &self,
        plan: &Plan,
        stdio: &Stdio,
        window: Option<WindowSize>,
        sockets: [BorrowedFd<'_>; 2],
        along: &Along<'_>,
    ) -> io::Result<()> {
        let control = self.control.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let text = serde_json::to_vec(plan)?;
        let length = (text.len() as u64).to_le_bytes();
        let blob = match plan {
            Plan::Sandbox(plan) => &plan.blob[..],
            Plan::Exec(_) => &[],
        };
        let plan = SealedBytes::write("rbuild-plan", &[&length, &text, blob])?;
        let (slots, more) = stdio.wire();
        let mut fds = vec![plan.as_fd()];
        fds.extend(sockets);
        fds.extend(along.descriptors());
        fds.extend(more);
        let mounts = match along {
            Along::Mounts(mounts) => mounts.len(),
            Along::Sandbox(_) => 0,
        };
        let another = self.another.load(Ordering::Relaxed);
        channel::send(control, &Request { slots, mounts, window, another }, &fds)
    }
}

/// What goes along with a plan beside sockets and streams.
enum Along<'a> {
    /// The mounts that a new sandbox uses.
    Mounts(&'a [OwnedFd]),
    /// PID 1 of the sandbox to enter.
    Sandbox(BorrowedFd<'a>),
}

impl Along<'_> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Mounts(mounts) => mounts.iter().map(AsFd::as_fd).collect(),
            Self::Sandbox(sandbox) => vec![*sandbox],
        }
    }
}

/// Something that was started, and what its owner hears of it.
struct Begun {
    beginning: Beginning,
    setup: OwnedFd,
    exit: OwnedFd,
}

impl Begun {
    /// Waits until the program runs. `backing` is where changes of the root end up.
    fn into_process(self, backing: Option<PathBuf>, stacks: Stacks) -> Result<Process, SpawnError> {
        let Beginning::Started(started) = self.beginning else { return Err(SpawnError::Died) };
        let mut process = Process::new(started, self.exit, backing, stacks);
        let mut ready = false;
        while let Some((message, mut fds)) = next(&self.setup)? {
            match message {
                SetupMessage::Leftovers(leftovers) => process.set_leftovers(leftovers),
                SetupMessage::Ready => {
                    ready = true;
                    process.set_terminal(fds.pop());
                }
                // Dropping the process waits for it and removes what it left.
                SetupMessage::Failed(error) => return Err(error),
            }
        }
        if ready { Ok(process) } else { Err(SpawnError::Died) }
    }
}

/// The next word about a set-up; none once the program runs, or never will.
fn next(setup: &OwnedFd) -> Result<Option<(SetupMessage, Vec<OwnedFd>)>, SpawnError> {
    channel::receive(setup, RecvFlags::empty()).map_err(|source| SpawnError::SpawnerGone { source })
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.control = None;
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "cannot wait for the spawner");
        }
    }
}

/// Waits until the spawner says that it started a sandbox. Spawner and init share the socket: on a busy machine a short
/// program ends, and its init says so, before the spawner gets to say anything.
fn started(exit: &OwnedFd) -> io::Result<Beginning> {
    let mut program = None;
    loop {
        match receive(exit)? {
            Some((ExitMessage::Started { started: pid, warnings }, mut fds)) => {
                let pidfd = fds.pop().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Beginning::Started(Started { pid, pidfd, warnings, program }));
            }
            Some((ExitMessage::Program(ended), _)) => program = Some(ended),
            Some((ExitMessage::NotStarted { not_started }, _)) => return Ok(Beginning::NotStarted(not_started)),
            Some((ExitMessage::Ended(_), _)) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Ok(Beginning::Silence),
        }
    }
}

/// Receives the next message of an exit socket, waiting for it.
pub(crate) fn receive(exit: &OwnedFd) -> io::Result<Option<(ExitMessage, Vec<OwnedFd>)>> {
    channel::receive(exit, RecvFlags::empty())
}

/// The running binary in a form that nothing in a sandbox can change (rule S-10): a read-only mount of it that has no place,
/// which costs nothing; where mounts cannot be made, a sealed copy.
fn protected_self() -> io::Result<OwnedFd> {
    let read_only_mount = || -> rustix::io::Result<OwnedFd> {
        let own = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mount = rootfs::clone_tree(own, false)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
        set_attributes(mount.as_fd(), attributes, Depth::Single)?;
        Ok(mount)
    };
    match read_only_mount() {
        Err(errno) => {
            tracing::debug!(%errno, "copying the binary");
            sealed_copy_of_ourselves()
        }
        Ok(mount) => Ok(mount),
    }
}

/// The running binary as anonymous memory that nobody can change, ourselves included.
fn sealed_copy_of_ourselves() -> io::Result<OwnedFd> {
    let mut source = File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create("rbuild", flags | MemfdFlags::EXEC) {
        // Linux before 6.3, where every memfd is executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create("rbuild", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut source, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    // Opened anew for reading: what is open for writing cannot be executed.
    let read_only = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(read_only.into())
}

/// The AppArmor profiles that are loaded: `NAME (MODE)` a line.
fn apparmor_profiles() -> Option<Vec<String>> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").ok()?;
    let listed = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let name = |line: &str| line.rsplit_once(" (").map(|(name, _)| name.to_owned());
    enabled.starts_with('Y').then(|| listed.lines().filter_map(name).collect())
}

/// Processors whose thermal state is there to be masked.
fn throttled_cpus() -> Vec<u32> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut cpus: Vec<u32> = entries
        .filter(|entry| entry.path().join("thermal_throttle").exists())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .collect();
    cpus.sort_unstable();
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_program_that_ends_before_its_start_is_told_is_started() {
        let (ours, theirs) = channel::pair().unwrap();
        let pidfd =
            rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
        channel::send(&theirs, &ExitMessage::Program(ProgramEnded { status: 256, alone: true }), &[]).unwrap();
        let told = ExitMessage::Started { started: 7, warnings: Vec::new() };
        channel::send(&theirs, &told, &[pidfd.as_fd()]).unwrap();
        let Beginning::Started(started) = started(&ours).unwrap() else { panic!("it was started") };
        assert_eq!((started.pid, started.program.map(|program| program.status)), (7, Some(256)));
    }

    #[test]
    fn the_end_of_the_other_side_is_told() {
        let (ours, theirs) = channel::pair().unwrap();
        drop(theirs);
        assert!(matches!(started(&ours).unwrap(), Beginning::Silence));
    }

    #[test]
    fn the_copy_is_the_binary_and_cannot_be_changed() {
        let copy = sealed_copy_of_ourselves().unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), std::fs::metadata("/proc/self/exe").unwrap().len());
        let writable = File::options().write(true).open(&path).unwrap();
        assert!(writable.write_all_at(b"x", 0).is_err() && writable.set_len(0).is_err());
    }
}
