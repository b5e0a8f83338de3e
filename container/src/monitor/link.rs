//! A client's end of a connection to a monitor: its terminal, its keys, its signals.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use rbuild_executor::{Signaller, WindowSize, channel};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::detach_keys::{DetachKeys, Typed, Watch};
use super::message::{AttachRequest, FromMonitor, StartFailure, ToMonitor};
use super::socket::connect_to;
use crate::exec::ExecRequest;
use crate::inbox::SignalInbox;
use crate::process_id::ProcessId;
use crate::relay::{Ended, Written, wait, write_all};
use crate::signal::Signal;
use crate::terminal::{RawTerminal, copy_size, set_size, size};

/// A connection to a monitor.
#[derive(Debug)]
pub struct MonitorLink(OwnedFd);

/// The caller's standard streams.
#[derive(Debug)]
pub struct CallerStreams {
    /// What the container reads when its input is open.
    pub input: OwnedFd,
    /// Where its output goes; with a terminal all of it.
    pub output: OwnedFd,
    /// Where its error output goes.
    pub error: OwnedFd,
}

/// Whether a container's terminal was made for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was, and has the size of the client's.
    First,
    /// It may show something already.
    Later,
}

/// What a client brings along.
pub struct Caller<'a> {
    /// Its streams.
    pub streams: CallerStreams,
    /// Its signals, to be passed on; without them they do to the caller what they do.
    pub signals: Option<&'a mut SignalInbox>,
    /// The keys that detach it.
    pub keys: DetachKeys,
    /// Whether the container's terminal was made for it.
    pub arrival: Arrival,
    /// Told of each size that the container's terminal is given.
    pub resized: &'a mut dyn FnMut(WindowSize),
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("streams", &self.streams).field("arrival", &self.arrival).finish_non_exhaustive()
    }
}

/// A container that runs and to which a client is connected.
#[derive(Debug)]
pub struct Session {
    link: MonitorLink,
    process: ProcessId,
    is_terminal: bool,
    /// Its terminal, or its input.
    inner: Option<OwnedFd>,
    typing: bool,
}

/// How being connected ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The container ended.
    Ended {
        /// Its exit code.
        code: u8,
        /// Why part of its output did not arrive.
        lost_output: Option<String>,
    },
    /// The client typed its detach keys.
    Detached,
}

