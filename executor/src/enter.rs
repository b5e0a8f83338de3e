//! A process enters a sandbox that runs.
//!
//! ```text
//!   spawner ── clone ──▶ guide ── clone, CLONE_PARENT ──▶ program        the guide is never seen in the sandbox
//!      │ ◀── entered ─────┘ (ends)                           │
//!      └──────────────────────── go ────────────────────────▶│ execve
//! ```
//!
//! The guide joins the sandbox's cgroups, enters its namespaces and closes whatever it has of the host. Only then the program's
//! process is born in the sandbox's pid namespace, where others may look at it: it has no way back, is not dumpable until its
//! `execve`, and its binary cannot be written (rules S-10, S-13). The sandbox is named by a pidfd all the way, so that its number
//! may be given out again without harm.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FsWord, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cgroup::{self, Warning};
use crate::channel;
use crate::launch::{self, Launch};
use crate::perform::{Built, SetupMessage, Tie};
use crate::plan::{ExecPlan, ExecStep, Namespace};
use crate::root_dir::RootDir;
use crate::rootfs::device;
use crate::spawn_error::SpawnError;
use crate::stdio::{Slot, WindowSize};
use crate::sys;
use crate::sys::clone::Forked;
use crate::sys::seccomp::Instruction;
use rbuild_image::ContainerPath;

/// Between the spawner, the guide and the program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EnterMessage {
    /// The program's process waits inside; its pidfd travels along.
    Entered { pid: i32, warnings: Vec<Warning> },
    /// It does not get inside.
    Failed(SpawnError),
    /// The spawner knows of it: the program may start.
    Go,
}

/// Everything the guide needs beside the plan.
pub(crate) struct Entry<'a> {
    pub(crate) plan: &'a ExecPlan,
    /// The compiled filter, unless unconfined.
    pub(crate) filter: Option<&'a [Instruction]>,
    /// PID 1 of the sandbox, until everything of the host is closed.
    pub(crate) target: Option<OwnedFd>,
    /// To the owner, until the program starts.
    pub(crate) setup: OwnedFd,
    /// To the spawner.
    pub(crate) enter: Rc<OwnedFd>,
    /// The process that forked this one.
    pub(crate) spawner: BorrowedFd<'a>,
    pub(crate) slots: [Slot; 3],
    pub(crate) window: Option<WindowSize>,
    pub(crate) stdio: Vec<OwnedFd>,
}

/// Guides the program in. Never returns.
pub(crate) fn run(entry: Entry<'_>) -> ! {
    let spawner = Rc::clone(&entry.enter);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guide(entry)));
    let Err(error) = failure(outcome);
    drop(channel::send(&spawner, &EnterMessage::Failed(error), &[]));
    sys::process::exit_now(125)
}

fn failure(outcome: std::thread::Result<Result<Infallible, SpawnError>>) -> Result<Infallible, SpawnError> {
    outcome.unwrap_or_else(|_| Err(SpawnError::setup("enter the sandbox", io::Error::other("the way in panicked"))))
}

/// What the steps before gave to the later ones.
#[derive(Default)]
struct Way {
    built: Built,
    warnings: Vec<Warning>,
    /// What the sandbox lacks for, though the plan gives it.
    withheld: Capabilities,
}

