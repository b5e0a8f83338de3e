//! An ordinary user becomes root of an own user namespace, in which everything else works as for root.
//!
//! ```text
//!   rbuild (uid 1000) ── spawn ──▶ two helpers: ourselves, waiting      in the caller's user namespace
//!        │ unshare(user, mount)        │
//!        │ "go" ──────────────────────▶│ exec newuidmap, newgidmap        which have the privilege to map further ids
//!        │ ◀─────────────── exit ──────┘
//!        └ exec ourselves, as root inside
//! ```
//!
//! Needs a process with a single thread. Without subordinate ids only the caller's own id exists inside. The namespaces go
//! away with the last process in them, and with them every mount: nothing has to be swept.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::id_map::{IdMap, IdRange, name_of, subordinate_ids};
use crate::sys;

/// How a helper knows itself.
const ARGV0: &str = "rbuild-id-map";

/// Who wants a user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Directories with programs, as in `PATH`.
    pub path: Option<&'a OsStr>,
}

/// Why an ordinary user could not become root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel makes none for this user.
    #[error("this host lets an ordinary user make no user namespace")]
    Refused {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not even the own id could be mapped.
    #[error("cannot map the ids of the user namespace ({file})")]
    Map {
        /// What could not be written.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else on the way.
    #[error("cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an ordinary user can have, before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subordinate {
    /// The ids that root, and the others inside, would be.
    pub map: IdMap,
    /// Why there is but one id, if so: what is missing.
    pub lacking: Option<String>,
    programs: Option<[PathBuf; 2]>,
}

/// The ids in force in this process's user namespace.
pub fn current_ids() -> io::Result<IdMap> {
    Ok(IdMap::parse(&fs::read_to_string("/proc/self/uid_map")?, &fs::read_to_string("/proc/self/gid_map")?))
}

/// What root of this process's user namespace can do to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Powers {
    /// Everything.
    All,
    /// Everything within the mapped ids, and no device files.
    Mapped,
    /// No device files, and no owner but the one there is.
    SingleId,
}

/// What this process can do to files. Its user namespace never changes, so this is found out once.
pub fn powers() -> Powers {
    static POWERS: OnceLock<Powers> = OnceLock::new();
    *POWERS.get_or_init(|| match current_ids() {
        Ok(map) if map.is_identity() => Powers::All,
        Ok(map) if map.is_single() => Powers::SingleId,
        Ok(_) => Powers::Mapped,
        // Without /proc there is no telling; root then fails where it must.
        Err(_) => Powers::All,
    })
}

/// If this process was started as a helper it becomes what it was told to, and never returns.
pub(crate) fn reexec_entry() {
    let mut arguments = std::env::args_os();
    if arguments.next().as_deref() == Some(OsStr::new(ARGV0)) {
        sys::process::exit_now(wait_and_become(arguments));
    }
}

/// Looks up which ids the caller may have, and whether the programs that map them are there.
pub fn subordinate(caller: Caller<'_>) -> Subordinate {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = name_of(&passwd, caller.uid);
    let ranges = |path: &str| subordinate_ids(&read(path), name, caller.uid);
    let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    let programs = ["newuidmap", "newgidmap"].map(|program| find_program(program, caller.path));
    let lacking = match (&programs, uids.is_empty(), gids.is_empty()) {
        ([None, _] | [_, None], _, _) => Some("newuidmap and newgidmap (package uidmap)".to_owned()),
        (_, true, _) => Some(format!("subordinate user ids for {} in /etc/subuid", name.unwrap_or("this user"))),
        (_, _, true) => Some(format!("subordinate group ids for {} in /etc/subgid", name.unwrap_or("this user"))),
        _ => None,
    };
    match (programs, &lacking) {
        ([Some(uid_program), Some(gid_program)], None) => Subordinate {
            map: IdMap::for_caller(caller.uid, caller.gid, &uids, &gids),
            lacking,
            programs: Some([uid_program, gid_program]),
        },
        _ => Subordinate { map: IdMap::for_caller(caller.uid, caller.gid, &[], &[]), lacking, programs: None },
    }
}

/// Starts this program anew, with `arguments` (its own name first), as root of a new user namespace. Returns only when that
/// failed. The process must have one thread; it may be left in the new namespace.
pub fn enter(caller: Caller<'_>, arguments: &[OsString]) -> EnterError {
    become_root(caller).map_or_else(|error| error, |()| start_again(arguments))
}

