//! The socket that a `RUN --mount=type=ssh` step sees: one of ours, with the mode and owner the step asked for, that
//! relays to the user's agent while the step runs. The agent's own socket is never mounted.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A relay; dropping it ends it.
#[derive(Debug)]
pub(super) struct AgentRelay {
    socket: PathBuf,
    ended: Arc<AtomicBool>,
}

impl AgentRelay {
    /// Listens at `socket` (a path in a private directory) and relays to `agent`.
    pub(super) fn start(socket: &Path, agent: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        chown(socket, Some(uid), Some(gid))?;
        fs::set_permissions(socket, fs::Permissions::from_mode(mode))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, agent) = (Arc::clone(&ended), agent.to_owned());
        std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || accept(&listener, &agent, &stop))?;
        Ok(Self { socket: socket.to_owned(), ended })
    }

    /// The socket to mount.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for AgentRelay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; it then sees that it has ended.
        let _woken = UnixStream::connect(&self.socket);
        let _gone = fs::remove_file(&self.socket);
    }
}

fn accept(listener: &UnixListener, agent: &Path, ended: &AtomicBool) {
    for stream in listener.incoming() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        if let (Ok(step), Ok(agent)) = (stream, UnixStream::connect(agent)) {
            // A step that opens many connections only fails its own ones.
            let _refused = std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || relay(&step, &agent));
        }
    }
}

fn relay(step: &UnixStream, agent: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| copy_until_end(step, agent));
        copy_until_end(agent, step);
    });
}

fn copy_until_end(mut from: &UnixStream, mut to: &UnixStream) {
    // Either side may vanish at any time; the other then sees the end.
    let _ended = io::copy(&mut from, &mut to);
    let _gone = to.shutdown(Shutdown::Write);
}
