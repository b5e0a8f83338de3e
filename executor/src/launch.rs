//! The last steps of a sandbox: descriptors, directory, privileges, filter, and the program itself.
//!
//! The order: what needs privileges, then the ids (keeping only CAP_SYS_ADMIN beyond what the program gets), then the
//! filter, which that capability loads without `no_new_privs`, then the final capability sets, then `execve` (rule S-07).

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access as Permission, AtFlags, FsWord, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySets, SecureComputingMode};

use crate::capability::Capabilities;
use crate::channel;
use crate::perform::{Built, SetupMessage, Tie};
use crate::plan::{Groups, MissingCwd, ProcessPlan};
use crate::rlimit::Planned;
use crate::root_dir::{NewDirectory, RootDir};
use crate::spawn_error::{NotExecutable, SpawnError};
use crate::stat::{FileKind, Stat};
use crate::stdio::Slot;
use crate::sys;
use crate::sys::process::Close;
use crate::sys::seccomp::Instruction;

/// What becomes of a process: the same for the first one of a sandbox and for those that enter it later.
pub(crate) struct Launch<'a> {
    pub(crate) process: &'a ProcessPlan,
    /// What of the plan's capabilities this host lets it have.
    pub(crate) capabilities: Capabilities,
    /// The compiled filter, unless unconfined.
    pub(crate) filter: Option<&'a [Instruction]>,
    /// To the owner, until the program starts.
    pub(crate) setup: OwnedFd,
    pub(crate) slots: [Slot; 3],
    pub(crate) stdio: Vec<OwnedFd>,
    /// Whose end is its own.
    pub(crate) tie: Tie<'a>,
}

/// Becomes the program.
pub(crate) fn launch(mut launch: Launch<'_>, built: Built) -> Result<Infallible, SpawnError> {
    let Launch { process, capabilities, filter, .. } = launch;
    rustix::process::setsid().map_err(|e| SpawnError::setup("start a session", e))?;
    let stdio = stdio(&mut launch.stdio, launch.slots, &built, process.user.uid)
        .map_err(|e| SpawnError::setup("prepare the standard descriptors", e))?;
    if let Some((_, theirs)) = &built.terminal {
        rustix::process::ioctl_tiocsctty(theirs).map_err(|e| SpawnError::setup("take the terminal", e))?;
    }
    install(&stdio).map_err(|e| SpawnError::setup("install the standard descriptors", e))?;
    let refused = |limit: &Planned, errno: Errno| SpawnError::Limit {
        limit: format!("ulimit {}", limit.name().to_ascii_lowercase()),
        reason: io::Error::from(errno).to_string(),
    };
    for limit in &process.rlimits {
        limit.prepare().map_err(|errno| refused(limit, errno))?;
    }
    if let Some(profile) = &process.apparmor {
        let proc = built.proc.as_ref().expect("a plan with a profile mounts /proc");
        take_on(profile, proc.as_fd())?;
    }
    let program = Program::new(process)?;
    let entered = enter(process);
    take_ids(process, capabilities, filter.is_some()).map_err(|e| SpawnError::setup("give up privileges", e))?;
    // Where only the user may go (a network file system, say), the user goes.
    if let Err(SpawnError::Cwd { .. }) = &entered {
        enter(process)?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::signal::reset().map_err(|e| SpawnError::setup("reset signals", e))?;
    // Changing ids has cleared it.
    launch.tie.bind()?;
    sys::process::close_range(3, u32::MAX, Close::OnExec)
        .map_err(|e| SpawnError::setup("close inherited descriptors", e))?;
    // From here on nothing is opened any more.
    for limit in &process.rlimits {
        limit.apply().map_err(|errno| refused(limit, errno))?;
    }
    let terminal: Vec<BorrowedFd<'_>> = built.terminal.iter().map(|(ours, _)| ours.as_fd()).collect();
    channel::send(&launch.setup, &SetupMessage::Ready, &terminal)
        .map_err(|e| SpawnError::setup("report to the owner", e))?;
    confine(process, capabilities, filter).map_err(|e| SpawnError::setup("load the system call filter", e))?;
    Err(program.execute())
}

/// Opens what stands for each of the three.
fn stdio(given: &mut Vec<OwnedFd>, slots: [Slot; 3], built: &Built, uid: u32) -> io::Result<[OwnedFd; 3]> {
    let mut given = given.drain(..);
    let mut open = |slot: Slot| -> io::Result<OwnedFd> {
        match slot {
            Slot::Null => {
                let dev = built.dev.as_ref().ok_or(Errno::NODEV)?;
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let null = rustix::fs::openat(dev, c"null", flags, Mode::empty())?;
                // In a sandbox that runs somebody may have put something else there.
                let stat = Stat::of(&null)?;
                if stat.kind != FileKind::CharDevice || stat.device_file != (1, 3) {
                    return Err(io::Error::other("/dev/null of the sandbox is not the null device"));
                }
                rustix::fs::fcntl_setfl(&null, OFlags::RDWR)?;
                Ok(null)
            }
            Slot::Terminal => {
                let (_, theirs) = built.terminal.as_ref().ok_or(Errno::NOTTY)?;
                rustix::fs::fchown(theirs, Some(Uid::from_raw(uid)), None)?;
                Ok(theirs.try_clone()?)
            }
            Slot::Inherited => given.next().ok_or_else(|| Errno::BADF.into()),
            Slot::Given => {
                let fd = given.next().ok_or(Errno::BADF)?;
                own_pipe(&fd, uid)?;
                Ok(fd)
            }
        }
    };
    Ok([open(slots[0])?, open(slots[1])?, open(slots[2])?])
}

/// Lets the user reopen `/dev/stdout`, as runc does; only for anonymous pipes, never for a file of the host.
fn own_pipe(fd: &OwnedFd, uid: u32) -> rustix::io::Result<()> {
    const PIPEFS: FsWord = 0x5049_5045;
    if uid != 0 && rustix::fs::fstatfs(fd)?.f_type == PIPEFS {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None)?;
    }
    Ok(())
}

