//! Go's templates, as people give them to `--format`: `text/template` with the functions that Docker adds. Output and
//! messages are those of Docker's client, which the recorded cases in `testdata/go_templates.json` hold.
//!
//! Text → [`lexer`] → [`parser`] → tree ([`node`]) → [`evaluate`] with [`functions`] on a [`value::Value`]. No methods
//! and no `call`: data are documents, not Go objects. A template that never ends is stopped by the size of its output.

mod evaluate;
mod functions;
mod lexer;
mod literal;
mod node;
mod parser;
mod printf;
mod shape;
#[cfg(test)]
mod tests;
mod value;

use serde_json::Value as Json;

use super::report::Failure;
use evaluate::{ExecError, Filling, execute};
use parser::Trees;
use value::Value;

pub(crate) use shape::{Field, Shape};
pub(in crate::cli) use value::LABELS;

/// Exit code for a template that `inspect` cannot parse, as in Docker.
const UNPARSED: u8 = 64;

/// A template, parsed.
#[derive(Debug, PartialEq)]
pub(super) struct Template {
    text: String,
    trees: Trees,
}

impl Template {
    /// Parses a template.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let trees = parser::parse(text).map_err(|error| refused(&error))?;
        Ok(Self { text: text.to_owned(), trees })
    }

    /// Parses the template of an `inspect` command, which ends with another exit code where it makes no sense.
    pub(super) fn for_inspect(text: &str) -> Result<Self, Failure> {
        Self::parse(text).map_err(|failure| failure.with_exit(crate::exit_code::Exit::Container(UNPARSED)))
    }

    /// Fills the template from a document. A field that it lacks is refused.
    pub(super) fn render(&self, document: &Json) -> Result<String, Failure> {
        self.fill(&Value::from_json(document), Filling::Document).map_err(|error| refused(&error))
    }

    /// Fills the template from a document of a declared shape, and where that fails, from the document as it is:
    /// Docker's `inspect` does it that way.
    pub(super) fn render_shaped(&self, document: &Json, shape: &Shape) -> Result<String, Failure> {
        match self.fill(&Value::shaped(document, shape), Filling::Declared) {
            Ok(text) => Ok(text),
            Err(_) => self.render(document),
        }
    }

    /// Fills the template from the row of a list; `row_type` is what messages call it.
    pub(super) fn render_row(
        &self,
        row: &serde_json::Map<String, Json>,
        row_type: &'static str,
    ) -> Result<String, Failure> {
        let row = Value::row(row, row_type);
        self.fill(&row, Filling::Declared).map_err(|error| refused(&error))
    }

    /// The line of headings above the rows: each field is what `heading` makes of its name.
    pub(super) fn render_headings(&self, heading: &dyn Fn(&str) -> String) -> Result<String, Failure> {
        self.fill(&Value::Missing, Filling::Headings(heading)).map_err(|error| refused(&error))
    }

    fn fill(&self, data: &Value, filling: Filling<'_>) -> Result<String, ExecError> {
        execute(&self.text, &self.trees, data, filling)
    }
}

fn refused(error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("template parsing error: {error}"))
}
