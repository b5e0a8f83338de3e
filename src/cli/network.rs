//! `network …`: networks of the store.

mod create;
mod inspect;
mod list;

pub(super) use inspect::find;

use std::sync::Arc;

use clap::Subcommand;
use jiff::Timestamp;
use rbuild_cache::SystemClock;
use rbuild_container::{
    Attached, ContainerRecord, Containers, EndpointSettings, EventKind, InvalidMacAddress, MacAddress, Network,
    NetworkError, NetworkId, Networks, Purpose, parse_address,
};

use super::confirm::confirmed;
use super::prune_filter::PruneFilter;
use super::report::{self, Failure};
use super::run::{containers_of, matches_name};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::tell_of_prune;
use crate::worker::keep_network;

/// `rbuild network …`.
#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Make a network
    Create(Box<create::CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::LsArgs),
    /// Show networks' details as JSON
    Inspect(inspect::InspectArgs),
    /// Remove networks that no container uses
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all networks that no container uses
    Prune(PruneArgs),
    /// Connect a container to a network
    Connect(ConnectArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
}

/// Arguments of the process that takes down what a build had of a network.
#[derive(Debug, clap::Args)]
pub(super) struct KeeperArgs {
    /// The network
    #[arg(value_name = "ID")]
    id: NetworkId,
}

/// Is that process.
pub(super) fn keep(args: &KeeperArgs, engine: &Engine) -> Result<Exit, Failure> {
    keep_network(&args.id, engine)
}