/// Makes them descriptors 0, 1 and 2. First out of the way, since one may lie where another goes.
fn install(stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 10);
    let [stdin, stdout, stderr] = [high(&stdio[0])?, high(&stdio[1])?, high(&stdio[2])?];
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    Ok(())
}

/// Has the kernel confine the program from its `execve` on, and what this process forks until then. Written through a procfs
/// that nothing in a sandbox can have replaced (rule S-20).
pub(crate) fn take_on(profile: &str, proc: BorrowedFd<'_>) -> Result<(), SpawnError> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let write = || -> io::Result<()> {
        // Its own number as that procfs counts, which may be another pid namespace's.
        let own = rustix::fs::readlinkat(proc, c"self", Vec::new())?.into_string().map_err(|_| Errno::INVAL)?;
        let open = |file: &str| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat2(proc, format!("{own}/attr/{file}"), flags, Mode::empty(), resolve)
        };
        // The directory of its own came with Linux 5.8.
        let file = match open("apparmor/exec") {
            Err(Errno::NOENT) => open("exec")?,
            other => other?,
        };
        rustix::io::write(file, format!("exec {profile}").as_bytes())?;
        Ok(())
    };
    write().map_err(|e| SpawnError::setup(&format!("take on the AppArmor profile {profile}"), e))
}

/// Enters the working directory through a confined lookup, and makes sure of where that is (rule S-14). In a new sandbox one
/// that is missing, perhaps because a mount hides it, is made first, as runc does (rule S-15).
fn enter(process: &ProcessPlan) -> Result<(), SpawnError> {
    let cwd = || -> io::Result<()> {
        let root = RootDir::open("/".as_ref())?;
        let directory = match root.open_dir_path(&process.cwd) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && process.missing_cwd == MissingCwd::Make => {
                let new = NewDirectory { mode: 0o755, uid: 0, gid: 0 };
                root.create_dir_all(&process.cwd, new)?;
                root.open_dir_path(&process.cwd)?
            }
            found => found?,
        };
        rustix::process::fchdir(directory)?;
        let reached = rustix::process::getcwd(Vec::new())?;
        if !reached.to_bytes().starts_with(b"/") {
            rustix::process::chdir(c"/")?;
            return Err(Errno::XDEV.into());
        }
        Ok(())
    };
    cwd().map_err(|source| SpawnError::Cwd { path: process.cwd.clone(), source })
}

