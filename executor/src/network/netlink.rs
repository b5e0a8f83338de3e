//! Links, addresses and routes of the calling thread's namespace, asked for and changed through rtnetlink.
//!
//! A socket stays in the namespace in which it was opened, wherever its thread goes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::subnet::Subnet;

/// Room for one part of an answer; the kernel sends at most 32 KiB at once.
const ANSWER: usize = 64 * 1024;

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// What its maker wrote on it.
    pub(super) alias: Option<String>,
    /// Its hardware address.
    pub(super) mac: Vec<u8>,
}

/// A route that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Where to; `None` is everywhere.
    pub(super) to: Option<Subnet>,
    /// The interface it leaves by.
    pub(super) link: Option<u32>,
}

/// A pair of connected interfaces that is to be made.
pub(super) struct Veth<'a> {
    /// Name on the host.
    pub(super) host: &'a str,
    /// The bridge that the host's end is a port of.
    pub(super) bridge: u32,
    /// Name inside.
    pub(super) inner: &'a str,
    /// Hardware address inside.
    pub(super) mac: [u8; 6],
    /// The largest packet, if not the kernel's choice.
    pub(super) mtu: Option<u32>,
    /// Where the other end goes.
    pub(super) namespace: BorrowedFd<'a>,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        let socket = socket_with(rustix::net::AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// The interface of this name.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(link_of)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge; it is down.
    pub(super) fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        // Otherwise it would be that of one of the ports, and change with them.
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.make(RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a pair of connected interfaces and puts each where it belongs. The host's end is up; the kernel refuses to make
    /// the other one so.
    pub(super) fn add_veth(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(veth.inner.to_owned()));
        peer.attributes.push(LinkAttribute::Address(veth.mac.to_vec()));
        peer.attributes.push(LinkAttribute::NetNsFd(veth.namespace.as_raw_fd()));
        peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(veth.host.to_owned()));
        message.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        message.attributes.push(LinkAttribute::Controller(veth.bridge));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.make(RouteNetlinkMessage::NewLink(message))
    }

    /// Keeps a bridge's port from talking to other ports that are isolated.
    pub(super) fn isolate_port(&mut self, index: u32) -> io::Result<()> {
        let mut message = of_link(index);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)])),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message))
    }

    /// Writes something on an interface that its maker recognises it by.
    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let mut message = of_link(index);
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Lets an interface work.
    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = of_link(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Removes an interface; one that is gone already is fine.
    pub(super) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelLink(of_link(index))) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Gives an interface an address; one that it has already is fine.
    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        if address.is_ipv6() {
            // Whoever gives the addresses sees to it that nobody else has them: no second of waiting.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        if let (IpAddr::V4(address), true) = (address, prefix < 31) {
            let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            message.attributes.push(AddressAttribute::Broadcast(broadcast.into()));
        }
        match self.make(RouteNetlinkMessage::NewAddress(message)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a route for everything else of a family; whether there was one.
    pub(super) fn remove_default_route(&mut self, ipv6: bool) -> io::Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.scope = RouteScope::NoWhere;
        match self.change(RouteNetlinkMessage::DelRoute(message)) {
            Ok(()) => Ok(true),
            Err(error) if [Some(libc::ESRCH), Some(libc::ENOENT)].contains(&error.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends everything that has no route of its own to `gateway`.
    pub(super) fn add_default_route(&mut self, gateway: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        self.make(RouteNetlinkMessage::NewRoute(message))
    }

    /// Routes of the main tables that lead to other machines or to subnets of interfaces.
    pub(super) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let answers = self.request(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(route_of).collect())
    }

    fn make(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn change(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK).map(drop)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        self.answers()
    }

    /// Reads until the kernel says that this was all. What the crate cannot read is left out: newer kernels tell more.
    fn answers(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        let mut buffer = vec![0; ANSWER];
        loop {
            let (_, length) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some(size) = size_of_first(rest) {
                let (first, after) = rest.split_at(size);
                // Parts begin at multiples of four.
                rest = after.get(size.next_multiple_of(4) - size..).unwrap_or_default();
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(first) else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(found),
                        Some(code) => return Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                    },
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// The length that the first message says it has, if it is all there.
fn size_of_first(bytes: &[u8]) -> Option<usize> {
    let size = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
    (size >= 16 && size <= bytes.len()).then_some(size)
}

fn of_link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link { index: message.header.index, name: String::new(), alias: None, mac: Vec::new() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Address(mac) => link.mac = mac,
            _ => {}
        }
    }
    Some(link)
}

fn route_of(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route { to: None, link: None };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.to = Subnet::new(address.into(), message.header.destination_prefix_length);
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.to = Subnet::new(address.into(), message.header.destination_prefix_length);
            }
            RouteAttribute::Oif(index) => route.link = Some(index),
            _ => {}
        }
    }
    Some(route)
}
