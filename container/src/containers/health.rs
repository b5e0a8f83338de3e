//! The monitor watches a container's health: it runs the check inside, again and again, and writes down what it said.
//!
//! A check is a process like those of `exec`, with the container's user, variables and directory. It ends with the container, and
//! after its time all that it started is killed. While the container is frozen nothing is checked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rbuild_cache::PathError;
use rbuild_executor::{ExitStatus, Process, Spawner, Stdio, StdioFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Containers, ExecError};
use crate::document::{self, AtPath, Durability, if_present};
use crate::events;
use crate::exec::ExecRequest;
use crate::health::{Health, HealthResult, HealthStatus, MAX_OUTPUT, Probe, output_text};
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::relay::Ended;
use crate::status::ContainerStatus;

const FILE: &str = "health.json";

/// Checks that go on in a thread of their own, until this is stopped.
pub(super) struct HealthWatch<'scope> {
    ended: Ended,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl HealthWatch<'_> {
    /// No more checks; one that runs is killed.
    pub(super) fn stop(self) -> io::Result<()> {
        self.ended.announce()?;
        if self.thread.join().is_err() {
            tracing::warn!("the thread that checks the container's health panicked");
        }
        Ok(())
    }
}

impl Containers {
    /// What is known of a container's health; `None` when nothing checks it.
    pub(super) fn read_health(&self, record: &ContainerRecord) -> Result<Option<Health>, PathError> {
        if record.state.started.is_none() || probe_of(record).is_none() {
            return Ok(None);
        }
        let path = self.directory(&record.id).join(FILE);
        let text = if_present(std::fs::read(&path)).at("read", &path)?;
        // A power cut may have left anything: then nothing is known.
        let mut health: Health = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if !record.state.status.is_live() {
            // As in Docker: nobody can say any more that it works.
            health.status = HealthStatus::Unhealthy;
        }
        Ok(Some(health))
    }

    /// The container's process is about to run.
    pub(super) fn reset_health(&self, record: &ContainerRecord) -> Result<(), PathError> {
        if probe_of(record).is_none() {
            return Ok(());
        }
        let health = self.read_health(record)?.unwrap_or_default().restarted();
        self.write_health(&record.id, &health)
    }

    /// Begins to check the container that has just been started, if it has a check.
    pub(super) fn watch_health<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        record: &ContainerRecord,
        spawner: &'env Spawner,
    ) -> io::Result<Option<HealthWatch<'scope>>> {
        let Some(probe) = probe_of(record) else { return Ok(None) };
        let ended = Ended::new()?;
        let checks = Checks {
            containers: self,
            spawner,
            id: record.id.clone(),
            probe,
            begin: Instant::now(),
            ended: ended.subscribe()?,
        };
        let thread = std::thread::Builder::new().name("container-health".into()).spawn_scoped(scope, move || {
            if let Err(error) = checks.run() {
                tracing::warn!(%error, "the container's health is not known any more");
            }
        })?;
        Ok(Some(HealthWatch { ended, thread }))
    }

    fn write_health(&self, id: &ContainerId, health: &Health) -> Result<(), PathError> {
        let text = serde_json::to_vec(health).expect("health is plain data with text keys");
        document::replace(&self.directory(id).join(FILE), &text, Durability::Volatile)
    }
}

/// The check of a container.
fn probe_of(record: &ContainerRecord) -> Option<Probe> {
    Probe::of(record.config.healthcheck.as_ref(), &record.config.shell)
}

struct Checks<'env> {
    containers: &'env Containers,
    spawner: &'env Spawner,
    id: ContainerId,
    probe: Probe,
    begin: Instant,
    ended: OwnedFd,
}

/// How a check ended.
enum Ran {
    Result {
        exit_code: i32,
        output: String,
    },
    /// The container did.
    Over,
    /// The container was frozen meanwhile: the check says nothing.
    Frozen,
}

/// What is waited for while a check runs.
enum Turn {
    Output,
    Exited,
    Late,
    Over,
}

