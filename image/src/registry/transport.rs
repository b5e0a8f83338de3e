//! TCP for the HTTP client: non-blocking sockets whose every wait is sliced, so that it ends soon after cancellation
//! and exactly at its deadline. Several addresses of a host are tried side by side (RFC 8305).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect as start_connect, socket_with, sockopt};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};

use super::cancel::{self, Cancelled, SLICE};

/// The head start of one address before the next is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Opens TCP connections, unless an earlier link of the chain (a proxy) already gave one.
#[derive(Debug)]
pub(super) struct SocketConnector;

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(transport) = chained {
            return Ok(Some(Either::A(transport)));
        }
        let stream = connect(&details.addrs, deadline(details.timeout)).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout(details.timeout.reason),
            _ => error.into(),
        })?;
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        let handle: Arc<dyn ShutdownHandle> = stream.clone();
        (details.register_shutdown)(Arc::downgrade(&handle))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Socket { stream, buffers })))
    }
}

/// A connected, non-blocking TCP socket.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("peer", &self.stream.peer_addr().ok()).finish()
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let end = deadline(timeout);
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            match (&*self.stream).write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !ready(&self.stream, PollFlags::OUT, end)? {
                        return Err(Error::Timeout(timeout.reason));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let end = deadline(timeout);
        check_cancelled()?;
        loop {
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !ready(&self.stream, PollFlags::IN, end)? {
                        return Err(Error::Timeout(timeout.reason));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An idle connection is usable while nothing at all arrives on it.
    fn is_open(&mut self) -> bool {
        matches!((&*self.stream).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn deadline(timeout: NextTimeout) -> Option<Instant> {
    if timeout.after.is_not_happening() { None } else { Instant::now().checked_add(*timeout.after) }
}

/// Fails with an error that [`cancelled`] knows when the current work has been cancelled.
pub(super) fn check_cancelled() -> io::Result<()> {
    cancel::check().map_err(|Cancelled| Error::Other(Box::new(Cancelled)).into_io())
}

/// Whether an error says that the work was cancelled.
pub(super) fn cancelled(error: &io::Error) -> bool {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::Other(inner)) => inner.is::<Cancelled>(),
        Some(Error::Io(inner)) => cancelled(inner),
        _ => false,
    }
}

/// Waits until the stream is ready; false when the deadline came first.
fn ready(stream: &TcpStream, wanted: PollFlags, end: Option<Instant>) -> io::Result<bool> {
    loop {
        check_cancelled()?;
        let now = Instant::now();
        let slice = match end {
            Some(end) if end <= now => return Ok(false),
            Some(end) => SLICE.min(end - now),
            None => SLICE,
        };
        if wait(&mut [PollFd::new(stream, wanted)], slice)? > 0 {
            return Ok(true);
        }
    }
}

/// Waits until something can be read from or written to the stream.
pub(super) fn wait_either(stream: &TcpStream, until: Instant) -> io::Result<()> {
    if ready(stream, PollFlags::IN | PollFlags::OUT, Some(until))? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
    }
}

fn wait(sockets: &mut [PollFd<'_>], slice: Duration) -> io::Result<usize> {
    // A slice below a millisecond must not become a busy loop.
    let slice = slice.max(Duration::from_millis(1));
    let slice = Timespec::try_from(slice).map_err(io::Error::other)?;
    match poll(sockets, Some(&slice)) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the first address that answers. The socket stays non-blocking.
pub(super) fn connect(addresses: &[SocketAddr], end: Option<Instant>) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut pending: Vec<OwnedFd> = Vec::new();
    let mut next_start = Instant::now();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    loop {
        check_cancelled()?;
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
        }
        if pending.is_empty() || now >= next_start {
            if let Some(address) = waiting.next() {
                match begin(address) {
                    Ok(socket) => pending.push(socket),
                    Err(error) => last_error = error,
                }
                next_start = now + HEAD_START;
                continue;
            }
            if pending.is_empty() {
                return Err(last_error);
            }
        }
        let mut slice = SLICE;
        if !waiting.as_slice().is_empty() {
            slice = slice.min(next_start.saturating_duration_since(now));
        }
        if let Some(end) = end {
            slice = slice.min(end.saturating_duration_since(now));
        }
        let mut polled: Vec<PollFd<'_>> = pending.iter().map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
        wait(&mut polled, slice)?;
        let ended: Vec<bool> = polled.iter().map(|socket| !socket.revents().is_empty()).collect();
        for at in (0..ended.len()).rev().filter(|at| ended[*at]) {
            let socket = pending.remove(at);
            match sockopt::socket_error(socket.as_fd()) {
                Ok(Ok(())) => return Ok(TcpStream::from(socket)),
                Ok(Err(error)) | Err(error) => last_error = error.into(),
            }
        }
    }
}

/// Starts a connection without waiting for it.
fn begin(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match start_connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::registry::cancel::Cancel;

    #[test]
    fn the_first_address_that_answers_wins() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = connect(&[closed, good], Some(Instant::now() + Duration::from_secs(5))).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = connect(&[closed], Some(Instant::now() + Duration::from_secs(5))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(&[], None).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A listener whose queue is full drops further handshakes: connecting to it hangs.
    fn black_hole() -> (OwnedFd, SocketAddr, Vec<OwnedFd>) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &any).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let fill = (0..4).map(|_| begin(&address).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(50));
        (socket, address, fill)
    }

    #[test]
    fn connecting_ends_at_its_deadline_and_when_cancelled() {
        let (_socket, address, _fill) = black_hole();
        let start = Instant::now();
        let error = connect(&[address], Some(start + Duration::from_millis(120))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());

        let start = Instant::now();
        let _scope = Cancel::when(move || start.elapsed() > Duration::from_millis(30)).enter();
        let error = connect(&[address], Some(start + Duration::from_secs(20))).unwrap_err();
        assert!(cancelled(&error), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[test]
    fn an_address_that_hangs_does_not_hold_up_the_next() {
        let (_socket, hole, _fill) = black_hole();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let start = Instant::now();
        let stream = connect(&[hole, good], Some(start + Duration::from_secs(10))).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
