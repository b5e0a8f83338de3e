//! A container's output: into its log, and to everybody who is connected.
//!
//! Each stream has a thread. It reads only when everybody has what was read before: who does not read makes the container wait,
//! and no byte is kept but in the log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::clients::{Clients, Delivered};
use crate::logs::{LogWriter, Stream};
use crate::relay::{Ended, LAST_WORDS, wait};
use rustix::event::PollFlags;

const BUFFER: usize = 64 * 1024;

/// The outputs of one run of a container.
pub(crate) struct Outputs {
    ended: Ended,
    done: (Sender<io::Result<()>>, Receiver<io::Result<()>>),
    open: usize,
    failure: Option<io::Error>,
}

impl Outputs {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ended: Ended::new()?, done: channel(), open: 0, failure: None })
    }

    /// Begins to copy a stream.
    pub(crate) fn copy(
        &mut self,
        stream: Stream,
        from: OwnedFd,
        log: Option<Arc<Mutex<LogWriter>>>,
        clients: Clients,
    ) -> io::Result<()> {
        let ended = self.ended.subscribe()?;
        let done = self.done.0.clone();
        std::thread::Builder::new().name("container-output".into()).spawn(move || {
            let copy = Copy { stream, from, log, clients };
            let copied = copy.run(&ended);
            // Nobody waits for it any more when the monitor ends.
            drop(done.send(copied));
        })?;
        self.open += 1;
        Ok(())
    }

    /// The container's process has ended.
    pub(crate) fn announce_end(&self) -> io::Result<()> {
        self.ended.announce()
    }

    /// Waits until all output has been delivered, at most so long; whether it has.
    pub(crate) fn finish(&mut self, patience: Option<Duration>) -> bool {
        let start = Instant::now();
        while self.open > 0 {
            let received = match patience {
                None => self.done.1.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => self.done.1.recv_timeout(patience.saturating_sub(start.elapsed())),
            };
            match received {
                Ok(result) => {
                    self.open -= 1;
                    self.failure = self.failure.take().or(result.err());
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
        }
        true
    }

    /// Why part of the output is lost, if so.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }
}

struct Copy {
    stream: Stream,
    from: OwnedFd,
    /// None where nobody asks for it later (`exec`).
    log: Option<Arc<Mutex<LogWriter>>>,
    clients: Clients,
}

impl Copy {
    fn log(&self, write: impl FnOnce(&mut LogWriter) -> io::Result<()>) -> io::Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| write(&mut log.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Reads to the end. What cannot be stored or delivered is told at the end: the container goes on.
    fn run(self, ended: &OwnedFd) -> io::Result<()> {
        let mut failure = None;
        let mut note = |result: io::Result<()>| failure = failure.take().or(result.err());
        let mut buffer = vec![0; BUFFER];
        let mut running = true;
        let read = loop {
            match self.read(&mut buffer, &mut running, ended) {
                Ok(None) => break Ok(()),
                Ok(Some(bytes)) => {
                    note(self.log(|log| log.write(self.stream, bytes)));
                    let mut closed = false;
                    for client in self.clients.all() {
                        match client.deliver(self.stream, bytes) {
                            Ok(Delivered::Done) => {}
                            Ok(Delivered::Closed) => closed = true,
                            Err(error) => note(Err(error)),
                        }
                    }
                    if closed {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        note(read);
        note(self.log(|log| log.finish(self.stream)));
        failure.map_or(Ok(()), Err)
    }

    /// What the container wrote next; `None` at the end.
    fn read<'b>(&self, buffer: &'b mut [u8], running: &mut bool, ended: &OwnedFd) -> io::Result<Option<&'b [u8]>> {
        loop {
            if *running {
                let [readable, over] = wait([(&self.from, PollFlags::IN), (ended, PollFlags::IN)], None)?;
                *running = !over;
                if !readable && *running {
                    continue;
                }
            }
            if !*running {
                let nothing = (&self.from, PollFlags::empty());
                let [readable, _] = wait([(&self.from, PollFlags::IN), nothing], Some(LAST_WORDS))?;
                if !readable {
                    return Ok(None);
                }
            }
            match rustix::io::read(self.from.as_fd(), &mut *buffer) {
                // The terminal of a container whose last process is gone.
                Ok(0) | Err(Errno::IO) => return Ok(None),
                Ok(read) => return Ok(Some(&buffer[..read])),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
