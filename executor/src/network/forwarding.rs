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
    let listed = firewall::chains()?;
    for chain in forwarding_chains(&listed) {
        // What happens to packets that a chain names is told by its table only.
        let table = firewall::table(&chain.family, &chain.table)?;
        if let Some(obstacle) = chain.refuses(&table) {
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

/// A chain of somebody's that forwarded IPv4 packets pass.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
    drops: bool,
}

/// All chains that forwarded IPv4 packets pass, but ours.
fn forwarding_chains(listed: &[u8]) -> Vec<Chain> {
    let listed: Value = serde_json::from_slice(listed).unwrap_or_default();
    let text = |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|item| item.get("chain"))
        .filter(|chain| text(chain, "hook") == "forward")
        .map(|chain| Chain {
            family: text(chain, "family"),
            table: text(chain, "table"),
            name: text(chain, "name"),
            drops: text(chain, "policy") == "drop",
        })
        .filter(|chain| ["ip", "inet"].contains(&chain.family.as_str()) && !chain.table.starts_with(OUR_TABLES))
        .collect()
}

impl Chain {
    /// What it does to packets of ours, by the listing of its table. One that has rules about interfaces of ours was told
    /// what to do by somebody who knew.
    fn refuses(&self, table: &[u8]) -> Option<Obstacle> {
        let listed: Value = serde_json::from_slice(table).unwrap_or_default();
        let all = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
        let rules: Vec<&Value> = all.filter_map(|item| item.get("rule")).collect();
        if rules.iter().filter_map(|rule| rule.get("expr")).any(names_ours) {
            return None;
        }
        let (table, chain) = (format!("{} {}", self.family, self.table), self.name.clone());
        if self.drops {
            return Some(Obstacle::Policy { table, chain });
        }
        let own = |rule: &&&Value| rule.get("chain").and_then(Value::as_str) == Some(&self.name);
        let last = rules.iter().rev().find(own)?;
        let parts = last.get("expr")?.as_array()?;
        let harmless = ["counter", "log"];
        let ends = ["reject", "drop"];
        let is = |part: &Value, names: &[&str]| names.iter().any(|name| part.get(name).is_some());
        let unconditional = parts.iter().all(|part| is(part, &harmless) || is(part, &ends));
        (unconditional && parts.iter().any(|part| is(part, &ends))).then_some(Obstacle::Rule { table, chain })
    }
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

    fn chain(drops: bool) -> Chain {
        Chain { family: "inet".into(), table: "firewalld".into(), name: "filter_FORWARD".into(), drops }
    }

    #[test]
    fn chains_of_others_that_forwarded_packets_pass_are_found() {
        let listed = |chain: &str| format!(r#"{{"nftables":[{{"metainfo":{{"version":"1"}}}},{{"chain":{chain}}}]}}"#);
        let text = r#"{"family":"ip","table":"filter","name":"FORWARD","handle":2,"type":"filter","hook":"forward","prio":0,"policy":"drop"}"#;
        let found = forwarding_chains(listed(text).as_bytes());
        let want = Chain { family: "ip".into(), table: "filter".into(), name: "FORWARD".into(), drops: true };
        assert_eq!(found, [want]);
        assert!(!forwarding_chains(listed(&text.replace("drop", "accept")).as_bytes())[0].drops);
        for other in ["\"input\"", "\"output\""] {
            assert_eq!(forwarding_chains(listed(&text.replace("\"forward\"", other)).as_bytes()), []);
        }
        assert_eq!(
            forwarding_chains(listed(&text.replace("\"filter\",\"name", "\"rbuild-1234\",\"name")).as_bytes()),
            []
        );
        assert_eq!(forwarding_chains(b"not json"), []);
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
            chain(drops).refuses(table(&rules).as_bytes())
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
}
