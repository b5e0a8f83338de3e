//! Who is connected to a monitor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_executor::{WindowSize, channel};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::message::{AttachRequest, Bond, FromMonitor, ToMonitor};
use crate::logs::Stream;

/// Everybody who is connected; shared between the threads of a monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients(Arc<Mutex<Vec<Arc<Client>>>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Client {
    connection: OwnedFd,
    request: Mutex<Option<AttachRequest>>,
    outputs: Mutex<[Option<Arc<OwnedFd>>; 2]>,
    closed: AtomicBool,
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It wants to be connected.
    Attach(AttachRequest),
    /// It, who was connected to the input, has no more to type.
    InputEnded,
    /// The record has changed.
    Wake,
    /// The container's networks have changed; it waits for an answer.
    Networks,
    /// It has gone, and its container shall go with it.
    Died,
    /// It has gone, and said so.
    Detached,
    /// It has gone.
    Left,
}

/// What became of output for a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It has it, or is gone.
    Done,
    /// It was bound, and does not read any more: the container is to notice.
    Closed,
}

/// What fits into a pipe that is not full without waiting.
const PIECE: usize = 4096;

impl Clients {
    /// Somebody connected.
    pub(crate) fn add(&self, connection: OwnedFd) {
        let client =
            Client { connection, request: Mutex::default(), outputs: Mutex::default(), closed: AtomicBool::new(false) };
        self.lock().push(Arc::new(client));
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().clone()
    }

    /// Tells everybody who wants to be connected.
    pub(crate) fn tell(&self, message: &FromMonitor) {
        for client in self.all() {
            client.tell(message, None);
        }
    }

    /// Lets everybody go.
    pub(crate) fn dismiss(&self, message: &FromMonitor) {
        self.tell(message);
        self.lock().clear();
    }

