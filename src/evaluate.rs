//! `--check` and `--call`: questions about a Dockerfile that are answered without building.

use std::str::FromStr;

use rbuild_parser::{Diagnostic, Source, parse};
use rbuild_solver::{Goal, StageChoice, lower};

use crate::build::goal;
use crate::cli::report::Failure;
use crate::context;
use crate::engine::Engine;
use crate::request::BuildRequest;
use crate::resolve::{Freshness, Outside};
use crate::ssh_agents::SshAgents;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Build checks.
    Check,
}

impl FromStr for Method {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "check" | "lint" => Ok(Self::Check),
            "outline" | "targets" => {
                Err(Failure::usage(format!("--call={text} is not served by this version"), "--call=check is"))
            }
            _ => Err(Failure::usage(format!("--call={text}: no such method"), "known are build and check")),
        }
    }
}

/// An answer for standard output.
#[derive(Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Whether nothing was found that fails a check.
    pub clean: bool,
    /// What would stop a build.
    pub error: Option<Failure>,
}

impl Engine {
    /// Answers a question about a Dockerfile.
    pub fn evaluate(&self, request: &BuildRequest, method: Method) -> Result<Answer, Failure> {
        match method {
            Method::Check => check(self, request),
        }
    }
}

fn check(engine: &Engine, request: &BuildRequest) -> Result<Answer, Failure> {
    let store = engine.store()?;
    let lease = store.lease("check")?;
    let agents = SshAgents::start(engine.settings(), &lease, &request.ssh)?;
    let loaded = context::load(engine, &lease, request, agents.sockets())?;
    let source = &loaded.dockerfile;
    let parsed = parse(source);
    if parsed.diagnostics.iter().any(Diagnostic::is_error) {
        return Err(Failure::diagnostics(source, &parsed.diagnostics));
    }
    let outside = Outside::new(engine, store, &lease, &request.named_contexts, Freshness::Stored);
    let goal = Goal { ignore: Some(loaded.context.ignore.patterns.clone()), stages: StageChoice::All, ..goal(request) };
    // What stops a build does not hide what the checks found.
    let (lowered, error) = match lower(source, &parsed.value, &goal, &outside) {
        Ok(plan) => (plan.warnings, None),
        Err(found) => {
            let failure = Failure::diagnostics(source, &found);
            (found, Some(failure))
        }
    };
    let mut found: Vec<&Diagnostic> =
        parsed.diagnostics.iter().chain(&lowered).filter(|one| one.rule.is_some()).collect();
    found.sort_by_key(|one| one.span.map(|span| span.start()));
    found.dedup();
    if found.is_empty() {
        if let Some(failure) = error {
            return Err(failure);
        }
        return Ok(Answer { text: "Check complete, no warnings found.\n".to_owned(), clean: true, error: None });
    }
    let text: String = found.iter().map(|one| warning(source, one)).collect();
    let noun = if found.len() == 1 { "warning has" } else { "warnings have" };
    let text = format!("Check complete, {} {noun} been found!\n\n{text}", found.len());
    Ok(Answer { text, clean: !parsed.value.checks.error && error.is_none(), error })
}

/// One finding, as `docker build --check` prints it.
fn warning(source: &Source, found: &Diagnostic) -> String {
    let rule = found.rule.expect("only findings of rules are shown");
    let line = found.span.map(|span| source.position(span.start()).line);
    let mut out = format!("WARNING: {} - {}\n{}\n", rule.name, rule.url, found.message);
    if let Some(line) = line {
        out.push_str(&format!("{}:{line}\n--------------------\n", source.name()));
        let (first, last) = (line.saturating_sub(2).max(1), line + 2);
        for number in first..=last {
            if let Some(text) = source.line(number) {
                let mark = if number == line { ">>>" } else { "   " };
                let shown = format!("{number:4} | {mark} {}", crate::cli::report::printable(text));
                out.push_str(shown.trim_end());
                out.push('\n');
            }
        }
        out.push_str("--------------------\n");
    }
    out.push('\n');
    out
}
