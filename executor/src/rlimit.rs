//! Resource limits by name.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit as Limit};
use serde::{Deserialize, Serialize};

use crate::spec::Rlimit;

const NAMES: [(&str, Resource); 16] = [
    ("AS", Resource::As),
    ("CORE", Resource::Core),
    ("CPU", Resource::Cpu),
    ("DATA", Resource::Data),
    ("FSIZE", Resource::Fsize),
    ("LOCKS", Resource::Locks),
    ("MEMLOCK", Resource::Memlock),
    ("MSGQUEUE", Resource::Msgqueue),
    ("NICE", Resource::Nice),
    ("NOFILE", Resource::Nofile),
    ("NPROC", Resource::Nproc),
    ("RSS", Resource::Rss),
    ("RTPRIO", Resource::Rtprio),
    ("RTTIME", Resource::Rttime),
    ("SIGPENDING", Resource::Sigpending),
    ("STACK", Resource::Stack),
];

/// A limit whose name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Index into the table of names.
    index: usize,
    soft: u64,
    hard: u64,
}

/// More descriptors than a build of many steps at once needs, and few enough for programs that visit them all.
const ENOUGH_OPEN_FILES: u64 = 1 << 16;

/// The limit on open files that this process was started with, soft and hard, once it has been raised.
static INHERITED: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises this process's soft limit on open files towards the hard one: every step that runs needs a dozen. Programs in
/// sandboxes get the limit that was there before.
pub fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let wanted = hard.min(ENOUGH_OPEN_FILES);
    if soft >= wanted {
        return;
    }
    let raised = Limit { current: Some(wanted), maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        // The first call knows what was inherited.
        Ok(()) => drop(INHERITED.set((soft, hard))),
        Err(errno) => tracing::debug!(%errno, "the limit on open files stays"),
    }
}

/// What [`raise_open_files`] replaced.
pub(crate) fn inherited_open_files() -> Option<(u64, u64)> {
    INHERITED.get().copied()
}

/// Checks the name.
pub(crate) fn plan(limit: &Rlimit) -> Option<Planned> {
    let index = NAMES.iter().position(|(name, _)| *name == limit.name)?;
    Some(Planned { index, soft: limit.soft, hard: limit.hard })
}

impl Planned {
    /// Does what [`Self::apply`] needs privileges for, and keeps the process able to open files: it has inherited those of
    /// all other sandboxes, perhaps more than the program may have.
    pub(crate) fn prepare(&self) -> rustix::io::Result<()> {
        let (_, resource) = NAMES.get(self.index).ok_or(rustix::io::Errno::INVAL)?;
        if !matches!(resource, Resource::Nofile) {
            return self.apply();
        }
        let now = rustix::process::getrlimit(Resource::Nofile);
        let more = |now: Option<u64>, wanted: u64| now.filter(|_| wanted != u64::MAX).map(|now| now.max(wanted));
        let limit = Limit { current: more(now.current, self.soft), maximum: more(now.maximum, self.hard) };
        rustix::process::setrlimit(Resource::Nofile, limit)
    }

    /// Sets the limit for the calling process.
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        let value = |v: u64| (v != u64::MAX).then_some(v);
        let (_, resource) = NAMES.get(self.index).ok_or(rustix::io::Errno::INVAL)?;
        rustix::process::setrlimit(*resource, Limit { current: value(self.soft), maximum: value(self.hard) })
    }

    /// The name, without `RLIMIT_`.
    pub(crate) fn name(&self) -> &'static str {
        NAMES.get(self.index).map_or("", |(name, _)| name)
    }
}
