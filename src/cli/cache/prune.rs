//! `rbuild cache prune`.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::{PruneControl, PruneFilter, Space};

use crate::cache_view::{self, PruneRequest, Pruned};
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::cli::table::{Table, ago, size};
use crate::config::parse_age;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::interrupt::Interrupts;
use crate::output::origins;

/// Arguments of `cache prune`.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// Every cached step, also those whose layers an image or container shares
    #[arg(short, long)]
    all: bool,
    /// Only what matches, e.g. until=24h, type=exec.cachemount, description~=apt; all that are given must match
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Only what was not used for this long, or since a time, e.g. 24h, 7d, 2026-01-02T15:04:05Z
    #[arg(long, value_name = "DURATION")]
    until: Option<String>,
    /// Keep this much of the cache, what is worth most, e.g. 10g or 5%
    #[arg(long, visible_alias = "keep-storage", value_name = "BYTES")]
    reserved_space: Option<String>,
    /// Prune until the cache is no larger than this
    #[arg(long, value_name = "BYTES")]
    max_used_space: Option<String>,
    /// Prune until the disk has this much free
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<String>,
    /// Show what would go and what the next builds would do again; remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Whole step texts, how long they took and when they were used
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
    /// Do not ask (rbuild never asks; for scripts written for Docker)
    #[arg(short, long)]
    force: bool,
}

/// Runs `rbuild cache prune`.
pub(in crate::cli) fn execute(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let request = request(args, Timestamp::now())?;
    let _interrupts = Interrupts::cancelling(engine.cancel())?;
    let cancelled = || engine.cancel().is_cancelled();
    let interrupt = || if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let on_wait = cache_view::waiting(&cancelled);
    let control = PruneControl { on_wait: &on_wait, interrupt: &interrupt };
    if !args.dry_run {
        origins::let_go(engine)?;
    }
    let pruned = cache_view::prune(engine.store()?, &containers_of(engine)?, &request, control)?;
    if args.format.as_deref() == Some("json") {
        report::answer(&Versioned::of(&pruned).line()?)?;
    } else {
        report::answer(&rendered(&pruned, args, Timestamp::now()))?;
    }
    match pruned.interrupted {
        true => Err(Failure::interrupted().with_help("what is left goes with the next prune")),
        false => Ok(Exit::Success),
    }
}

fn request(args: &PruneArgs, now: Timestamp) -> Result<PruneRequest, Failure> {
    let mut unused_for = args.until.as_deref().map(|text| age(text, now)).transpose()?;
    let mut terms = Vec::new();
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("until" | "unused-for", text)) => unused_for = Some(age(text, now)?),
            _ => terms.push(filter.as_str()),
        }
    }
    let help = "e.g. --filter until=24h, --filter type=exec.cachemount, --filter 'description~=apt-get'";
    let filter =
        |text: &str| text.parse::<PruneFilter>().map_err(|error| Failure::usage(format!("--filter: {error}"), help));
    let filters = if terms.is_empty() { Vec::new() } else { vec![filter(&terms.join(","))?] };
    Ok(PruneRequest {
        all: args.all,
        unused_for,
        filters,
        reserved: space("--reserved-space", args.reserved_space.as_deref())?,
        max_used: space("--max-used-space", args.max_used_space.as_deref())?,
        min_free: space("--min-free-space", args.min_free_space.as_deref())?,
        dry_run: args.dry_run,
    })
}

/// How long ago: a duration, or since a point in time.
pub(super) fn age(text: &str, now: Timestamp) -> Result<Duration, Failure> {
    if let Ok(age) = parse_age(text) {
        return Ok(age);
    }
    let time = match text.parse::<Timestamp>() {
        Ok(time) => Some(time),
        Err(_) => text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()),
    };
    let time = time.ok_or_else(|| {
        Failure::usage(
            format!("until: {text:?} is neither a duration nor a time"),
            "e.g. 24h, 7d or 2026-01-02T15:04:05Z",
        )
    })?;
    Ok(Duration::try_from(now.duration_since(time)).unwrap_or(Duration::ZERO))
}

fn space(flag: &str, text: Option<&str>) -> Result<Option<Space>, Failure> {
    let parse =
        |text: &str| text.parse().map_err(|error| Failure::usage(format!("{flag}: {error}"), "e.g. 10GB or 20%"));
    text.map(parse).transpose()
}

