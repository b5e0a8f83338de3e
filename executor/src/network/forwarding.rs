//! Whether this host passes on the packets of a bridge of ours. What would have to change is not ours to change; it is
//! named, so that somebody can, or another way out is taken.

use std::fs;
use std::io;

use serde_json::Value;

use super::firewall::{self, FirewallError};
use super::netlink::Netlink;

/// What keeps packets from being passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The kernel is not to forward what arrives at an interface.
    #[error("forwarding is off for the interface {interface}: allow it with sysctl -w net.ipv4.ip_forward=1")]
    Sysctl {
        /// The interface: a bridge of ours, or the one that the default route leads to.
        interface: String,
    },
    /// Somebody's filter drops what it does not name.
    #[error(
        "the firewall drops what is forwarded (policy of chain {chain} in table {table}): accept packets from and to the interfaces rb-*"
    )]
    Policy {
        /// The table with its family, e.g. `ip filter`.
        table: String,
        /// The chain.
        chain: String,
    },
}

/// Looks for what keeps the packets of `bridge` from being passed on. IPv4 only: everybody has that.
pub fn obstacle(bridge: &str) -> Result<Option<Obstacle>, FirewallError> {
    let mut interfaces = vec![bridge.to_owned()];
    interfaces.extend(uplinks().map_err(FirewallError::Run)?);
    for interface in interfaces {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
        let off = fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0");
        // A bridge of ours is ours to set; that of others is not.
        if off && !(interface == bridge && fs::write(&path, "1").is_ok()) {
            return Ok(Some(Obstacle::Sysctl { interface }));
        }
    }
    let listed = firewall::chains()?;
    Ok(dropping_chain(&listed))
}

/// Interfaces that default routes leave by; what comes back comes in there.
fn uplinks() -> io::Result<Vec<String>> {
    let mut netlink = Netlink::open()?;
    let routes = netlink.routes()?;
    let links = netlink.links()?;
    let mut names: Vec<String> = routes
        .iter()
        .filter(|route| route.to.is_none())
        .filter_map(|route| links.iter().find(|link| Some(link.index) == route.link))
        .map(|link| link.name.clone())
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The first chain for forwarded IPv4 packets that drops what none of its rules accepts.
fn dropping_chain(listed: &[u8]) -> Option<Obstacle> {
    let listed: Value = serde_json::from_slice(listed).ok()?;
    let chains = listed.get("nftables")?.as_array()?.iter().filter_map(|item| item.get("chain"));
    let text = |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut dropping = chains.filter(|chain| {
        text(chain, "hook") == "forward"
            && text(chain, "policy") == "drop"
            && ["ip", "inet"].contains(&text(chain, "family").as_str())
    });
    dropping.next().map(|chain| Obstacle::Policy {
        table: format!("{} {}", text(chain, "family"), text(chain, "table")),
        chain: text(chain, "name"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_drop_for_forwarded_packets_is_an_obstacle() {
        let listed =
            |chain: &str| format!(r#"{{"nftables":[{{"metainfo":{{"version":"1.0.6"}}}},{{"chain":{chain}}}]}}"#);
        let chain = r#"{"family":"ip","table":"filter","name":"FORWARD","handle":2,"type":"filter","hook":"forward","prio":0,"policy":"POLICY"}"#;
        let found = dropping_chain(listed(&chain.replace("POLICY", "drop")).as_bytes()).unwrap();
        assert_eq!(found, Obstacle::Policy { table: "ip filter".into(), chain: "FORWARD".into() });
        assert_eq!(dropping_chain(listed(&chain.replace("POLICY", "accept")).as_bytes()), None);
        let input = chain.replace("POLICY", "drop").replace("\"forward\"", "\"input\"");
        assert_eq!(dropping_chain(listed(&input).as_bytes()), None);
        assert_eq!(dropping_chain(b"not json"), None);
    }
}
