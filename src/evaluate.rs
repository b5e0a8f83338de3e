//! `--check` and `--call`: questions about a Dockerfile that are answered without building, in the forms of BuildKit and
//! buildx: the same columns, the same fields of JSON, the same exit codes.

mod call;
mod check;
mod columns;
mod listing;
mod location;

pub use call::{Call, Method};

use rbuild_parser::Source;

use crate::annotation::Annotation;
use crate::build::goal;
use crate::cli::report::Failure;
use crate::context;
use crate::dockerfile;
use crate::engine::Engine;
use crate::request::BuildRequest;
use crate::resolve::{Freshness, Outside};
use crate::ssh_agents::SshAgents;

/// An answer for standard output.
#[derive(Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Whether the program ends well.
    pub clean: bool,
    /// The same for a forge.
    pub(crate) annotations: Vec<Annotation>,
    /// What would stop a build.
    pub error: Option<Failure>,
}

impl Engine {
    /// Answers a question about a Dockerfile.
    pub fn evaluate(&self, request: &BuildRequest, call: Call) -> Result<Answer, Failure> {
        let store = self.store()?;
        let lease = store.lease("evaluation")?;
        let agents = SshAgents::start(self.settings(), &lease, &request.ssh)?;
        let loaded = context::load(self, &lease, request, agents.sockets())?;
        let source = &loaded.dockerfile;
        let parsed = dockerfile::read(source, request)?;
        let outside = Outside::new(self, store, &lease, &request.named_contexts, Freshness::Stored);
        let mut goal = goal(request);
        let text = match call.method {
            Method::Check => {
                goal.ignore = Some(loaded.context.ignore.patterns.clone());
                return Ok(check::answer(source, &parsed, goal, &outside, request, call));
            }
            Method::Outline => {
                goal.multi_platform = dockerfile::is_multi_platform(request)?;
                if parsed.has_errors() {
                    let found = dockerfile::plan(source, &parsed, &goal, &outside, request).err().unwrap_or_default();
                    return Err(Failure::diagnostics(source, &found));
                }
                let outline = rbuild_solver::outline(source, &parsed.value, &goal, &outside)
                    .map_err(|found| Failure::diagnostics(source, &found))?;
                listing::outline(source, &outline, call.json)
            }
            Method::Targets => {
                if parsed.has_errors() {
                    return Err(Failure::diagnostics(source, &parsed.diagnostics));
                }
                listing::targets(source, &rbuild_solver::targets(&parsed.value), call.json)
            }
        };
        Ok(Answer { text, clean: true, annotations: Vec::new(), error: None })
    }
}

/// A document as BuildKit prints JSON, with a line end.
fn json_text(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}

/// The whole Dockerfile as JSON carries bytes.
fn source_data(source: &Source) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(source.text())
}