/// A connection that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The container was not started.
    #[error(transparent)]
    NotStarted(#[from] StartFailure),
    /// A signal that was meant to end it came before it ran.
    #[error("interrupted by {signal} before the container ran")]
    Interrupted {
        /// Which.
        signal: Signal,
    },
    /// The monitor ended without a word, and its container with it.
    #[error("the process that runs the container was killed, and the container with it")]
    Died,
    /// The connection cannot be used.
    #[error("cannot talk to the process that runs the container")]
    Connection(#[source] io::Error),
    /// The caller's streams cannot be connected.
    #[error("cannot connect to the container's streams")]
    Streams(#[source] io::Error),
}

/// How long a monitor may take to see to its container's networks.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Signals that would have ended the caller, had it not collected them for the container.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Takes the signals that have come; an error when one of them is to end whoever waits.
fn interrupted(signals: &mut SignalInbox) -> Result<(), LinkError> {
    match signals.take().into_iter().find(|signal| ENDING.contains(signal)) {
        Some(signal) => Err(LinkError::Interrupted { signal }),
        None => Ok(()),
    }
}

impl MonitorLink {
    /// A connection to a monitor that is about to be started; the second end is for it.
    pub fn pair() -> Result<(Self, OwnedFd), LinkError> {
        let (ours, theirs) = channel::pair().map_err(LinkError::Connection)?;
        Ok((Self(ours), theirs))
    }

    /// Connects to the monitor of the container with this directory; `None` when there is none.
    pub(crate) fn connect(directory: &Path) -> Result<Option<Self>, LinkError> {
        Ok(connect_to(directory).map_err(LinkError::Connection)?.map(Self))
    }

    /// Says what is to be executed, to a process that was started for it.
    pub fn execute(&self, request: &ExecRequest) -> Result<(), LinkError> {
        let connection = |error: io::Error| LinkError::Connection(error);
        let file = memfd_create("exec", MemfdFlags::CLOEXEC).map_err(|error| connection(error.into()))?;
        let mut file = File::from(file);
        let text = serde_json::to_vec(request).map_err(|error| connection(error.into()))?;
        file.write_all(&text).and_then(|()| file.rewind()).map_err(connection)?;
        self.say(&ToMonitor::Execute, &[file.as_fd()])
    }

    /// Asks to be connected.
    pub fn attach(&self, request: AttachRequest, streams: Option<&CallerStreams>) -> Result<(), LinkError> {
        let (output, error) = streams.map(|streams| (streams.output.as_fd(), streams.error.as_fd())).unzip();
        let descriptors: Vec<_> =
            [output.filter(|_| request.output), error.filter(|_| request.error)].into_iter().flatten().collect();
        self.say(&ToMonitor::Attach(request), &descriptors)
    }

    /// Tells the monitor that the container's record has changed.
    pub(crate) fn wake(&self) -> Result<(), LinkError> {
        self.say(&ToMonitor::Wake, &[])
    }

    /// Tells the monitor that the container's networks have changed, and waits until it serves ports and names accordingly;
    /// `None` when there is no answer, as from the monitor of an earlier version.
    pub(crate) fn networks_changed(&self) -> Result<Option<Result<(), String>>, LinkError> {
        self.say(&ToMonitor::Networks, &[])?;
        let mut polled = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        match poll(&mut polled, Some(&PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            other => other.map_err(|error| LinkError::Connection(error.into()))?,
        };
        match channel::receive(&self.0, RecvFlags::empty()).map_err(LinkError::Connection)? {
            Some((FromMonitor::Networks { problem }, _)) => Ok(Some(problem.map_or(Ok(()), Err))),
            _ => Ok(None),
        }
    }

    /// Waits until the container runs. `signals` may interrupt that.
    pub fn running(
        self,
        mut signals: Option<&mut SignalInbox>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Session, LinkError> {
        // What came before anybody waited is for whoever waits, however fast the container started.
        if let Some(signals) = &mut signals {
            interrupted(signals)?;
        }
        loop {
            if let Some(signals) = &mut signals
                // What has been said counts first: a signal that came when the container ran already is for the container.
                && !self.wait_with(signals)?
            {
                interrupted(signals)?;
                continue;
            }
            match self.receive()? {
                (FromMonitor::Warning(text), _) => warn(&text),
                (FromMonitor::NotStarted(failure), _) => return Err(failure.into()),
                (FromMonitor::Running { process, terminal }, mut inner) => {
                    let inner = inner.pop();
                    return Ok(Session { link: self, process, is_terminal: terminal, inner, typing: false });
                }
                (FromMonitor::Ended { .. }, _) => return Err(LinkError::Died),
                // An answer to what only others ask.
                (FromMonitor::Networks { .. }, _) => {}
            }
        }
    }

    fn say(&self, message: &ToMonitor, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), LinkError> {
        match channel::send(&self.0, message, descriptors) {
            // What it says before it ends is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(LinkError::Connection),
        }
    }

    fn receive(&self) -> Result<(FromMonitor, Vec<OwnedFd>), LinkError> {
        channel::receive(&self.0, RecvFlags::empty()).map_err(LinkError::Connection)?.ok_or(LinkError::Died)
    }

    /// Waits for a message or a signal; whether there is a message.
    fn wait_with(&self, signals: &SignalInbox) -> Result<bool, LinkError> {
        let mut polled = [
            PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.readiness(), PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) => Ok(!polled[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(LinkError::Connection(error.into())),
        }
    }
}

impl Session {
    /// Stays connected until the container ends or the client detaches. `typing` says whether the caller's input is the
    /// container's.
    pub fn follow(mut self, caller: Caller<'_>, typing: bool) -> Result<Followed, LinkError> {
        let Caller { streams, signals, keys, arrival, resized } = caller;
        self.typing = typing && self.inner.is_some();
        let terminal = self.inner.as_ref().filter(|_| self.is_terminal);
        let terminal = terminal.map(OwnedFd::try_clone).transpose().map_err(LinkError::Streams)?;
        let mut raw = None;
        if self.is_terminal && self.typing {
            raw = RawTerminal::enter(streams.input.as_fd()).map_err(LinkError::Streams)?;
        }
        if let Some(terminal) = &terminal {
            let sizes = fit(&streams.output, terminal, arrival).map_err(LinkError::Streams)?;
            sizes.into_iter().for_each(&mut *resized);
        }
        let ended = Ended::new().map_err(LinkError::Streams)?;
        let detached = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let detached = detached.map_err(|error| LinkError::Streams(error.into()))?;
        if let (true, Some(inner)) = (self.typing, self.inner.take()) {
            let typist = Typist {
                from: streams.input,
                to: inner,
                watch: Watch::new(&if self.is_terminal { keys } else { DetachKeys::none() }),
                ended: ended.subscribe().map_err(LinkError::Streams)?,
                detached: detached.try_clone().map_err(LinkError::Streams)?,
                monitor: self.link.0.try_clone().map_err(LinkError::Streams)?,
            };
            let started = thread::Builder::new().name("container-input".into()).spawn(move || typist.run());
            // Not joined: it may be waiting for a key that nobody presses.
            drop(started.map_err(LinkError::Streams)?);
        }
        let window = terminal.as_ref().map(|inner| (&streams.output, inner));
        let result = self.watch(signals, &detached, window, resized);
        ended.announce().map_err(LinkError::Streams)?;
        drop(raw);
        result
    }

    fn watch(
        &self,
        mut signals: Option<&mut SignalInbox>,
        detached: &OwnedFd,
        window: Option<(&OwnedFd, &OwnedFd)>,
        resized: &mut dyn FnMut(WindowSize),
    ) -> Result<Followed, LinkError> {
        loop {
            if let Some(signals) = &mut signals {
                for signal in signals.take() {
                    match (signal, window) {
                        // The kernel tells the container's processes when the size of their terminal changes.
                        (Signal::WINCH, Some((from, to))) => {
                            copy_size(from, to).map_err(LinkError::Streams)?;
                            size(from).into_iter().for_each(&mut *resized);
                        }
                        _ => self.pass_on(signal).map_err(LinkError::Connection)?,
                    }
                }
            }
            let mut polled = vec![
                PollFd::from_borrowed_fd(self.link.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(detached.as_fd(), PollFlags::IN),
            ];
            polled.extend(signals.as_ref().map(|signals| PollFd::from_borrowed_fd(signals.readiness(), PollFlags::IN)));
            match poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(LinkError::Connection(error.into())),
            }
            let (said, left) = (!polled[0].revents().is_empty(), !polled[1].revents().is_empty());
            if left {
                self.link.say(&ToMonitor::Detach, &[])?;
                return Ok(Followed::Detached);
            }
            if said {
                match self.link.receive()? {
                    (FromMonitor::Ended { code, lost_output }, _) => {
                        return Ok(Followed::Ended { code, lost_output });
                    }
                    (FromMonitor::NotStarted(failure), _) => return Err(failure.into()),
                    (FromMonitor::Warning(_) | FromMonitor::Running { .. } | FromMonitor::Networks { .. }, _) => {}
                }
            }
        }
    }

    fn pass_on(&self, signal: Signal) -> io::Result<()> {
        match self.process.open()? {
            Some(process) => Signaller::new(process).signal(signal.number()),
            None => Ok(()),
        }
    }
}

/// Gives the container's terminal the size of the caller's; the sizes that it was given. For who comes later it changes
/// twice, as in Docker, so that a program that fills the screen draws it again.
fn fit(from: &OwnedFd, to: &OwnedFd, arrival: Arrival) -> io::Result<Vec<WindowSize>> {
    let Some(window) = size(from) else { return Ok(Vec::new()) };
    let WindowSize { rows, columns } = window;
    let larger = WindowSize { rows: rows.saturating_add(1), columns: columns.saturating_add(1) };
    let sizes = match arrival {
        Arrival::First => vec![window],
        Arrival::Later => vec![larger, window],
    };
    for one in &sizes {
        set_size(to, *one)?;
    }
    Ok(sizes)
}

/// Copies what the caller types.
struct Typist {
    from: OwnedFd,
    to: OwnedFd,
    watch: Watch,
    ended: OwnedFd,
    detached: OwnedFd,
    monitor: OwnedFd,
}

impl Typist {
    fn run(mut self) {
        match self.copy() {
            Ok(Stopped::EndOfInput) => {
                // The container's own end closes when the monitor's does, too.
                drop(self.to);
                drop(channel::send(&self.monitor, &ToMonitor::InputEnded, &[]));
            }
            Ok(Stopped::Detached) => drop(rustix::io::write(&self.detached, &1_u64.to_ne_bytes())),
            Ok(Stopped::ContainerEnded) => {}
            Err(error) => tracing::debug!(%error, "input is not copied any more"),
        }
    }

    fn copy(&mut self) -> io::Result<Stopped> {
        // A container that does not read must not keep this thread when it ends.
        rustix::fs::fcntl_setfl(&self.to, rustix::fs::fcntl_getfl(&self.to)? | rustix::fs::OFlags::NONBLOCK)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let [readable, over] = wait([(&self.from, PollFlags::IN), (&self.ended, PollFlags::IN)], None)?;
            if over {
                return Ok(Stopped::ContainerEnded);
            }
            if !readable {
                continue;
            }
            let read = match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) | Err(Errno::IO) => return Ok(Stopped::EndOfInput),
                Ok(read) => read,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            let (bytes, detach) = match self.watch.see(&buffer[..read]) {
                Typed::Bytes(bytes) => (bytes, false),
                Typed::Detach(bytes) => (bytes, true),
            };
            match write_all(&self.to, &bytes, Some(&self.ended))? {
                Written::All => {}
                Written::Closed => return Ok(Stopped::ContainerEnded),
            }
            if detach {
                return Ok(Stopped::Detached);
            }
        }
    }
}

enum Stopped {
    EndOfInput,
    Detached,
    ContainerEnded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_became_of_the_container() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, words) in [
            (
                LinkError::Interrupted { signal: "TERM".parse().unwrap() },
                "interrupted by SIGTERM before the container ran",
            ),
            (LinkError::Died, "the process that runs the container was killed, and the container with it"),
            (LinkError::Connection(denied()), "cannot talk to the process that runs the container"),
            (LinkError::Streams(denied()), "cannot connect to the container's streams"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
