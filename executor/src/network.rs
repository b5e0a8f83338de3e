//! Network namespaces, and the ways out of them.
//!
//! What is here is mechanism for whoever has a store: `RUN` steps and containers get their networks from the same parts.
//! Everything works in the network namespace of the *calling thread*, which a test can make its own "host"
//! ([`Namespace::enter`]).
//!
//! - [`Namespace`]: an own set of interfaces, held by a descriptor; gone with the last holder.
//! - [`bridge`]: a bridge on the host, and veth pairs from it into namespaces. The host's ends of the pairs vanish with the
//!   namespaces; the bridge and its rules stay until they are removed, so whoever makes them writes down before that they
//!   have to go.
//! - [`firewall`]: packet filter rules, each network's in a table of its own, replaced in one transaction.
//! - [`conntrack`]: connections that a withdrawn port led, forgotten.
//! - [`forwarding`]: whether this host passes on what such a bridge sends.
//! - [`user_mode`]: a way out through a process, for hosts and users that can have no bridge.
//!
//! Nothing here changes what it did not make: no sysctl, no chain, no interface of somebody else's (rule R-48).

pub mod bridge;
pub mod conntrack;
pub mod firewall;
pub mod forwarding;
mod namespace;
mod netlink;
mod nftables;
mod ruleset;
pub mod subnet;
pub mod user_mode;

pub use namespace::{Namespace, Turn};
