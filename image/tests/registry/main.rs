//! The registry client against real servers: Debian's `docker-registry` with skopeo as the other side, a registry that
//! misbehaves on request, and a scripted one for what neither does. Peers that are not installed are skipped loudly.

mod debian;
mod faults;
mod memory;
mod scripted;
mod server;
