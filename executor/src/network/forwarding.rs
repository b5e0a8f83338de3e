//! Whether this host passes on the packets of a bridge of ours. What would have to change is not ours to change; it is
//! named, so that somebody can, or another way out is taken.

use std::fs;
use std::io;

use serde_json::Value;

use super::firewall::{self, FirewallError};
use super::netlink::Netlink;
use super::nftables::{self, ForwardChain};

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
    /// Somebody's filter refuses what none of its rules accepts, as firewalld's does.
    #[error(
        "the firewall refuses what is forwarded (last rule of chain {chain} in table {table}): accept packets from and \
         to the interfaces rb-*"
    )]
    Rule {
        /// The table with its family, e.g. `inet firewalld`.
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
    let chains = nftables::forward_chains().map_err(FirewallError::Kernel)?;
    for chain in chains.iter().filter(|chain| !chain.table.starts_with(OUR_TABLES)) {
        // What happens to packets that a chain names is told by its table only.
        let table = firewall::table(chain.family, &chain.table)?;
        if let Some(obstacle) = refuses(chain, &table) {
            return Ok(Some(obstacle));
        }
    }
    Ok(None)
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

/// What it does to packets of ours, by the listing of its table. One that has rules about interfaces of ours was told
/// what to do by somebody who knew.
fn refuses(chain: &ForwardChain, table: &[u8]) -> Option<Obstacle> {
    let listed: Value = serde_json::from_slice(table).unwrap_or_default();
    let all = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let rules: Vec<&Value> = all.filter_map(|item| item.get("rule")).collect();
    if rules.iter().filter_map(|rule| rule.get("expr")).any(names_ours) {
        return None;
    }
    let (table, name) = (format!("{} {}", chain.family, chain.table), chain.name.clone());
    if chain.drops {
        return Some(Obstacle::Policy { table, chain: name });
    }
    let own = |rule: &&&Value| rule.get("chain").and_then(Value::as_str) == Some(&chain.name);
    let last = rules.iter().rev().find(own)?;
    let parts = last.get("expr")?.as_array()?;
    let harmless = ["counter", "log"];
    let ends = ["reject", "drop"];
    let is = |part: &Value, names: &[&str]| names.iter().any(|name| part.get(name).is_some());
    let unconditional = parts.iter().all(|part| is(part, &harmless) || is(part, &ends));
    (unconditional && parts.iter().any(|part| is(part, &ends))).then_some(Obstacle::Rule { table, chain: name })
}

/// What the names of our interfaces begin with.
const OUR_INTERFACES: &str = "rb-";
/// What the names of our tables begin with.
const OUR_TABLES: &str = "rbuild-";

/// Whether an interface of ours is compared with somewhere in a rule.
fn names_ours(rule: &Value) -> bool {
    match rule {
        Value::String(text) => text.starts_with(OUR_INTERFACES),
        Value::Array(all) => all.iter().any(names_ours),
        Value::Object(all) => all.values().any(names_ours),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(drops: bool) -> ForwardChain {
        ForwardChain { family: "inet", table: "firewalld".into(), name: "filter_FORWARD".into(), drops }
    }

    #[test]
    fn a_last_rule_that_rejects_everything_is_an_obstacle_unless_ours_are_named() {
        let table = |rules: &str| format!(r#"{{"nftables":[{{"table":{{"family":"inet"}}}}{rules}]}}"#);
        let rule = |expr: &str| {
            format!(
                r#",{{"rule":{{"family":"inet","table":"firewalld","chain":"filter_FORWARD","handle":9,"expr":[{expr}]}}}}"#
            )
        };
        let established =
            rule(r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established"]}},{"accept":null}"#);
        let reject = rule(r#"{"reject":{"type":"icmpx","expr":"admin-prohibited"}}"#);
        let counted = rule(r#"{"counter":{"packets":1,"bytes":2}},{"drop":null}"#);
        let ours = rule(r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"rb-*"}},{"accept":null}"#);
        let obstacle = Obstacle::Rule { table: "inet firewalld".into(), chain: "filter_FORWARD".into() };
        let judge = |drops, rules: &[&String]| {
            let rules: String = rules.iter().map(|rule| rule.as_str()).collect();
            refuses(&chain(drops), table(&rules).as_bytes())
        };
        assert_eq!(judge(false, &[&established, &reject]), Some(obstacle.clone()));
        assert_eq!(judge(false, &[&established, &counted]), Some(obstacle));
        assert_eq!(judge(false, &[&reject, &established]), None, "it is not the last one");
        assert_eq!(judge(false, &[&established]), None);
        assert_eq!(judge(false, &[&ours, &reject]), None);
        assert_eq!(judge(true, &[&ours]), None);
        let policy = Obstacle::Policy { table: "inet firewalld".into(), chain: "filter_FORWARD".into() };
        assert_eq!(judge(true, &[&established]), Some(policy));
    }

    #[test]
    fn obstacles_say_how_they_are_removed() {
        let (table, chain) = (|| "ip filter".to_owned(), || "FORWARD".to_owned());
        for (obstacle, words) in [
            (
                Obstacle::Sysctl { interface: "eth0".into() },
                "forwarding is off for the interface eth0: allow it with sysctl -w net.ipv4.ip_forward=1",
            ),
            (
                Obstacle::Policy { table: table(), chain: chain() },
                "the firewall drops what is forwarded (policy of chain FORWARD in table ip filter): accept packets from and to the interfaces rb-*",
            ),
            (
                Obstacle::Rule { table: table(), chain: chain() },
                "the firewall refuses what is forwarded (last rule of chain FORWARD in table ip filter): accept packets from and to the interfaces rb-*",
            ),
        ] {
            assert_eq!(obstacle.to_string(), words);
        }
    }
}
