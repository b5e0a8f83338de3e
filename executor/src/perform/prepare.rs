//! What does not depend on the root: done first in every sandbox, or before anybody asked for one ([`crate::spawner`]).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::{Built, Cover, Tie, cover};
use crate::cgroup::{CgroupVersion, SandboxCgroup};
use crate::plan::{Namespace, Step};
use crate::rootfs::{self, cgroup, device};
use crate::spawn_error::SpawnError;
use crate::spec::Access;
use crate::sys;

/// What every sandbox begins with.
pub(crate) fn begin(
    spawner: BorrowedFd<'_>,
    cgroup: &SandboxCgroup,
    namespaces: &[Namespace],
) -> Result<(), SpawnError> {
    Tie::Watched(spawner).bind()?;
    rustix::process::umask(Mode::empty());
    join_cgroups(cgroup, namespaces)?;
    match sys::keyring::join_new_session() {
        // A kernel without keyrings has none to share; with the quota used up there is still the denied system call.
        Ok(()) | Err(Errno::NOSYS | Errno::DQUOT) => {}
        Err(errno) => return Err(SpawnError::setup("make a session keyring", errno)),
    }
    Ok(())
}

/// What is mounted from here on stays in this mount namespace, and what the host unmounts stays here as well.
pub(crate) fn detach() -> Result<(), SpawnError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private).map_err(|e| SpawnError::setup("detach from the host's mounts", e))
}

/// What is mounted from here on stays in this mount namespace; what the host unmounts goes here, too, where it shares its mounts: who
/// only waits keeps no file system busy.
pub(crate) fn follow() -> Result<(), SpawnError> {
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(c"/", downstream).map_err(|e| SpawnError::setup("detach from the host's mounts", e))
}

/// Does what can be done before the root is known. `/proc` and `/sys` wait on directories of the host's, seen by this process
/// alone: only what is in place somewhere can be covered in part (until Linux 6.15). `/sys` shows the network that this process is in.
pub(crate) fn prepare(steps: &[Step], cgroup: &SandboxCgroup) -> Result<Built, SpawnError> {
    let mut built = Built::default();
    built.memory.prepare().map_err(|error| SpawnError::setup("prepare a sandbox", error))?;
    for step in steps {
        early(step, cgroup, &mut built).map_err(|error| SpawnError::setup("prepare a sandbox", error))?;
    }
    Ok(built)
}

fn early(step: &Step, cgroup: &SandboxCgroup, built: &mut Built) -> io::Result<()> {
    match step {
        Step::Proc => {
            let proc = new_proc()?;
            built.bare_proc = Some(rootfs::clone_tree(&proc, false)?);
            wait_on(&proc, c"/proc/fs")?;
            built.proc = Some(proc);
        }
        Step::Sys(access) => {
            let sys = new_sys(*access)?;
            wait_on(&sys, c"/proc/driver")?;
            built.sys = Some(sys);
            built.sys_ready = true;
        }
        Step::SysCgroup(access) => sys_cgroup(cgroup, built, *access)?,
        Step::Dev { nodes, origin } => built.dev = Some(device::dev(nodes, *origin, false)?),
        Step::DevPts => built.pts = Some(device::pts()?),
        Step::DevShm { size } => built.shm = Some(device::shm(*size)?),
        Step::DevMqueue => built.mqueue = Some(device::mqueue()?),
        Step::Mask(path) => cover(built, path, Cover::Mask)?,
        Step::ReadOnlyPath(path) => cover(built, path, Cover::ReadOnly)?,
        _ => {}
    }
    Ok(())
}

/// Puts a mount on a directory of the host's, until it is moved to its place.
fn wait_on(mount: &OwnedFd, directory: &CStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(directory, flags, Mode::empty())?;
    Ok(rootfs::attach(mount, place.as_fd())?)
}

/// Joins the cgroups, and makes the cgroup namespace, which shows what was joined as its root.
fn join_cgroups(cgroup: &SandboxCgroup, namespaces: &[Namespace]) -> Result<(), SpawnError> {
    for procs in &cgroup.joins {
        std::fs::write(procs, "0").map_err(|e| SpawnError::setup(&format!("join {}", procs.display()), e))?;
    }
    if namespaces.contains(&Namespace::Cgroup) {
        match sys::process::unshare(UnshareFlags::NEWCGROUP) {
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(SpawnError::setup("make a cgroup namespace", errno)),
        }
    }
    Ok(())
}

pub(super) fn new_proc() -> rustix::io::Result<OwnedFd> {
    rootfs::new_mount(c"proc", &[("source", "proc")], rootfs::NO_SUID_DEV_EXEC)
}

pub(super) fn new_sys(access: Access) -> rustix::io::Result<OwnedFd> {
    let mut attributes = rootfs::NO_SUID_DEV_EXEC;
    if access == Access::ReadOnly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rootfs::new_mount(c"sysfs", &[("source", "sysfs")], attributes)
}

pub(super) fn sys_cgroup(group: &SandboxCgroup, built: &Built, access: Access) -> io::Result<()> {
    let sys = built.sys.as_ref().expect("cgroups come after /sys");
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = match rustix::fs::openat2(sys, c"fs/cgroup", flags, Mode::empty(), resolve) {
        // The kernel is built without cgroups.
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    match group.version() {
        CgroupVersion::V1 => cgroup::controllers(&target, &group.shown, access),
        CgroupVersion::V2 => Ok(rootfs::attach(cgroup::unified(access)?, target.as_fd())?),
        CgroupVersion::None => Ok(()),
    }
}
