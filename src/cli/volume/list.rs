//! `volume ls`.

use std::collections::BTreeSet;

use rbuild_container::{ContainerMountSource, Containers, Volume, VolumeName};
use serde_json::{Map, Value, json};

use crate::cli::go_template::LABELS;
use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::prune_filter::LabelCondition;
use crate::cli::report::{self, Failure};
use crate::cli::table::{Table, size};
use crate::exit_code::Exit;

/// Arguments of `volume ls`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// Only what matches: dangling=true|false, driver=local, label=KEY[=VALUE], name=PART
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json, or what a Go template makes of each: '{{.Name}} {{.Mountpoint}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

const ROWS: Rows = Rows { row_type: "*formatter.volumeContext", headings: &[("Name", "VOLUME NAME")] };

/// Conditions. Of one kind any may hold, labels must all, and so must all kinds, as in Docker.
#[derive(Debug, Default)]
struct Filter {
    dangling: Option<bool>,
    drivers: Vec<String>,
    labels: Vec<LabelCondition>,
    names: Vec<String>,
}

impl Filter {
    fn parse(typed: &[String]) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for text in typed {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("bad format of filter (expected name=value): {text}")))?;
            match (key, value) {
                ("dangling", "true" | "1") => filter.dangling = Some(true),
                ("dangling", "false" | "0") => filter.dangling = Some(false),
                ("dangling", _) => return Err(Failure::new(format!("invalid filter 'dangling=[{value}]'"))),
                ("driver", _) => filter.drivers.push(value.to_owned()),
                ("label", _) => filter.labels.push(LabelCondition::parse(value, true)),
                ("name", _) => filter.names.push(value.to_owned()),
                _ => {
                    return Err(Failure::new(format!("invalid filter '{key}'"))
                        .with_help("filters are dangling, driver, label, name"));
                }
            }
        }
        Ok(filter)
    }

    fn takes(&self, volume: &Volume, used: &BTreeSet<VolumeName>) -> bool {
        let any = |values: &[String], fits: &dyn Fn(&str) -> bool| {
            values.is_empty() || values.iter().any(|value| fits(value))
        };
        self.dangling.is_none_or(|dangling| dangling != used.contains(&volume.name))
            && any(&self.drivers, &|driver| driver == "local")
            && any(&self.names, &|part| volume.name.as_str().contains(part))
            && self.labels.iter().all(|label| label.holds(&volume.labels))
    }
}

/// Runs it.
pub(super) fn list(args: &LsArgs, containers: &Containers) -> Result<Exit, Failure> {
    let filter = Filter::parse(&args.filter)?;
    let format: Format = args.format.parse()?;
    let used = if filter.dangling.is_some() { used(containers)? } else { BTreeSet::new() };
    let volumes: Vec<Volume> = containers.volumes()?.into_iter().filter(|volume| filter.takes(volume, &used)).collect();
    if args.quiet {
        let names: String = volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
        report::answer(&names)?;
        return Ok(Exit::Success);
    }
    // To measure all of them takes time that nobody asked for.
    let sizes = args.format.contains(".Size");
    let rows = volumes.iter().map(|volume| row(volume, containers, sizes)).collect::<Result<Vec<_>, _>>()?;
    let table = || {
        let mut table = Table::new(["DRIVER", "VOLUME NAME"]).docker();
        volumes.iter().for_each(|volume| table.row(["local".to_owned(), volume.name.to_string()]));
        table.render()
    };
    report::answer(&report::printable(&render_as(&format, &ROWS, &rows, table)?))?;
    Ok(Exit::Success)
}

/// The volumes that containers have.
fn used(containers: &Containers) -> Result<BTreeSet<VolumeName>, Failure> {
    let records = containers.list()?.containers;
    let mounts = records.into_iter().flat_map(|record| record.config.mounts);
    Ok(mounts
        .filter_map(|mount| match mount.source {
            ContainerMountSource::Volume { name, .. } => Some(name),
            _ => None,
        })
        .collect())
}

fn row(volume: &Volume, containers: &Containers, sizes: bool) -> Result<Map<String, Value>, Failure> {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let bytes = if sizes { size(containers.volume_size(&volume.name)?) } else { "N/A".to_owned() };
    let row = json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        LABELS: volume.labels,
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": containers.volume_data(&volume.name).to_string_lossy(),
        "Name": volume.name.as_str(),
        "Scope": "local",
        "Size": bytes,
        "Status": "N/A",
    });
    match row {
        Value::Object(row) => Ok(row),
        _ => unreachable!("written as an object just now"),
    }
}
