//! `rbuild cache inspect`.

use crate::cache_view::{self, StepDetails};
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{ago, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Ids as `cache ls` shows them, or the start of a key
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Text, or JSON: an array
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

/// Runs `rbuild cache inspect`.
pub(in crate::cli) fn execute(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let found = args.ids.iter().map(|id| cache_view::inspect(store, id)).collect::<Result<Vec<_>, _>>()?;
    let out = match args.format.as_str() {
        "json" => {
            let found: Vec<_> = found.iter().map(Versioned::of).collect();
            format!("{}\n", serde_json::to_string_pretty(&found)?)
        }
        _ => found.iter().map(text).collect::<Vec<_>>().join("\n"),
    };
    report::answer(&out)?;
    Ok(Exit::Success)
}

fn text(step: &StepDetails) -> String {
    let now = jiff::Timestamp::now();
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<12} {}\n", printable(&value)));
    line("ID", step.id.to_string());
    line("Step", step.name.replace('\n', " "));
    for place in &step.places {
        let stage = if place.stage.is_empty() { String::new() } else { format!(", stage {}", place.stage) };
        line("Place", format!("{}:{}{stage}", place.dockerfile, place.line));
    }
    line("Size", size(step.size));
    line("Saves", format!("{:.1}s a hit", step.saves_seconds));
    let build = step.build.as_ref().map_or_else(String::new, |build| format!(" by build {build}"));
    line("Made", format!("{} ({}){build}", ago(Some(step.created), now), step.created));
    line("Last used", format!("{}, {} times in all", ago(Some(step.last_used), now), step.uses));
    let state = [(step.in_use, "in use"), (step.shared, "its layer is shared with an image or container")];
    let state: Vec<&str> = state.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
    line("State", if state.is_empty() { "idle, private".to_owned() } else { state.join(", ") });
    let parents: Vec<String> = step.parents.iter().map(ToString::to_string).collect();
    line("Parents", if parents.is_empty() { "-".to_owned() } else { parents.join(" ") });
    for key in &step.keys {
        line("Key", format!("{} {}", key.kind, key.key));
    }
    out.push_str("Made of\n");
    for (name, value) in &step.parts {
        out.push_str(&format!("  {name}: {}\n", printable(value)));
    }
    out
}
