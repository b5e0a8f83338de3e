//! A transaction of nftables: a table with its chains, maps and rules, in the words of the kernel.
//!
//! Rules are programs of small instructions over registers (`linux/netfilter/nf_tables.h`); what is written here is what `nft`
//! makes of the same rules, so that `nft list ruleset` shows them. Numbers of protocols are in the order of the network, facts
//! of the kernel's own (states, families, types of addresses) in the order of the machine.

use std::io;
use std::net::IpAddr;

use super::nftables::{self, ACK, INET, IPV4, REQUEST, attribute, message};
use super::subnet::Subnet;

const NEW_TABLE: u16 = nftables::SUBSYSTEM << 8;
const DELETE_TABLE: u16 = nftables::DELETE_TABLE;
const NEW_CHAIN: u16 = nftables::NEW_CHAIN;
const NEW_RULE: u16 = nftables::SUBSYSTEM << 8 | 6;
const NEW_MAP: u16 = nftables::SUBSYSTEM << 8 | 9;
const NEW_ELEMENTS: u16 = nftables::SUBSYSTEM << 8 | 12;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// An attribute that holds others.
const NESTED: u16 = 0x8000;
/// The register that decides, and the first of those of four bytes.
const VERDICT: u32 = 0;
const FIRST: u32 = 8;
/// Elements of a map that one message carries: lengths of attributes have sixteen bits.
const ELEMENTS: usize = 500;
/// How `nft` numbers the types of what maps have for keys and values, six bits each.
const PROTOCOL_TYPE: u32 = 12;
const PORT_TYPE: u32 = 13;

/// What a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFamily {
    /// Both versions of IP.
    Inet,
    /// IPv4.
    V4,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Where a chain is passed, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    pub(super) place: Place,
    pub(super) priority: i32,
}

/// Where packets pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interface {
    In = 6,
    Out = 7,
}

/// Whether something is to be so, or anything else.
#[derive(Clone, Copy, Debug)]
pub(super) enum Be {
    Equal = 0,
    Other = 1,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Return = -5,
    Drop = 0,
    Accept = 1,
}

/// A fact that the kernel keeps of a connection: which, and the bits of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connection {
    /// It was answered, or belongs to one that was.
    Established,
    /// Its destination was translated.
    Translated,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    fn width(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Where its header has addresses: source and destination.
    fn offsets(self) -> (u32, u32) {
        match self {
            Self::V4 => (12, 16),
            Self::V6 => (8, 24),
        }
    }

    fn address_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }
}

/// Changes that the kernel makes all at once, or not at all.
#[derive(Debug)]
pub(super) struct Transaction {
    family: u8,
    table: String,
    messages: Vec<(u16, u16, Vec<u8>)>,
    maps: u32,
}

impl Transaction {
    /// Replaces a table by an empty one.
    pub(super) fn replacing(family: TableFamily, table: &str) -> Self {
        let family = match family {
            TableFamily::Inet => INET,
            TableFamily::V4 => IPV4,
        };
        let mut new = Self { family, table: table.to_owned(), messages: Vec::new(), maps: 0 };
        for (kind, flags) in [(NEW_TABLE, CREATE), (DELETE_TABLE, 0), (NEW_TABLE, CREATE)] {
            new.push(kind, flags, &text(1, table));
        }
        new
    }

