//! `rbuild cache why`.

use crate::cache_view::{ExplainedStep, StepName, why};
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure, printable};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild cache why                    every step of the last build that ran
  rbuild cache why 5                  step 5 of the last build
  rbuild cache why L12                the instruction on line 12
  rbuild cache why build:2            the second step of the stage `build`
  rbuild cache why ^1 5               step 5 of the build before the last one
  rbuild cache why 3f2a 5 --format json")]
pub(in crate::cli) struct WhyArgs {
    /// [BUILD] STEP: a build's id or its start, `latest` or ^N; a step's number, L and a line, STAGE:N, or a key's start
    #[arg(value_name = "[BUILD] STEP", num_args = 0..=2)]
    names: Vec<String>,
    /// Text, or JSON: one object a line
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

/// Runs `rbuild cache why`.
pub(in crate::cli) fn execute(args: &WhyArgs, engine: &Engine) -> Result<Exit, Failure> {
    let (build, step) = match args.names.as_slice() {
        [] => (None, None),
        [step] => (None, Some(step.parse::<StepName>()?)),
        [build, step, ..] => (Some(build.as_str()), Some(step.parse::<StepName>()?)),
    };
    let steps = why(engine.store()?, build, step.as_ref())?;
    let mut out = String::new();
    if args.format == "json" {
        for step in &steps {
            out.push_str(&Versioned::of(step).line()?);
        }
    } else if steps.is_empty() {
        out.push_str("No step had to run.\n");
    } else {
        steps.iter().for_each(|step| text(step, &mut out));
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}

fn text(step: &ExplainedStep, out: &mut String) {
    let name = |name: &str| printable(&name.replace('\n', " "));
    out.push_str(&format!("#{} {}: {}\n", step.number, name(&step.step), step.outcome));
    match (&step.miss, step.outcome) {
        (Some(miss), _) => {
            for line in miss.lines() {
                out.push_str(&format!("   {}\n", printable(&line)));
            }
        }
        (None, "cached") => {
            let what = match step.hit.as_deref() {
                Some("content") => "what it reads is the same as when it was made, however that came about",
                _ => "this exact step was recorded before",
            };
            out.push_str(&format!("   {what}\n"));
        }
        (None, "cancelled") => out.push_str("   it did not run\n"),
        (None, _) => out.push_str("   it is not known why\n"),
    }
    for cause in &step.causes {
        out.push_str(&format!("   because #{} {} ran:\n", cause.number, name(&cause.step)));
        for line in cause.miss.lines() {
            out.push_str(&format!("      {}\n", printable(&line)));
        }
    }
}
