//! `network create`: Docker's flags become a network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use rbuild_container::{DriverOptions, NewNetwork};
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::subnet::Subnet;

use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `network create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild network create front                                a network with a free range of addresses
  rbuild network create --subnet 10.5.0.0/16 --internal back  one without a way out
  rbuild run --network front --network-alias db postgres     a container that others of the network find as db")]
pub(in crate::cli) struct CreateArgs {
    /// Range of addresses, one of each family [default: a free one]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<Subnet>,
    /// This machine's address in a subnet [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of a subnet from which containers get their addresses
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<Subnet>,
    /// Address in a subnet that belongs to another machine
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// IPv6 addresses, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    ipv6: bool,
    /// IPv4 addresses, which networks always have
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    #[arg(action = clap::ArgAction::Set)]
    ipv4: bool,
    /// Label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Option of the driver, e.g. com.docker.network.bridge.name=br-web
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Driver: bridge
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Shown in the details; containers of this machine can always be connected
    #[arg(long)]
    attachable: bool,
    #[arg(long, hide = true)]
    ingress: bool,
    #[arg(long, hide = true)]
    config_only: bool,
    #[arg(long, hide = true, value_name = "NETWORK")]
    config_from: Option<String>,
    #[arg(long, hide = true, value_name = "SCOPE", default_value = "local")]
    scope: String,
    #[arg(long, hide = true, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// Name
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// Runs it.
pub(super) fn execute(args: CreateArgs, engine: &Engine) -> Result<Exit, Failure> {
    let networks = super::networks_of(engine)?;
    let network = networks.create(args.network()?, Timestamp::now())?;
    containers_of(engine)?.tell_of_network("create", &network, None);
    report::answer(&format!("{}\n", network.id))?;
    Ok(Exit::Success)
}

impl CreateArgs {
    fn network(self) -> Result<NewNetwork, Failure> {
        self.refuse()?;
        let mut options = DriverOptions::default();
        for text in &self.opt {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            options.set(key, value)?;
        }
        let mut reserved = BTreeMap::new();
        for text in &self.aux_address {
            let parsed = text.split_once('=').and_then(|(name, address)| Some((name, address.parse::<IpAddr>().ok()?)));
            let (name, address) = parsed
                .ok_or_else(|| Failure::usage(format!("invalid --aux-address {text:?}"), "expected NAME=ADDRESS"))?;
            reserved.insert(name.to_owned(), address);
        }
        let label = |text: &String| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        Ok(NewNetwork {
            name: self.name,
            subnets: self.subnet,
            gateways: self.gateway,
            pools: self.ip_range,
            reserved,
            ipv6: self.ipv6,
            options,
            attachable: self.attachable,
            reach: if self.internal { Reach::Internal } else { Reach::Outside },
            labels: self.label.iter().map(label).collect(),
        })
    }

    /// What only a swarm has, and what containers cannot do without.
    fn refuse(&self) -> Result<(), Failure> {
        if let "host" | "null" = self.driver.as_str() {
            return Err(Failure::new(format!("only one instance of {:?} network is allowed", self.driver)));
        }
        let swarm = "there is no swarm: networks are of this machine";
        let refused = [
            (
                self.driver != "bridge",
                format!("--driver {}", self.driver),
                "the driver is bridge; use `run --network host` or `none`",
            ),
            (self.ingress, "--ingress".to_owned(), swarm),
            (self.config_only, "--config-only".to_owned(), swarm),
            (self.config_from.is_some(), "--config-from".to_owned(), swarm),
            (self.scope != "local", format!("--scope {}", self.scope), swarm),
            (
                self.ipam_driver != "default",
                format!("--ipam-driver {}", self.ipam_driver),
                "addresses are given by rbuild itself",
            ),
            (
                !self.ipam_opt.is_empty(),
                "--ipam-opt".to_owned(),
                "choose addresses with --subnet, --ip-range and --gateway",
            ),
            (!self.ipv4, "--ipv4=false".to_owned(), "networks have IPv4 addresses, and IPv6 ones with --ipv6"),
        ];
        match refused.into_iter().find(|(given, _, _)| *given) {
            Some((_, flag, help)) => Err(Failure::new(format!("{flag} is not supported")).with_help(help)),
            None => Ok(()),
        }
    }
}