fn guide(mut entry: Entry<'_>) -> Result<Infallible, SpawnError> {
    Tie::Watched(entry.spawner).bind()?;
    rustix::process::umask(Mode::empty());
    let found = entry.target.as_ref().map_or(Ok(None), number);
    let pid = found.map_err(|e| SpawnError::setup("find the sandbox", e))?.ok_or(SpawnError::SandboxGone)?;
    let mut way = Way::default();
    for step in &entry.plan.steps {
        let done = perform(step, &mut entry, pid, &mut way);
        // What went wrong may have gone wrong because there is nothing left.
        done.map_err(|error| if is_gone(&entry) { SpawnError::SandboxGone } else { error })?;
    }
    // Not for those in the sandbox to look into, whatever ids it takes on.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| SpawnError::setup("hide from the sandbox", e))?;
    let warnings = std::mem::take(&mut way.warnings);
    let born = |errno| match errno {
        // The kernel's word for a pid namespace whose init has ended.
        Errno::NOMEM => SpawnError::SandboxGone,
        errno => SpawnError::setup("start the program", errno),
    };
    match sys::clone::fork_sibling().map_err(born)? {
        Forked::Child => program(entry, way),
        Forked::Parent { pid, pidfd } => {
            let pid = pid.as_raw_nonzero().get();
            let sent = channel::send(&*entry.enter, &EnterMessage::Entered { pid, warnings }, &[pidfd.as_fd()]);
            // Without the word to go it ends by itself.
            sys::process::exit_now(sent.is_err().into())
        }
    }
}

fn perform(step: &ExecStep, entry: &mut Entry<'_>, pid: i32, way: &mut Way) -> Result<(), SpawnError> {
    match step {
        ExecStep::JoinCgroups(out_of_reach) => {
            way.warnings.extend(cgroup::join_sandbox(&entry.plan.id, pid, *out_of_reach)?);
            // All that was read below /proc/PID was this sandbox's, if it still is there.
            if is_gone(entry) { Err(SpawnError::SandboxGone) } else { Ok(()) }
        }
        ExecStep::SessionKeyring => match sys::keyring::join_new_session() {
            // A kernel without keyrings has none to share; with the quota used up there is still the denied system call.
            Ok(()) | Err(Errno::NOSYS | Errno::DQUOT) => Ok(()),
            Err(errno) => Err(SpawnError::setup("make a session keyring", errno)),
        },
        ExecStep::AppArmor(profile) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let proc = rustix::fs::open(c"/proc", flags, Mode::empty());
            let proc = proc.map_err(|e| SpawnError::setup("open /proc", e))?;
            launch::take_on(profile, proc.as_fd())
        }
        ExecStep::Enter(namespaces) => {
            enter(namespaces, entry, pid).map_err(|errno| match errno {
                // It is about to end: it has no namespaces any more.
                Errno::SRCH => SpawnError::SandboxGone,
                errno => SpawnError::setup("enter the sandbox's namespaces", errno),
            })?;
            arrive(entry, way).map_err(|e| SpawnError::setup("look around in the sandbox", e))
        }
        ExecStep::Terminal => {
            let made = devpts().and_then(|pts| Ok(device::terminal(pts, entry.window)?));
            way.built.terminal = Some(made.map_err(|e| SpawnError::setup("make the terminal", e))?);
            Ok(())
        }
        ExecStep::CloseHost => {
            entry.target = None;
            let mut kept = vec![entry.setup.as_fd(), entry.enter.as_fd()];
            kept.extend(entry.stdio.iter().map(AsFd::as_fd));
            kept.extend(way.built.dev.as_ref().map(AsFd::as_fd));
            kept.extend(way.built.terminal.iter().flat_map(|(ours, theirs)| [ours.as_fd(), theirs.as_fd()]));
            sys::process::close_all_but(&kept).map_err(|e| SpawnError::setup("close the host's descriptors", e))
        }
    }
}

/// Enters all namespaces at once, so that one cannot be had without the others.
fn enter(namespaces: &[Namespace], entry: &Entry<'_>, pid: i32) -> rustix::io::Result<()> {
    let mut wanted = ThreadNameSpaceType::empty();
    for namespace in namespaces {
        let (kind, name) = match namespace {
            Namespace::Mount => (ThreadNameSpaceType::MOUNT, "mnt"),
            Namespace::Pid => (ThreadNameSpaceType::PROCESS_ID, "pid"),
            Namespace::Ipc => (ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
            Namespace::Uts => (ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
            Namespace::Net => (ThreadNameSpaceType::NETWORK, "net"),
            Namespace::Time => (ThreadNameSpaceType::TIME, "time"),
            Namespace::Cgroup => (ThreadNameSpaceType::CONTROL_GROUP, "cgroup"),
            Namespace::User => (ThreadNameSpaceType::USER, "user"),
        };
        if is_another(pid, name)? {
            wanted |= kind;
        }
    }
    let target = entry.target.as_ref().filter(|target| !is_over(target)).ok_or(Errno::SRCH)?;
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), wanted)
}

