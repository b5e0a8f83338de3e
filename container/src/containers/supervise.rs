//! A monitor's work: a container is started, watched, started again where its policy says so, and its end recorded.
//!
//! One thread decides; the others copy output. Whatever fails while the container runs drops its process, which kills it: no
//! container is left that nobody watches.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_cache::Lease;
use rbuild_executor::{Process, Spawner, Stdio, StdioFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::health::HealthWatch;
use super::start::exit_of;
use super::{AnonymousVolumes, Containers, StartError};
use crate::exit::ContainerExit;
use crate::id::ContainerId;
use crate::inbox::SignalInbox;
use crate::logs::{LogWriter, Stream};
use crate::monitor::{Clients, FromMonitor, Listener, Outputs, Said, StartFailure};
use crate::network::{NetworkId, NetworkState};
use crate::process_id::ProcessId;
use crate::record::{ContainerRecord, Wanted};
use crate::request::{Console, Lifetime};
use crate::restart::BackOff;
use crate::signal::Signal;
use crate::status::{Change, ContainerStatus, InvalidChange};

/// What a monitor works with.
pub struct Supervision<'a> {
    /// Starts the container's process.
    pub spawner: &'a Spawner,
    /// Signals to the monitor itself: they stop the container.
    pub signals: &'a mut SignalInbox,
    /// The connection of who started the monitor.
    pub first: OwnedFd,
    /// Puts a failed start into words.
    pub explain: &'a dyn Fn(&StartError) -> StartFailure,
}

impl std::fmt::Debug for Supervision<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervision").field("first", &self.first).finish_non_exhaustive()
    }
}

/// A container that will not be started again by its monitor.
#[derive(Debug)]
pub struct Supervised {
    clients: Clients,
    last: FromMonitor,
    /// Networks whose bridges it left for others.
    warm: Vec<NetworkId>,
}

impl Supervised {
    /// Nothing could even be tried; this is told to whoever started the monitor.
    pub fn refused(first: OwnedFd, failure: StartFailure) -> Self {
        let clients = Clients::default();
        clients.add(first);
        hear_first(&clients);
        Self { clients, last: FromMonitor::NotStarted(failure), warm: Vec::new() }
    }

    /// The end of a command.
    pub(super) fn ended(clients: Clients, last: FromMonitor) -> Self {
        Self { clients, last, warm: Vec::new() }
    }

    /// Whether there are networks that have to be seen to when the end has been told.
    pub fn leaves_networks(&self) -> bool {
        !self.warm.is_empty()
    }

    /// Tells everybody who is still connected. To be called when all that the container had is gone. Gives the networks that
    /// have to be seen to afterwards ([`Networks::outlast`](crate::Networks::outlast)).
    pub fn announce(self) -> Vec<NetworkId> {
        self.clients.dismiss(&self.last);
        self.warm
    }
}

/// How long output may take to reach everybody before the end of its container is recorded nevertheless.
pub(super) const DELIVERY: Duration = Duration::from_secs(1);
/// How often a monitor looks whether its container's directory is still there.
const LOOK: Duration = Duration::from_secs(5);
/// Longer than anybody waits.
pub(super) const EVER: Duration = Duration::from_secs(3600 * 24 * 365);

/// How one process of a container ended.
struct Run {
    exit: ContainerExit,
    lasted: Duration,
    outputs: Outputs,
    /// The networks that it had.
    left: NetworkState,
}

/// What is recorded of an end.
struct Ended<'a> {
    exit: &'a ContainerExit,
    lasted: Duration,
    /// The networks that it had; `None` where it was not started.
    left: Option<NetworkState>,
}

/// What comes after the end of a process.
enum Next {
    Start(Duration),
    Finish,
}

impl Containers {
    /// Runs a container until it is not to be started again.
    pub fn supervise(&self, id: &ContainerId, with: Supervision<'_>, lease: &Lease) -> Result<Supervised, StartError> {
        let Supervision { spawner, signals, first, explain } = with;
        // So that the first client is known before anything can fail.
        let mut watch = Watch::of_first(first, signals);
        let finished = match self.hold(id) {
            Ok(Some(_held)) => self.supervise_held(id, spawner, explain, &mut watch, lease),
            Ok(None) => Err(StartError::AlreadyRunning { id: id.clone() }),
            Err(error) => Err(error.into()),
        };
        let last = finished.unwrap_or_else(|error| FromMonitor::NotStarted(explain(&error)));
        Ok(Supervised { clients: watch.clients, last, warm: watch.warm })
    }

