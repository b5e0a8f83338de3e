//! Which addresses an endpoint gets. Pure: who has which is passed in.

use std::net::IpAddr;

use super::endpoint::EndpointRecord;
use super::error::NetworkError;
use super::record::{Addressing, Network, NetworkRange};

/// An address of each range: the asked-for one, else the first that nobody has.
pub(super) fn allocate(
    network: &Network,
    others: &[EndpointRecord],
    asked: &[IpAddr],
) -> Result<Vec<IpAddr>, NetworkError> {
    let ranges = &network.ranges;
    if !asked.is_empty() && network.addressing == Addressing::Automatic {
        return Err(NetworkError::NotConfigured);
    }
    if let Some(stray) = asked.iter().find(|address| !ranges.iter().any(|range| range.subnet.contains(**address))) {
        return Err(NetworkError::OutsideSubnet { address: *stray });
    }
    let free = |address: IpAddr| {
        !others.iter().any(|other| other.addresses.contains(&address))
            && !network.reserved.values().any(|other| *other == address)
    };
    let of = |range: &NetworkRange| {
        if let Some(asked) = asked.iter().find(|address| range.subnet.contains(**address)) {
            let taken = NetworkError::AddressTaken { address: *asked };
            return if usable(range, *asked) && free(*asked) { Ok(*asked) } else { Err(taken) };
        }
        let pool = range.pool.unwrap_or(range.subnet);
        let mut candidates = (0..).map_while(|offset| pool.nth(offset));
        let found = candidates.find(|address| usable(range, *address) && free(*address));
        found.ok_or(NetworkError::Full { subnet: pool })
    };
    ranges.iter().map(of).collect()
}

/// Whether a container may have the address.
fn usable(range: &NetworkRange, address: IpAddr) -> bool {
    range.has_host(address) && address != range.gateway
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::record::NetworkRange;
    use crate::network::record::tests::sample;

    fn range(text: &str) -> NetworkRange {
        NetworkRange::of(text.parse().unwrap()).unwrap()
    }

    fn with(addresses: &[&str]) -> EndpointRecord {
        EndpointRecord {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..EndpointRecord::default()
        }
    }

    #[test]
    fn the_first_free_address_is_taken() {
        let ranges = [range("10.0.0.0/29"), range("fd00::/64")];
        let network = Network { ranges: ranges.to_vec(), addressing: Addressing::Chosen, ..sample() };
        let shown = |others: &[EndpointRecord], asked: &[&str]| {
            let asked: Vec<IpAddr> = asked.iter().map(|a| a.parse().unwrap()).collect();
            match allocate(&network, others, &asked) {
                Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(shown(&[], &[]), "10.0.0.2 fd00::2");
        assert_eq!(shown(&[with(&["10.0.0.2", "fd00::3"])], &[]), "10.0.0.3 fd00::2");
        assert_eq!(shown(&[], &["10.0.0.5"]), "10.0.0.5 fd00::2");
        assert_eq!(shown(&[with(&["10.0.0.5"])], &["10.0.0.5"]), "address already in use: 10.0.0.5");
        for never in ["10.0.0.0", "10.0.0.1", "10.0.0.7"] {
            assert_eq!(shown(&[], &[never]), format!("address already in use: {never}"));
        }
        assert_eq!(shown(&[], &["10.0.1.5"]), "the address 10.0.1.5 is in no subnet of the network");
        let all = with(&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(shown(&[all], &[]), "no address of 10.0.0.0/29 is free");
    }
    #[test]
    fn chosen_addresses_need_a_chosen_subnet_and_pools_and_others_are_kept_to() {
        let mut network = Network { ranges: vec![range("10.0.0.0/24")], ..sample() };
        let asked = ["10.0.0.9".parse().unwrap()];
        assert!(matches!(allocate(&network, &[], &asked), Err(NetworkError::NotConfigured)));
        network.addressing = Addressing::Chosen;
        assert_eq!(allocate(&network, &[], &asked).unwrap(), asked);
        network.ranges[0].pool = Some("10.0.0.128/30".parse().unwrap());
        network.reserved.insert("router".to_owned(), "10.0.0.128".parse().unwrap());
        let next = |others: &[EndpointRecord]| allocate(&network, others, &[]).map(|found| found[0].to_string());
        assert_eq!(next(&[]).unwrap(), "10.0.0.129");
        assert_eq!(next(&[with(&["10.0.0.129"]), with(&["10.0.0.130"])]).unwrap(), "10.0.0.131");
        let all = with(&["10.0.0.129", "10.0.0.130", "10.0.0.131"]);
        assert!(matches!(next(&[all]), Err(NetworkError::Full { .. })));
        // In a range this wide nothing is counted out.
        network.ranges = vec![range("fd00::/64")];
        let far = ["fd00::ffff:ffff:ffff:ffff".parse().unwrap()];
        assert_eq!(allocate(&network, &[], &far).unwrap(), far);
    }
}
