//! Dockerfile text to typed instructions with spans. Pure: no I/O, no environment. Does not stop at the first mistake:
//! it returns a value *and* diagnostics.

mod source;

pub use source::{Position, Source, Span};
