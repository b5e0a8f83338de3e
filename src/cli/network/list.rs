//! `network ls`: Docker's columns and fields.

use rbuild_container::Network;
use rbuild_executor::network::firewall::Reach;
use serde_json::{Map, Value, json};

use super::Condition;
use crate::cli::go_template::LABELS;
use crate::cli::list_format::{self, Format};
use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::cli::table::Table;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `network ls`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only what matches: dangling, driver, id, label, name, scope, type=builtin|custom
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json, or a template, e.g. {{.Name}}
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// Runs it.
pub(super) fn execute(args: &LsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let conditions = args.filter.iter().map(|text| Condition::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let format: Format = args.format.parse()?;
    let mut networks = super::known(&super::networks_of(engine)?)?;
    let asks_who = conditions.iter().any(|one| matches!(one, Condition::Dangling(_)));
    let containers = if asks_who { containers_of(engine)?.list()?.containers } else { Vec::new() };
    networks.retain(|network| {
        let used = super::is_used(network, &containers);
        // Of one key any may hold, of several keys all must, as in Docker.
        let kinds: Vec<_> = conditions.iter().map(std::mem::discriminant).collect();
        kinds.iter().all(|kind| {
            let mut alike = conditions.iter().filter(|one| std::mem::discriminant(*one) == *kind);
            match alike.clone().next() {
                Some(Condition::Label { .. }) => alike.all(|one| one.holds(network, used)),
                _ => alike.any(|one| one.holds(network, used)),
            }
        })
    });
    let id = |network: &Network| if args.no_trunc { network.id.to_string() } else { network.id.short().to_owned() };
    if args.quiet {
        report::answer(&networks.iter().map(|network| format!("{}\n", id(network))).collect::<String>())?;
        return Ok(Exit::Success);
    }
    let rows: Vec<Map<String, Value>> = networks.iter().map(|network| fields(network, id(network))).collect();
    let table = || {
        let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]).docker();
        for network in &networks {
            let driver = network.purpose.driver().to_owned();
            table.row([id(network), network.name.clone(), driver, "local".to_owned()]);
        }
        table.render()
    };
    report::answer(&list_format::render(&format, &rows, table)?)?;
    Ok(Exit::Success)
}

fn fields(network: &Network, id: String) -> Map<String, Value> {
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let row = json!({
        "CreatedAt": network.created.to_string(),
        "Driver": network.purpose.driver(),
        "ID": id,
        "IPv4": (!network.ranges.is_empty()).to_string(),
        "IPv6": network.has_ipv6().to_string(),
        "Internal": (network.reach == Reach::Internal).to_string(),
        LABELS: network.labels,
        "Labels": labels.join(","),
        "Name": network.name,
        "Scope": "local",
    });
    match row {
        Value::Object(fields) => fields,
        _ => unreachable!("it was written as an object"),
    }
}
