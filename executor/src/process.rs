//! A sandbox that runs, seen from its owner; or a process that its owner sent into a sandbox.
//!
//! Invariant: when the [`Process`] of a sandbox is gone (waited for or dropped), so are all processes, mounts and cgroups of it
//! (rule B-14), and the mount points that had to be made for it. What a process started that entered a sandbox is the
//! sandbox's, and ends with that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cgroup::Warning;
use crate::init::ProgramEnded;
use crate::mount_point::Leftovers;
use crate::root_dir::RootDir;
use crate::spawner::{Ended, ExitMessage, Started, receive};
use crate::stacking::Stacks;
use crate::sys;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// The kernel killed it, or what it waited for, because the memory limit was reached.
    OomKilled,
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The code a shell would give: 128 and the signal's number for a killed program.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
            Self::OomKilled => 128 + libc::SIGKILL,
        }
    }

    fn from_wait(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else {
            Self::Signaled(libc::WTERMSIG(status))
        }
    }
}

/// What a sandbox used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in programs.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory in use at once, in bytes: of the whole sandbox where the host has a memory controller, else of its
    /// largest process.
    pub memory_peak: u64,
    /// Processes that were killed for lack of memory.
    pub oom_kills: u64,
    /// The most processes that there were at once, where the host counts them.
    pub pids_peak: Option<u64>,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// A running sandbox, or a process in one.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    exit: OwnedFd,
    /// Where changes of the root end up, if the root is its own.
    backing: Option<PathBuf>,
    leftovers: Leftovers,
    /// What stands for its overlays.
    stacks: Stacks,
    terminal: Option<OwnedFd>,
    warnings: Vec<Warning>,
    /// What the init said about the program.
    program: Option<ProgramEnded>,
    ended: Option<(ExitStatus, Usage)>,
    lost: bool,
}

/// Signals a sandbox from elsewhere while its owner waits.
#[derive(Debug)]
pub struct Signaller(OwnedFd);

impl Signaller {
    /// For the process behind a pidfd that was opened elsewhere.
    pub fn new(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    /// Sends a signal to PID 1; ours forwards it to the program. Nothing happens when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.0.as_fd(), signal)
    }

    /// Kills every process of the sandbox.
    pub fn kill_all(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }
}

impl Process {
    pub(crate) fn new(started: Started, exit: OwnedFd, backing: Option<PathBuf>, stacks: Stacks) -> Self {
        let Started { pid, pidfd, warnings, program } = started;
        Self {
            pid,
            pidfd,
            exit,
            backing,
            leftovers: Leftovers::default(),
            stacks,
            terminal: None,
            warnings,
            program,
            ended: None,
            lost: false,
        }
    }

    pub(crate) fn set_leftovers(&mut self, leftovers: Leftovers) {
        self.leftovers = leftovers;
    }

    pub(crate) fn set_terminal(&mut self, terminal: Option<OwnedFd>) {
        self.terminal = terminal;
    }

    /// PID 1 of the sandbox, or the process that entered one, as the host numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on PID 1; becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Becomes readable when there is something to learn by waiting.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// The owner's side of the sandbox's terminal; once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// The owner's side of the sandbox's terminal.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// What this host did not let us do.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// A handle for signalling that other threads may hold.
    pub fn signaller(&self) -> io::Result<Signaller> {
        Ok(Signaller(self.pidfd.try_clone()?))
    }

