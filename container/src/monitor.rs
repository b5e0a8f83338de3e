//! The process that runs a container, and those that are connected to it.
//!
//! There is no daemon: each container that runs has one small process of its own, its *monitor*, which is rbuild itself in a
//! session of its own. It holds the container's run lock, owns its terminal or pipes, writes its log, applies its restart
//! policy and records its end. If it is killed, the kernel closes what it held: the container dies with it, the lock is free,
//! and the next reader of the record notices (R-43).
//!
//! ```text
//!   containers/ID/monitor.sock    where others connect; the process that starts a monitor hands it a connection
//!
//!   client ── Attach, with its own output descriptors ──▶ monitor      the monitor writes output to them itself,
//!   client ◀── Running, with the container's input ────── monitor      and the client types into that directly,
//!   client ◀── Ended: exit code ───────────────────────── monitor      so that no byte is copied twice
//! ```
//!
//! A client that goes away without a word is a detached one; if it was *bound*, as `run` in the foreground is, its container
//! is killed.

mod clients;
mod detach_keys;
mod link;
mod message;
mod output;
mod socket;

pub(crate) use clients::{Client, Clients, Said};
pub use detach_keys::{DetachKeys, InvalidDetachKeys};
pub use link::{Arrival, Caller, CallerStreams, Followed, LinkError, MonitorLink, Session};
pub use message::{AttachRequest, Bond, StartFailure};
pub(crate) use message::{FromMonitor, ToMonitor};
pub(crate) use output::Outputs;
pub(crate) use socket::Listener;
