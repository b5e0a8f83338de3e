//! The registry client against real servers: Debian's `docker-registry` with skopeo as the other side, a registry that
//! misbehaves on request, and a scripted one for what neither does. Peers that are not installed are skipped loudly.

#![expect(clippy::unwrap_used, reason = "these are tests, and what they need beside test functions is as well")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "says what was skipped and how each fault ended")]

mod cuts;
mod damage;
mod debian;
mod faults;
mod memory;
mod scripted;
mod server;
mod streams;
