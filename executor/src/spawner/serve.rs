//! The spawner process: one thread, one loop.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ahead::{self, Ahead, Kind, NetworkId};
use super::entering::{Arrival, Entering};
use super::{ARGV0, Ended, ExitMessage, Request};
use crate::capability::Capabilities;
use crate::cgroup::{Cgroups, SandboxCgroup, Warning};
use crate::channel::{self, SealedBytes};
use crate::enter::{self, Entry};
use crate::perform::{self, Inside, SetupMessage};
use crate::plan::{ExecPlan, Namespace, Plan, SetupPlan, Step};
use crate::rootfs::layer_mounts::LayerMounts;
use crate::seccomp::{self, Circumstances, SeccompProfile};
use crate::spawn_error::SpawnError;
use crate::spec::{Rootfs, Seccomp};
use crate::sys;
use crate::sys::clone::{self, Forked};
use crate::sys::process::Block;
use crate::sys::seccomp::Instruction;

/// Whether this program's `main` came by [`reexec_entry`]. One that does not would start itself anew without end.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether this program, started anew, becomes what it is started for.
pub(super) fn can_be_reexecuted() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// If this process was started as a spawner, or to map the ids of a user namespace, it becomes that and never returns. Must be
/// the first thing in `main`, before any thread exists.
pub fn reexec_entry() {
    ENTERED.store(true, Ordering::Relaxed);
    crate::user_namespace::reexec_entry();
    if std::env::args_os().next().as_deref() != Some(OsStr::new(ARGV0)) {
        return;
    }
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the spawner failed");
            1
        }
    };
    sys::process::exit_now(code);
}

/// A sandbox that runs, or a process that entered one.
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    exit: OwnedFd,
    /// Those of a sandbox of ours.
    cgroup: Option<SandboxCgroup>,
    /// What tells a process in another's sandbox that this one has ended, until its program runs.
    _tie: Option<OwnedFd>,
}

/// What came along with a request.
struct Attached {
    setup: OwnedFd,
    exit: OwnedFd,
    /// Mounts that the engine made, or PID 1 of the sandbox to enter; then the standard descriptors.
    others: Vec<OwnedFd>,
}

/// So long a sandbox that was just asked for has the machine to itself, before the next one is prepared.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_500_000 };

/// So long one that was prepared waits. After a step that takes longer nobody feels a start, and what waits sees the host's mounts.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

struct Serving {
    /// This process, for its children to watch.
    own: OwnedFd,
    cgroups: Cgroups,
    running: Vec<Running>,
    entering: Vec<Entering>,
    filters: BTreeMap<Capabilities, Arc<[Instruction]>>,
    layers: LayerMounts,
    /// The next sandbox, if there is going to be one.
    ahead: Option<Ahead>,
    /// What is going to be prepared, and the network that it is to be in.
    expected: Option<(Kind, Option<PathBuf>)>,
    /// How many were prepared; names their groups.
    prepared: u64,
    /// Whether preparing has failed on this host: it will again.
    unpreparable: bool,
}

