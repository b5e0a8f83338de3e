//! `rbuild history export`: builds as a tar that needs nothing else (docs/history.md).
//!
//! ```text
//! rbuild-history.json      {"version":1,"builds":["ID",…]}
//! ID/build.json            what `history inspect --format json` says
//! ID/events.jsonl          the journal, where there is one
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use rbuild_cache::{BuildStatus, Store};

use super::inspect;
use crate::build_record::{self, BuildInfo};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::output::{self, Readers};

/// The version of the archive's form.
const VERSION: u32 = 1;

/// Arguments of `history export`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// Builds: ids or their beginnings, ^0 for the newest one [default: the newest one]
    #[arg(value_name = "BUILD")]
    builds: Vec<String>,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// All builds that do not run
    #[arg(long, conflicts_with = "builds")]
    all: bool,
}

pub(super) fn execute(args: &ExportArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let builds = match (args.all, args.builds.as_slice()) {
        (true, _) => {
            let all = build_record::list(store, usize::MAX)?;
            all.into_iter().filter(|build| build.status != BuildStatus::Running).collect()
        }
        (false, []) => vec![build_record::find(store, "")?],
        (false, builds) => {
            builds.iter().map(|build| build_record::find(store, build)).collect::<Result<Vec<_>, _>>()?
        }
    };
    match &args.output {
        Some(file) => {
            output::whole_file(&engine.settings().absolute(file), Readers::Anybody, |out| write(store, &builds, out))?
        }
        None if engine.settings().stdout_is_terminal => {
            return Err(Failure::usage("an archive is not written to a terminal", "use -o FILE or redirect it"));
        }
        None => write(store, &builds, &mut io::stdout().lock())?,
    }
    Ok(Exit::Success)
}

fn write(store: &Store, builds: &[BuildInfo], out: &mut dyn Write) -> Result<(), Failure> {
    let mut tar = tar::Builder::new(out);
    let ids: Vec<&str> = builds.iter().map(|build| build.id.as_str()).collect();
    let index = serde_json::json!({ "version": VERSION, "builds": ids });
    append(&mut tar, "rbuild-history.json", format!("{index}\n").as_bytes())?;
    for build in builds {
        let steps = build_record::open(store, build)?;
        let text = serde_json::to_string_pretty(&inspect::object(build, &steps)).map_err(Failure::from)?;
        append(&mut tar, &format!("{}/build.json", build.id), format!("{text}\n").as_bytes())?;
        let path = store.builds().files(&build.id).join("events.jsonl");
        match File::open(&path) {
            Ok(file) => {
                // One that is still being written is as long as it is now.
                let size = file.metadata()?.len();
                let mut header = header(size);
                tar.append_data(&mut header, format!("{}/events.jsonl", build.id), io::Read::take(file, size))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::from_error(&format!("cannot read {}", path.display()), &error)),
        }
    }
    tar.finish()?;
    Ok(())
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    Ok(tar.append_data(&mut header(bytes.len() as u64), name, bytes)?)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
