//! `network inspect`: Docker's document.

use std::collections::BTreeMap;

use rbuild_container::{EndpointRecord, Network, NetworkError, NetworkRange, Networks, Purpose};
use rbuild_executor::network::firewall::Reach;
use serde_json::{Map, Value, json};

use crate::cli::inspect;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `network inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// json, or a template, e.g. {{.Name}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Accepted for Docker's sake: everything is shown
    #[arg(short, long)]
    verbose: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Runs it.
pub(super) fn execute(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    let networks = super::networks_of(engine)?;
    inspect::show(&args.networks, args.format.as_deref(), |text| Ok((document(&networks, text)?, None)))
}

/// The document of a network, if there is one of that name.
pub(in crate::cli) fn find(text: &str, engine: &Engine) -> Result<Option<Value>, Failure> {
    match document(&super::networks_of(engine)?, text) {
        Ok(found) => Ok(Some(found)),
        Err(NetworkError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn document(networks: &Networks, text: &str) -> Result<Value, NetworkError> {
    let network = networks.find(text)?;
    let endpoints = if network.ranges.is_empty() { Vec::new() } else { networks.endpoints(&network.id)? };
    Ok(details(&network, &endpoints))
}

fn details(network: &Network, endpoints: &[EndpointRecord]) -> Value {
    let mut options: BTreeMap<String, String> = network.options.clone().into();
    if network.purpose == Purpose::Default {
        let bridge = network.bridge();
        let own = [
            ("bridge.default_bridge", "true"),
            ("bridge.enable_icc", "true"),
            ("bridge.enable_ip_masquerade", "true"),
            ("bridge.host_binding_ipv4", "0.0.0.0"),
            ("bridge.name", &bridge),
            ("driver.mtu", "1500"),
        ];
        options.extend(own.map(|(key, value)| (format!("com.docker.network.{key}"), value.to_owned())));
    }
    let ranges: Vec<Value> = network.ranges.iter().map(|range| config(network, range)).collect();
    json!({
        "Name": network.name,
        "Id": network.id.as_str(),
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": network.purpose.driver(),
        "EnableIPv4": true,
        "EnableIPv6": network.has_ipv6(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": ranges },
        "Internal": network.reach == Reach::Internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers(network, endpoints),
        "Options": options,
        "Labels": network.labels,
    })
}

fn config(network: &Network, range: &NetworkRange) -> Value {
    let mut config = Map::new();
    config.insert("Subnet".to_owned(), json!(range.subnet));
    if let Some(pool) = range.pool {
        config.insert("IPRange".to_owned(), json!(pool));
    }
    config.insert("Gateway".to_owned(), json!(range.gateway));
    let others: BTreeMap<_, _> =
        network.reserved.iter().filter(|(_, address)| range.subnet.contains(**address)).collect();
    if !others.is_empty() {
        config.insert("AuxiliaryAddresses".to_owned(), json!(others));
    }
    Value::Object(config)
}

fn containers(network: &Network, endpoints: &[EndpointRecord]) -> Value {
    let mut all = BTreeMap::new();
    for endpoint in endpoints {
        let Some(container) = &endpoint.container else { continue };
        let address = |ipv6: bool| {
            let mut own = endpoint.addresses.iter().zip(&network.ranges);
            let found = own.find(|(address, _)| address.is_ipv6() == ipv6);
            found.map(|(address, range)| format!("{address}/{}", range.subnet.prefix())).unwrap_or_default()
        };
        all.insert(
            container.id.clone(),
            json!({
                "Name": container.name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                "IPv4Address": address(false),
                "IPv6Address": address(true),
            }),
        );
    }
    json!(all)
}