fn serve() -> io::Result<()> {
    rustix::thread::set_name(c"rbuild-spawner")?;
    // Keeps no directory busy. (Asking for this when it is started would cost a fork instead of a spawn.)
    rustix::process::chdir(c"/")?;
    // The socket came as standard input; there it would be inherited.
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut serving = Serving {
        own,
        cgroups: Cgroups::open(),
        running: Vec::new(),
        entering: Vec::new(),
        filters: BTreeMap::new(),
        layers: LayerMounts::default(),
        ahead: None,
        expected: None,
        prepared: 0,
        unpreparable: false,
    };
    loop {
        let mut polled = vec![PollFd::new(&control, PollFlags::IN)];
        let children = serving.running.iter().map(|running| &running.pidfd);
        let children = children.chain(serving.entering.iter().map(|entering| &entering.pidfd));
        polled.extend(children.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        match rustix::event::poll(&mut polled, serving.moment().as_ref()) {
            Err(Errno::INTR) => continue,
            Ok(0) => {
                serving.when_quiet();
                continue;
            }
            other => other?,
        };
        let asked = !polled[0].revents().is_empty();
        let ended: Vec<usize> =
            polled[1..].iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect();
        let running = serving.running.len();
        for index in ended.into_iter().rev() {
            match index.checked_sub(running) {
                Some(index) => serving.arrive(index),
                None => end(serving.running.swap_remove(index)),
            }
        }
        if asked {
            match channel::receive::<Request>(&control, RecvFlags::empty()) {
                Ok(Some((request, fds))) => serving.handle(&request, fds),
                Ok(None) => break,
                // A request whose descriptors there was no room for is one sandbox that does not start: its sockets are
                // closed, and its owner notices. The other sandboxes go on.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => tracing::warn!("a request was lost"),
                Err(error) => return Err(error),
            }
        }
    }
    serving.close();
    Ok(())
}

impl Serving {
    fn handle(&mut self, request: &Request, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let (Some(plan), Some(setup), Some(exit)) = (fds.next(), fds.next(), fds.next()) else { return };
        let Ok(answer) = exit.try_clone() else { return };
        let attached = Attached { setup, exit, others: fds.collect() };
        let mut next = None;
        let done = match read_plan(&plan).map_err(|e| SpawnError::setup("read the plan", e)) {
            Ok(Plan::Sandbox(sandbox)) => {
                next = request.another.then(|| Some((Kind::of(&sandbox)?, sandbox.network.clone()))).flatten();
                match self.hand_over(request, &sandbox, &plan, attached) {
                    Ok(()) => Ok(()),
                    Err(attached) => self.start(request, &sandbox, attached),
                }
            }
            Ok(Plan::Exec(plan)) => self.exec(request, &plan, attached),
            Err(error) => Err(error),
        };
        // Closed before something is forked that holds on to what it inherits.
        drop(plan);
        match done {
            // The owner may be gone; then nobody wants to know.
            Err(error) => drop(channel::send(&answer, &ExitMessage::NotStarted { not_started: error }, &[])),
            Ok(()) => {
                drop(answer);
                self.expected = next.filter(|_| self.ahead.is_none() && !self.unpreparable);
            }
        }
    }

    /// Gives the sandbox to the process that waits for one of its kind; gives back what came along where there is none.
    fn hand_over(
        &mut self,
        request: &Request,
        plan: &SetupPlan,
        text: &OwnedFd,
        attached: Attached,
    ) -> Result<(), Attached> {
        let Ok(network) = network(plan.network.as_deref()) else { return Err(attached) };
        let Ok(network) = network.as_ref().map(network_id).transpose() else { return Err(attached) };
        let fits =
            |ahead: &mut Ahead| ahead.network == network && Kind::of(plan).is_some_and(|kind| kind == ahead.kind);
        let Some(ahead) = self.ahead.take_if(fits) else { return Err(attached) };
        let mut fds = vec![text.as_fd(), attached.setup.as_fd(), attached.exit.as_fd()];
        fds.extend(attached.others.iter().map(AsFd::as_fd));
        if !ahead.hand_over(request, &fds) {
            ahead.give_up();
            self.unpreparable = true;
            return Err(attached);
        }
        let Ahead { pid, pidfd, cgroup, warnings, .. } = ahead;
        self.watch(Running { pid, pidfd, exit: attached.exit, cgroup: Some(cgroup), _tie: None }, warnings);
        Ok(())
    }

    /// How long nothing may happen until [`Self::when_quiet`] has something to do.
    fn moment(&self) -> Option<Timespec> {
        match (&self.expected, &self.ahead) {
            (Some(_), _) => Some(SOON),
            (None, Some(_)) => Some(PATIENCE),
            (None, None) => None,
        }
    }

    /// Prepares what is expected; ends what was prepared and was not asked for.
    fn when_quiet(&mut self) {
        if let Some((kind, network)) = self.expected.take() {
            self.prepare(kind, network.as_deref());
        } else if let Some(ahead) = self.ahead.take() {
            ahead.give_up();
        }
    }

    /// Makes a process that waits for a plan of this kind. Without one everything works the same, only later.
    fn prepare(&mut self, kind: Kind, path: Option<&Path>) {
        let Ok(network) = network(path) else { return };
        let Ok(id) = network.as_ref().map(network_id).transpose() else { return };
        self.prepared += 1;
        let Ok((mut cgroup, warnings)) = self.cgroups.create(&format!("ahead-{}", self.prepared), &kind.cgroup) else {
            return;
        };
        let namespaces = kind.namespaces.iter().fold(0, |flags, namespace| flags | clone_flag(*namespace));
        let Ok((ours, theirs)) = channel::pair() else { return cgroup.remove() };
        match clone::fork(namespaces, cgroup.into.as_ref().map(AsFd::as_fd)) {
            Ok(Forked::Child) => {
                drop(ours);
                self.wait_inside(&kind, &cgroup, network, theirs)
            }
            Ok(Forked::Parent { pid, pidfd }) => {
                self.ahead = Some(Ahead { kind, network: id, pid, pidfd, socket: ours, cgroup, warnings });
            }
            Err(_) => cgroup.remove(),
        }
    }

    /// Prepares this process, waits for its plan, and becomes what that says.
    fn wait_inside(&mut self, kind: &Kind, cgroup: &SandboxCgroup, network: Option<OwnedFd>, socket: OwnedFd) -> ! {
        // Other sandboxes are none of its business.
        self.running.clear();
        self.entering.clear();
        let prepare = || {
            perform::begin(self.own.as_fd(), cgroup, &kind.namespaces)?;
            perform::follow()?;
            if let Some(network) = &network {
                perform::join_network(network)
                    .map_err(|e| SpawnError::setup("join the network of the next sandbox", e))?;
            }
            perform::prepare(&kind.steps, cgroup)
        };
        let Ok(Ok(built)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(prepare)) else {
            sys::process::exit_now(125)
        };
        drop(network);
        let (request, fds) = ahead::wait(&socket);
        drop(socket);
        let mut fds = fds.into_iter();
        let (Some(text), Some(setup), Some(exit)) = (fds.next(), fds.next(), fds.next()) else {
            sys::process::exit_now(125)
        };
        let mut ready: Vec<OwnedFd> = fds.collect();
        let stdio = ready.split_off(request.mounts.min(ready.len()));
        let filtered = match read_plan(&text).map_err(|e| SpawnError::setup("read the plan", e)) {
            Ok(Plan::Sandbox(plan)) => {
                self.filter(&plan.process.seccomp, plan.process.capabilities).map(|filter| (plan, filter))
            }
            Ok(Plan::Exec(_)) => Err(SpawnError::Died),
            Err(error) => Err(error),
        };
        let (plan, filter) = match filtered {
            Ok(read) => read,
            Err(error) => {
                drop(channel::send(&setup, &SetupMessage::Failed(error), &[]));
                sys::process::exit_now(125)
            }
        };
        self.prepare_layers(&plan);
        let inside = Inside {
            plan: &plan,
            cgroup,
            filter: filter.as_deref(),
            setup,
            exit,
            spawner: self.own.as_fd(),
            slots: request.slots,
            window: request.window,
            stdio,
            // It is there already.
            network: None,
            ipc: None,
            mounts: None,
            ready,
            layers: std::mem::take(&mut self.layers),
        };
        perform::run(inside, Some(built))
    }

    /// Mounts the layers of the plan's root that are images.
    fn prepare_layers(&mut self, plan: &SetupPlan) {
        if let Some(Step::Root(Rootfs::Overlay { lowers, .. }, _)) = plan.steps.first() {
            self.layers.prepare(lowers);
        }
    }

    fn start(&mut self, request: &Request, plan: &SetupPlan, attached: Attached) -> Result<(), SpawnError> {
        let Attached { setup, exit, others: mut ready } = attached;
        let stdio = ready.split_off(request.mounts.min(ready.len()));
        let network = network(plan.network.as_deref())?;
        let join = |path: &Option<PathBuf>| {
            let opened = path.as_ref().map(|path| open_namespace(path)).transpose();
            opened.map_err(|errno| SpawnError::setup("open the namespace of another container", errno))
        };
        let (processes, ipc) = (join(&plan.joins.processes)?, join(&plan.joins.ipc)?);
        let mounts = join(&plan.joins.mounts)?;
        let filter = self.filter(&plan.process.seccomp, plan.process.capabilities)?;
        self.prepare_layers(plan);
        let (mut cgroup, warnings) = self.cgroups.create(&plan.id, &plan.cgroup)?;
        let namespaces = plan.namespaces.iter().fold(0, |flags, namespace| flags | clone_flag(*namespace));
        let into = cgroup.into.as_ref().map(AsFd::as_fd);
        let forked = match &processes {
            Some(processes) => fork_among(processes, namespaces, into),
            None => clone::fork(namespaces, into),
        };
        match forked {
            Ok(Forked::Child) => {
                let spawner = self.own.as_fd();
                let filter = filter.as_deref();
                let inside = Inside {
                    plan,
                    cgroup: &cgroup,
                    filter,
                    setup,
                    exit,
                    spawner,
                    slots: request.slots,
                    window: request.window,
                    stdio,
                    network,
                    ipc,
                    mounts,
                    ready,
                    layers: std::mem::take(&mut self.layers),
                };
                perform::run(inside, None)
            }
            Ok(Forked::Parent { pid, pidfd }) => {
                self.watch(Running { pid, pidfd, exit, cgroup: Some(cgroup), _tie: None }, warnings);
                Ok(())
            }
            Err(errno) => {
                cgroup.remove();
                Err(SpawnError::setup("make the sandbox's namespaces", errno))
            }
        }
    }

    /// Sends a guide ahead, who brings one more process into a sandbox.
    fn exec(&mut self, request: &Request, plan: &ExecPlan, attached: Attached) -> Result<(), SpawnError> {
        let Attached { setup, exit, mut others } = attached;
        if others.is_empty() {
            return Err(SpawnError::Invalid { reason: "no sandbox was given to enter".to_owned() });
        }
        let target = others.remove(0);
        let filter = self.filter(&plan.process.seccomp, plan.filter_for)?;
        let (ours, enter) = channel::pair().map_err(|e| SpawnError::setup("make a socket", e))?;
        match clone::fork(0, None).map_err(|e| SpawnError::setup("enter the sandbox", e))? {
            Forked::Child => enter::run(Entry {
                plan,
                filter: filter.as_deref(),
                target: Some(target),
                setup,
                enter: enter.into(),
                spawner: self.own.as_fd(),
                slots: request.slots,
                window: request.window,
                stdio: others,
            }),
            Forked::Parent { pid, pidfd } => {
                self.entering.push(Entering { pid, pidfd, socket: ours, exit });
                Ok(())
            }
        }
    }

    /// A guide has done its part, or failed.
    fn arrive(&mut self, index: usize) {
        let entering = self.entering.swap_remove(index);
        if let Some(Arrival { pid, pidfd, socket, exit, warnings }) = entering.arrive() {
            self.watch(Running { pid, pidfd, exit, cgroup: None, _tie: Some(socket) }, warnings);
        }
    }

    /// Tells the owner that a process runs, and from now on waits for its end.
    fn watch(&mut self, running: Running, warnings: Vec<Warning>) {
        let started = ExitMessage::Started { started: running.pid.as_raw_nonzero().get(), warnings };
        // When the owner is gone, so is the control socket, and everything ends at the next turn of the loop.
        drop(channel::send(&running.exit, &started, &[running.pidfd.as_fd()]));
        self.running.push(running);
    }

    /// The compiled filter of a program with these capabilities.
    fn filter(
        &mut self,
        seccomp: &Seccomp,
        capabilities: Capabilities,
    ) -> Result<Option<Arc<[Instruction]>>, SpawnError> {
        match seccomp {
            Seccomp::Unconfined => Ok(None),
            Seccomp::Default => self.default_filter(capabilities).map(Some),
            Seccomp::Profile(profile) => custom_filter(profile, capabilities).map(Some),
        }
    }

    /// The compiled profile; equal for all sandboxes with the same capabilities.
    fn default_filter(&mut self, capabilities: Capabilities) -> Result<Arc<[Instruction]>, SpawnError> {
        if let Some(compiled) = self.filters.get(&capabilities) {
            return Ok(Arc::clone(compiled));
        }
        let compiled: Arc<[Instruction]> = seccomp::default_filter(capabilities)
            .ok_or_else(|| SpawnError::Unsupported { feature: "a system call table for this architecture".to_owned() })?
            .into();
        self.filters.insert(capabilities, Arc::clone(&compiled));
        Ok(compiled)
    }

    /// The engine is gone: so is everything that it started.
    fn close(mut self) {
        if let Some(ahead) = self.ahead.take() {
            ahead.give_up();
        }
        for entering in self.entering.drain(..) {
            entering.give_up();
        }
        for running in &self.running {
            let _ = sys::process::signal(running.pidfd.as_fd(), libc::SIGKILL);
        }
        for running in self.running.drain(..) {
            reap_others(&running);
            end(running);
        }
        self.cgroups.close();
    }
}

fn open_namespace(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The network namespace to enter, if there is one.
fn network(path: Option<&Path>) -> Result<Option<OwnedFd>, SpawnError> {
    let opened = path.map(|path| {
        open_namespace(path).map_err(|errno| SpawnError::Network { path: path.to_owned(), source: errno.into() })
    });
    opened.transpose()
}

fn network_id(network: &OwnedFd) -> rustix::io::Result<NetworkId> {
    rustix::fs::fstat(network).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Forks a child into a process namespace that is there. Only children of this process are affected by entering it, and only this
/// one is to be.
fn fork_among(processes: &OwnedFd, namespaces: u64, into: Option<BorrowedFd<'_>>) -> rustix::io::Result<Forked> {
    let kind = Some(LinkNameSpaceType::ProcessID);
    let own = rustix::fs::open(c"/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(processes.as_fd(), kind)?;
    let forked = clone::fork(namespaces, into);
    if let Ok(Forked::Child) = forked {
        return forked;
    }
    move_into_link_name_space(own.as_fd(), kind)?;
    forked
}

/// The filter of a user's profile.
fn custom_filter(profile: &SeccompProfile, capabilities: Capabilities) -> Result<Arc<[Instruction]>, SpawnError> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let filter = seccomp::custom_filter(profile, Circumstances { capabilities, release: &release });
    let refused = || SpawnError::Invalid { reason: "the kernel takes no filter as long as this profile's".to_owned() };
    Ok(filter.ok_or_else(refused)?.into())
}

/// Reaps whatever ends until this sandbox has. Its PID 1 does not end before everything in its namespace is reaped, and what was
/// just entering it is a child of this process.
fn reap_others(running: &Running) {
    let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let goes_on = || {
        let mut polled = [PollFd::new(&running.pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&moment))) == Ok(0)
    };
    while goes_on() {
        while let Ok(Some(_)) = sys::process::wait(None, Block::No) {}
    }
}

/// Reaps a sandbox that has ended or is about to, removes its cgroups, and tells its owner.
fn end(mut running: Running) {
    let reaped = loop {
        match sys::process::wait(Some(running.pid), Block::Yes) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let group = running.cgroup.as_ref().map(SandboxCgroup::events).unwrap_or_default();
    if let Some(cgroup) = &mut running.cgroup {
        cgroup.kill_leftovers();
        cgroup.remove();
    }
    if let Ok(Some(reaped)) = reaped {
        // The owner may have lost interest.
        drop(channel::send(&running.exit, &ExitMessage::Ended(Ended::new(&reaped, group)), &[]));
    }
}

fn read_plan(fd: &OwnedFd) -> io::Result<Plan> {
    let bytes = SealedBytes::read(fd)?;
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| io::ErrorKind::InvalidData)?;
    let (text, blob) = rest.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
    let mut plan: Plan = serde_json::from_slice(text)?;
    if let Plan::Sandbox(plan) = &mut plan {
        plan.blob = blob.to_vec();
    }
    Ok(plan)
}

/// The cgroup namespace is not here: it must be made after joining the cgroups that it shall show as its root. The user
/// namespace is the spawner's.
fn clone_flag(namespace: Namespace) -> u64 {
    match namespace {
        Namespace::Mount => clone::NEW_MOUNT,
        Namespace::Pid => clone::NEW_PID,
        Namespace::Ipc => clone::NEW_IPC,
        Namespace::Uts => clone::NEW_UTS,
        Namespace::Net => clone::NEW_NET,
        Namespace::Time => clone::NEW_TIME,
        Namespace::Cgroup | Namespace::User => 0,
    }
}
