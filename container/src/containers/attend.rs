//! A command in a container that is run by a process of its own, so that its caller may leave it running (`exec -d`; `exec -it`,
//! then Ctrl-P Ctrl-Q), and somebody takes its exit status: the container's own first process may not. That process speaks to the caller as a container's monitor does; nobody can come back to it, as in Docker.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};

use rbuild_executor::{ExitStatus, Process, Spawner, channel};
use rustix::net::RecvFlags;

use super::exec::not_started;
use super::start::exit_of;
use super::supervise::{DELIVERY, EVER, Streams, Supervised, Watch};
use super::{Containers, ExecError};
use crate::events::Executed;
use crate::exec::ExecRequest;
use crate::id::ContainerId;
use crate::inbox::SignalInbox;
use crate::monitor::{FromMonitor, Outputs, StartFailure, ToMonitor};
use crate::process_id::ProcessId;

/// What the process that runs a command works with.
pub struct Attendance<'a> {
    /// Starts the command.
    pub spawner: &'a Spawner,
    /// Signals to the process itself: they end the command.
    pub signals: &'a mut SignalInbox,
    /// The connection of who wants it.
    pub caller: OwnedFd,
    /// Puts a failure into words.
    pub explain: &'a dyn Fn(&ExecError) -> StartFailure,
}

impl std::fmt::Debug for Attendance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attendance").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Containers {
    /// Runs the command that the caller asks for to its end. It ends with the caller, unless that one detached, and with the
    /// container.
    pub fn attend(&self, id: &ContainerId, with: Attendance<'_>) -> io::Result<Supervised> {
        let Attendance { spawner, signals, caller, explain } = with;
        let request = receive_request(&caller)?;
        let mut watch = Watch::of_first(caller, signals);
        let ended = self.run_command(id, &request, spawner, &mut watch);
        let last = ended.unwrap_or_else(|error| FromMonitor::NotStarted(explain(&error)));
        Ok(Supervised::ended(watch.clients, last))
    }

    fn run_command(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        spawner: &Spawner,
        watch: &mut Watch<'_>,
    ) -> Result<FromMonitor, ExecError> {
        let record = self.load(id)?.ok_or_else(|| ExecError::NotRunning { id: id.clone() })?;
        let (sandbox, spec) = self.way_in(&record, request)?;
        let mut streams = Streams::new(request.console).map_err(ExecError::Streams)?;
        let inner = streams.inner.take().expect("made just now");
        let told = Executed::begin(self.event_log(), &record, &request.command, self.now());
        let started = spawner.exec(sandbox.as_fd(), &spec, inner, watch.window());
        // Whatever fails from here on drops the process, and that kills it.
        let mut process = started.map_err(|error| not_started(&record, error))?;
        for warning in process.warnings() {
            watch.clients.tell(&FromMonitor::Warning(warning.to_string()));
        }
        let pid = u32::try_from(process.pid()).unwrap_or(0);
        let process_id = ProcessId::of(pid).map_err(ExecError::Follow)?.unwrap_or(ProcessId { pid, started: 0 });
        let mut outputs = Outputs::new().map_err(ExecError::Streams)?;
        if request.console.terminal {
            streams.connect_terminal(&mut process).map_err(ExecError::Streams)?;
        }
        watch.running(process_id, &streams);
        for (stream, from) in streams.outputs.drain(..) {
            outputs.copy(stream, from, None, watch.clients.clone()).map_err(ExecError::Streams)?;
        }
        let status = follow(&mut process, watch, || told.detach(self.now())).map_err(ExecError::Follow)?;
        outputs.announce_end().map_err(ExecError::Streams)?;
        drop(process);
        if !outputs.finish(Some(DELIVERY)) {
            // Who stopped reading may take as long as he likes.
            outputs.finish(None);
        }
        let lost_output = outputs.failure().map(ToString::to_string);
        let code = exit_of(status).code();
        told.end(code, self.now());
        Ok(FromMonitor::Ended { code, lost_output })
    }
}

/// What the caller says first.
fn receive_request(caller: &OwnedFd) -> io::Result<ExecRequest> {
    let said = channel::receive(caller, RecvFlags::empty())?;
    let Some((ToMonitor::Execute, mut files)) = said else { return Err(io::ErrorKind::InvalidData.into()) };
    let file = files.pop().ok_or(io::ErrorKind::InvalidData)?;
    Ok(serde_json::from_reader(BufReader::new(File::from(file)))?)
}

/// Watches a command to its end; `left` is called when its caller leaves it running.
fn follow(process: &mut Process, watch: &mut Watch<'_>, left: impl Fn()) -> io::Result<ExitStatus> {
    let mut killed = false;
    loop {
        if watch.dying && !killed {
            killed = true;
            process.kill_all()?;
        }
        let heard = watch.wait(Some(process), EVER)?;
        if heard.detached {
            left();
        }
        if heard.process_ended {
            return process.wait();
        }
    }
}
