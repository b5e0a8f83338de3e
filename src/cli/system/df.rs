//! `system df`: what images, containers, volumes and the cache of builds take.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_cache::Usage;
use rbuild_container::{ContainerMountSource, ContainerRecord, Containers, Volume, Width};
use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::run::containers_of;
use crate::cli::table::{Table, ago, duration, rounded_size, size};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, ImageFilter, Row};

/// Arguments of `system df`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DfArgs {
    /// table, json, or what a Go template makes of each: '{{.Type}} {{.Size}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Everything one by one
    #[arg(short, long)]
    verbose: bool,
}

const ROWS: Rows = Rows { row_type: "*formatter.diskUsageContext", headings: &[("TotalCount", "TOTAL")] };

/// All there is.
struct Found {
    images: Vec<Row>,
    containers: Vec<(ContainerRecord, u64)>,
    volumes: Vec<(Volume, u64, usize)>,
    cache: Usage,
}

/// How much there is of something, and how much of it is not needed.
#[derive(Default)]
struct Sum {
    total: usize,
    active: usize,
    bytes: u64,
    free: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, active: bool) {
        self.total += 1;
        self.bytes += bytes;
        if active { self.active += 1 } else { self.free += bytes }
    }
}

/// Runs `system df`.
pub(super) fn df(args: &DfArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.parse()?;
    let found = find(engine)?;
    if args.verbose {
        if args.format != "table" {
            return Err(Failure::new("the verbose and the format options conflict"));
        }
        report::answer(&printable(&verbose(&found, Timestamp::now())))?;
        return Ok(Exit::Success);
    }
    let rows: Vec<Map<String, Value>> = sums(&found).into_iter().map(|(kind, sum)| row(kind, &sum)).collect();
    let table = || {
        let mut table = Table::new(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]).docker();
        for row in &rows {
            let cells = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
            table.row(cells.map(|cell| row[cell].as_str().unwrap_or_default().to_owned()));
        }
        table.render()
    };
    report::answer(&render_as(&format, &ROWS, &rows, table)?)?;
    Ok(Exit::Success)
}

fn find(engine: &Engine) -> Result<Found, Failure> {
    let containers: Containers = containers_of(engine)?;
    let records = containers.list()?.containers;
    let mut volumes = Vec::new();
    for volume in containers.volumes()? {
        let links = records.iter().filter(|record| has(record, &volume)).count();
        let bytes = containers.volume_size(&volume.name)?;
        volumes.push((volume, bytes, links));
    }
    let sized = |record: ContainerRecord| -> Result<_, Failure> {
        let bytes = containers.written(&record)?;
        Ok((record, bytes))
    };
    Ok(Found {
        images: image_names::list(engine.store()?, &ImageFilter::default())?,
        containers: records.into_iter().map(sized).collect::<Result<_, _>>()?,
        volumes,
        cache: engine.store()?.du()?,
    })
}

fn has(record: &ContainerRecord, volume: &Volume) -> bool {
    record
        .config
        .mounts
        .iter()
        .any(|mount| matches!(&mount.source, ContainerMountSource::Volume { name, .. } if *name == volume.name))
}

fn users(image: &Row, containers: &[(ContainerRecord, u64)]) -> usize {
    containers.iter().filter(|(record, _)| record.image.id == image.id).count()
}

