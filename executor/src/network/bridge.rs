//! A bridge on the host, and namespaces that are connected to it.
//!
//! A bridge carries the words of who made it ([`Bridge::owner`]); nothing is used or removed that carries other words or
//! none. The words are written last, so a bridge whose maker was killed meanwhile has none: it is known by its hardware
//! address, which the kernel takes when the interface is made and which is computed from the words. The pairs of interfaces between it and the namespaces need no care: they go with their namespaces.

use std::fs;
use std::io;
use std::net::IpAddr;

use super::namespace::Namespace;
use super::netlink::{Link, Netlink, Veth};

/// The first interface inside, beside loopback.
pub const INNER: &str = "eth0";

/// A bridge of ours.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    /// Its name: at most 15 bytes.
    pub name: &'a str,
    /// Whose it is, as written on it.
    pub owner: &'a str,
}

/// An address of an interface and how much of it names the subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
}

/// What a namespace gets on a bridge.
#[derive(Clone, Debug)]
pub struct Endpoint<'a> {
    /// Its addresses, at least one.
    pub addresses: &'a [Address],
    /// Where everything else is sent; none in a network without a way out.
    pub gateways: &'a [IpAddr],
    /// Whether it may talk to other endpoints that are [`Neighbours::Unseen`].
    pub neighbours: Neighbours,
}

/// The end of a pair of interfaces that is inside a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address; one that goes with its first address when none is given.
    pub mac: Option<[u8; 6]>,
    /// The largest packet; the kernel's choice when none is given.
    pub mtu: Option<u32>,
}

impl Default for Interface<'_> {
    fn default() -> Self {
        Self { name: INNER, mac: None, mtu: None }
    }
}

/// Whether endpoints of a bridge see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// They talk to each other.
    Seen,
    /// Only to the host and beyond.
    Unseen,
}

/// Whether a bridge had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was there.
    Found,
    /// It was made.
    Made,
}

/// What has a bridge's name.
enum Found {
    Nothing,
    /// It, without its maker's words: whoever made it was killed.
    HalfMade(Link),
    Whole(Link),
}

