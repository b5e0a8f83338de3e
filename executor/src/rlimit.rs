//! Resource limits by name.

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

/// Checks the name.
pub(crate) fn plan(limit: &Rlimit) -> Option<Planned> {
    let index = NAMES.iter().position(|(name, _)| *name == limit.name)?;
    Some(Planned { index, soft: limit.soft, hard: limit.hard })
}

impl Planned {
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
