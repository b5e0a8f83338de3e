//! A step that runs: its output is passed on, its end waited for, and it is ended when somebody asks for that. All by the step's
//! own thread: starting two more for its output took longer than many a step runs.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rbuild_executor::{ExitStatus, Process};
use rbuild_solver::{CancelReason, CancelToken, JobError, LogStream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::failure::FailJob;

/// How often a waiting step looks whether it should stop.
const CANCEL_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long an interrupted step may take to end by itself.
const GRACE: Duration = Duration::from_millis(700);
/// What is being done meanwhile.
pub(super) const WAITING: &str = "cannot wait for the step";

/// Passes on what the step says until it has ended and its files stay as they are; ends it when `cancel` says so.
pub(super) fn attend(
    process: &mut Process,
    output: [OwnedFd; 2],
    cancel: &CancelToken,
    emit: &(impl Fn(LogStream, &[u8]) + Sync),
) -> Result<ExitStatus, JobError> {
    let [out, err] = output.map(File::from);
    let mut streams = vec![(LogStream::Stdout, out), (LogStream::Stderr, err)];
    let mut buffer = vec![0; 64 * 1024];
    let mut ended = None;
    loop {
        if ended.is_none() {
            ended = process.wait_still(Duration::ZERO).or_fail(WAITING)?;
        }
        match ended {
            Some(status) if streams.is_empty() => return Ok(status),
            Some(_) => {}
            None => {
                if let Some(reason) = cancel.reason() {
                    return stop(process, streams, reason, emit);
                }
            }
        }
        let mut polled: Vec<PollFd<'_>> = streams.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
        if ended.is_none() {
            polled.push(PollFd::from_borrowed_fd(process.news(), PollFlags::IN));
        }
        match rustix::event::poll(&mut polled, Some(&CANCEL_POLL)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).or_fail(WAITING),
        }
        let said: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut said = said.into_iter();
        streams.retain_mut(|(stream, pipe)| {
            if said.next() != Some(true) {
                return true;
            }
            let count = pipe.read(&mut buffer).unwrap_or(0);
            emit(*stream, &buffer[..count]);
            count > 0
        });
    }
}

/// Ends the step, whose output goes on meanwhile.
fn stop(
    process: &mut Process,
    streams: Vec<(LogStream, File)>,
    reason: CancelReason,
    emit: &(impl Fn(LogStream, &[u8]) + Sync),
) -> Result<ExitStatus, JobError> {
    std::thread::scope(|scope| {
        for (stream, mut pipe) in streams {
            scope.spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    emit(stream, &buffer[..count]);
                }
            });
        }
        if reason != CancelReason::Kill {
            // It may be gone already.
            let _gone = process.signal(rustix::process::Signal::TERM.as_raw());
            let ended = process.wait_timeout(GRACE);
            process.kill_all().or_fail("cannot end the step")?;
            ended.or_fail(WAITING)?;
        }
        process.kill_all().or_fail("cannot end the step")?;
        Err(JobError::Cancelled)
    })
}