/// Like [`enter`], in the user namespace that the process behind the pidfd `member` is in, which the caller must have made.
pub fn join(member: BorrowedFd<'_>, arguments: &[OsString]) -> EnterError {
    let join = || -> Result<(), EnterError> {
        let step =
            |errno: Errno| EnterError::Step { step: "enter the container's user namespace", source: errno.into() };
        rustix::thread::move_into_thread_name_spaces(member, ThreadNameSpaceType::USER).map_err(step)?;
        sys::process::unshare(UnshareFlags::NEWNS).map_err(step)?;
        root_identity()
    };
    join().map_or_else(|error| error, |()| start_again(arguments))
}

fn start_again(arguments: &[OsString]) -> EnterError {
    let name = arguments.first().cloned().unwrap_or_default();
    let rest = arguments.get(1..).unwrap_or_default();
    let source = Command::new("/proc/self/exe").arg0(name).args(rest).exec();
    EnterError::Step { step: "start again in the user namespace", source }
}

fn become_root(caller: Caller<'_>) -> Result<(), EnterError> {
    let step = |step: &'static str| move |source: io::Error| EnterError::Step { step, source };
    let plan = subordinate(caller);
    let helpers = match &plan.programs {
        None => None,
        Some([uid, gid]) => Some((
            helper(uid, &plan.map.uids).map_err(step("start newuidmap"))?,
            helper(gid, &plan.map.gids).map_err(step("start newgidmap"))?,
        )),
    };
    sys::process::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(|errno| EnterError::Refused { source: errno.into() })?;
    let mapped = match helpers {
        None => false,
        Some((uid, gid)) => {
            let (uid, gid) = (go(uid).map_err(step("run newuidmap"))?, go(gid).map_err(step("run newgidmap"))?);
            uid.success() && gid.success()
        }
    };
    if !mapped {
        map_own_id(caller)?;
    }
    root_identity()
}

fn root_identity() -> Result<(), EnterError> {
    let identity = |errno: Errno| EnterError::Step { step: "become root of the user namespace", source: errno.into() };
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(identity)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(identity)
}

/// The caller's own id and group as root. The kernel asks for `setgroups` to be given up first.
fn map_own_id(caller: Caller<'_>) -> Result<(), EnterError> {
    let write = |file: &'static str, text: &str| match fs::write(Path::new("/proc/self").join(file), text) {
        // One of the two programs did its part.
        Err(_) if !current_ids().unwrap_or_default().uids.is_empty() && file == "uid_map" => Ok(()),
        other => other.map_err(|source| EnterError::Map { file, source }),
    };
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {} 1", caller.uid))?;
    write("gid_map", &format!("0 {} 1", caller.gid))
}

/// Ourselves, waiting to become `program` for this process's ids.
fn helper(program: &Path, ranges: &[IdRange]) -> io::Result<Child> {
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    Command::new("/proc/self/exe")
        .arg0(ARGV0)
        .arg(program)
        .arg(std::process::id().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::piped())
        .spawn()
}

fn go(mut helper: Child) -> io::Result<ExitStatus> {
    if let Some(mut stdin) = helper.stdin.take() {
        stdin.write_all(b"!")?;
    }
    helper.wait()
}

/// A helper's life: a byte is the word to go, the end of the stream means that nobody waits any more.
fn wait_and_become(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let Some(program) = arguments.next() else { return 2 };
    match io::stdin().read(&mut [0]) {
        Ok(1) => {}
        _ => return 1,
    }
    let error = Command::new(&program).args(arguments).stdin(Stdio::null()).exec();
    tracing::error!(program = %program.display(), %error, "cannot be executed");
    127
}

/// Where a program of the host is: in the caller's `PATH`, or in one of the usual directories.
pub fn find_program(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    const USUAL: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin";
    let directories = path.into_iter().flat_map(std::env::split_paths).chain(std::env::split_paths(USUAL));
    directories
        .map(|directory| directory.join(program))
        .find(|candidate| rustix::fs::accessat(CWD, candidate, Access::EXEC_OK, AtFlags::EACCESS).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_which_step_was_refused() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, words) in [
            (EnterError::Refused { source: denied() }, "this host lets an ordinary user make no user namespace"),
            (
                EnterError::Map { file: "uid_map", source: denied() },
                "cannot map the ids of the user namespace (uid_map)",
            ),
            (EnterError::Step { step: "fork", source: denied() }, "cannot fork"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
