//! What the front end has to say about a text: severity, place, message, hint. No rendering, no colours, no file names;
//! whoever prints a diagnostic has the [`Source`](crate::Source) beside it.

use crate::Span;
use crate::lint::Rule;

/// How bad it is. Ordered: an error is greater than a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file can be built all the same.
    Warning,
    /// The file cannot be built.
    Error,
}

/// A further place that helps to understand a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is to be seen there.
    pub text: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The build check that found it, if one did.
    pub rule: Option<&'static Rule>,
    /// Where; the excerpt starts on the line of its first byte. `None` concerns the file as a whole.
    pub span: Option<Span>,
    /// What is wrong, in one line, in BuildKit's words where BuildKit has any.
    pub message: String,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::file_error(message) }
    }

    /// An error that concerns the whole file.
    pub fn file_error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule: None,
            span: None,
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// A warning of a build check.
    pub fn lint(rule: &'static Rule, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, rule: Some(rule), ..Self::error(span, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that matters.
    #[must_use]
    pub fn with_label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Whether it stops the build.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A value together with everything found while making it. The value is as good as the text allows; when one of the
/// diagnostics is an error, parts of it are missing.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    /// The value.
    pub value: T,
    /// Errors first, in the order in which BuildKit would meet them, then warnings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Parsed<T> {
    /// The error that BuildKit would report, were it alone.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        self.diagnostics.iter().find(|diagnostic| diagnostic.is_error())
    }

    /// Whether anything stops the build.
    pub fn has_errors(&self) -> bool {
        self.first_error().is_some()
    }
}
