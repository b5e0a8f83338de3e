//! `rbuild cache verify`.

use std::ops::ControlFlow;

use rbuild_cache::PruneControl;

use crate::cache_view::{self, Verified};
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::interrupt::Interrupts;

/// Arguments of `cache verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Fetch and unpack again what can be had, forget damaged cached steps, remove leftovers; never removes an image
    #[arg(long)]
    repair: bool,
    /// Make a new database from the content that is there, when the old one is damaged; its cached steps are lost
    #[arg(long, conflicts_with = "repair")]
    rebuild: bool,
    /// One JSON object
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "text"])]
    format: Option<String>,
}

/// Runs `rbuild cache verify`.
pub(in crate::cli) fn execute(args: &VerifyArgs, engine: &Engine) -> Result<Exit, Failure> {
    if args.rebuild {
        return rebuild(args, engine);
    }
    let _interrupts = Interrupts::cancelling(engine.cancel())?;
    let cancelled = || engine.cancel().is_cancelled();
    let interrupt = || if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let on_wait = cache_view::waiting(&cancelled);
    let found = cache_view::verify(engine, args.repair, PruneControl { on_wait: &on_wait, interrupt: &interrupt })?;
    match args.is_json() {
        true => report::answer(&Versioned::of(&found).line()?)?,
        false => report::answer(&rendered(&found))?,
    }
    if found.interrupted {
        return Err(Failure::interrupted());
    }
    if !found.problems.is_empty() && !args.repair {
        report::story("rbuild cache verify --repair mends what can be mended\n");
    }
    Ok(if found.problems.is_empty() { Exit::Success } else { Exit::Failure })
}

impl VerifyArgs {
    fn is_json(&self) -> bool {
        self.format.as_deref() == Some("json")
    }
}

fn rendered(found: &Verified) -> String {
    let mut out = String::new();
    for repair in &found.repairs {
        out.push_str(&format!("{}\n", report::printable(repair)));
    }
    for problem in &found.problems {
        out.push_str(&format!("{}\n", report::printable(problem)));
    }
    for image in &found.affected {
        out.push_str(&format!("image {} needs what is damaged: pull or build it again\n", report::printable(image)));
    }
    if found.unchecked > 0 {
        let layers = found.unchecked;
        out.push_str(&format!("{layers} layers from outside cannot be compared: the blobs they came as are gone\n"));
    }
    if found.quarantined > 0 {
        out.push_str(&format!("{} damaged files in quarantine/, until the next prune\n", found.quarantined));
    }
    let (problems, leftovers) = (found.problems.len(), found.leftovers);
    out.push_str(&format!("{} checked, {problems} problems, {leftovers} leftovers\n", found.checked));
    out
}

fn rebuild(args: &VerifyArgs, engine: &Engine) -> Result<Exit, Failure> {
    let rebuilt = cache_view::rebuild(engine)?;
    if args.is_json() {
        report::answer(&Versioned::of(&rebuilt).line()?)?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    for image in &rebuilt.images {
        out.push_str(&format!("image {image}\n"));
    }
    for name in &rebuilt.names {
        out.push_str(&format!("name {}\n", report::printable(name)));
    }
    for digest in &rebuilt.damaged {
        out.push_str(&format!("blob {digest} is damaged, and garbage now\n"));
    }
    let (images, blobs) = (rebuilt.images.len(), rebuilt.blobs);
    out.push_str(&format!("{images} images and {blobs} blobs saved; the old database is kept as meta.db.damaged\n"));
    report::answer(&out)?;
    Ok(Exit::Success)
}
