//! Our own PID 1: reaps, forwards signals, ends with the program's status, and by ending kills whatever still runs.
//!
//! It is the same binary, so it protects itself from the sandbox: not dumpable (no access to its memory, descriptors, root
//! or binary), and no capability but the one to signal the program, also not by exec. It loads no filter: it runs nothing but
//! the loop below, and compiling a second one costs every step a tenth of its time.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid};
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::channel;
use crate::launch;
use crate::perform::Tie;
use crate::spawn_error::SpawnError;
use crate::sys;
use crate::sys::process::Block;

/// How the program ended, told by its init to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramEnded {
    /// The raw wait status.
    pub(crate) status: i32,
    /// Whether it was the last process but for the init.
    pub(crate) alone: bool,
}

/// To be done before the program is forked, so that nothing is missed and nothing seen.
pub(crate) fn prepare() -> Result<(), SpawnError> {
    let failed = |errno| SpawnError::setup("prepare the init process", errno);
    sys::signal::block_all().map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}

/// Is PID 1 until the program ends.
pub(crate) fn run(exit: OwnedFd, program: Pid) -> ! {
    let program = program.as_raw_nonzero().get();
    let ended = match confine(&exit).and_then(|()| supervise(program)) {
        Ok(status) => ProgramEnded { status, alone: reap_rest() },
        // Without an init there must be no sandbox.
        Err(_) => sys::process::exit_now(125),
    };
    drop(channel::send(&exit, &ended, &[]));
    sys::process::exit_now(exit_code(ended.status))
}

fn confine(exit: &OwnedFd) -> Result<(), SpawnError> {
    let failed = |errno| SpawnError::setup("confine the init process", errno);
    rustix::thread::set_name(c"rbuild-init").map_err(failed)?;
    // Nothing of the sandbox's pipes, terminal or mounts stays open here.
    sys::process::close_all_but(&[exit.as_fd()]).map_err(failed)?;
    launch::drop_bounding(Capabilities::KILL).map_err(failed)?;
    launch::set_capabilities(Capabilities::KILL).map_err(failed)?;
    rustix::thread::set_no_new_privs(true).map_err(failed)?;
    Tie::Parent.bind()
}

/// Waits for the program, forwarding every signal to it and reaping every orphan.
fn supervise(program: i32) -> Result<i32, SpawnError> {
    loop {
        loop {
            match sys::process::wait(None, Block::No) {
                Ok(Some(reaped)) if reaped.pid == program => return Ok(reaped.status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(errno) => return Err(SpawnError::setup("wait for the program", errno)),
            }
        }
        match sys::signal::take() {
            Ok(libc::SIGCHLD) | Err(_) => {}
            // Stopping a whole sandbox is the owner's business; the rest is the program's.
            Ok(libc::SIGTTIN | libc::SIGTTOU | libc::SIGTSTP) => {}
            Ok(signal) => {
                // It may have ended this very moment; then the next round reaps it.
                let _ = sys::process::kill(program, signal);
            }
        }
    }
}

/// Reaps what has ended; whether nothing is left. Orphans are this process's children, so that without children there is no
/// process, unless one entered from outside.
fn reap_rest() -> bool {
    loop {
        match sys::process::wait(None, Block::No) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(errno) => return errno == Errno::CHILD,
        }
    }
}

/// As a shell says it.
fn exit_code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}
