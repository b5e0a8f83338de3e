//! Where errors meet the user: colour, excerpt, hint, exit code. The only file that turns an error into text, and,
//! with the progress views, the only one that prints.

use std::fmt::Write as _;
use std::io::{self, Write};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use rbuild_parser::{Diagnostic, Label, Severity, Source, Span};

use crate::annotation::Annotation;
use crate::config::Settings;
use crate::exit_code::Exit;
use crate::failure_help;

/// Why a command failed, ready to be shown. Not a [`std::error::Error`] itself: it is where errors end.
#[derive(Debug)]
pub struct Failure {
    message: String,
    help: Option<String>,
    place: Option<Place>,
    before: Vec<Self>,
    exit: Exit,
}

/// A range of a Dockerfile.
#[derive(Debug)]
struct Place {
    source: Source,
    span: Span,
    /// Other places that help to understand it.
    labels: Vec<Label>,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None, before: Vec::new(), exit: Exit::Failure }
    }

    /// What could not be done, then an error and its causes, each once.
    pub fn from_error(doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("{doing}: {error}");
        append_causes(&mut message, error);
        Self { help: failure_help::of_error(error), ..Self::new(message) }
    }

    /// The same failure, with what was being done in front.
    #[must_use]
    pub fn within(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The user asked to stop.
    pub fn interrupted() -> Self {
        Self::new("interrupted").with_exit(Exit::Interrupted)
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(message).with_help(help).with_exit(Exit::Usage)
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Ends the program with another code.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Points at a range of a Dockerfile.
    #[must_use]
    pub fn at(mut self, source: &Source, span: Span) -> Self {
        self.place = Some(Place { source: source.clone(), span, labels: Vec::new() });
        self
    }

    /// Everything wrong with a Dockerfile, in the order of its text; the first error that was met names the failure.
    pub fn diagnostics(source: &Source, diagnostics: &[Diagnostic]) -> Self {
        let mut errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        let one = |diagnostic: &Diagnostic| {
            let mut failure = Self::new(diagnostic.message.clone());
            failure.help = diagnostic.help.clone();
            if let Some(span) = diagnostic.span {
                failure = failure.at(source, span);
            }
            if let Some(place) = &mut failure.place {
                place.labels.clone_from(&diagnostic.labels);
            }
            failure
        };
        let Some(first) = errors.next() else {
            return Self::new("the Dockerfile cannot be built");
        };
        let mut all: Vec<&Diagnostic> = std::iter::once(first).chain(errors).collect();
        if all.len() == 1 {
            return one(first);
        }
        all.sort_by_key(|diagnostic| diagnostic.span.map(|span| span.start()));
        // All of them are shown; the last line repeats the first, which is the one that BuildKit would have shown.
        let place = first
            .span
            .map_or_else(String::new, |span| format!("{}:{}, ", source.name(), source.position(span.start()).line));
        let mut failure = Self::new(format!("{} ({place}and {} more)", first.message, all.len() - 1));
        failure.before = all.into_iter().map(one).collect();
        failure
    }

    /// The message without place and hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// As a forge shows it beside the Dockerfile; several where several things are wrong with that.
    pub(crate) fn annotations(&self) -> Vec<Annotation> {
        if !self.before.is_empty() {
            return self.before.iter().flat_map(Self::annotations).collect();
        }
        let place = self.place.as_ref().map(|place| (&place.source, place.span));
        vec![Annotation::failure(&self.message, self.help(), place)]
    }

    /// What is shown, without colours.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        self.render(false, &mut text);
        text
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    fn render(&self, styled: bool, out: &mut String) {
        for failure in &self.before {
            failure.render(styled, out);
        }
        let text = printable(&self.message);
        let mut group = match &self.place {
            None => Group::with_title(Level::ERROR.primary_title(text)),
            Some(place) => Level::ERROR.primary_title(text).element(place.snippet()),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        out.push_str(&renderer.decor_style(DecorStyle::Ascii).render(&[group]));
        out.push('\n');
    }
}

impl Place {
    fn snippet<'a>(&'a self) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let primary = AnnotationKind::Primary.span(first_line(&self.source, self.span));
        let label = |label: &'a Label| {
            AnnotationKind::Context.span(first_line(&self.source, label.span)).label(label.text.as_str())
        };
        Snippet::source(self.source.text())
            .path(self.source.name())
            .fold(true)
            .annotation(primary)
            .annotations(self.labels.iter().map(label))
    }
}

/// The part of a span on its first line: a caret under a whole here-document helps nobody.
fn first_line(source: &Source, span: Span) -> std::ops::Range<usize> {
    let text = source.slice(span);
    let length = text.find(['\n', '\r']).unwrap_or(text.len());
    span.start().min(source.text().len())..span.start().min(source.text().len()) + length
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        append_causes(&mut message, &error);
        Self { help: failure_help::of_error(&error), ..Self::new(message) }
    }
}

/// Appends the causes of an error, each once.
pub(crate) fn append_causes(message: &mut String, error: &dyn std::error::Error) {
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.ends_with(&text) {
            let _infallible = write!(message, ": {text}");
        }
        source = cause.source();
    }
}

/// Escapes control characters other than line ends and tabs: text from steps, images, registries and Dockerfiles
/// never reaches a terminal raw (rule B-12).
pub fn printable(text: &str) -> String {
    let hostile = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if !text.contains(hostile) {
        return text.to_owned();
    }
    text.chars().map(|c| if hostile(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// Shows why a command failed; gives the exit code.
pub(super) fn failure(failure: &Failure, settings: &Settings) -> Exit {
    let mut text = String::new();
    failure.render(settings.stderr_is_terminal && settings.colour, &mut text);
    story(&text);
    failure.exit
}

/// Writes to standard output: the answer.
pub fn answer(text: &str) -> io::Result<()> {
    answer_bytes(text.as_bytes())
}

/// Writes bytes to standard output, as they are.
pub(crate) fn answer_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to standard error: the story. There is nobody to tell when that fails.
pub fn story(text: &str) {
    let mut err = io::stderr().lock();
    let _nobody_listens = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(failure: &Failure) -> String {
        let mut out = String::new();
        failure.render(false, &mut out);
        out
    }

    #[test]
    fn a_failure_points_at_its_line() {
        let source = Source::new("Dockerfile", "FROM a\n\nRUN make \\\n  all\n");
        let failure = Failure::new("process \"/bin/sh -c make all\" did not complete successfully: exit code: 2")
            .at(&source, Span::new(8, 25))
            .with_help("see the step's output above");
        insta::assert_snapshot!(shown(&failure), @r#"
        error: process "/bin/sh -c make all" did not complete successfully: exit code: 2
         --> Dockerfile:3:1
          |
        3 | RUN make \
          | ^^^^^^^^^^
          |
          = help: see the step's output above
        "#);
    }

    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{202e}"), "a\\u{1b}[2Jb\\u{d}\\u{202e}");
        assert_eq!(printable("tabs\tand\nlines é"), "tabs\tand\nlines é");
    }

    #[test]
    fn causes_are_joined_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x")]
        struct Outer(#[source] io::Error);
        let failure = Failure::from(Outer(io::Error::other("disk on fire")));
        assert_eq!(failure.message(), "cannot read x: disk on fire");
    }
}
