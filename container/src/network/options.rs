//! Options of the bridge driver: `network create -o KEY=VALUE`, a closed list.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rbuild_executor::network::bridge::Neighbours;
use serde::{Deserialize, Serialize};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const MTU: &str = "com.docker.network.driver.mtu";
/// The kernel's limit for names of interfaces.
const MAX_INTERFACE_NAME: usize = 15;

/// What a network's maker chose of its driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct DriverOptions {
    /// Name of the bridge's interface.
    pub bridge_name: Option<String>,
    /// Whether containers talk to each other; they do.
    pub icc: Option<bool>,
    /// Where ports are published that name no address.
    pub host_binding: Option<IpAddr>,
    /// Whether what leaves the network has the host's address; it does.
    pub masquerade: Option<bool>,
    /// What the names of interfaces in containers begin with; `eth`.
    pub interface_prefix: Option<String>,
    /// The largest packet.
    pub mtu: Option<u32>,
}

/// An option that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDriverOption {
    /// It is not known.
    #[error(
        "the driver option {key} is not supported: known are {BRIDGE_NAME}, {ENABLE_ICC}, {MASQUERADE}, {HOST_BINDING}, {PREFIX} and {MTU}"
    )]
    Unknown {
        /// Which.
        key: String,
    },
    /// Its value makes no sense.
    #[error("invalid value {value:?} of the driver option {key}")]
    Value {
        /// Which.
        key: String,
        /// What was given.
        value: String,
    },
}

impl DriverOptions {
    /// Takes one more option.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), InvalidDriverOption> {
        let invalid = || InvalidDriverOption::Value { key: key.to_owned(), value: value.to_owned() };
        let truth = || match value.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(invalid()),
        };
        match key {
            BRIDGE_NAME => {
                let fits = !value.is_empty()
                    && value.len() <= MAX_INTERFACE_NAME
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
                    && value.bytes().any(|byte| byte != b'.');
                self.bridge_name = Some(fits.then(|| value.to_owned()).ok_or_else(invalid)?);
            }
            ENABLE_ICC => self.icc = Some(truth()?),
            HOST_BINDING => {
                let address: IpAddr = value.parse().map_err(|_| invalid())?;
                self.host_binding = Some(address.is_ipv4().then_some(address).ok_or_else(invalid)?);
            }
            MASQUERADE => self.masquerade = Some(truth()?),
            PREFIX => {
                // With a number behind it.
                let fits = (1..=MAX_INTERFACE_NAME - 3).contains(&value.len())
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
                    && value != "lo";
                self.interface_prefix = Some(fits.then(|| value.to_owned()).ok_or_else(invalid)?);
            }
            MTU => {
                let mtu: u32 = value.parse().map_err(|_| invalid())?;
                self.mtu = Some((68..=65_535).contains(&mtu).then_some(mtu).ok_or_else(invalid)?);
            }
            _ => return Err(InvalidDriverOption::Unknown { key: key.to_owned() }),
        }
        Ok(())
    }

    /// What the names of interfaces in containers begin with.
    pub(crate) fn interface_prefix(&self) -> &str {
        self.interface_prefix.as_deref().unwrap_or("eth")
    }

    /// Whether containers of the network see each other.
    pub(super) fn neighbours(&self) -> Neighbours {
        if self.icc == Some(false) { Neighbours::Unseen } else { Neighbours::Seen }
    }
}

impl TryFrom<BTreeMap<String, String>> for DriverOptions {
    type Error = InvalidDriverOption;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let mut options = Self::default();
        map.iter().try_for_each(|(key, value)| options.set(key, value))?;
        Ok(options)
    }
}

impl From<DriverOptions> for BTreeMap<String, String> {
    fn from(options: DriverOptions) -> Self {
        let DriverOptions { bridge_name, icc, host_binding, masquerade, interface_prefix, mtu } = options;
        let all = [
            (BRIDGE_NAME, bridge_name),
            (ENABLE_ICC, icc.map(|icc| icc.to_string())),
            (HOST_BINDING, host_binding.map(|address| address.to_string())),
            (MASQUERADE, masquerade.map(|on| on.to_string())),
            (PREFIX, interface_prefix),
            (MTU, mtu.map(|mtu| mtu.to_string())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_closed_list() {
        let mut options = DriverOptions::default();
        for (key, value) in [
            (BRIDGE_NAME, "br-web"),
            (ENABLE_ICC, "false"),
            (HOST_BINDING, "127.0.0.1"),
            (MASQUERADE, "false"),
            (PREFIX, "web"),
            (MTU, "1400"),
        ] {
            options.set(key, value).unwrap();
        }
        assert_eq!(options.neighbours(), Neighbours::Unseen);
        let map: BTreeMap<String, String> = options.clone().into();
        assert_eq!(map.len(), 6);
        assert_eq!(DriverOptions::try_from(map), Ok(options));
        for (key, value) in [
            (BRIDGE_NAME, ""),
            (BRIDGE_NAME, "sixteen-bytes-16"),
            (BRIDGE_NAME, "a/b"),
            (BRIDGE_NAME, ".."),
            (MTU, "10"),
            (HOST_BINDING, "::1"),
            (ENABLE_ICC, "maybe"),
            (MASQUERADE, "maybe"),
            (PREFIX, "lo"),
            (PREFIX, "thirteen-long"),
        ] {
            let error = DriverOptions::default().set(key, value).unwrap_err();
            assert!(matches!(error, InvalidDriverOption::Value { .. }), "{key}={value}");
        }
        for (key, value) in [("com.docker.network.bridge.trusted_host_interfaces", "x"), ("foo", "bar")] {
            let error = DriverOptions::default().set(key, value).unwrap_err();
            assert!(matches!(error, InvalidDriverOption::Unknown { .. }), "{key}={value}");
        }
    }
}
