//! `port`: which ports of this machine lead to a container.

use rbuild_container::PublishedPort;

use super::containers_of;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `port`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PortArgs {
    /// Name, id, or beginning of an id
    container: String,
    /// Only what leads to this port of the container: PORT[/udp]
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Runs `port`.
pub(in crate::cli) fn port(args: &PortArgs, engine: &Engine) -> Result<Exit, Failure> {
    let record = containers_of(engine)?.find(&args.container)?;
    let mut ports = record.state.network.ports.clone();
    ports.sort_unstable();
    let inside = |port: &PublishedPort| format!("{}/{}", port.inside, port.protocol.name());
    let Some(wanted) = &args.port else {
        let lines = ports.iter().map(|port| format!("{} -> {}\n", inside(port), port.host));
        report::answer(&lines.collect::<String>())?;
        return Ok(Exit::Success);
    };
    let full = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let number = full.split('/').next().and_then(|port| port.parse::<u16>().ok());
    if number.is_none() {
        return Err(Failure::new(format!("invalid port {wanted:?}")).with_help("a port is a number, e.g. 80 or 53/udp"));
    }
    let found: String =
        ports.iter().filter(|port| inside(port) == full).map(|port| format!("{}\n", port.host)).collect();
    if found.is_empty() {
        return Err(Failure::new(format!("no public port '{wanted}' published for {}", args.container)));
    }
    report::answer(&found)?;
    Ok(Exit::Success)
}
