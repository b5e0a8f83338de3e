//! A namespace with a way out: over the bridge of a network, else through a process. `RUN` steps and containers get theirs
//! here.
//!
//! Where this host can have no bridge (no `nft`, forwarding off, a firewall that drops), `pasta` or `slirp4netns` is the way.
//! Where that is not possible either, the error says why both are not: nobody gets the host's network without asking.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use rbuild_cache::{Hold, Lease, PathError};
use rbuild_executor::network::Namespace;
use rbuild_executor::network::bridge::BridgeError;
use rbuild_executor::network::firewall::FirewallError;
use rbuild_executor::network::user_mode::{Target, UserMode, UserModeError};
use rustix::io::Errno;

use super::endpoint::{EndpointRequest, Place};
use super::error::NetworkError;
use super::live::Joined;
use super::record::NetworkId;
use super::store::Networks;

/// Kind of what a lease holds outside the store for a process that is to end with its engine; its name is `PID:START`.
pub const PROCESS_KIND: &str = "process";

/// A namespace with a way out.
#[derive(Debug)]
pub enum Uplink {
    /// Over a bridge.
    Bridge(Box<Joined>),
    /// Through a process, which ends before its namespace.
    Process(Box<UserMode>, Namespace),
    /// None at all: only ports lead in, relayed by whoever runs the container.
    PortsOnly(Namespace),
}

/// Why there is no isolated network.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Neither way is possible on this host.
    #[error("no isolated network can be had: {bridge}; {process}")]
    Neither {
        /// Why there is no bridge.
        bridge: NoBridge,
        /// Why there is no process.
        process: UserModeError,
    },
    /// A network of its own needs a bridge.
    #[error("network {name} cannot be used here: {why}")]
    NeedsBridge {
        /// The network.
        name: String,
        /// Why there is none.
        why: NoBridge,
    },
    /// The bridge should have worked.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The namespace cannot be made.
    #[error("cannot make a network namespace")]
    Namespace(#[source] io::Error),
    /// The lease cannot be written.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Why this host can have no bridge, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoBridge(String);

impl Networks {
    /// A way out over the bridge of a network that a lease of this process holds ([`Networks::hold`]); `Err(NoBridge)` inside
    /// when this host can have none.
    pub fn over_bridge(
        &self,
        id: &NetworkId,
        request: &EndpointRequest,
    ) -> Result<Result<Uplink, NoBridge>, UplinkError> {
        match self.join_held(id, request, Place::New) {
            Ok(joined) => Ok(Ok(Uplink::Bridge(Box::new(joined)))),
            Err(error) if is_of_host(&error) => Ok(Err(NoBridge(chain(&error)))),
            Err(error) => Err(error.into()),
        }
    }

    /// A way out through a process, because there can be no bridge for this reason.
    pub fn through_process(&self, why: &NoBridge, lease: &Lease) -> Result<Uplink, UplinkError> {
        let namespace = Namespace::new().map_err(UplinkError::Namespace)?;
        let running = UserMode::start(Target { network: &namespace, user: None })
            .map_err(|process| UplinkError::Neither { bridge: why.clone(), process })?;
        let (pid, started) = running.process();
        lease.hold(Hold::Outside { kind: PROCESS_KIND.to_owned(), name: format!("{pid}:{started}") })?;
        Ok(Uplink::Process(Box::new(running), namespace))
    }

    /// A namespace that nothing leads out of, for a container whose ports can be relayed all the same.
    pub fn ports_only(&self) -> Result<Uplink, UplinkError> {
        Namespace::new().map(Uplink::PortsOnly).map_err(UplinkError::Namespace)
    }

    /// A way out, whichever this host can have.
    pub fn uplink(&self, id: &NetworkId, request: &EndpointRequest, lease: &Lease) -> Result<Uplink, UplinkError> {
        self.hold(id, lease)?;
        match self.over_bridge(id, request)? {
            Ok(uplink) => Ok(uplink),
            Err(why) => self.through_process(&why, lease),
        }
    }
}

impl Uplink {
    /// This machine's address in the namespace's network; `None` where it is out of reach.
    pub fn gateway(&self) -> Option<IpAddr> {
        match self {
            Self::Bridge(joined) => joined.gateway(),
            Self::Process(..) | Self::PortsOnly(_) => None,
        }
    }

    /// The namespace, while this lives.
    pub fn namespace(&self) -> &Namespace {
        match self {
            Self::Bridge(joined) => joined.namespace(),
            Self::Process(_, namespace) | Self::PortsOnly(namespace) => namespace,
        }
    }

    /// Its addresses; those of a process's are the same for everybody and mean nothing to others.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Bridge(joined) => joined.addresses(),
            Self::Process(..) | Self::PortsOnly(_) => &[],
        }
    }

    /// The name server to use in it, if not one of the host's.
    pub fn name_server(&self) -> Option<IpAddr> {
        match self {
            Self::Bridge(_) | Self::PortsOnly(_) => None,
            Self::Process(running, _) => running.program().name_server(),
        }
    }

    /// Takes it down, but for its bridge, which stays for the next: [`Networks::outlast`] has to be called.
    pub fn end_warm(self) -> Result<(), NetworkError> {
        match self {
            Self::Bridge(joined) => joined.leave_warm(),
            process => process.end(),
        }
    }

    /// Takes it down.
    pub fn end(self) -> Result<(), NetworkError> {
        match self {
            Self::Bridge(joined) => joined.leave(),
            Self::Process(running, namespace) => {
                drop(running);
                drop(namespace);
                Ok(())
            }
            Self::PortsOnly(namespace) => {
                drop(namespace);
                Ok(())
            }
        }
    }
}

/// Whether an error says that this host can have no bridge, rather than that something is broken.
fn is_of_host(error: &NetworkError) -> bool {
    match error {
        NetworkError::Obstacle(_) => true,
        NetworkError::Firewall(FirewallError::Missing | FirewallError::Refused { .. }) => true,
        NetworkError::Firewall(FirewallError::Kernel(_)) => true,
        NetworkError::Bridge(BridgeError::Kernel { source, .. } | BridgeError::Attach { source, .. }) => {
            // No privileges; a kernel without bridges or veth pairs.
            let errors = [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP];
            errors.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
        }
        _ => false,
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_networks_is_told_what_is_missing() {
        let why = || NoBridge("the program nft is not installed".to_owned());
        let errors = [
            UplinkError::Neither { bridge: why(), process: UserModeError::Missing },
            UplinkError::NeedsBridge { name: "front".to_owned(), why: why() },
            UplinkError::Namespace(io::ErrorKind::PermissionDenied.into()),
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        no isolated network can be had: the program nft is not installed; neither pasta nor slirp4netns is installed: install the package passt or slirp4netns
        network front cannot be used here: the program nft is not installed
        cannot make a network namespace
        ");
    }
}