fn rendered(pruned: &Pruned, args: &PruneArgs, now: Timestamp) -> String {
    let mut out = String::new();
    let name = |text: &str| {
        let text = report::printable(&text.replace('\n', " "));
        match args.verbose || text.chars().count() <= 60 {
            true => text,
            false => text.chars().take(59).chain(['…']).collect(),
        }
    };
    if !pruned.steps.is_empty() {
        let mut table = match args.verbose {
            true => Table::new(["ID", "SIZE", "TOOK", "LAST USED", "STEP"]),
            false => Table::new(["ID", "SIZE", "TOOK", "STEP"]),
        };
        for step in &pruned.steps {
            let (id, bytes) = (step.id.to_string(), size(step.size));
            let took = format!("{:.1}s", step.duration_seconds);
            match args.verbose {
                true => table.row([id, bytes, took, ago(Some(step.last_used), now), name(&step.name)]),
                false => table.row([id, bytes, took, name(&step.name)]),
            }
        }
        out.push_str(&table.render());
    }
    for mount in &pruned.mounts {
        out.push_str(&format!("cache mount {}\n", report::printable(mount)));
    }
    if pruned.containers > 0 {
        out.push_str(&format!("containers that a killed process left: {}\n", pruned.containers));
    }
    if !pruned.losses.is_empty() {
        out.push_str("\nThe next build would do again:\n");
    }
    for loss in &pruned.losses {
        let steps = if loss.steps.len() == 1 { "step" } else { "steps" };
        let of = report::printable(&loss.of);
        out.push_str(&format!("  {of}: {} {steps}, {:.1}s\n", loss.steps.len(), loss.seconds));
        for step in &loss.steps {
            out.push_str(&format!("    {}\n", name(step)));
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let verb = if args.dry_run { "Would reclaim:" } else { "Total reclaimed space:" };
    out.push_str(&format!("{verb} {}\n", size(pruned.bytes)));
    if args.verbose {
        out.push_str(&format!("Cache left: {}\n", size(pruned.left)));
    }
    out
}

#[cfg(test)]
mod tests {
    use rbuild_cache::ResultId;

    use super::*;
    use crate::cache_view::{LostSteps, PrunedStep};

    fn args(filters: &[&str]) -> PruneArgs {
        PruneArgs { filter: filters.iter().map(|text| (*text).to_owned()).collect(), ..PruneArgs::default() }
    }

    #[test]
    fn filters_are_dockers() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let asked = |filters: &[&str]| request(&args(filters), now);
        assert_eq!(asked(&["until=24h"]).unwrap().unused_for, Some(Duration::from_secs(86_400)));
        assert_eq!(asked(&["until=2026-01-01T23:00:00Z"]).unwrap().unused_for, Some(Duration::from_secs(3600)));
        assert_eq!(asked(&["unused-for=7d"]).unwrap().unused_for, Some(Duration::from_secs(604_800)));
        let both = asked(&["type=regular", "description~=apt"]).unwrap().filters;
        assert_eq!(both, ["type=regular,description~=apt".parse().unwrap()], "all must match");
        for bad in ["until=soon", "color=red", "type=files"] {
            assert!(asked(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dry_run_says_what_the_next_build_loses() {
        let step = |id, name: &str| PrunedStep {
            id: ResultId::from_row(id),
            name: name.to_owned(),
            size: 1_200_000,
            duration_seconds: 41.26,
            last_used: "2026-01-01T23:00:00Z".parse().unwrap(),
        };
        let loss = LostSteps { of: "app:latest".into(), steps: vec!["RUN apt-get\nupdate".into()], seconds: 41.26 };
        let pruned = Pruned {
            steps: vec![step(3, "COPY . /src"), step(12, "RUN apt-get\nupdate")],
            mounts: vec!["/root/.cache".into()],
            containers: 0,
            bytes: 2_400_000,
            left: 0,
            losses: vec![loss],
            interrupted: false,
        };
        let shown =
            rendered(&pruned, &PruneArgs { dry_run: true, ..args(&[]) }, "2026-01-02T00:00:00Z".parse().unwrap());
        insta::assert_snapshot!(shown, @r"
        ID   SIZE    TOOK    STEP
        3    1.2MB   41.3s   COPY . /src
        12   1.2MB   41.3s   RUN apt-get update
        cache mount /root/.cache

        The next build would do again:
          app:latest: 1 step, 41.3s
            RUN apt-get update

        Would reclaim: 2.4MB
        ");
    }
}