/// Arguments of `network rm`.
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// A missing network is no failure
    #[arg(short, long)]
    force: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Arguments of `network prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Arguments of `network connect`.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectArgs {
    /// Further name by which others of the network find the container
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// The highest one of a container's networks is its way out
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, default_value_t = 0)]
    gw_priority: i32,
    #[arg(long, hide = true, value_name = "CONTAINER")]
    link: Vec<String>,
    #[arg(long, hide = true, value_name = "ADDRESS")]
    link_local_ip: Vec<String>,
    #[arg(long, hide = true, value_name = "OPTION")]
    driver_opt: Vec<String>,
    /// Name, id, or beginning of an id
    network: String,
    /// Name, id, or beginning of an id
    container: String,
}

/// Arguments of `network disconnect`.
#[derive(Debug, clap::Args)]
pub(super) struct DisconnectArgs {
    /// Accepted for Docker's sake: a container that is gone has left its networks
    #[arg(short, long)]
    force: bool,
    /// Name, id, or beginning of an id
    network: String,
    /// Name, id, or beginning of an id
    container: String,
}

/// Runs `rbuild network …`.
pub(super) fn execute(command: NetworkCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        NetworkCommand::Create(args) => create::execute(*args, engine),
        NetworkCommand::Ls(args) => list::execute(&args, engine),
        NetworkCommand::Inspect(args) => inspect::execute(&args, engine),
        NetworkCommand::Rm(args) => remove(&args, engine),
        NetworkCommand::Prune(args) => prune(&args, engine),
        NetworkCommand::Connect(args) => connect(args, engine),
        NetworkCommand::Disconnect(args) => disconnect(&args, engine),
    }
}

/// The networks of the engine's store. Those that Docker has from the beginning are there afterwards.
fn networks_of(engine: &Engine) -> Result<Networks, Failure> {
    let networks = Networks::new(engine.store()?)?;
    for purpose in [Purpose::Default, Purpose::Host, Purpose::None] {
        networks.of_purpose(purpose, Timestamp::now())?;
    }
    Ok(networks)
}

/// Those that people know: not the one of build steps.
fn known(networks: &Networks) -> Result<Vec<Network>, Failure> {
    Ok(networks.list()?.into_iter().filter(|network| network.purpose != Purpose::Build).collect())
}

fn remove(args: &RmArgs, engine: &Engine) -> Result<Exit, Failure> {
    let networks = networks_of(engine)?;
    let mut exit = Exit::Success;
    for text in &args.networks {
        let removed = networks.find(text).and_then(|network| networks.remove(&network).map(|()| network));
        if let Ok(network) = &removed {
            containers_of(engine)?.tell_of_network("destroy", network, None);
        }
        match removed.map(drop) {
            Err(NetworkError::NotFound { .. }) if args.force => {}
            Ok(()) => report::answer(&format!("{text}\n"))?,
            Err(error) => {
                report::failure(&Failure::from(error), engine.settings());
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filter = PruneFilter::parse(&args.filter, &["until", "label", "label!"], Timestamp::now())?;
    let warning = format!(
        "WARNING! This will remove all custom networks not used by at least one container.{}",
        filter.described()
    );
    if !confirmed(args.force, &warning)? {
        return Ok(Exit::Success);
    }
    let removed = prune_unused(&filter, engine)?;
    tell_of_prune(engine.store()?, EventKind::Network, 0);
    let removed: String = removed.iter().map(|name| format!("{name}\n")).collect();
    if !removed.is_empty() {
        report::answer(&format!("Deleted Networks:\n{removed}\n"))?;
    }
    Ok(Exit::Success)
}

/// Removes the networks that no container has; gives their names.
pub(super) fn prune_unused(filter: &PruneFilter, engine: &Engine) -> Result<Vec<String>, Failure> {
    let networks = networks_of(engine)?;
    // A container that does not run may be started again.
    let containers = containers_of(engine)?.list()?.containers;
    let mut removed = Vec::new();
    for network in known(&networks)? {
        let used = is_used(&network, &containers);
        if network.purpose != Purpose::User || used || !filter.takes(&network.labels, network.created) {
            continue;
        }
        match networks.remove(&network) {
            Ok(()) => {
                containers_of(engine)?.tell_of_network("destroy", &network, None);
                removed.push(network.name);
            }
            // Somebody came, or went.
            Err(NetworkError::InUse { .. } | NetworkError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// Whether a container belongs to a network, running or not.
fn is_used(network: &Network, containers: &[ContainerRecord]) -> bool {
    let wanted = |name: &str| network.name == name || name.len() >= 12 && network.id.as_str().starts_with(name);
    containers.iter().any(|record| record.config.endpoints().iter().any(|one| wanted(&one.network)))
}

fn connect(args: ConnectArgs, engine: &Engine) -> Result<Exit, Failure> {
    for (given, flag, instead) in [
        (!args.link.is_empty(), "--link", "containers of a network find each other by name; use --alias"),
        (!args.link_local_ip.is_empty(), "--link-local-ip", "use --ip or --ip6"),
        (!args.driver_opt.is_empty(), "--driver-opt", "options are the network's: `network create -o`"),
    ] {
        if given {
            return Err(Failure::new(format!("{flag} is not supported")).with_help(instead));
        }
    }
    let mut addresses = Vec::new();
    addresses.extend(args.ip.as_deref().map(|text| parse_address(text, false)).transpose()?);
    addresses.extend(args.ip6.as_deref().map(|text| parse_address(text, true)).transpose()?);
    let mac = args.mac_address.map(|text| text.parse()).transpose().map_err(|error: InvalidMacAddress| error)?;
    let mac: Option<MacAddress> = mac;
    let settings = EndpointSettings {
        network: args.network,
        aliases: args.alias,
        addresses,
        mac,
        gateway_priority: args.gw_priority,
    };
    drop(networks_of(engine)?);
    let containers = Containers::new(engine.store()?.clone(), Arc::new(SystemClock));
    let record = containers.find(&args.container)?;
    let lease = engine.store()?.lease("network connect")?;
    if containers.attach(&record, &settings, &lease)? == Attached::ServedAfterRestart {
        report::story(&format!(
            "warning: the process that runs {} does not answer: ports and names follow when it is started again\n",
            record.name
        ));
    }
    Ok(Exit::Success)
}

fn disconnect(args: &DisconnectArgs, engine: &Engine) -> Result<Exit, Failure> {
    drop(networks_of(engine)?);
    let containers = Containers::new(engine.store()?.clone(), Arc::new(SystemClock));
    containers.detach(&containers.find(&args.container)?, &args.network)?;
    Ok(Exit::Success)
}

/// A `--filter` that networks have to meet.
#[derive(Debug)]
enum Condition {
    Label { present: bool, key: String, value: Option<String> },
    Driver(String),
    Id(String),
    Name(String),
    Scope(String),
    Kind { builtin: bool },
    Dangling(bool),
}

impl Condition {
    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(why, "filters are dangling, driver, id, label, name, scope, type, e.g. label=a=b")
        };
        let (key, value) =
            text.split_once('=').ok_or_else(|| wrong(format!("bad format of filter (expected name=value): {text}")))?;
        Ok(match key {
            "label" | "label!" => {
                let (name, content) =
                    value.split_once('=').map_or((value, None), |(name, content)| (name, Some(content)));
                Self::Label { present: key == "label", key: name.to_owned(), value: content.map(str::to_owned) }
            }
            "driver" => Self::Driver(value.to_owned()),
            "id" => Self::Id(value.to_owned()),
            "name" => Self::Name(value.to_owned()),
            "scope" => Self::Scope(value.to_owned()),
            "type" => match value {
                "builtin" => Self::Kind { builtin: true },
                "custom" => Self::Kind { builtin: false },
                _ => return Err(wrong(format!("invalid filter: 'type'={value:?}"))),
            },
            "dangling" => match value {
                "true" | "1" => Self::Dangling(true),
                "false" | "0" => Self::Dangling(false),
                _ => {
                    let why =
                        "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")";
                    return Err(wrong(why.to_owned()));
                }
            },
            _ => return Err(wrong(format!("invalid filter '{key}'"))),
        })
    }

    /// `used`: some container belongs to it.
    fn holds(&self, network: &Network, used: bool) -> bool {
        match self {
            Self::Dangling(dangling) => (network.purpose == Purpose::User && !used) == *dangling,
            Self::Label { present, key, value } => {
                let has = network.labels.get(key).is_some_and(|own| value.as_ref().is_none_or(|value| own == value));
                has == *present
            }
            Self::Driver(driver) => network.purpose.driver() == driver,
            Self::Id(id) => network.id.as_str().contains(id.as_str()),
            Self::Name(name) => matches_name(name, &network.name),
            Self::Scope(scope) => scope == "local",
            Self::Kind { builtin } => (network.purpose != Purpose::User) == *builtin,
        }
    }
}
