//! `rbuild doctor`: what this host lets rbuild do, what is degraded, and what to do about it.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::report::{self, Failure, printable};
use crate::doctor::{Examination, State, examine};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines for people.
    Text,
    /// One JSON document, versioned.
    Json,
}

/// Examines this host; exits with 1 when nothing can be built on it.
pub(super) fn execute(args: &DoctorArgs, engine: &Engine) -> Result<Exit, Failure> {
    let examination = examine(engine);
    let text = match args.format {
        Form::Text => render(&examination),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&examination).map_err(Failure::from)?),
    };
    report::answer(&text)?;
    Ok(if examination.state() == State::Broken { Exit::Failure } else { Exit::Success })
}

fn render(examination: &Examination) -> String {
    let mut out = String::new();
    let isolation = examination.isolation;
    let mut line = |text: &str| {
        let _infallible = writeln!(out, "{}", printable(text));
    };
    line(&format!("works      isolation   {isolation} (--isolation auto, root or rootless)"));
    for check in &examination.checks {
        let state = match check.state {
            State::Works => "works",
            State::Degraded => "degraded",
            State::Broken => "BROKEN",
        };
        line(&format!("{state:<10} {:<11} {}", check.name, check.found));
        if let Some(consequence) = &check.consequence {
            line(&format!("{:<22} so: {consequence}", ""));
        }
        if let Some(remedy) = &check.remedy {
            line(&format!("{:<22} do: {remedy}", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn what_is_worse_says_what_follows_and_what_to_do() {
        let check = |state, consequence: Option<&str>| Check {
            name: "cgroups",
            state,
            found: "v2\u{1b}".to_owned(),
            consequence: consequence.map(str::to_owned),
            remedy: consequence.map(|_| "delegate them".to_owned()),
        };
        let checks = vec![check(State::Works, None), check(State::Degraded, Some("no limits"))];
        insta::assert_snapshot!(render(&Examination { version: 1, isolation: "rootless", checks }), @r"
        works      isolation   rootless (--isolation auto, root or rootless)
        works      cgroups     v2\u{1b}
        degraded   cgroups     v2\u{1b}
                               so: no limits
                               do: delegate them
        ");
    }
}
