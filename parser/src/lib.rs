//! Dockerfile text to typed instructions with spans. Pure: no I/O, no environment. Does not stop at the first mistake: it returns a
//! value *and* diagnostics.
//!
//! BuildKit's reading of the language is the law here, its messages included; where this crate differs it is stricter about size
//! and nesting, so that no text can exhaust the machine.
//!
//! The way of a text: [`Source`] → logical lines → syntax nodes → [`Instruction`]s → [`Dockerfile`]. Words that hold variables
//! stay [`Word`]s; they are expanded by whoever knows the values.
//!
//! ```
//! use std::collections::BTreeMap;
//! use rbuild_parser::{Instruction, Source, parse};
//!
//! let source = Source::new("Dockerfile", "FROM scratch\nWORKDIR /srv/${APP:-web}\n");
//! let parsed = parse(&source);
//! assert!(!parsed.has_errors());
//! let [Instruction::Workdir(workdir)] = parsed.value.stages[0].instructions.as_slice() else { panic!() };
//! let variables = BTreeMap::from([("APP".to_owned(), "shop".to_owned())]);
//! assert_eq!(workdir.path.expand(&variables).unwrap().text, "/srv/shop");
//! assert_eq!(source.position(workdir.path.span().start()).line, 2);
//! ```

mod ast;
mod convert;
mod diagnostic;
mod directive;
mod duration;
pub mod glob;
mod grammar;
mod heredoc;
pub mod ignore;
pub mod instruction;
pub mod lint;
mod logical_line;
pub mod mount;
mod parse;
pub mod port;
mod quote;
mod size;
mod source;
mod stage;
mod suggest;
pub mod word;

pub use diagnostic::{Diagnostic, Label, Parsed, Severity};
pub use directive::{Directive, Directives, is_built_in};
pub use duration::{DurationError, parse_duration};
pub use grammar::mount::CsvError;
pub use heredoc::{Heredoc, Opener};
pub use ignore::{Ignore, IgnoreError, MatchState};
pub use instruction::Instruction;
pub use mount::{Mount, MountError, MountFlag, MountKind, Sharing, parse_bool};
pub use parse::{Overrides, parse, parse_trigger, parse_with};
pub use source::{Position, Source, Span};
pub use stage::{Dockerfile, Stage};
pub use suggest::{did_you_mean, suggestion};
pub use word::{Escape, ExpandError, ExpandFault, Expanded, ExpandedWords, Lookup, NoVariables, Word};
