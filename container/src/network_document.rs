//! `NetworkSettings` of `inspect`, in Docker's form. Pure: the record says everything.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::network::{Connection, EndpointSettings, NetworkChoice};
use crate::record::ContainerRecord;

impl ContainerRecord {
    /// Networks, addresses and ports; those of a container that does not run are empty.
    pub fn network_settings(&self) -> Value {
        let state = &self.state.network;
        let default = state.connections.iter().find(|one| one.network == NetworkChoice::Default.name());
        let mut networks = Map::new();
        for settings in self.config.endpoints() {
            let found = state
                .connections
                .iter()
                .find(|one| one.network == settings.network || one.id.as_str().starts_with(&settings.network));
            let name = found.map_or(&settings.network, |one| &one.network).clone();
            networks.insert(name, endpoint(&settings, found));
        }
        if networks.is_empty()
            && let NetworkChoice::Host | NetworkChoice::None = self.config.network
        {
            let mode = self.config.network.name();
            let settings = EndpointSettings { network: mode.to_owned(), ..EndpointSettings::default() };
            networks.insert(mode.to_owned(), endpoint(&settings, None));
        }
        let mut document = json!({
            "Bridge": "",
            "SandboxID": "",
            "SandboxKey": self.state.process.map(|process| format!("/proc/{}/ns/net", process.pid)).unwrap_or_default(),
            "Ports": self.ports_document(),
            "HairpinMode": false,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": null,
            "SecondaryIPv6Addresses": null,
        });
        if let Value::Object(fields) = &mut document {
            fields.extend(addresses(default));
            fields.insert("Networks".to_owned(), Value::Object(networks));
        }
        document
    }

    /// Published ports with where they are, declared ones with nothing.
    fn ports_document(&self) -> Value {
        let state = &self.state.network;
        let mut ports = Map::new();
        if state.connections.is_empty() && state.ports.is_empty() {
            return Value::Object(ports);
        }
        for declared in &self.config.exposed_ports {
            ports.insert(declared.clone(), Value::Null);
        }
        let mut published = state.ports.clone();
        published.sort_unstable();
        for port in published {
            let of = ports.entry(format!("{}/{}", port.inside, port.protocol.name())).or_insert(Value::Null);
            let one = json!({ "HostIp": port.host.ip().to_string(), "HostPort": port.host.port().to_string() });
            match of {
                Value::Array(all) => all.push(one),
                other => *other = Value::Array(vec![one]),
            }
        }
        Value::Object(ports)
    }
}

/// Addresses of a connection under Docker's names.
fn addresses(connection: Option<&Connection>) -> Map<String, Value> {
    let of = |ipv6: bool| {
        connection.and_then(|one| {
            let mut all = one.addresses.iter().zip(&one.prefixes).zip(&one.gateways);
            all.find(|((address, _), _)| address.is_ipv6() == ipv6)
        })
    };
    let text = |address: Option<&IpAddr>| address.map(ToString::to_string).unwrap_or_default();
    let (four, six) = (of(false), of(true));
    let document = json!({
        "EndpointID": connection.map(|one| one.endpoint.as_str()).unwrap_or_default(),
        "Gateway": text(four.map(|(_, gateway)| gateway)),
        "GlobalIPv6Address": text(six.map(|((address, _), _)| address)),
        "GlobalIPv6PrefixLen": six.map_or(0, |((_, prefix), _)| *prefix),
        "IPAddress": text(four.map(|((address, _), _)| address)),
        "IPPrefixLen": four.map_or(0, |((_, prefix), _)| *prefix),
        "IPv6Gateway": text(six.map(|(_, gateway)| gateway)),
        "MacAddress": connection.and_then(|one| one.mac).map(|mac| mac.to_string()).unwrap_or_default(),
    });
    match document {
        Value::Object(fields) => fields,
        _ => unreachable!("it was written as an object"),
    }
}

fn endpoint(settings: &EndpointSettings, connection: Option<&Connection>) -> Value {
    let asked = |ipv6: bool| settings.addresses.iter().find(|one| one.is_ipv6() == ipv6).map(ToString::to_string);
    let mut ipam = Map::new();
    ipam.extend(asked(false).map(|address| ("IPv4Address".to_owned(), json!(address))));
    ipam.extend(asked(true).map(|address| ("IPv6Address".to_owned(), json!(address))));
    let mut fields = Map::new();
    let list = |all: &[String]| if all.is_empty() { Value::Null } else { json!(all) };
    fields.insert("IPAMConfig".to_owned(), if ipam.is_empty() { Value::Null } else { Value::Object(ipam) });
    fields.insert("Links".to_owned(), Value::Null);
    fields.insert("Aliases".to_owned(), list(&settings.aliases));
    fields.insert("DriverOpts".to_owned(), Value::Null);
    fields.insert("GwPriority".to_owned(), json!(settings.gateway_priority));
    fields.insert("NetworkID".to_owned(), json!(connection.map(|one| one.id.as_str()).unwrap_or_default()));
    fields.extend(addresses(connection));
    fields.insert("DNSNames".to_owned(), list(connection.map_or(&[], |one| &one.names)));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::PublishedPort;
    use crate::record::tests::sample;

    #[test]
    fn the_document_is_dockers() {
        let mut record = sample("web");
        record.config.network = NetworkChoice::Default;
        record.config.networks = None;
        let quiet = record.network_settings();
        assert_eq!((&quiet["Ports"], &quiet["IPAddress"]), (&json!({}), &json!("")));
        assert_eq!(quiet["Networks"]["bridge"]["IPPrefixLen"], 0);
        let connection = json!({"network": "bridge", "id": "ab".repeat(32), "endpoint": "e1", "addresses": ["172.24.0.2"],
            "prefixes": [22], "gateways": ["172.24.0.1"], "mac": "02:42:ac:18:00:02", "names": ["web"]});
        record.state.network.connections = vec![serde_json::from_value(connection).unwrap()];
        let published = |host: &str| PublishedPort {
            inside: 80,
            protocol: rbuild_executor::network::firewall::Protocol::Tcp,
            host: host.parse().unwrap(),
        };
        record.state.network.ports = vec![published("[::]:8080"), published("0.0.0.0:8080")];
        record.config.exposed_ports = ["443/tcp".to_owned()].into();
        let shown = record.network_settings();
        assert_eq!(
            shown["Ports"],
            json!({"443/tcp": null, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]})
        );
        for at in [&shown, &shown["Networks"]["bridge"]] {
            assert_eq!((&at["IPAddress"], &at["IPPrefixLen"]), (&json!("172.24.0.2"), &json!(22)));
            assert_eq!((&at["Gateway"], &at["MacAddress"]), (&json!("172.24.0.1"), &json!("02:42:ac:18:00:02")));
        }
    }
}