    /// Hears one client out; one that has gone is not there any more afterwards.
    pub(crate) fn hear(&self, client: &Arc<Client>) -> Said {
        let said = client.hear();
        if matches!(said, Said::Died | Said::Detached | Said::Left) {
            self.lock().retain(|other| !Arc::ptr_eq(other, client));
        }
        said
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Client {
    /// The size of its terminal.
    pub(crate) fn window(&self) -> Option<WindowSize> {
        self.request()?.window
    }

    /// Whether it wants to type.
    pub(crate) fn wants_input(&self) -> bool {
        self.request().is_some_and(|request| request.input)
    }

    /// Tells it something. One that cannot be told is about to be noticed as gone.
    pub(crate) fn tell(&self, message: &FromMonitor, descriptor: Option<&OwnedFd>) {
        if self.request().is_some() {
            self.answer(message, descriptor);
        }
    }

    /// Answers what it asked, whether it is connected to the container's streams or not.
    pub(crate) fn answer(&self, message: &FromMonitor, descriptor: Option<&OwnedFd>) {
        let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
        if let Err(error) = channel::send(&self.connection, message, &descriptors) {
            tracing::debug!(%error, "a client was not told");
        }
    }

    fn request(&self) -> Option<AttachRequest> {
        *self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self) -> Said {
        let bound = self.request().is_some_and(|request| request.bond == Bond::Bound);
        match channel::receive::<ToMonitor>(&self.connection, RecvFlags::DONTWAIT) {
            Ok(Some((ToMonitor::Attach(request), descriptors))) => {
                let mut descriptors = descriptors.into_iter().map(Arc::new);
                let outputs =
                    [request.output, request.error].map(|wanted| wanted.then(|| descriptors.next()).flatten());
                *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = outputs;
                *self.request.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
                Said::Attach(request)
            }
            Ok(Some((ToMonitor::InputEnded, _))) => Said::InputEnded,
            Ok(Some((ToMonitor::Wake | ToMonitor::Execute, _))) => Said::Wake,
            Ok(Some((ToMonitor::Networks, _))) => Said::Networks,
            Ok(Some((ToMonitor::Detach, _))) => {
                self.closed.store(true, Ordering::Relaxed);
                Said::Detached
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Wake,
            // Its end, or a message that makes no sense.
            Ok(None) | Err(_) => {
                self.closed.store(true, Ordering::Relaxed);
                if bound { Said::Died } else { Said::Left }
            }
        }
    }

    /// Writes output to the client, as fast as it takes it, until it is gone.
    pub(super) fn deliver(&self, stream: Stream, bytes: &[u8]) -> io::Result<Delivered> {
        let output = self.outputs.lock().unwrap_or_else(PoisonError::into_inner)[stream as usize].clone();
        let Some(output) = output else { return Ok(Delivered::Done) };
        for piece in bytes.chunks(PIECE) {
            let mut rest = piece;
            while !rest.is_empty() {
                if self.closed.load(Ordering::Relaxed) || !self.is_writable(&output)? {
                    return Ok(Delivered::Done);
                }
                match rustix::io::write(&output, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(Errno::PIPE | Errno::CONNRESET | Errno::IO) => {
                        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)[stream as usize] = None;
                        let bound = self.request().is_some_and(|request| request.bond == Bond::Bound);
                        return Ok(if bound { Delivered::Closed } else { Delivered::Done });
                    }
                    Err(error) => {
                        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)[stream as usize] = None;
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(Delivered::Done)
    }

    /// Waits until the client's output takes something; `false` when the client is gone.
    fn is_writable(&self, output: &OwnedFd) -> io::Result<bool> {
        // Now and then it is looked whether the client detached meanwhile, which another thread is told.
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let mut polled = [
                PollFd::from_borrowed_fd(output.as_fd(), PollFlags::OUT),
                PollFd::from_borrowed_fd(self.connection.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut polled, Some(&pause)) {
                // A client that left may still be owed what it was shown; whoever said goodbye is marked above.
                Ok(_) if !polled[0].revents().is_empty() => return Ok(true),
                Ok(_) if !polled[1].revents().is_empty() => return Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::Read;

    fn request(bond: Bond) -> AttachRequest {
        AttachRequest { input: false, output: true, error: false, bond, window: None }
    }

    #[test]
    fn a_bound_client_that_vanishes_is_told_from_one_that_detaches() {
        for (bond, detach, want) in
            [(Bond::Bound, false, Said::Died), (Bond::Bound, true, Said::Detached), (Bond::Loose, false, Said::Left)]
        {
            let (ours, theirs) = channel::pair().unwrap();
            let clients = Clients::default();
            clients.add(ours);
            let client = clients.all().remove(0);
            assert_eq!(clients.hear(&client), Said::Wake, "nothing was said");
            let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            channel::send(&theirs, &ToMonitor::Attach(request(bond)), &[write.as_fd()]).unwrap();
            assert_eq!(clients.hear(&client), Said::Attach(request(bond)));
            if detach {
                channel::send(&theirs, &ToMonitor::Detach, &[]).unwrap();
            }
            drop(theirs);
            assert_eq!(clients.hear(&client), want);
            assert!(clients.all().is_empty());
        }
    }

    #[test]
    fn a_reader_that_stops_is_waited_for_and_one_that_left_is_not() {
        let (ours, theirs) = channel::pair().unwrap();
        let clients = Clients::default();
        clients.add(ours);
        let client = clients.all().remove(0);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        channel::send(&theirs, &ToMonitor::Attach(request(Bond::Bound)), &[write.as_fd()]).unwrap();
        drop(write);
        clients.hear(&client);
        let block = vec![7; 1 << 20];
        let writer = {
            let client = Arc::clone(&client);
            std::thread::spawn(move || client.deliver(Stream::Stdout, &block))
        };
        let mut got = vec![0; 200_000];
        let mut read: std::fs::File = read.into();
        read.read_exact(&mut got).unwrap();
        // The pipe is full, and nobody reads: only the client's end helps.
        drop(theirs);
        assert_eq!(writer.join().unwrap().unwrap(), Delivered::Done);
        drop(read);
        assert_eq!(client.deliver(Stream::Stdout, b"x").unwrap(), Delivered::Closed);
    }
}
