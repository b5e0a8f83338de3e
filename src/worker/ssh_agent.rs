//! The socket that a `RUN --mount=type=ssh` step sees: one of ours, with the mode and owner the step asked for, that
//! relays to the user's agent while the step runs. The agent's own socket is never mounted.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a step may ask of an agent: which keys there are, and a signature (draft-miller-ssh-agent, 5.1).
const ALLOWED: [u8; 2] = [11, 13];
/// The answer to everything else.
const FAILURE: u8 = 5;
/// The longest message, as OpenSSH has it.
const MAX_MESSAGE: u32 = 256 << 10;

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

/// Passes requests and answers on, one after the other, until either side ends. A step may see the keys and sign with
/// them; adding, removing and locking are refused, as in BuildKit.
fn relay(mut step: &UnixStream, mut agent: &UnixStream) {
    let mut exchange = || -> io::Result<()> {
        while let Some(request) = message(&mut step)? {
            if request.first().is_some_and(|kind| ALLOWED.contains(kind)) {
                send(&mut agent, &request)?;
                let answer = message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                send(&mut step, &answer)?;
            } else {
                send(&mut step, &[FAILURE])?;
            }
        }
        Ok(())
    };
    // Either side may vanish at any time; the other then sees the end.
    let _ended = exchange();
    let _gone = step.shutdown(Shutdown::Both);
}

/// Reads one message; `None` at the end.
fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length);
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn send(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_may_list_and_sign_and_nothing_else() {
        let (step, ours) = UnixStream::pair().unwrap();
        let (agent, theirs) = UnixStream::pair().unwrap();
        let relayed = std::thread::spawn(move || relay(&ours, &theirs));
        let (mut step, mut agent) = (step, agent);
        for forbidden in [&[17, 1, 2][..], &[18], &[19], &[22], &[25], &[27]] {
            send(&mut step, forbidden).unwrap();
            assert_eq!(message(&mut step).unwrap().unwrap(), [FAILURE], "{forbidden:?}");
        }
        for allowed in [&[11][..], &[13, 9, 9]] {
            send(&mut step, allowed).unwrap();
            assert_eq!(message(&mut agent).unwrap().unwrap(), allowed);
            send(&mut agent, &[12, 0]).unwrap();
            assert_eq!(message(&mut step).unwrap().unwrap(), [12, 0]);
        }
        // A message that would be too large ends the conversation.
        step.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(message(&mut step).map_or(true, |end| end.is_none()));
        relayed.join().unwrap();
    }
}
