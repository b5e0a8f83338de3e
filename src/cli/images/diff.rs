//! `image diff`: which files distinguish two images.

use rbuild_cache::view::{FileKind, Stat};
use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::file_changes::{Aspect, FileChange};
use crate::image_names;

const ROWS: Rows = Rows { row_type: "*formatter.diffContext", headings: &[("Change", "CHANGE TYPE")] };

/// Arguments of `image diff`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DiffArgs {
    /// The image before
    #[arg(value_name = "A")]
    before: String,
    /// The image after
    #[arg(value_name = "B")]
    after: String,
    /// table, json, 'table TEMPLATE' or a Go template of .Change, .Path, .Type, .Differs, .SizeBefore, .SizeAfter, …
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Also files of which only the time of the last modification differs
    #[arg(long)]
    times: bool,
    /// Platform of both images [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<rbuild_image::Platform>,
}

/// Runs `image diff`.
pub(in crate::cli) fn diff(args: &DiffArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.as_deref().unwrap_or_default().parse()?;
    let mut changes = image_names::diff(engine, &args.before, &args.after, args.platform.as_ref())?;
    changes.retain(|change| args.times || change.aspects != [Aspect::Time]);
    let objects: Vec<Map<String, Value>> = match format {
        Format::Table => Vec::new(),
        _ => changes.iter().map(object).collect(),
    };
    let own = || changes.iter().map(|change| line(change) + "\n").collect();
    report::answer(&printable(&render_as(&format, &ROWS, &objects, own)?))?;
    Ok(Exit::Success)
}

/// Docker's letters: added, changed, deleted.
fn letter(change: &FileChange) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "A",
        (_, None) => "D",
        _ => "C",
    }
}

fn path(change: &FileChange) -> String {
    String::from_utf8_lossy(change.path.as_bytes()).into_owned()
}

/// `C /etc/passwd (content 12 → 20 bytes, mode 0644 → 0600)`
fn line(change: &FileChange) -> String {
    let mut out = format!("{} {}", letter(change), path(change));
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return out };
    let said = change.aspects.iter().map(|aspect| match aspect {
        Aspect::Type => format!("{} → {}", kind(before), kind(after)),
        Aspect::Content if before.size != after.size => format!("content {} → {} bytes", before.size, after.size),
        Aspect::Mode => format!("mode {:04o} → {:04o}", before.mode, after.mode),
        Aspect::Owner => format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid),
        other => other.name().to_owned(),
    });
    out.push_str(&format!(" ({})", said.collect::<Vec<_>>().join(", ")));
    out
}

fn kind(stat: &Stat) -> &'static str {
    match stat.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice { .. } => "character device",
        FileKind::BlockDevice { .. } => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

fn object(change: &FileChange) -> Map<String, Value> {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let differs: Vec<&str> = change.aspects.iter().map(|aspect| aspect.name()).collect();
    let mode = |stat: Option<&Stat>| stat.map(|stat| format!("{:04o}", stat.mode));
    let owner = |stat: Option<&Stat>| stat.map(|stat| format!("{}:{}", stat.uid, stat.gid));
    let size = |stat: Option<&Stat>| stat.filter(|stat| stat.kind == FileKind::File).map(|stat| stat.size);
    let time = |stat: Option<&Stat>| {
        let mtime = stat?.mtime;
        jiff::Timestamp::new(mtime.seconds, i32::try_from(mtime.nanoseconds).ok()?).ok().map(|time| time.to_string())
    };
    [
        ("Change", json!(letter(change))),
        ("Path", json!(path(change))),
        ("Type", json!(after.or(before).map(kind))),
        ("Differs", json!(differs)),
        ("SizeBefore", json!(size(before))),
        ("SizeAfter", json!(size(after))),
        ("ModeBefore", json!(mode(before))),
        ("ModeAfter", json!(mode(after))),
        ("OwnerBefore", json!(owner(before))),
        ("OwnerAfter", json!(owner(after))),
        ("TimeBefore", json!(time(before))),
        ("TimeAfter", json!(time(after))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}