    /// Adds a chain that accepts what none of its rules decides about.
    pub(super) fn chain(&mut self, name: &str, hook: Hook) {
        let place = [number(1, hook.place as u32), attribute(2, &hook.priority.to_be_bytes())].concat();
        let body = [text(1, &self.table), text(3, name), nested(4, &place), number(5, 1), text(7, hook.kind)];
        self.push(NEW_CHAIN, CREATE, &body.concat());
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn rule(&mut self, chain: &str, rule: &Rule) {
        let body = [text(1, &self.table), text(2, chain), nested(4, &rule.0)];
        self.push(NEW_RULE, CREATE | APPEND, &body.concat());
    }

    /// Adds a map from ports, with or without an address before them, to addresses and ports.
    pub(super) fn map(&mut self, name: &str, family: Family, bound: bool, elements: &[(Vec<u8>, Vec<u8>)]) {
        self.maps += 1;
        let mut kinds = vec![PROTOCOL_TYPE, PORT_TYPE];
        if bound {
            kinds.insert(0, family.address_type());
        }
        let joined = |kinds: &[u32]| kinds.iter().fold(0, |all, kind| all << 6 | kind);
        let key_length = 8 + if bound { family.width() } else { 0 };
        let body = [
            text(1, &self.table),
            text(2, name),
            // A map.
            number(3, 8),
            number(4, joined(&kinds)),
            number(5, key_length),
            number(6, joined(&[family.address_type(), PORT_TYPE])),
            number(7, family.width() + 4),
            number(10, self.maps),
        ];
        self.push(NEW_MAP, CREATE, &body.concat());
        for part in elements.chunks(ELEMENTS) {
            let listed: Vec<u8> = part
                .iter()
                .flat_map(|(key, to)| {
                    nested(1, &[nested(1, &attribute(1, key)), nested(2, &attribute(1, to))].concat())
                })
                .collect();
            let body = [text(1, &self.table), text(2, name), nested(3, &listed)];
            self.push(NEW_ELEMENTS, CREATE, &body.concat());
        }
    }

    /// Makes the changes in the calling thread's namespace.
    pub(super) fn commit(self) -> io::Result<()> {
        let last = self.messages.len() - 1;
        let mut changes = Vec::new();
        for (index, (kind, flags, body)) in self.messages.iter().enumerate() {
            let sequence = u32::try_from(index + 2).expect("there are fewer messages than numbers");
            // Each failure is told; of what went well the last.
            let ack = if index == last { ACK } else { 0 };
            changes.extend(message(*kind, REQUEST | flags | ack, sequence, [self.family, 0, 0, 0], body));
        }
        nftables::commit(&changes)
    }

    fn push(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.messages.push((kind, flags, body.to_vec()));
    }
}

/// A rule in the making: conditions, then what is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule(Vec<u8>);

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn then(mut self, name: &str, data: &[Vec<u8>]) -> Self {
        self.0.extend(nested(1, &[text(1, name), nested(2, &data.concat())].concat()));
        self
    }

    fn compare(self, be: Be, value: &[u8]) -> Self {
        self.then("cmp", &[number(1, FIRST), number(2, be as u32), nested(3, &attribute(1, value))])
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.then("meta", &[number(2, key), number(1, register)])
    }

    fn header(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.then("payload", &[number(1, register), number(2, base), number(3, offset), number(4, length)])
    }