fn sums(found: &Found) -> [(&'static str, Sum); 4] {
    let mut sums: [Sum; 4] = Default::default();
    let [images, containers, volumes, cache] = &mut sums;
    let by_id: BTreeMap<_, &Row> = found.images.iter().map(|image| (image.id, image)).collect();
    for image in by_id.values() {
        images.add(image.size, users(image, &found.containers) > 0);
    }
    for (record, bytes) in &found.containers {
        containers.add(*bytes, !record.state.status.is_at_rest());
    }
    for (_, bytes, links) in &found.volumes {
        volumes.add(*bytes, *links > 0);
    }
    // Layers that images or containers have are counted there.
    let mut layers = BTreeMap::new();
    for record in &found.cache.records {
        let bytes = if record.shared { 0 } else { record.listed.size };
        // Several records may have led to the same layer.
        let first =
            layers.insert(record.listed.record.snapshot, ()).is_none() || record.listed.record.snapshot.is_none();
        cache.add(if first { bytes } else { 0 }, record.in_use);
    }
    for mount in &found.cache.mounts {
        cache.add(mount.size, mount.in_use);
    }
    for form in &found.cache.forms {
        cache.add(form.size, form.in_use);
    }
    let [images, containers, volumes, cache] = sums;
    [("Images", images), ("Containers", containers), ("Local Volumes", volumes), ("Build Cache", cache)]
}

fn row(kind: &str, sum: &Sum) -> Map<String, Value> {
    let percent = (sum.free * 100).checked_div(sum.bytes).map_or_else(String::new, |percent| format!(" ({percent}%)"));
    let row = json!({
        "Active": sum.active.to_string(),
        "Reclaimable": format!("{}{percent}", exact(sum.free)),
        "Size": exact(sum.bytes),
        "TotalCount": sum.total.to_string(),
        "Type": kind,
    });
    match row {
        Value::Object(row) => row,
        _ => unreachable!("written as an object just now"),
    }
}

/// As Docker shows what takes space, with a digit more than elsewhere.
fn exact(bytes: u64) -> String {
    rounded_size(bytes, 4)
}

fn verbose(found: &Found, now: Timestamp) -> String {
    let mut out = "Images space usage:\n\n".to_owned();
    let headings = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    let mut table = Table::new(headings).docker();
    for image in &found.images {
        let usage = found.cache.images.iter().find(|usage| usage.id == image.id);
        let shared = usage.map_or(0, |usage| usage.shared.min(image.size));
        table.row([
            image.repository.clone(),
            image.tag.clone(),
            image.id.short(),
            ago(image.created, now),
            size(image.size),
            exact(shared),
            exact(image.size - shared),
            users(image, &found.containers).to_string(),
        ]);
    }
    out.push_str(&table.render());
    out.push_str("\nContainers space usage:\n\n");
    let headings = ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"];
    let mut table = Table::new(headings).docker();
    for (record, bytes) in &found.containers {
        table.row([
            record.id.short().to_owned(),
            record.image_text().to_owned(),
            record.command_text(Width::Short),
            found.volumes.iter().filter(|(volume, ..)| has(record, volume)).count().to_string(),
            size(*bytes),
            ago(Some(record.created), now),
            record.status_text(now, duration),
            record.name.to_string(),
        ]);
    }
    out.push_str(&table.render());
    out.push_str("\nLocal Volumes space usage:\n\n");
    let mut table = Table::new(["VOLUME NAME", "LINKS", "SIZE"]).docker();
    for (volume, bytes, links) in &found.volumes {
        table.row([volume.name.to_string(), links.to_string(), exact(*bytes)]);
    }
    out.push_str(&table.render());
    let cache = &found.cache;
    let [.., (_, sum)] = sums(found);
    out.push_str(&format!("\nBuild cache usage: {}\n\n", exact(sum.bytes)));
    let headings = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"];
    let mut table = Table::new(headings).docker();
    for row in &cache.records {
        let record = &row.listed.record;
        table.row([
            record.result.to_string(),
            "regular".to_owned(),
            exact(row.listed.size),
            ago(Some(record.created_at), now),
            ago(Some(record.used_at), now),
            record.use_count.to_string(),
            row.shared.to_string(),
        ]);
    }
    for mount in &cache.mounts {
        table.row([
            mount.info.id.clone(),
            "exec.cachemount".to_owned(),
            exact(mount.size),
            String::new(),
            String::new(),
            String::new(),
            "false".to_owned(),
        ]);
    }
    for form in &cache.forms {
        table.row([
            form.digest.short(),
            "internal".to_owned(),
            exact(form.size),
            String::new(),
            ago(Some(form.used_at), now),
            String::new(),
            "false".to_owned(),
        ]);
    }
    out.push_str(&table.render());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_can_be_had_back() {
        let mut sum = Sum::default();
        sum.add(3_000_000, true);
        sum.add(1_000_000, false);
        let row = row("Local Volumes", &sum);
        assert_eq!(row["TotalCount"], "2");
        assert_eq!(row["Active"], "1");
        assert_eq!((&row["Size"], &row["Reclaimable"]), (&json!("4MB"), &json!("1MB (25%)")));
        assert_eq!(super::row("Images", &Sum::default())["Reclaimable"], "0B");
    }
}
