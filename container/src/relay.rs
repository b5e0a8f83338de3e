//! Bytes between a container's streams and the caller's, each direction on a thread of its own.
//!
//! - Nothing is stored: a caller that does not read makes the container wait, and one that closed its side
//!   closes the container's, which then gets EPIPE as in any pipeline.
//! - After the container's process has ended the rest of its output is read to the end. Somebody outside who still
//!   holds the writing side (it can be passed on through a socket) is waited for only while bytes keep coming.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

const BUFFER: usize = 64 * 1024;
/// How long output may pause, once the process has ended, before it counts as complete.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// Tells relays that the container's process has ended.
pub(crate) struct Ended(OwnedFd);

impl Ended {
    /// Not yet.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// It has.
    pub(crate) fn announce(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// For a thread to look at.
    pub(crate) fn subscribe(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Copies what the container writes (`from`) to the caller (`to`).
pub(crate) fn output(from: OwnedFd, to: OwnedFd, ended: &Ended) -> io::Result<JoinHandle<io::Result<()>>> {
    let ended = ended.subscribe()?;
    thread::Builder::new().name("container-output".into()).spawn(move || copy_output(&from, &to, &ended))
}

/// Copies what the caller types (`from`) to the container (`to`), and closes that at the end of the input.
pub(crate) fn input(from: OwnedFd, to: OwnedFd, ended: &Ended) -> io::Result<JoinHandle<io::Result<()>>> {
    let ended = ended.subscribe()?;
    thread::Builder::new().name("container-input".into()).spawn(move || copy_input(&from, &to, &ended))
}

fn copy_output(from: &OwnedFd, to: &OwnedFd, ended: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut running = true;
    loop {
        if running {
            let [readable, over] = wait([(from, PollFlags::IN), (ended, PollFlags::IN)], None)?;
            running = !over;
            if !readable && running {
                continue;
            }
        }
        if !running {
            let [readable, _] = wait([(from, PollFlags::IN), (from, PollFlags::empty())], Some(LAST_WORDS))?;
            if !readable {
                return Ok(());
            }
        }
        let read = match rustix::io::read(from, &mut buffer) {
            // The terminal of a container whose last process is gone.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        match write_all(to, &buffer[..read], None)? {
            Written::All => {}
            Written::Closed => return Ok(()),
        }
    }
}

fn copy_input(from: &OwnedFd, to: &OwnedFd, ended: &OwnedFd) -> io::Result<()> {
    // A container that does not read must not keep this thread when it ends.
    rustix::fs::fcntl_setfl(to, rustix::fs::fcntl_getfl(to)? | rustix::fs::OFlags::NONBLOCK)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let [readable, over] = wait([(from, PollFlags::IN), (ended, PollFlags::IN)], None)?;
        if over {
            return Ok(());
        }
        if !readable {
            continue;
        }
        let read = match rustix::io::read(from, &mut buffer) {
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        match write_all(to, &buffer[..read], Some(ended))? {
            Written::All => {}
            Written::Closed => return Ok(()),
        }
    }
}

/// What became of bytes.
pub(crate) enum Written {
    /// They are written.
    All,
    /// Nobody reads any more.
    Closed,
}

/// Writes everything, waiting while the other side is full, unless `stop` becomes readable meanwhile.
pub(crate) fn write_all(to: &OwnedFd, mut bytes: &[u8], stop: Option<&OwnedFd>) -> io::Result<Written> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::IO | Errno::CONNRESET) => return Ok(Written::Closed),
            Err(Errno::AGAIN) => {
                let stop = stop.map_or((to, PollFlags::empty()), |stop| (stop, PollFlags::IN));
                let [_, over] = wait([(to, PollFlags::OUT), stop], None)?;
                if over && stop.1.contains(PollFlags::IN) {
                    return Ok(Written::Closed);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Written::All)
}

/// Waits until one of two descriptors is ready, or `timeout` has passed; which of them are.
pub(crate) fn wait(fds: [(&OwnedFd, PollFlags); 2], timeout: Option<Duration>) -> io::Result<[bool; 2]> {
    let mut polled = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd.as_fd(), flags));
    let timeout = timeout.map(|t| Timespec::try_from(t).expect("half a second fits"));
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok([!polled[0].revents().is_empty(), !polled[1].revents().is_empty()]),
        Err(Errno::INTR) => Ok([false, false]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::fs::File;
    use std::io::{Read, Write};

    fn pipe() -> (File, File) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn output_is_complete_whatever_the_reader_does() {
        let ((from, mut container), (mut caller, to)) = (pipe(), pipe());
        let ended = Ended::new().unwrap();
        let relay = output(from.into(), to.into(), &ended).unwrap();
        let writer = thread::spawn(move || {
            let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
            container.write_all(&block).unwrap();
            container.write_all(b"last line without end").unwrap();
        });
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            caller.read_to_end(&mut got).map(|_| got).unwrap()
        });
        writer.join().unwrap();
        ended.announce().unwrap();
        let got = reader.join().unwrap();
        relay.join().unwrap().unwrap();
        assert_eq!(got.len(), (1 << 20) + 21);
        assert!(got.ends_with(b"last line without end"));
    }

    #[test]
    fn a_reader_that_left_closes_the_containers_side() {
        let ((from, mut container), (caller, to)) = (pipe(), pipe());
        let ended = Ended::new().unwrap();
        let relay = output(from.into(), to.into(), &ended).unwrap();
        drop(caller);
        container.write_all(b"x").unwrap();
        relay.join().unwrap().unwrap();
        assert_eq!(container.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_writing_side_that_was_passed_on_does_not_keep_the_relay() {
        let ((from, mut container), (mut caller, to)) = (pipe(), pipe());
        let ended = Ended::new().unwrap();
        let relay = output(from.into(), to.into(), &ended).unwrap();
        container.write_all(b"before").unwrap();
        ended.announce().unwrap();
        relay.join().unwrap().unwrap();
        let mut got = String::new();
        caller.read_to_string(&mut got).unwrap();
        assert_eq!(got, "before");
        drop(container);
    }

    #[test]
    fn the_end_of_the_input_reaches_the_container() {
        let ((from, mut caller), (mut container, to)) = (pipe(), pipe());
        let ended = Ended::new().unwrap();
        let relay = input(from.into(), to.into(), &ended).unwrap();
        caller.write_all(b"typed").unwrap();
        drop(caller);
        let mut got = String::new();
        container.read_to_string(&mut got).unwrap();
        assert_eq!(got, "typed");
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn input_stops_when_the_container_ends_even_if_it_never_read() {
        let ((from, mut caller), (container, to)) = (pipe(), pipe());
        let ended = Ended::new().unwrap();
        let relay = input(from.into(), to.into(), &ended).unwrap();
        caller.write_all(&vec![0; 60 << 10]).unwrap();
        caller.write_all(&vec![0; 60 << 10]).unwrap();
        thread::sleep(Duration::from_millis(20));
        ended.announce().unwrap();
        relay.join().unwrap().unwrap();
        drop((caller, container));
    }
}
