//! A guide that is bringing a process into a sandbox, as the spawner sees it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::ExitMessage;
use crate::cgroup::Warning;
use crate::channel;
use crate::enter::EnterMessage;
use crate::spawn_error::SpawnError;
use crate::sys;
use crate::sys::process::Block;

/// A guide on its way.
pub(super) struct Entering {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// To the guide, then to the program.
    pub(super) socket: OwnedFd,
    /// To the owner.
    pub(super) exit: OwnedFd,
}

/// A process that is inside, a child of this one's.
pub(super) struct Arrival {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Its end tells the program that this process has ended.
    pub(super) socket: OwnedFd,
    pub(super) exit: OwnedFd,
    pub(super) warnings: Vec<Warning>,
}

impl Entering {
    /// The guide has ended: what became of the program. The owner is told of everything but a program to wait for.
    pub(super) fn arrive(self) -> Option<Arrival> {
        self.reap();
        let answer = match channel::receive(&self.socket, RecvFlags::DONTWAIT) {
            Ok(Some((EnterMessage::Entered { pid, warnings }, mut fds))) => {
                if let Some((pid, pidfd)) = Pid::from_raw(pid).zip(fds.pop()) {
                    // It begins only now that somebody is going to wait for it. It may have been killed meanwhile.
                    drop(channel::send(&self.socket, &EnterMessage::Go, &[]));
                    return Some(Arrival { pid, pidfd, socket: self.socket, exit: self.exit, warnings });
                }
                ExitMessage::NotStarted { not_started: SpawnError::Died }
            }
            Ok(Some((EnterMessage::Failed(error), _))) => ExitMessage::NotStarted { not_started: error },
            // Killed on the way: with the sandbox, perhaps, whose cgroups it had joined.
            _ => ExitMessage::NotStarted { not_started: SpawnError::Died },
        };
        // The owner may be gone; then nobody wants to know.
        drop(channel::send(&self.exit, &answer, &[]));
        None
    }

    /// Nobody waits for the program any more: it does not begin.
    pub(super) fn give_up(self) {
        let _ = sys::process::signal(self.pidfd.as_fd(), libc::SIGKILL);
        self.reap();
        // It may have brought the program in before; that ends without the word to go.
        if let Ok(Some((EnterMessage::Entered { pid, .. }, fds))) = channel::receive(&self.socket, RecvFlags::DONTWAIT)
        {
            for pidfd in &fds {
                let _ = sys::process::signal(pidfd.as_fd(), libc::SIGKILL);
            }
            wait(Pid::from_raw(pid));
        }
    }

    fn reap(&self) {
        wait(Some(self.pid));
    }
}

fn wait(child: Option<Pid>) {
    while child.is_some() && sys::process::wait(child, Block::Yes).is_err_and(|errno| errno == Errno::INTR) {}
}