    /// Sends a signal to PID 1; ours forwards it to the program. Nothing happens when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.pidfd.as_fd(), signal)
    }

    /// Kills every process of the sandbox: with its PID 1 goes the pid namespace. Of a process that entered one, only that.
    pub fn kill_all(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Waits until the program ended and everything of the sandbox is gone.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some((status, _)) = self.ended {
                return Ok(status);
            }
            self.take_message()?;
        }
    }

    /// How the program ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_timeout(Duration::ZERO)
    }

    /// Waits at most this long.
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            if let Some((status, _)) = self.ended {
                return Ok(Some(status));
            }
            if !self.poll(timeout.saturating_sub(begin.elapsed()))? {
                return Ok(None);
            }
            self.take_message()?;
        }
    }

    /// Waits at most this long until the program has ended and its files stay as they are: no process of the sandbox is left,
    /// which nobody may have entered, and nothing stands in its root that only the sandbox had. Its mounts and control groups
    /// may still go, and what it used is not known before [`Self::wait`].
    pub fn wait_still(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.still()? {
                return Ok(Some(status));
            }
            let left = timeout.saturating_sub(begin.elapsed());
            if !self.poll(left)? {
                return Ok(None);
            }
            self.take_message()?;
        }
    }

    fn still(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some((status, _)) = self.ended {
            return Ok(Some(status));
        }
        // What else becomes of a sandbox, and why, its end says. What stands for overlays has to be ended first.
        let succeeded = ExitStatus::Exited(0);
        let alone = self.program.is_some_and(|it| it.alone && ExitStatus::from_wait(it.status) == succeeded);
        if !alone || !self.stacks.is_empty() {
            return Ok(None);
        }
        self.clean()?;
        Ok(Some(succeeded))
    }

    /// Whether there is a message within this time.
    fn poll(&self, timeout: Duration) -> io::Result<bool> {
        let begin = Instant::now();
        loop {
            let left = timeout.saturating_sub(begin.elapsed());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
            match rustix::event::poll(&mut [PollFd::new(&self.exit, PollFlags::IN)], Some(&left)) {
                Ok(count) => return Ok(count > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether it ended because the process that started it died, and not by itself.
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    /// What the sandbox used; all zero until it ended.
    pub fn usage(&self) -> Usage {
        self.ended.map(|(_, usage)| usage).unwrap_or_default()
    }

    /// Receives one message, waiting for it, and acts on it.
    fn take_message(&mut self) -> io::Result<()> {
        match receive(&self.exit)? {
            Some((ExitMessage::Program(program), _)) => self.program = Some(program),
            Some((ExitMessage::Ended(ended), _)) => return self.finish(&ended),
            Some(_) => {}
            // The spawner died, and with it the sandbox; make sure, and say so.
            None => {
                self.kill_all()?;
                rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None)?;
                self.lost = true;
                self.ended = Some((ExitStatus::Signaled(libc::SIGKILL), Usage::default()));
                return self.clean();
            }
        }
        Ok(())
    }

    fn finish(&mut self, ended: &Ended) -> io::Result<()> {
        let status = ExitStatus::from_wait(self.program.map_or(ended.wait_status, |program| program.status));
        let killed = matches!(status, ExitStatus::Signaled(libc::SIGKILL) | ExitStatus::Exited(137));
        let status = if killed && ended.oom_kills > 0 { ExitStatus::OomKilled } else { status };
        let usage = Usage {
            user: Duration::from_micros(ended.user_micros),
            system: Duration::from_micros(ended.system_micros),
            memory_peak: ended.memory_peak.unwrap_or(ended.max_rss),
            oom_kills: ended.oom_kills,
            pids_peak: ended.pids_peak,
            read: ended.read,
            written: ended.written,
        };
        self.ended = Some((status, usage));
        self.clean()
    }

    fn clean(&mut self) -> io::Result<()> {
        let leftovers = std::mem::take(&mut self.leftovers);
        let mut stacks = std::mem::take(&mut self.stacks);
        if leftovers.is_empty() && stacks.is_empty() {
            return Ok(());
        }
        stacks.settle()?;
        if let Some(backing) = self.backing.as_deref().filter(|_| !leftovers.is_empty())
            && let Err(error) = RootDir::open(backing).and_then(|root| leftovers.remove(&root))
        {
            tracing::warn!(root = %backing.display(), %error, "mount points stay behind");
        }
        stacks.finish(&leftovers.visited())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let ended = self.kill_all().and_then(|()| self.wait());
        if let Err(error) = ended {
            tracing::warn!(%error, "a sandbox may still run");
        }
    }
}

fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    match sys::process::signal(pidfd, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}
