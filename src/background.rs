//! Processes of rbuild's own that go on when the one that starts them has ended: the program anew, with a command that only it
//! types. Each begins with [`begin_session`](rbuild_executor::begin_session).

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::config::Settings;

/// Starts `rbuild WORD ARGUMENT` on the same store; it speaks over `connection`, its standard input.
///
/// Only the program itself can do this ([`Settings::is_program`]): anything else would start itself.
pub(crate) fn start(word: &str, argument: &str, connection: OwnedFd, settings: &Settings) -> io::Result<()> {
    if !settings.is_program {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(&settings.root);
    // What was asked for on the command line holds there, too; the environment goes along by itself.
    if let Some(stacking) = settings.stacking.forced {
        command.args(["--overlay", stacking.name()]);
    }
    if let Some(snapshotter) = &settings.snapshotter {
        command.args(["--snapshotter", snapshotter]);
    }
    command.arg(word).arg(argument);
    command.stdin(Stdio::from(connection)).stdout(Stdio::null()).stderr(Stdio::null());
    // Not waited for: when this process ends before it, it is somebody else's child.
    command.spawn().map(drop)
}
