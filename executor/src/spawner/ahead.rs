//! A sandbox that is made before it is asked for.
//!
//! Half of what starting a sandbox takes depends on its kind alone: namespaces, cgroups, `/proc` with what is hidden of it,
//! `/dev`. The steps of a build are all of one kind, so while one runs the spawner prepares the next: a process in new
//! namespaces that has done that half and waits for the plan with the rest.
//!
//! It has run nothing of an image, and knows nothing of one. A plan of another kind starts a sandbox in the usual way, and so
//! does one whose waiting process cannot be reached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::Request;
use crate::cgroup::{SandboxCgroup, Warning};
use crate::channel;
use crate::plan::{CgroupPlan, DeviceOrigin, MountStep, Namespace, PlannedSource, SetupPlan, Step};
use crate::spec::MountSource;
use crate::sys;
use crate::sys::process::Block;

/// What sandboxes of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) cgroup: CgroupPlan,
    /// What can be done before the root is known.
    pub(super) steps: Vec<Step>,
}

impl Kind {
    /// The kind of a plan; `None` where nothing of it can be prepared.
    pub(super) fn of(plan: &SetupPlan) -> Option<Self> {
        let joins = &plan.joins;
        let joined = joins.processes.is_some() || joins.ipc.is_some() || joins.mounts.is_some();
        let own = [Namespace::Mount, Namespace::Pid].iter().all(|kind| plan.namespaces.contains(kind));
        // What is tied to the host's mounts has to be opened before the namespace is its own.
        let tied = |step: &Step| {
            let Step::Mount(MountStep { source: PlannedSource::Spec(source), .. }) = step else { return false };
            matches!(source, MountSource::Tree { .. })
        };
        let tied = plan.steps.iter().any(tied);
        // Groups below a parent of the caller's are named by the sandbox.
        let named = plan.cgroup.limits.cgroup_parent.is_some();
        if joined || !own || tied || named || plan.steps.contains(&Step::Terminal) {
            return None;
        }
        let own_sys = plan.steps.iter().any(|step| matches!(step, Step::Sys(_)));
        let early = |step: &&Step| match step {
            Step::Proc | Step::DevPts | Step::DevShm { .. } | Step::DevMqueue => true,
            Step::Dev { origin, .. } => *origin == DeviceOrigin::Made,
            Step::Sys(_) | Step::SysCgroup(_) => own_sys,
            Step::Mask(path) | Step::ReadOnlyPath(path) => match path.components().next() {
                Some(b"proc") => true,
                Some(b"sys") => own_sys,
                _ => false,
            },
            _ => false,
        };
        let steps: Vec<Step> = plan.steps.iter().filter(early).cloned().collect();
        let complete = steps.contains(&Step::Proc) && steps.iter().any(|step| matches!(step, Step::Dev { .. }));
        complete.then(|| Self { namespaces: plan.namespaces.clone(), cgroup: plan.cgroup.clone(), steps })
    }
}

/// A network namespace, as `/proc/PID/ns` tells them apart: device and inode. While a process is in it, no other has these.
pub(super) type NetworkId = (u64, u64);

/// A process that waits.
pub(super) struct Ahead {
    pub(super) kind: Kind,
    /// The network that it is in, unless that is one of its own or the host's.
    pub(super) network: Option<NetworkId>,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: OwnedFd,
    pub(super) cgroup: SandboxCgroup,
    pub(super) warnings: Vec<Warning>,
}

impl Ahead {
    /// Tells it what to become; whether it heard. Plan, both sockets, and what came along with the request travel along.
    pub(super) fn hand_over(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> bool {
        channel::send(&self.socket, request, fds).is_ok()
    }

    /// Ends it, unused.
    pub(super) fn give_up(mut self) {
        let _ = sys::process::signal(self.pidfd.as_fd(), libc::SIGKILL);
        while sys::process::wait(Some(self.pid), Block::Yes).is_err_and(|errno| errno == Errno::INTR) {}
        self.cgroup.remove();
    }
}

/// Waits for the plan; never returns without one.
pub(super) fn wait(socket: &OwnedFd) -> (Request, Vec<OwnedFd>) {
    match channel::receive::<Request>(socket, RecvFlags::empty()) {
        Ok(Some(told)) => told,
        // The spawner is gone, or has no use for it.
        Ok(None) => sys::process::exit_now(0),
        Err(_) => sys::process::exit_now(125),
    }
}