impl Checks<'_> {
    fn run(&self) -> Result<(), super::LoadError> {
        let Some(record) = self.containers.read(&self.id)? else { return Ok(()) };
        let mut health = self.containers.read_health(&record)?.unwrap_or_default();
        loop {
            if self.is_over_within(self.probe.pause(&health, self.begin.elapsed())) {
                return Ok(());
            }
            let Some(record) = self.containers.read(&self.id)? else { return Ok(()) };
            if record.state.status == ContainerStatus::Paused {
                continue;
            }
            let (start, since_start) = (self.containers.now(), self.begin.elapsed());
            let (exit_code, output) = match self.check(&record) {
                Ok(Ran::Result { exit_code, output }) => (exit_code, output),
                Ok(Ran::Frozen) => continue,
                Ok(Ran::Over) | Err(ExecError::NotRunning { .. }) => return Ok(()),
                Err(error) => (-1, with_causes(&error)),
            };
            let exec = ContainerId::random().to_string();
            let result = HealthResult { start, end: self.containers.now(), exit_code, output, exec };
            let before = health.status;
            health.record(result.clone(), &self.probe, since_start);
            self.containers.event_log().tell(&events::check(&record, &result, before, health.status));
            self.write(&health)?;
        }
    }

    /// Its directory may have gone meanwhile, and its health with it.
    fn write(&self, health: &Health) -> Result<(), super::LoadError> {
        match self.containers.write_health(&self.id, health) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Runs the check once.
    fn check(&self, record: &ContainerRecord) -> Result<Ran, ExecError> {
        let request = ExecRequest { command: self.probe.command.clone(), ..ExecRequest::default() };
        let (sandbox, spec) = self.containers.way_in(record, &request)?;
        let (output, inner) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(streams)?;
        let (stdout, stderr) = (writer(&inner)?, writer(&inner)?);
        drop(inner);
        let stdio = Stdio { stdin: StdioFd::Null, stdout: StdioFd::Fd(stdout), stderr: StdioFd::Fd(stderr) };
        let mut process = self.spawner.exec(sandbox.as_fd(), &spec, stdio, None).map_err(ExecError::Spawn)?;
        let late = Instant::now() + self.probe.timeout;
        let mut heard = Heard::default();
        loop {
            match self.turn(&process, &output, late, heard.ended).map_err(ExecError::Follow)? {
                Turn::Output => heard.read(&output).map_err(ExecError::Streams)?,
                Turn::Exited => break,
                Turn::Over => {
                    self.end(record, &mut process).map_err(ExecError::Follow)?;
                    return Ok(Ran::Over);
                }
                Turn::Late => return self.late(record, &mut process),
            }
        }
        let status = process.wait().map_err(ExecError::Follow)?;
        // What it left in the pipe; who else still holds it is not waited for.
        heard.read(&output).map_err(ExecError::Streams)?;
        let exit_code = match status {
            ExitStatus::Exited(code) => code,
            ExitStatus::Signaled(signal) => 128 + signal,
            ExitStatus::OomKilled => 137,
        };
        Ok(Ran::Result { exit_code, output: output_text(&heard.bytes, heard.truncated) })
    }

    /// A check took too long.
    fn late(&self, record: &ContainerRecord, process: &mut Process) -> Result<Ran, ExecError> {
        let now = self.containers.read(&self.id).ok().flatten();
        let frozen = now.is_some_and(|record| record.state.status == ContainerStatus::Paused);
        self.end(record, process).map_err(ExecError::Follow)?;
        if frozen {
            return Ok(Ran::Frozen);
        }
        let limit = duration_text(self.probe.timeout);
        Ok(Ran::Result { exit_code: -1, output: format!("Health check exceeded timeout ({limit})") })
    }

    /// Kills a check and what it started, which is in its session.
    fn end(&self, record: &ContainerRecord, process: &mut Process) -> io::Result<()> {
        let session = process.pid();
        let others = self.containers.processes(record).unwrap_or_default();
        // First those that it would leave behind, as long as its number is its own.
        for pid in others.into_iter().filter(|pid| i32::try_from(*pid) != Ok(session)) {
            kill_in_session(pid, session);
        }
        process.kill_all()?;
        // A frozen one dies only when it is let go on, and is waited for by the process that started it.
        let _status = process.wait_timeout(Duration::from_secs(1))?;
        Ok(())
    }

    fn turn(&self, process: &Process, output: &OwnedFd, late: Instant, no_output: bool) -> io::Result<Turn> {
        loop {
            let wanted = if no_output { PollFlags::empty() } else { PollFlags::IN };
            let mut polled = [
                PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(process.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(output.as_fd(), wanted),
            ];
            // A pipe that nobody writes into any more would be ready for ever.
            let polled = if no_output { &mut polled[..2] } else { &mut polled[..] };
            let left = late.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
            match poll(polled, Some(&left)) {
                Ok(0) => return Ok(Turn::Late),
                Ok(_) if !polled[0].revents().is_empty() => return Ok(Turn::Over),
                Ok(_) if !polled[1].revents().is_empty() => return Ok(Turn::Exited),
                Ok(_) => return Ok(Turn::Output),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits; whether the container ended meanwhile.
    fn is_over_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let mut polled = [PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)];
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
            match poll(&mut polled, Some(&left)) {
                Err(Errno::INTR) => {}
                Ok(0) => return false,
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

/// What a check wrote so far.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    truncated: bool,
    ended: bool,
}

impl Heard {
    /// Reads what is there; what is too much is not kept.
    fn read(&mut self, output: &OwnedFd) -> io::Result<()> {
        // Somebody who never stops writing is heard out until the pipe is empty once, or this often.
        const PIECES: usize = 64;
        let mut buffer = [0; MAX_OUTPUT];
        for _ in 0..PIECES {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(read) => {
                    let room = MAX_OUTPUT - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..read.min(room)]);
                    self.truncated |= read > room;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// A descriptor for the check's output, which waits as programs expect it.
fn writer(inner: &OwnedFd) -> Result<OwnedFd, ExecError> {
    rustix::fs::fcntl_setfl(inner, rustix::fs::OFlags::empty()).map_err(streams)?;
    inner.try_clone().map_err(ExecError::Streams)
}

fn streams(errno: Errno) -> ExecError {
    ExecError::Streams(errno.into())
}

/// Kills a process that is in a session; its number is held first and the session looked at then.
fn kill_in_session(pid: u32, session: i32) {
    let Ok(Some(process)) = crate::process_id::ProcessId::of(pid) else { return };
    let Ok(Some(handle)) = process.open() else { return };
    let of = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let in_session = rustix::process::getsid(of).is_ok_and(|sid| sid.as_raw_nonzero().get() == session);
    if in_session && let Err(error) = rbuild_executor::Signaller::new(handle).kill_all() {
        tracing::debug!(pid, %error, "a process of a health check goes on");
    }
}

/// As Go writes it: `30s`, `1m30s`, `1.5s`, `200ms`.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let fraction = duration.subsec_nanos();
    if seconds == 0 {
        let millis = format!("{}", f64::from(fraction) / 1e6);
        return format!("{millis}ms");
    }
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    let mut rest = (seconds % 60).to_string();
    if fraction > 0 {
        rest.push('.');
        rest.push_str(format!("{fraction:09}").trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_worded_as_gos() {
        for (millis, want) in
            [(200, "200ms"), (1, "1ms"), (1500, "1.5s"), (30_000, "30s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(duration_text(Duration::from_millis(millis)), want);
        }
    }
}