    fn network_header(self, offset: u32, length: u32, register: u32) -> Self {
        self.header(1, offset, length, register)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).expect("as long as an address");
        let zeros = vec![0; mask.len()];
        let data = [
            number(1, FIRST),
            number(2, FIRST),
            number(3, length),
            nested(4, &attribute(1, mask)),
            nested(5, &attribute(1, &zeros)),
        ];
        self.then("bitwise", &data)
    }

    /// By which interface the packet comes or goes.
    pub(super) fn interface(self, which: Interface, be: Be, name: &str) -> Self {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(16, 0);
        self.meta(which as u32, FIRST).compare(be, &padded)
    }

    /// Of which family it is.
    pub(super) fn family(self, family: Family) -> Self {
        self.meta(15, FIRST).compare(Be::Equal, &[family.number()])
    }

    /// Whether its protocol is this one.
    pub(super) fn protocol(self, protocol: u8) -> Self {
        self.meta(16, FIRST).compare(Be::Equal, &[protocol])
    }

    /// Whether it comes from this range, of its family.
    pub(super) fn from(self, range: Subnet) -> Self {
        let family = Family::of(range.first());
        self.network_header(family.offsets().0, family.width(), FIRST)
            .masked(&bytes_of_mask(family, range.prefix()))
            .compare(Be::Equal, &bytes_of(range.first()))
    }

    /// Whether it goes to this range or address, of its family.
    pub(super) fn to(self, be: Be, range: Subnet) -> Self {
        let family = Family::of(range.first());
        self.network_header(family.offsets().1, family.width(), FIRST)
            .masked(&bytes_of_mask(family, range.prefix()))
            .compare(be, &bytes_of(range.first()))
    }

    /// Whether it goes to this port; its protocol has ports.
    pub(super) fn port(self, port: u16) -> Self {
        self.header(2, 2, 2, FIRST).compare(Be::Equal, &port.to_be_bytes())
    }

    /// Whether it goes to an address of this machine.
    pub(super) fn for_this_machine(self) -> Self {
        // RTN_LOCAL
        self.then("fib", &[number(1, FIRST), number(2, 3), number(3, 2)]).compare(Be::Equal, &2_u32.to_ne_bytes())
    }

    /// What the kernel knows of its connection.
    pub(super) fn connection(self, fact: Connection) -> Self {
        let (key, bits): (u32, u32) = match fact {
            Connection::Established => (0, 2 | 4),
            Connection::Translated => (2, 0x20),
        };
        self.then("ct", &[number(2, key), number(1, FIRST)])
            .masked(&bits.to_ne_bytes())
            .compare(Be::Other, &0_u32.to_ne_bytes())
    }

    /// Sends it where a map says, by its protocol and port and, of a map that knows addresses, where it goes to.
    pub(super) fn translated_by(self, map: &str, family: Family, bound: bool) -> Self {
        let mut register = FIRST;
        let mut rule = self;
        if bound {
            rule = rule.network_header(family.offsets().1, family.width(), register);
            register += family.width() / 4;
        }
        rule.meta(16, register)
            .header(2, 2, 2, register + 1)
            .then("lookup", &[text(1, map), number(2, FIRST), number(3, FIRST)])
            .translated(family)
    }

    /// Sends it to an address and a port.
    pub(super) fn translated_to(self, address: IpAddr, port: u16) -> Self {
        let family = Family::of(address);
        let value = |register, bytes: &[u8]| [number(1, register), nested(2, &attribute(1, bytes))];
        self.then("immediate", &value(FIRST, &bytes_of(address)))
            .then("immediate", &value(FIRST + family.width() / 4, &port.to_be_bytes()))
            .translated(family)
    }

    /// By what is in the registers: the address, then the port.
    fn translated(self, family: Family) -> Self {
        let (address, port) = (number(3, FIRST), number(5, FIRST + family.width() / 4));
        self.then("nat", &[number(1, 1), number(2, family.number().into()), address, port])
    }

    /// Gives it the address of the interface by which it leaves.
    pub(super) fn masquerade(self) -> Self {
        self.then("masq", &[])
    }

    /// Decides.
    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        let code = attribute(1, &(verdict as i32).to_be_bytes());
        self.then("immediate", &[number(1, VERDICT), nested(2, &nested(2, &code))])
    }
}

/// A key or value of a map: each part fills registers of four bytes.
pub(super) fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(part);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

/// An address as packets have it.
pub(super) fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn bytes_of_mask(family: Family, prefix: u8) -> Vec<u8> {
    let length = usize::try_from(family.width()).expect("sixteen at most");
    let ones = |index: usize| usize::from(prefix).saturating_sub(index * 8).min(8);
    (0..length).map(|index| u8::MAX.checked_shl(u32::try_from(8 - ones(index)).unwrap_or(8)).unwrap_or(0)).collect()
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_ones_as_the_prefix_is_long() {
        for (prefix, want) in [(0, [0, 0, 0, 0]), (22, [255, 255, 252, 0]), (24, [255, 255, 255, 0]), (32, [255; 4])] {
            assert_eq!(bytes_of_mask(Family::V4, prefix), want, "{prefix}");
        }
        let long = bytes_of_mask(Family::V6, 65);
        assert_eq!((long.len(), &long[7..10]), (16, &[255, 128, 0][..]));
    }

    #[test]
    fn parts_fill_registers() {
        assert_eq!(joined(&[&[6], &80_u16.to_be_bytes()]), [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(joined(&[&[1, 2, 3, 4], &[6]]), [1, 2, 3, 4, 6, 0, 0, 0]);
    }
}