    fn supervise_held(
        &self,
        id: &ContainerId,
        spawner: &Spawner,
        explain: &dyn Fn(&StartError) -> StartFailure,
        watch: &mut Watch<'_>,
        lease: &Lease,
    ) -> Result<FromMonitor, StartError> {
        let record = self.load(id)?.ok_or_else(|| StartError::NotFound { id: id.clone() })?;
        let status = record.state.status;
        if !status.can_start() {
            return Err(InvalidChange { status, change: Change::Start }.into());
        }
        watch.listener = Some(Listener::bind(&self.directory(id)).map_err(StartError::Streams)?);
        self.record(id, |record| {
            (record.state.wanted, record.state.restarts) = (None, 0);
            Ok(())
        })?;
        let result = self.keep_running(&record, spawner, explain, watch, lease);
        // Nobody can connect any more; who is connected is told at the very end.
        watch.listener = None;
        if record.config.lifetime == Lifetime::Process {
            self.discard(id, AnonymousVolumes::Remove, lease)?;
        }
        result
    }

    fn keep_running(
        &self,
        record: &ContainerRecord,
        spawner: &Spawner,
        explain: &dyn Fn(&StartError) -> StartFailure,
        watch: &mut Watch<'_>,
        lease: &Lease,
    ) -> Result<FromMonitor, StartError> {
        let mut pauses = BackOff::default();
        let mut first = true;
        loop {
            let begin = Instant::now();
            // Its name, limits and networks may have changed since it was started last.
            let Some(record) = &self.load(&record.id)? else {
                return Err(StartError::NotFound { id: record.id.clone() });
            };
            let (exit, mut outputs, lasted, left) = match self.run_once(record, spawner, explain, watch, lease) {
                Ok(run) => (run.exit, Some(run.outputs), run.lasted, Some(run.left)),
                Err(_) if self.is_removed(&record.id)? => {
                    return Err(StartError::NotFound { id: record.id.clone() });
                }
                Err(error) => {
                    self.record_failure(&record.id, &error)?;
                    if first {
                        return Err(error);
                    }
                    tracing::warn!(%error, "a restart failed");
                    watch.clients.tell(&FromMonitor::NotStarted(explain(&error)));
                    (error.exit(), None, begin.elapsed(), None)
                }
            };
            first = false;
            let delivered = outputs.as_mut().is_none_or(|outputs| outputs.finish(Some(DELIVERY)));
            let next = self.after_end(record, Ended { exit: &exit, lasted, left }, watch, &mut pauses)?;
            if !delivered && let (Next::Finish, Some(outputs)) = (&next, &mut outputs) {
                // Who is still connected is owed the rest; who stopped reading may take as long as he likes.
                outputs.finish(None);
            }
            let lost_output = outputs.as_ref().and_then(Outputs::failure).map(ToString::to_string);
            let ended = FromMonitor::Ended { code: exit.code(), lost_output };
            match next {
                Next::Finish => return Ok(ended),
                Next::Start(pause) => {
                    watch.clients.dismiss(&ended);
                    if !self.pause_before_restart(record, watch, pause, &exit)? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    /// Whether somebody removes it, or has: then its files go while it is started, and that says nothing to anybody.
    fn is_removed(&self, id: &ContainerId) -> Result<bool, StartError> {
        Ok(self.load(id)?.is_none_or(|record| record.state.status == ContainerStatus::Removing))
    }

    /// Starts the process and watches it to its end.
    fn run_once(
        &self,
        record: &ContainerRecord,
        spawner: &Spawner,
        explain: &dyn Fn(&StartError) -> StartFailure,
        watch: &mut Watch<'_>,
        lease: &Lease,
    ) -> Result<Run, StartError> {
        let mut uplink = self.connect(record, lease)?;
        if let Some(lack) = uplink.lack() {
            watch.clients.tell(&FromMonitor::Warning(lack.to_owned()));
        }
        for id in uplink.stay_warm() {
            if !watch.warm.contains(&id) {
                watch.warm.push(id);
            }
        }
        let particulars = self.particulars(record)?;
        let spec = self.sandbox_of(record, &uplink, particulars.exceptions.clone(), lease)?;
        let log = crate::logs::log_file(&self.directory(&record.id), &record.id);
        let log = LogWriter::open(log, record.config.log, Arc::clone(&self.clock)).map_err(StartError::Streams)?;
        let log = Arc::new(Mutex::new(log));
        let mut streams = Streams::new(record.config.console).map_err(StartError::Streams)?;
        let inner = streams.inner.take().expect("made just now");
        let mut process = spawner.spawn_in_window(&spec, inner, watch.window())?;
        // What it was to join it has joined.
        drop(particulars);
        // Whatever fails from here on drops the process, and that kills it.
        for warning in process.warnings() {
            watch.clients.tell(&FromMonitor::Warning(warning.to_string()));
        }
        let begin = Instant::now();
        self.reset_health(record)?;
        let pid = u32::try_from(process.pid()).unwrap_or(0);
        let process_id = ProcessId::of(pid).map_err(StartError::Follow)?.unwrap_or(ProcessId { pid, started: 0 });
        let connected_to = uplink.state().clone();
        self.tell_of_networks("connect", &record.id, &connected_to);
        self.tell_of_mounted(record);
        self.record_start(&record.id, |record| {
            record.state.network = connected_to;
            Ok(record.state.start(process_id, self.now())?)
        })?;
        let mut outputs = Outputs::new().map_err(StartError::Streams)?;
        if record.config.console.terminal {
            streams.connect_terminal(&mut process).map_err(StartError::Streams)?;
        }
        watch.running(process_id, &streams);
        for (stream, from) in streams.outputs.drain(..) {
            outputs.copy(stream, from, Some(Arc::clone(&log)), watch.clients.clone()).map_err(StartError::Streams)?;
        }
        let status = std::thread::scope(|scope| {
            let health = self.watch_health(scope, record, spawner)?;
            let is_gone = || !self.directory(&record.id).exists();
            let mut renew = || self.renew(&record.id, &mut uplink).err().map(|error| explain(&error).message);
            let followed = watch.follow(record, process_id, &mut process, &mut streams, &is_gone, &mut renew);
            health.map(HealthWatch::stop).transpose()?;
            followed
        });
        let status = status.map_err(StartError::Follow)?;
        outputs.announce_end().map_err(StartError::Streams)?;
        // Its namespace is of no use any more, and its address is free.
        drop(process);
        let left = uplink.state().clone();
        drop(uplink);
        Ok(Run { exit: exit_of(status), lasted: begin.elapsed(), outputs, left })
    }

    /// Records the end of a process; what comes now is decided in the same moment.
    fn after_end(
        &self,
        record: &ContainerRecord,
        ended: Ended<'_>,
        watch: &Watch<'_>,
        pauses: &mut BackOff,
    ) -> Result<Next, StartError> {
        let Ended { exit, lasted, left } = ended;
        let mut next = Next::Finish;
        let change = |record: &mut ContainerRecord| {
            let state = &mut record.state;
            let again = match state.wanted {
                _ if watch.dying => false,
                Some(Wanted::Stopped | Wanted::StoppedForNow) => false,
                Some(Wanted::Restarted) => {
                    (state.wanted, state.restarts) = (None, 0);
                    next = Next::Start(Duration::ZERO);
                    true
                }
                None => {
                    let again = record.config.restart.restarts(exit, state.restarts);
                    if again {
                        state.restarts += 1;
                        next = Next::Start(pauses.after(lasted));
                    }
                    again
                }
            };
            let waits = state.process.is_none() && !state.status.is_live();
            match (again, waits) {
                (true, true) => state.exit = Some(exit.clone()),
                (true, false) => state.await_restart(exit.clone(), self.now())?,
                (false, _) => state.end(exit.clone(), self.now())?,
            }
            Ok(())
        };
        // Whoever waits for the end finds it told that nothing is in use any more.
        self.record_telling(&record.id, change, || match &left {
            Some(left) => [self.of_networks("disconnect", &record.id, left), self.unmounted(record)].concat(),
            None => Vec::new(),
        })?;
        Ok(next)
    }

    /// Waits for the next start; `false` when somebody does not want it any more.
    fn pause_before_restart(
        &self,
        record: &ContainerRecord,
        watch: &mut Watch<'_>,
        pause: Duration,
        exit: &ContainerExit,
    ) -> Result<bool, StartError> {
        let until = Instant::now() + pause;
        loop {
            let mut start = !watch.dying;
            let mut now = false;
            if start {
                let Some(current) = self.load(&record.id)? else { return Ok(false) };
                start = !matches!(current.state.wanted, Some(Wanted::Stopped | Wanted::StoppedForNow));
                now = current.state.wanted == Some(Wanted::Restarted);
            }
            if !start {
                self.record(&record.id, |record| Ok(record.state.end(exit.clone(), self.now())?))?;
                return Ok(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || now {
                self.record(&record.id, |record| {
                    record.state.wanted = None;
                    Ok(())
                })?;
                return Ok(true);
            }
            let heard = watch.wait(None, left).map_err(StartError::Follow)?;
            // The next start follows the record.
            answer_networks(&heard.networks, None);
        }
    }
}

/// The two sides of a container's streams.
pub(super) struct Streams {
    pub(super) inner: Option<Stdio>,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// What clients type into: the terminal, or the writing end of a pipe.
    input: Option<OwnedFd>,
    terminal: bool,
    interactive: bool,
}

impl Streams {
    pub(super) fn new(console: Console) -> io::Result<Self> {
        let Console { terminal, interactive } = console;
        if terminal {
            let inner = Some(Stdio::terminal());
            return Ok(Self { inner, outputs: Vec::new(), input: None, terminal, interactive });
        }
        let (output, inner_output) = pipe_with(PipeFlags::CLOEXEC)?;
        let (error, inner_error) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdin, input) = if interactive {
            let (inner_input, input) = pipe_with(PipeFlags::CLOEXEC)?;
            (StdioFd::Fd(inner_input), Some(input))
        } else {
            (StdioFd::Null, None)
        };
        let inner = Some(Stdio { stdin, stdout: StdioFd::Fd(inner_output), stderr: StdioFd::Fd(inner_error) });
        let outputs = vec![(Stream::Stdout, output), (Stream::Stderr, error)];
        Ok(Self { inner, outputs, input, terminal, interactive })
    }

    pub(super) fn connect_terminal(&mut self, process: &mut Process) -> io::Result<()> {
        let terminal = process.take_terminal().ok_or_else(|| io::Error::other("the sandbox has no terminal"))?;
        self.outputs.push((Stream::Stdout, terminal.try_clone()?));
        self.input = Some(terminal);
        Ok(())
    }
}

/// What a monitor listens to.
pub(super) struct Watch<'a> {
    pub(super) clients: Clients,
    listener: Option<Listener>,
    signals: &'a mut SignalInbox,
    /// The container is not to be started again: the monitor was told to end, or a client it was bound to died.
    pub(super) dying: bool,
    /// When a container that was asked to end is killed.
    deadline: Option<Instant>,
    /// Networks that were left with their bridges.
    warm: Vec<NetworkId>,
}

/// What somebody said.
#[derive(Default)]
pub(super) struct Heard {
    attached: Vec<Arc<crate::monitor::Client>>,
    /// They wait until ports and names are served as the networks want it.
    networks: Vec<Arc<crate::monitor::Client>>,
    input_ended: bool,
    pub(super) client_died: bool,
    /// A client left what runs running.
    pub(super) detached: bool,
    pub(super) told_to_end: bool,
    pub(super) process_ended: bool,
}

impl<'a> Watch<'a> {
    /// Of who started the monitor, who speaks before anything else happens.
    pub(super) fn of_first(first: OwnedFd, signals: &'a mut SignalInbox) -> Self {
        let clients = Clients::default();
        clients.add(first);
        let dying = hear_first(&clients);
        Self { clients, listener: None, signals, dying, deadline: None, warm: Vec::new() }
    }

    /// The size of the terminal of whoever has one.
    pub(super) fn window(&self) -> Option<rbuild_executor::WindowSize> {
        self.clients.all().iter().find_map(|client| client.window())
    }

    /// Tells everybody that the container runs, with what they type into.
    pub(super) fn running(&self, process: ProcessId, streams: &Streams) {
        for client in self.clients.all() {
            tell_running(&client, process, streams);
        }
    }

    /// Waits until something happens, at most so long.
    pub(super) fn wait(&mut self, process: Option<&Process>, patience: Duration) -> io::Result<Heard> {
        let mut heard = Heard::default();
        let clients = self.clients.all();
        let mut polled = vec![PollFd::from_borrowed_fd(self.signals.readiness(), PollFlags::IN)];
        polled.extend(process.map(|process| PollFd::from_borrowed_fd(process.pidfd(), PollFlags::IN)));
        polled.extend(self.listener.as_ref().map(|listener| PollFd::new(listener, PollFlags::IN)));
        polled.extend(clients.iter().map(|client| PollFd::new(&**client, PollFlags::IN)));
        let timeout = Timespec::try_from(patience.min(EVER)).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(heard),
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        let signalled = ready.next() == Some(true);
        heard.process_ended = process.is_some() && ready.next() == Some(true);
        let connecting = self.listener.is_some() && ready.next() == Some(true);
        let speaking: Vec<bool> = ready.collect();
        drop(polled);
        if signalled {
            let ending = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
            heard.told_to_end = self.signals.take().iter().any(|signal| ending.contains(signal));
            self.dying |= heard.told_to_end;
        }
        for (client, _) in clients.iter().zip(speaking).filter(|(_, speaks)| *speaks) {
            match self.clients.hear(client) {
                Said::Attach(_) => heard.attached.push(Arc::clone(client)),
                Said::InputEnded => heard.input_ended = true,
                Said::Died => {
                    heard.client_died = true;
                    self.dying = true;
                }
                said @ (Said::Detached | Said::Left) => {
                    heard.detached |= said == Said::Detached;
                    heard.input_ended |= client.wants_input();
                }
                Said::Networks => heard.networks.push(Arc::clone(client)),
                Said::Wake => {}
            }
        }
        if connecting && let Some(client) = self.listener.as_ref().map(Listener::accept).transpose()?.flatten() {
            self.clients.add(client);
        }
        Ok(heard)
    }

    /// Watches a process to its end.
    fn follow(
        &mut self,
        record: &ContainerRecord,
        process_id: ProcessId,
        process: &mut Process,
        streams: &mut Streams,
        is_gone: &dyn Fn() -> bool,
        renew: &mut dyn FnMut() -> Option<String>,
    ) -> io::Result<rbuild_executor::ExitStatus> {
        let mut killed = self.dying;
        if killed {
            process.kill_all()?;
        }
        loop {
            let patience = match self.deadline {
                Some(deadline) if !killed => deadline.saturating_duration_since(Instant::now()),
                _ => LOOK,
            };
            let heard = self.wait(Some(process), patience)?;
            if heard.process_ended {
                self.deadline = None;
                return process.wait();
            }
            for client in &heard.attached {
                tell_running(client, process_id, streams);
            }
            if !heard.networks.is_empty() {
                answer_networks(&heard.networks, renew().as_deref());
            }
            if heard.input_ended && record.config.input_once && !streams.terminal {
                streams.input = None;
            }
            // Somebody took its files away: nobody could find it any more.
            let orphaned = !killed && is_gone();
            self.dying |= orphaned;
            if heard.told_to_end || heard.client_died || orphaned {
                super::live::thaw_to_end(&record.id);
            }
            if heard.told_to_end && self.deadline.is_none() {
                process.signal(record.config.stop_signal.number())?;
                let grace = Duration::from_secs(record.config.stop_timeout.into());
                self.deadline = Some(Instant::now() + grace);
            }
            let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if (heard.client_died || late || orphaned) && !killed {
                killed = true;
                process.kill_all()?;
            }
        }
    }
}

/// The first client speaks before anything else happens; whether it is gone, and bound.
fn hear_first(clients: &Clients) -> bool {
    let Some(client) = clients.all().into_iter().next() else { return false };
    let mut polled = [PollFd::new(&*client, PollFlags::IN)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })) {
        Ok(_) => clients.hear(&client) == Said::Died,
        Err(_) => false,
    }
}

fn answer_networks(clients: &[Arc<crate::monitor::Client>], problem: Option<&str>) {
    for client in clients {
        client.answer(&FromMonitor::Networks { problem: problem.map(str::to_owned) }, None);
    }
}

fn tell_running(client: &crate::monitor::Client, process: ProcessId, streams: &Streams) {
    let wanted = streams.terminal || (client.wants_input() && streams.interactive);
    let message = FromMonitor::Running { process, terminal: streams.terminal };
    client.tell(&message, streams.input.as_ref().filter(|_| wanted));
}
