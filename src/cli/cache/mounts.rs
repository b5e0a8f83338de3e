//! `rbuild cache mounts …`: what `RUN --mount=type=cache` left.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Subcommand;
use rbuild_cache::{CacheMountInfo, CacheMountRequest, MountSharing, MountUsage, Store, wait_silently};
use rbuild_image::layer::Decoder;
use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, render};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// `rbuild cache mounts …`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MountsCommand {
    /// List cache mounts
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove cache mounts that no step uses
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Write what a cache mount holds as a tar archive
    Tar(TarArgs),
    /// Replace what a cache mount holds by what a tar archive holds; makes the mount if there is none
    Untar(UntarArgs),
}

/// Arguments of `cache mounts ls`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table, json, or a template such as '{{.ID}} {{.Size}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// Arguments of `cache mounts rm`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Ids, as the Dockerfile says (the target where it gives none), or names on disk
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// All of them
    #[arg(short, long, conflicts_with = "ids")]
    all: bool,
}

/// Arguments of `cache mounts tar`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TarArgs {
    /// Id, as the Dockerfile says, or the name on disk
    id: String,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `cache mounts untar`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UntarArgs {
    /// Id, as the Dockerfile says, or the name on disk
    id: String,
    /// Archive to read, compressed or not [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Runs `rbuild cache mounts …`.
pub(in crate::cli) fn execute(command: &MountsCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        MountsCommand::Ls(args) => ls(args, engine),
        MountsCommand::Rm(args) => rm(args, engine),
        MountsCommand::Tar(args) => tar(args, engine),
        MountsCommand::Untar(args) => untar(args, engine),
    }
}

/// Its name on disk, short: what tells instances and seeds of one id apart.
fn disk_name(info: &CacheMountInfo) -> String {
    format!("{}/{}", &info.hash[..12.min(info.hash.len())], info.instance)
}

fn ls(args: &LsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.parse()?;
    let mounts = engine.store()?.du()?.mounts;
    if args.quiet {
        let ids: String = mounts.iter().map(|mount| format!("{}\n", printable(&mount.info.id))).collect();
        report::answer(&ids)?;
        return Ok(Exit::Success);
    }
    let now = jiff::Timestamp::now();
    let object = |mount: &MountUsage| -> Map<String, Value> {
        let object = json!({
            "ID": printable(&mount.info.id),
            "Name": disk_name(&mount.info),
            "Size": size(mount.size),
            "Bytes": mount.size,
            "InUse": mount.in_use,
            "CreatedAt": mount.info.created_at.to_string(),
            "CreatedSince": ago(Some(mount.info.created_at), now),
            "LastUsedAt": mount.info.used_at.to_string(),
            "LastUsedSince": ago(Some(mount.info.used_at), now),
            "UsageCount": mount.info.use_count,
        });
        match object {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    };
    let rows: Vec<_> = mounts.iter().map(object).collect();
    let out = render(&format, &rows, || {
        let mut table = Table::new(["ID", "NAME", "SIZE", "IN USE", "CREATED", "LAST USED", "USES"]);
        for mount in &mounts {
            let info = &mount.info;
            table.row([
                printable(&info.id),
                disk_name(info),
                size(mount.size),
                mount.in_use.to_string(),
                ago(Some(info.created_at), now),
                ago(Some(info.used_at), now),
                info.use_count.to_string(),
            ]);
        }
        table.render()
    })?;
    report::answer(&out)?;
    Ok(Exit::Success)
}

/// The instances that a name means.
fn find(store: &Store, name: &str) -> Result<Vec<CacheMountInfo>, Failure> {
    let mut all = store.cache_mounts().list()?;
    all.retain(|info| info.id == name || disk_name(info) == name);
    Ok(all)
}

fn rm(args: &RmArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let lease = store.lease("cache mounts rm")?;
    let mut chosen = Vec::new();
    if args.all {
        chosen = store.cache_mounts().list()?;
    }
    for id in &args.ids {
        let found = find(store, id)?;
        if found.is_empty() {
            return Err(unknown(id));
        }
        chosen.extend(found);
    }
    let (mut out, mut freed) = (String::new(), 0);
    for info in &chosen {
        freed += store.cache_mounts().remove(info, &lease)?;
        out.push_str(&format!("{}\n", printable(&info.id)));
    }
    out.push_str(&format!("Total reclaimed space: {}\n", size(freed)));
    report::answer(&out)?;
    Ok(Exit::Success)
}

fn unknown(id: &str) -> Failure {
    Failure::new(format!("there is no cache mount {id:?}")).with_help("see `rbuild cache mounts ls`")
}

/// The one instance that a name means.
fn find_one(store: &Store, id: &str) -> Result<Option<CacheMountInfo>, Failure> {
    let mut found = find(store, id)?;
    if found.len() > 1 {
        let names = found.iter().map(disk_name).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!("there are {} cache mounts {id:?}", found.len()))
            .with_help(format!("name one of {names}")));
    }
    Ok(found.pop())
}

fn tar(args: &TarArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let info = find_one(store, &args.id)?.ok_or_else(|| unknown(&args.id))?;
    match &args.output {
        None => {
            let mut out = io::stdout();
            store.cache_mounts().write_tar(&info, &mut out)?;
            out.flush()?;
        }
        Some(path) => {
            let path = engine.settings().absolute(path);
            let opened = File::create(&path);
            let file = opened.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
            let mut out = io::BufWriter::new(file);
            store.cache_mounts().write_tar(&info, &mut out)?;
            out.flush()?;
        }
    }
    Ok(Exit::Success)
}

fn untar(args: &UntarArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let lease = store.lease("cache mounts untar")?;
    let source: Box<dyn Read + Send> = match &args.input {
        None => Box::new(io::stdin()),
        Some(path) => {
            let path = engine.settings().absolute(path);
            let opened = File::open(&path);
            Box::new(opened.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?)
        }
    };
    let mut decoded = Decoder::new(io::BufReader::new(source))?;
    if find_one(store, &args.id)?.is_none() {
        let request = CacheMountRequest {
            id: &args.id,
            base: None,
            sharing: MountSharing::Locked,
            mode: 0o755,
            uid: 0,
            gid: 0,
            fill: &|_| Ok(()),
        };
        drop(store.cache_mounts().acquire(&request, &lease, &wait_silently)?);
    }
    let info = find_one(store, &args.id)?.ok_or_else(|| unknown(&args.id))?;
    store.cache_mounts().read_tar(&info, &mut decoded, &lease)?;
    report::answer(&format!("{}\n", printable(&info.id)))?;
    Ok(Exit::Success)
}