/// Whether a process has another namespace of this kind than this one.
fn is_another(pid: i32, name: &str) -> rustix::io::Result<bool> {
    let of = |whose: &str| rustix::fs::stat(format!("/proc/{whose}/ns/{name}"));
    match (of("self"), of(&pid.to_string())) {
        // The kernel has none of this kind.
        (Err(Errno::NOENT), _) => Ok(false),
        (Ok(_), Err(Errno::NOENT)) => Err(Errno::SRCH),
        (own, theirs) => {
            let (own, theirs) = (own?, theirs?);
            Ok((own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino))
        }
    }
}

/// The root is the sandbox's own from here on, and so is every path.
fn arrive(entry: &Entry<'_>, way: &mut Way) -> io::Result<()> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A root without devices says that nothing else confines them: then nobody makes any, either.
    if rustix::fs::fstatvfs(&root)?.f_flag.contains(StatVfsMountFlags::NODEV) {
        way.withheld = Capabilities::MKNOD;
    }
    if entry.slots.contains(&Slot::Null) {
        way.built.dev = Some(RootDir::from_fd(root).open_dir_path(&ContainerPath::new("/dev"))?);
    }
    Ok(())
}

/// The sandbox's own devpts, not something that was put in its place (rule S-19).
fn devpts() -> io::Result<OwnedFd> {
    const DEVPTS: FsWord = 0x1cd1;
    let pts = RootDir::open("/".as_ref())?.open_dir_path(&ContainerPath::new("/dev/pts"))?;
    if rustix::fs::fstatfs(&pts)?.f_type != DEVPTS {
        return Err(io::Error::other("/dev/pts of the sandbox has no terminals"));
    }
    Ok(pts)
}

/// Becomes the program, as a process that those in the sandbox can see.
fn program(entry: Entry<'_>, way: Way) -> ! {
    let setup = entry.setup.as_fd().try_clone_to_owned();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| become_program(entry, way)));
    if let (Err(error), Ok(setup)) = (failure(outcome), setup) {
        // The owner may be gone; then nobody wants to know.
        drop(channel::send(&setup, &SetupMessage::Failed(error), &[]));
    }
    sys::process::exit_now(125)
}

fn become_program(entry: Entry<'_>, way: Way) -> Result<Infallible, SpawnError> {
    let Entry { plan, filter, setup, enter, slots, stdio, .. } = entry;
    Tie::Parent.bind()?;
    match channel::receive(&*enter, RecvFlags::empty()) {
        Ok(Some((EnterMessage::Go, _))) => {}
        _ => return Err(SpawnError::Died),
    }
    let tie = Tie::Watched(enter.as_fd());
    tie.bind()?;
    let capabilities = plan.process.capabilities.difference(way.withheld);
    launch::launch(Launch { process: &plan.process, capabilities, filter, setup, slots, stdio, tie }, way.built)
}

/// The number of a pidfd's process, in this process's pid namespace; `None` when it has ended.
fn number(pidfd: &OwnedFd) -> io::Result<Option<i32>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    let number = number.ok_or_else(|| io::Error::other("it is not named by a pidfd"))?;
    Ok((number > 0 && !is_over(pidfd)).then_some(number))
}

/// Whether the sandbox is known to have ended.
fn is_gone(entry: &Entry<'_>) -> bool {
    entry.target.as_ref().is_some_and(is_over)
}

/// Whether the process behind a pidfd has ended.
fn is_over(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
