//! Ranges of addresses, and the choice of one that this host does not use yet. The arithmetic is pure.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::netlink::Netlink;

/// A range of addresses with a common prefix: `172.24.0.0/22`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    first: IpAddr,
    prefix: u8,
}

/// Text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid subnet {text:?}: it is an address, a slash and a length of its prefix, e.g. 10.5.0.0/16")]
pub struct InvalidSubnet {
    /// What was given.
    pub text: String,
}

impl Subnet {
    /// The range that `address` is in; `None` when the prefix is longer than an address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = width(address);
        (prefix <= bits).then(|| Self { first: from_bits(address, to_bits(address) & mask(bits, prefix)), prefix })
    }

    /// The first address, which names the range.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The last address; of an IPv4 range that is for broadcasts.
    pub fn last(self) -> IpAddr {
        let bits = width(self.first);
        from_bits(self.first, to_bits(self.first) | !mask(bits, self.prefix) & mask_all(bits))
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it has IPv6 addresses.
    pub fn is_ipv6(self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|other| other == self)
    }

    /// Whether two ranges share addresses.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The address so many behind the first; `None` behind the end.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        let value = to_bits(self.first).checked_add(offset)?;
        (value <= to_bits(self.last())).then(|| from_bits(self.first, value))
    }

    /// Addresses that hosts may have, in order: neither the first nor, in IPv4, the last.
    pub fn hosts(self) -> impl Iterator<Item = IpAddr> {
        let last = self.last();
        let broadcast = !self.is_ipv6();
        (1..).map_while(move |offset| self.nth(offset)).take_while(move |address| !(broadcast && *address == last))
    }

    /// The parts of it that have a longer prefix, in order.
    pub fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let step = 1_u128 << (width(self.first) - prefix.clamp(self.prefix, width(self.first))).min(127);
        (0..).map_while(move |number: u128| {
            let first = self.nth(number.checked_mul(step)?)?;
            Self::new(first, prefix)
        })
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask_all(bits: u8) -> u128 {
    u128::MAX >> (128 - bits)
}

fn mask(bits: u8, prefix: u8) -> u128 {
    mask_all(bits) & !mask_all(bits).checked_shr(prefix.into()).unwrap_or(0)
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(bits).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            Self::new(address.parse().ok()?, plain.then(|| prefix.parse().ok())??)
        });
        parsed.ok_or_else(|| InvalidSubnet { text: text.to_owned() })
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Ranges that this host has routes to, the default route left out.
pub fn in_use() -> io::Result<Vec<Subnet>> {
    Ok(Netlink::open()?.routes()?.into_iter().filter_map(|route| route.to).collect())
}

/// The first of `candidates` that overlaps none of `taken`.
pub fn first_free(mut candidates: impl Iterator<Item = Subnet>, taken: &[Subnet]) -> Option<Subnet> {
    candidates.find(|candidate| taken.iter().all(|other| !candidate.overlaps(*other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn text_and_back() {
        for (given, shown) in [
            ("10.5.6.7/16", "10.5.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("fd00:1::5/64", "fd00:1::/64"),
        ] {
            assert_eq!(subnet(given).to_string(), shown);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "::/129", "x/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_leave_out_the_ends() {
        let hosts: Vec<String> = subnet("10.0.0.0/29").hosts().map(|a| a.to_string()).collect();
        assert_eq!(hosts, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(subnet("fd00::/126").hosts().count(), 3);
        assert_eq!(subnet("10.0.0.4/32").hosts().count(), 0);
    }

    #[test]
    fn a_free_part_avoids_everything_in_use() {
        let pool = subnet("172.24.0.0/14");
        let taken = [subnet("172.24.0.0/16"), subnet("172.25.1.128/25"), subnet("10.0.0.0/8")];
        assert_eq!(first_free(pool.parts(22), &taken), Some(subnet("172.25.4.0/22")));
        assert_eq!(first_free(pool.parts(22), &[subnet("172.16.0.0/12")]), None);
        assert_eq!(pool.parts(22).count(), 256);
    }

    proptest! {
        #[test]
        fn ranges_contain_their_parts(bits: u32, prefix in 0_u8..=32, longer in 0_u8..=8) {
            let whole = Subnet::new(Ipv4Addr::from(bits).into(), prefix).unwrap();
            prop_assert!(whole.contains(Ipv4Addr::from(bits).into()));
            prop_assert!(whole.contains(whole.first()) && whole.contains(whole.last()));
            let part = whole.parts((prefix + longer).min(32)).last().unwrap();
            prop_assert!(whole.overlaps(part) && part.overlaps(whole));
            prop_assert_eq!(part.last(), whole.last());
            prop_assert_eq!(whole.to_string().parse::<Subnet>().unwrap(), whole);
        }
    }
}