/// Drops the bounding set and takes the program's ids. CAP_SYS_ADMIN is kept when a filter has to be loaded with it.
fn take_ids(process: &ProcessPlan, capabilities: Capabilities, filtered: bool) -> rustix::io::Result<()> {
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    drop_bounding(capabilities)?;
    let user = &process.user;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    if process.groups == Groups::Set {
        rustix::thread::set_thread_groups(&groups)?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    let kept = if filtered && !process.no_new_privileges { Capabilities::SYS_ADMIN } else { Capabilities::default() };
    set_capabilities(granted(process, capabilities).union(kept))
}

/// Takes every other capability out of the bounding set; those the kernel does not know end the list.
pub(crate) fn drop_bounding(keep: Capabilities) -> rustix::io::Result<()> {
    for capability in keep.absent() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Permitted and effective are the same; inheritable and ambient are always empty (rule S-11).
pub(crate) fn set_capabilities(set: Capabilities) -> rustix::io::Result<()> {
    let set = set.kernel_set();
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: rustix::thread::CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// What the program has at its start: nothing unless it is root.
fn granted(process: &ProcessPlan, capabilities: Capabilities) -> Capabilities {
    if process.user.uid == 0 { capabilities } else { Capabilities::default() }
}

fn confine(
    process: &ProcessPlan,
    capabilities: Capabilities,
    filter: Option<&[Instruction]>,
) -> rustix::io::Result<()> {
    if let Some(filter) = filter {
        sys::seccomp::install(filter)?;
        set_capabilities(granted(process, capabilities))?;
        debug_assert!(matches!(rustix::thread::secure_computing_mode(), Ok(SecureComputingMode::Filter)));
    }
    Ok(())
}

/// A program ready for `execve`: nothing is allocated any more once the filter is loaded.
struct Program {
    name: String,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(process: &ProcessPlan) -> Result<Self, SpawnError> {
        let strings = |texts: &[String]| texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>();
        let nul = |_| SpawnError::Invalid { reason: "an argument or variable contains a NUL byte".to_owned() };
        let name = process.argv.first().cloned().unwrap_or_default();
        Ok(Self {
            candidates: strings(&candidates(&name, &process.env)).map_err(nul)?,
            argv: strings(&process.argv).map_err(nul)?,
            env: strings(&process.env).map_err(nul)?,
            name,
        })
    }

    /// Tries each candidate; what is wrong when none becomes the program.
    fn execute(self) -> SpawnError {
        let mut refused = None;
        for candidate in &self.candidates {
            let Err(errno) = nix::unistd::execve(candidate, &self.argv, &self.env);
            let errno = Errno::from_raw_os_error(errno as i32);
            let reason = match errno {
                Errno::NOENT | Errno::NOTDIR => {
                    let exists = rustix::fs::accessat(rustix::fs::CWD, candidate, Permission::EXISTS, AtFlags::EACCESS);
                    if exists.is_err() {
                        continue;
                    }
                    NotExecutable::Interpreter
                }
                // Goes on, as a shell does: a later directory may have one that works.
                Errno::ACCESS => {
                    refused = Some(NotExecutable::Permission);
                    continue;
                }
                Errno::NOEXEC => NotExecutable::Format,
                Errno::PERM => NotExecutable::Permission,
                other => NotExecutable::Other(other.raw_os_error()),
            };
            return SpawnError::NotExecutable { program: self.name, reason };
        }
        match refused {
            Some(reason) => SpawnError::NotExecutable { program: self.name, reason },
            None => SpawnError::NotFound { program: self.name },
        }
    }
}

/// Where a program may be: itself when it has a slash, else in the directories of `PATH`.
fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let directories = path.split(':').filter(|_| !path.is_empty());
    directories.map(|dir| if dir.is_empty() { format!("./{program}") } else { format!("{dir}/{program}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_sandboxs_own_path() {
        let env = |path: &str| vec!["PATH=/first".to_owned(), format!("PATH={path}")];
        assert_eq!(candidates("sh", &env("/bin:/usr/bin")), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates("sh", &env("/a::")), ["/a/sh", "./sh", "./sh"]);
        assert_eq!(candidates("./sh", &env("/bin")), ["./sh"]);
        assert!(candidates("sh", &env("")).is_empty());
        assert!(candidates("sh", &[]).is_empty());
    }
}
