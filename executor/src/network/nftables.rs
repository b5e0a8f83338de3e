//! Conversations with nftables, without starting `nft`: which chains forwarded packets pass, that a table is to go, and
//! transactions ([`super::ruleset`]).
//!
//! Messages of the netlink family `netfilter` (`linux/netfilter/nf_tables.h`): a header, four bytes that say family and
//! version, attributes. Integers in attributes are big-endian, lengths are the machine's.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Room for one part of an answer; the kernel sends at most 32 KiB at once.
const ANSWER: usize = 64 * 1024;
/// What sockets take without being asked.
const ROOM: usize = 64 * 1024;
/// Messages of nftables, in their upper byte.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
pub(super) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ERROR: u16 = 2;
const DONE: u16 = 3;
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
/// Families of tables.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
/// Where packets that are passed on go by.
const FORWARD: u32 = 2;
/// Marks of an attribute's type that are no part of it.
const TYPE: u16 = 0x3fff;

/// A chain of IPv4 packets that are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForwardChain {
    /// `ip` or `inet`.
    pub(super) family: &'static str,
    /// Its table.
    pub(super) table: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it drops what none of its rules names.
    pub(super) drops: bool,
}

/// All chains of the calling thread's namespace that IPv4 packets pass which are passed on.
pub(super) fn forward_chains() -> io::Result<Vec<ForwardChain>> {
    let socket = open()?;
    let message = message(GET_CHAIN, REQUEST | DUMP, 1, [0, 0, 0, 0], &[]);
    send(&socket, &message, SendFlags::empty())?;
    let mut found = Vec::new();
    each_answer(&socket, |kind, body| {
        if kind == NEW_CHAIN {
            found.extend(chain_of(body));
        }
    })?;
    Ok(found)
}

/// Removes a table of the family `inet` with everything in it; one that is gone already is fine.
pub(super) fn delete_table(name: &str) -> io::Result<()> {
    let named = attribute(1, &[name.as_bytes(), b"\0"].concat());
    match commit(&message(DELETE_TABLE, REQUEST | ACK, 2, [INET, 0, 0, 0], &named)) {
        // There is none; the kernel has no tables at all.
        Err(error)
            if [libc::ENOENT, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT].map(Some).contains(&error.raw_os_error()) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Sends messages as one transaction; the last one of them asks for an answer.
pub(super) fn commit(changes: &[u8]) -> io::Result<()> {
    let socket = open()?;
    let [upper, lower] = SUBSYSTEM.to_be_bytes();
    let edge = [0, 0, upper, lower];
    let batch =
        [&message(BATCH_BEGIN, REQUEST, 1, edge, &[]), changes, &message(BATCH_END, REQUEST, 1, edge, &[])].concat();
    if batch.len() > ROOM {
        // The kernel takes a transaction in one piece only.
        setsockopt(&socket, sockopt::SndBufForce, &(2 * batch.len())).map_err(io::Error::from)?;
    }
    send(&socket, &batch, SendFlags::empty())?;
    each_answer(&socket, |_, _| ())
}

pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?)
}

pub(super) fn message(kind: u16, flags: u16, sequence: u32, family: [u8; 4], attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).expect("messages of ours are short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(family);
    bytes.extend(attributes);
    bytes
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes of ours are short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Reads until the kernel says that this was all.
pub(super) fn each_answer(socket: &OwnedFd, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; ANSWER];
    loop {
        let (_, length) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(size) = u32_of(rest, 0).map(|size| size as usize).filter(|size| (16..=rest.len()).contains(size))
        {
            let (first, after) = rest.split_at(size);
            rest = after.get(size.next_multiple_of(4) - size..).unwrap_or_default();
            let body = &first[16..];
            match first[4..6].first_chunk::<2>().map(|kind| u16::from_ne_bytes(*kind)) {
                Some(DONE) => return Ok(()),
                Some(ERROR) => {
                    let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
                }
                Some(kind) => take(kind, body),
                None => {}
            }
        }
    }
}

fn u32_of(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Kind and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) =
        (bytes.first_chunk::<2>(), bytes.get(2..).and_then(|rest| rest.first_chunk::<2>()))
    {
        let length = usize::from(u16::from_ne_bytes(*length));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes(*kind) & TYPE, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The chain of a message, if forwarded IPv4 packets pass it.
fn chain_of(body: &[u8]) -> Option<ForwardChain> {
    let family = match *body.first()? {
        INET => "inet",
        IPV4 => "ip",
        _ => return None,
    };
    let all = attributes(body.get(4..)?);
    let value = |of: &[(u16, &[u8])], kind| of.iter().find(|(own, _)| *own == kind).map(|(_, value)| value.to_vec());
    let number = |bytes: Vec<u8>| Some(u32::from_be_bytes(*bytes.first_chunk()?));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).into_owned();
    let hook = value(&all, 4)?;
    if value(&attributes(&hook), 1).and_then(number)? != FORWARD {
        return None;
    }
    let drops = value(&all, 5).and_then(number) == Some(0);
    Some(ForwardChain { family, table: text(value(&all, 1)?), name: text(value(&all, 3)?), drops })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_read_from_their_messages() {
        let chain = |family: u8, hook: u32, policy: u32| {
            let hook = [attribute(1, &hook.to_be_bytes()), attribute(2, &0_u32.to_be_bytes())].concat();
            let all = [
                attribute(1, b"filter\0"),
                attribute(3, b"FORWARD\0"),
                attribute(4 | 0x8000, &hook),
                attribute(5, &policy.to_be_bytes()),
            ];
            [&[family, 0, 0, 0][..], &all.concat()].concat()
        };
        let want = ForwardChain { family: "ip", table: "filter".into(), name: "FORWARD".into(), drops: true };
        assert_eq!(chain_of(&chain(2, 2, 0)), Some(want.clone()));
        assert_eq!(chain_of(&chain(1, 2, 1)), Some(ForwardChain { family: "inet", drops: false, ..want }));
        for other in [chain(10, 2, 0), chain(2, 1, 0), vec![2, 0, 0, 0], vec![], vec![2, 0, 0, 0, 255, 255, 4, 0]] {
            assert_eq!(chain_of(&other), None);
        }
        // A chain without a hook is one that others jump to.
        assert_eq!(chain_of(&[&[2, 0, 0, 0][..], &attribute(1, b"filter\0")].concat()), None);
    }
}
