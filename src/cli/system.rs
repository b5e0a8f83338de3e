//! `info`, `version`, and `system …`.

mod boot;
mod df;
mod prune;
mod service;

use clap::Subcommand;
use rbuild_container::ContainerStatus;
use rbuild_executor::{CgroupVersion, HostSupport};
use rbuild_image::Platform;
use serde_json::{Value, json};

use super::VERSION;
use super::go_template::Template;
use super::report::{self, Failure, printable};
use super::run::{EventsArgs, containers_of, events};
use super::table::binary_size;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, ImageFilter};

/// `rbuild system …`.
#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
    /// Show how much space is used
    Df(df::DfArgs),
    /// Show what happens to containers
    Events(EventsArgs),
    /// Show what this rbuild works with
    Info(InfoArgs),
    /// Remove what is not used: containers, networks, images, cache and, if asked, volumes
    Prune(prune::PruneArgs),
    /// Show the systemd unit that starts containers with the machine; write it, or remove it
    Service(service::ServiceArgs),
    /// Start the containers whose restart policy says so, once after the machine came up
    StartContainers(boot::StartArgs),
    /// Stop all containers because the machine goes down; those whose policy says so come up with it again
    StopContainers(boot::StopArgs),
}

/// Runs `rbuild system …`.
pub(super) fn execute(command: &SystemCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        SystemCommand::Df(args) => df::df(args, engine),
        SystemCommand::Events(args) => events(args, engine),
        SystemCommand::Info(args) => info(args, engine),
        SystemCommand::Prune(args) => prune::prune(args, engine),
        SystemCommand::Service(args) => service::service(args, engine),
        SystemCommand::StartContainers(args) => boot::start(args, engine),
        SystemCommand::StopContainers(args) => boot::stop(args, engine),
    }
}

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub(super) struct InfoArgs {
    /// json, or what a Go template makes of it: '{{.ContainersRunning}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs `info`.
pub(super) fn info(args: &InfoArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?.list()?.containers;
    let count = |status: ContainerStatus| containers.iter().filter(|record| record.state.status == status).count();
    let (running, paused) = (count(ContainerStatus::Running), count(ContainerStatus::Paused));
    let uname = rustix::system::uname();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let support = HostSupport::probe();
    let keeping = engine.store()?.snapshots().keeping()?;
    let facts = json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": image_names::list(engine.store()?, &ImageFilter::default())?.len(),
        "Driver": keeping.kind,
        "DriverStatus": [["Why", keeping.why.to_string()]],
        "LoggingDriver": "json-file",
        "CgroupVersion": match support.cgroup {
            CgroupVersion::V1 => "1",
            CgroupVersion::V2 => "2",
            CgroupVersion::None => "",
        },
        "KernelVersion": uname.release().to_string_lossy(),
        "OSType": "linux",
        "Architecture": Platform::host().architecture.to_string(),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": total.unwrap_or(0) * 1024,
        "Name": uname.nodename().to_string_lossy(),
        "DockerRootDir": engine.settings().root.to_string_lossy(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Rootless": engine.settings().user_namespace.is_some(),
    });
    let text = match args.format.as_deref() {
        Some("json") => format!("{facts}\n"),
        Some(template) => format!("{}\n", Template::for_inspect(template)?.render(&facts)?),
        None => described(&facts),
    };
    report::answer(&printable(&text))?;
    Ok(Exit::Success)
}

fn described(facts: &Value) -> String {
    let text = |name: &str| match &facts[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = binary_size(facts["MemTotal"].as_u64().unwrap_or(0));
    [
        format!("Containers: {}", text("Containers")),
        format!(" Running: {}", text("ContainersRunning")),
        format!(" Paused: {}", text("ContainersPaused")),
        format!(" Stopped: {}", text("ContainersStopped")),
        format!("Images: {}", text("Images")),
        format!("Version: {}", text("ServerVersion")),
        format!("Storage Driver: {}", text("Driver")),
        format!(" Why: {}", facts["DriverStatus"][0][1].as_str().unwrap_or_default()),
        format!("Logging Driver: {}", text("LoggingDriver")),
        format!("Cgroup Version: {}", text("CgroupVersion")),
        format!("Kernel Version: {}", text("KernelVersion")),
        format!("Architecture: {}", text("Architecture")),
        format!("CPUs: {}", text("NCPU")),
        format!("Total Memory: {memory}"),
        format!("Name: {}", text("Name")),
        format!("Rootless: {}", text("Rootless")),
        format!("Root Dir: {}", text("DockerRootDir")),
    ]
    .map(|line| line + "\n")
    .concat()
}

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub(super) struct VersionArgs {
    /// json, or what a Go template makes of it: '{{.Version}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs `version`; there is one program, which is client and server in one.
pub(super) fn version(args: &VersionArgs) -> Result<Exit, Failure> {
    let own = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "GitCommit": env!("RBUILD_COMMIT"),
        "Os": "linux",
        "Arch": Platform::host().architecture.to_string(),
        "KernelVersion": rustix::system::uname().release().to_string_lossy(),
    });
    let mut document = own.clone();
    if let Value::Object(fields) = &mut document {
        fields.insert("Client".to_owned(), own.clone());
        fields.insert("Server".to_owned(), own);
    }
    let text = match args.format.as_deref() {
        None => format!("rbuild {VERSION}\n"),
        Some("json") => format!("{document}\n"),
        Some(template) => format!("{}\n", Template::for_inspect(template)?.render(&document)?),
    };
    report::answer(&printable(&text))?;
    Ok(Exit::Success)
}
