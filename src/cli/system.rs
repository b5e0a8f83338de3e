//! `info`, `version`, and `system …`.

use clap::Subcommand;
use rbuild_container::{ContainerStatus, PrunedVolumes};
use rbuild_executor::{CgroupVersion, HostSupport};
use rbuild_image::Platform;
use serde_json::{Map, Value, json};

use super::VERSION;
use super::go_template::Template;
use super::list_format::{Format, Rows, render_as};
use super::report::{self, Failure, printable};
use super::run::{EventsArgs, containers_of, events};
use super::table::{Table, binary_size, size};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, ImageFilter};

/// `rbuild system …`.
#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
    /// Show how much space is used
    Df(DfArgs),
    /// Show what happens to containers
    Events(EventsArgs),
    /// Show what this rbuild works with
    Info(InfoArgs),
    /// Remove containers that do not run and, if asked, volumes that nobody has
    Prune(PruneArgs),
}

/// Runs `rbuild system …`.
pub(super) fn execute(command: &SystemCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        SystemCommand::Df(args) => df(args, engine),
        SystemCommand::Events(args) => events(args, engine),
        SystemCommand::Info(args) => info(args, engine),
        SystemCommand::Prune(args) => prune(args, engine),
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

/// Arguments of `system df`.
#[derive(Debug, clap::Args)]
pub(super) struct DfArgs {
    /// table, json, or what a Go template makes of each: '{{.Type}} {{.Size}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

const DF: Rows = Rows { row_type: "*formatter.diskUsageContext", headings: &[("TotalCount", "TOTAL")] };

fn df(args: &DfArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.parse()?;
    let containers = containers_of(engine)?;
    let records = containers.list()?.containers;
    let images = image_names::list(engine.store()?, &ImageFilter::default())?;
    let (mut image_bytes, mut image_free, mut active) = (0, 0, 0);
    let mut seen = std::collections::BTreeSet::new();
    for image in &images {
        if !seen.insert(image.id.to_string()) {
            continue;
        }
        image_bytes += image.size;
        if records.iter().any(|record| record.image.id.to_string() == image.id.to_string()) {
            active += 1;
        } else {
            image_free += image.size;
        }
    }
    let (mut written, mut written_free, mut live) = (0, 0, 0);
    for record in &records {
        let bytes = containers.written(record)?;
        written += bytes;
        if record.state.status.is_at_rest() { written_free += bytes } else { live += 1 }
    }
    let (mut volumes, mut volumes_free, mut used, mut count) = (0, 0, 0, 0);
    for volume in containers.volumes()? {
        let bytes = containers.volume_size(&volume.name)?;
        (volumes, count) = (volumes + bytes, count + 1);
        if containers.volume_users(&volume.name)?.is_empty() { volumes_free += bytes } else { used += 1 }
    }
    let rows: Vec<Map<String, Value>> = [
        ("Images", seen.len(), active, image_bytes, image_free),
        ("Containers", records.len(), live, written, written_free),
        ("Local Volumes", count, used, volumes, volumes_free),
    ]
    .into_iter()
    .map(|(kind, total, active, bytes, free)| {
        let percent = (free * 100).checked_div(bytes).map_or_else(String::new, |percent| format!(" ({percent}%)"));
        let row = json!({
            "Active": active.to_string(),
            "Reclaimable": format!("{}{percent}", size(free)),
            "Size": size(bytes),
            "TotalCount": total.to_string(),
            "Type": kind,
        });
        match row {
            Value::Object(row) => row,
            _ => unreachable!("written as an object just now"),
        }
    })
    .collect();
    let table = || {
        let mut table = Table::new(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
        for row in &rows {
            let cells = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
            table.row(cells.map(|cell| row[cell].as_str().unwrap_or_default().to_owned()));
        }
        table.render()
    };
    report::answer(&render_as(&format, &DF, &rows, table)?)?;
    report::story("The cache of builds is shown by rbuild cache du.\n");
    Ok(Exit::Success)
}

/// Arguments of `system prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also volumes that nobody has and nobody named
    #[arg(long)]
    volumes: bool,
    /// Do not ask (rbuild never asks; for scripts written for Docker)
    #[arg(short, long)]
    force: bool,
}

fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let lease = engine.store()?.lease("system prune")?;
    let (mut out, mut total) = (String::new(), 0);
    let mut section = |what: &str, removed: Vec<(String, u64)>| {
        total += removed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if !removed.is_empty() {
            let names: String = removed.into_iter().map(|(name, _)| name + "\n").collect();
            out.push_str(&format!("Deleted {what}:\n{names}\n"));
        }
    };
    let removed = containers.prune(&lease)?;
    section("Containers", removed.into_iter().map(|(id, bytes)| (id.to_string(), bytes)).collect());
    if args.volumes {
        let removed = containers.prune_volumes(PrunedVolumes::Anonymous, &lease)?;
        section("Volumes", removed.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect());
    }
    out.push_str(&format!("Total reclaimed space: {}\n", size(total)));
    report::answer(&out)?;
    report::story(
        "Images go by rbuild rmi, networks by rbuild network prune, the cache of builds by rbuild cache prune.\n",
    );
    Ok(Exit::Success)
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