/// What went wrong with a bridge.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// An interface has the name and is not ours.
    #[error("the network interface {name} exists and was not made by this store")]
    Foreign {
        /// The name.
        name: String,
    },
    /// The bridge is not there (any more).
    #[error("the network bridge {name} is gone")]
    Gone {
        /// The name.
        name: String,
    },
    /// The kernel said no.
    #[error("cannot {action} the network bridge {name}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace cannot be made or connected.
    #[error("cannot connect a network namespace to {name}")]
    Attach {
        /// The bridge.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Bridge<'_> {
    /// Whether it is there.
    pub fn exists(self) -> Result<bool, BridgeError> {
        Ok(matches!(self.find(&mut self.netlink()?)?, Found::Whole(_)))
    }

    /// Makes the bridge unless it is there, with these addresses of the host's on it.
    ///
    /// Whoever calls this has written down that it has to be removed.
    pub fn ensure(self, addresses: &[Address]) -> Result<Presence, BridgeError> {
        let mut netlink = self.netlink()?;
        match self.find(&mut netlink)? {
            Found::Whole(_) => return Ok(Presence::Found),
            Found::HalfMade(link) => netlink.remove_link(link.index).map_err(|error| self.failed("remove", error))?,
            Found::Nothing => {}
        }
        netlink.add_bridge(self.name, self.mac()).map_err(|error| self.failed("make", error))?;
        let made = self.finish(&mut netlink, addresses);
        if made.is_err()
            && let Ok(Some(link)) = netlink.link(self.name)
        {
            // Not to be found half made by the next one.
            drop(netlink.remove_link(link.index));
        }
        made.map_err(|error| self.failed("set up", error))?;
        Ok(Presence::Made)
    }

    fn finish(self, netlink: &mut Netlink, addresses: &[Address]) -> io::Result<()> {
        let link = netlink.link(self.name)?.ok_or(io::ErrorKind::NotFound)?;
        let without_ipv6 = if addresses.iter().any(|address| address.ip.is_ipv6()) { "0" } else { "1" };
        match fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), without_ipv6) {
            // The kernel has no IPv6: then it has no such addresses either.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for address in addresses {
            netlink.add_address(link.index, address.ip, address.prefix)?;
        }
        netlink.set_up(link.index)?;
        // Last: what carries the words is whole.
        netlink.set_alias(link.index, self.owner)
    }

    /// Removes the bridge; one that is gone already is fine.
    pub fn remove(self) -> Result<(), BridgeError> {
        let mut netlink = self.netlink()?;
        match self.find(&mut netlink) {
            Ok(Found::Whole(link) | Found::HalfMade(link)) => {
                netlink.remove_link(link.index).map_err(|error| self.failed("remove", error))
            }
            Ok(Found::Nothing) | Err(BridgeError::Foreign { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a namespace that is connected to the bridge.
    pub fn new_namespace(self, endpoint: &Endpoint<'_>) -> Result<Namespace, BridgeError> {
        self.new_namespace_with(endpoint, Interface::default())
    }

    /// Makes a namespace that is connected to the bridge by this interface.
    pub fn new_namespace_with(
        self,
        endpoint: &Endpoint<'_>,
        interface: Interface<'_>,
    ) -> Result<Namespace, BridgeError> {
        let mut host = self.netlink()?;
        let bridge = self.present(&mut host)?;
        let ipv6 = endpoint.has_ipv6();
        let inside = move || {
            Namespace::set_ipv6(ipv6)?;
            // It stays inside although this thread ends.
            Netlink::open()
        };
        let (namespace, mut inner) = Namespace::new_with(inside).map_err(|error| self.unattached(error))?;
        connect(&mut host, &bridge, &mut inner, &namespace, endpoint, interface)
            .map_err(|error| self.unattached(error))?;
        Ok(namespace)
    }

    /// Connects a namespace that is there already by one more interface.
    pub fn connect(
        self,
        namespace: &Namespace,
        endpoint: &Endpoint<'_>,
        interface: Interface<'_>,
    ) -> Result<(), BridgeError> {
        let mut host = self.netlink()?;
        let bridge = self.present(&mut host)?;
        let ipv6 = endpoint.has_ipv6();
        let inner = namespace.enter(|| Namespace::set_ipv6(ipv6).and_then(|()| Netlink::open()));
        let mut inner = inner.and_then(|opened| opened).map_err(|error| self.unattached(error))?;
        connect(&mut host, &bridge, &mut inner, namespace, endpoint, interface).map_err(|error| self.unattached(error))
    }

    fn present(self, netlink: &mut Netlink) -> Result<Link, BridgeError> {
        match self.find(netlink)? {
            Found::Whole(link) => Ok(link),
            Found::HalfMade(_) | Found::Nothing => Err(BridgeError::Gone { name: self.name.to_owned() }),
        }
    }

    fn unattached(self, source: io::Error) -> BridgeError {
        BridgeError::Attach { name: self.name.to_owned(), source }
    }

    fn netlink(self) -> Result<Netlink, BridgeError> {
        Netlink::open().map_err(|error| self.failed("look for", error))
    }

    fn find(self, netlink: &mut Netlink) -> Result<Found, BridgeError> {
        let link = netlink.link(self.name).map_err(|error| self.failed("look for", error))?;
        match link {
            None => Ok(Found::Nothing),
            Some(link) if link.alias.as_deref() == Some(self.owner) => Ok(Found::Whole(link)),
            Some(link) if link.alias.is_none() && link.mac == self.mac() => Ok(Found::HalfMade(link)),
            Some(_) => Err(BridgeError::Foreign { name: self.name.to_owned() }),
        }
    }

    /// The bridge's hardware address: locally administered, the rest an FNV-1a hash of owner and name.
    fn mac(self) -> [u8; 6] {
        let words = self.owner.bytes().chain([0]).chain(self.name.bytes());
        let hash = words
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        [0x02, a, b, c, d, e]
    }

    fn failed(self, action: &'static str, source: io::Error) -> BridgeError {
        BridgeError::Kernel { action, name: self.name.to_owned(), source }
    }
}

fn connect(
    host: &mut Netlink,
    bridge: &Link,
    inner: &mut Netlink,
    namespace: &Namespace,
    endpoint: &Endpoint<'_>,
    interface: Interface<'_>,
) -> io::Result<()> {
    use std::os::fd::AsFd;
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = format!("rv-{}", hex::encode(random));
    let own = || endpoint.addresses.first().map_or([0x02, 0x42, 0, 0, 0, 1], |address| mac_of(address.ip));
    let Interface { name: inside, mac, mtu } = interface;
    let mac = mac.unwrap_or_else(own);
    let veth = Veth { host: &name, bridge: bridge.index, inner: inside, mac, mtu, namespace: namespace.as_fd() };
    host.add_veth(&veth)?;
    if endpoint.neighbours == Neighbours::Unseen {
        let port = host.link(&name)?.ok_or(io::ErrorKind::NotFound)?;
        host.isolate_port(port.index)?;
    }
    let link = inner.link(inside)?.ok_or(io::ErrorKind::NotFound)?;
    for address in endpoint.addresses {
        inner.add_address(link.index, address.ip, address.prefix)?;
    }
    inner.set_up(link.index)?;
    endpoint.gateways.iter().try_for_each(|gateway| inner.add_default_route(*gateway))
}

impl Endpoint<'_> {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| address.ip.is_ipv6())
    }
}

/// Removes an interface inside a namespace, and with it the host's end; one that is gone already is fine.
pub fn disconnect(namespace: &Namespace, interface: &str) -> io::Result<()> {
    namespace.enter(|| {
        let mut inner = Netlink::open()?;
        match inner.link(interface)? {
            Some(link) => inner.remove_link(link.index),
            None => Ok(()),
        }
    })?
}

/// Sends what has no route of its own to these addresses, at most one of each family; where none is given, nowhere.
pub fn set_gateways(namespace: &Namespace, gateways: &[IpAddr]) -> io::Result<()> {
    namespace.enter(|| {
        let mut inner = Netlink::open()?;
        for ipv6 in [false, true] {
            while inner.remove_default_route(ipv6)? {}
        }
        gateways.iter().try_for_each(|gateway| inner.add_default_route(*gateway))
    })?
}

/// A hardware address that goes with the address, as Docker makes it: who gets the address next is found at once by those
/// that knew the last one.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => *address.octets().last_chunk().expect("sixteen bytes end with four"),
    };
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_bridge() {
        let name = || "rb-1".to_owned();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, words) in [
            (BridgeError::Foreign { name: name() }, "the network interface rb-1 exists and was not made by this store"),
            (BridgeError::Gone { name: name() }, "the network bridge rb-1 is gone"),
            (
                BridgeError::Kernel { action: "create", name: name(), source: denied() },
                "cannot create the network bridge rb-1",
            ),
            (BridgeError::Attach { name: name(), source: denied() }, "cannot connect a network namespace to rb-1"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
