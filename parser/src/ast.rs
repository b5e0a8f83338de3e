//! Instructions as syntax: keyword, flags, arguments, here-documents, each with its place. Which flags and how many arguments an
//! instruction takes is not known here; that makes the faults of this level few, and BuildKit reports them before all others.

use std::borrow::Cow;

use crate::grammar::exec_form::{ExecForm, exec_form};
use crate::grammar::pairs::{PairError, PairPieces, pairs};
use crate::grammar::{Piece, flags, words};
use crate::heredoc::{Heredoc, openers};
use crate::instruction::PairForm;
use crate::logical_line::{LogicalLine, Map, Reader};
use crate::word::Escape;
use crate::{Diagnostic, Span};

/// How deep `ONBUILD` may nest syntactically; more than one level is refused later anyway.
const MAX_NESTING: usize = 8;

/// A piece of text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// The known instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    pub(crate) const ALL: [(&'static str, Self); 18] = [
        ("add", Self::Add),
        ("arg", Self::Arg),
        ("cmd", Self::Cmd),
        ("copy", Self::Copy),
        ("entrypoint", Self::Entrypoint),
        ("env", Self::Env),
        ("expose", Self::Expose),
        ("from", Self::From),
        ("healthcheck", Self::Healthcheck),
        ("label", Self::Label),
        ("maintainer", Self::Maintainer),
        ("onbuild", Self::OnBuild),
        ("run", Self::Run),
        ("shell", Self::Shell),
        ("stopsignal", Self::StopSignal),
        ("user", Self::User),
        ("volume", Self::Volume),
        ("workdir", Self::Workdir),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, keyword)| *keyword)
    }
}

/// What follows keyword and flags.
#[derive(Debug)]
pub(crate) enum Arguments {
    /// Words or one whole text, as the keyword has it.
    Plain(Vec<Argument>),
    /// A JSON array.
    Json(Vec<Argument>),
    /// Names and values.
    Pairs(Vec<(Argument, Argument, PairForm)>),
    /// `HEALTHCHECK`'s kind and what follows it.
    Kind(Argument, Box<Self>),
    /// The instruction after `ONBUILD`.
    Nested(Box<Node>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl Arguments {
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Json(_))
    }
}

/// An instruction.
#[derive(Debug)]
pub(crate) struct Node {
    /// The keyword as written.
    pub(crate) word: Argument,
    /// What it stands for; `None` for an unknown one, whose arguments are not looked at.
    pub(crate) keyword: Option<Keyword>,
    pub(crate) flags: Vec<Argument>,
    pub(crate) arguments: Arguments,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The joined line.
    pub(crate) line: String,
    /// Its place without and with here-document bodies.
    pub(crate) head: Span,
    pub(crate) span: Span,
    /// The last line, if a blank one stands between it and the first.
    pub(crate) blank_inside: Option<Span>,
    /// The comments directly above.
    pub(crate) comments: Vec<String>,
}

/// Reads a text instruction by instruction.
pub(crate) struct Tree<'s> {
    reader: Reader<'s>,
    found: bool,
    /// What is wrong with the syntax so far.
    pub(crate) faults: Vec<Diagnostic>,
}

impl<'s> Tree<'s> {
    /// Starts at the top. With `fixed`, every place is that one.
    pub(crate) fn new(text: &'s str, fixed: Option<Span>) -> Self {
        Self { reader: Reader::new(text, fixed), found: false, faults: Vec::new() }
    }

    /// The escape character, as far as the text has been read; it can only change before the first instruction.
    pub(crate) fn escape(&self) -> Escape {
        self.reader.header.escape
    }

    /// The next instruction. What cannot be read is passed over and noted.
    pub(crate) fn next(&mut self) -> Option<Node> {
        loop {
            let line = self.reader.next();
            self.faults.append(&mut self.reader.faults);
            let Some(line) = line else {
                if !self.found && self.faults.is_empty() {
                    let help = "a Dockerfile starts with FROM, for example `FROM scratch`";
                    self.faults.push(Diagnostic::error(self.reader.end(), "file with no instructions").with_help(help));
                }
                return None;
            };
            self.found = true;
            match node(line, self.reader.header.escape) {
                Ok(mut node) => {
                    let fault = read_heredocs(&mut node, &mut self.reader);
                    self.faults.append(&mut self.reader.faults);
                    self.faults.extend(fault);
                    return Some(node);
                }
                Err(faults) => self.faults.extend(faults),
            }
        }
    }
}

/// What is wrong with the syntax of an instruction; never empty.
type Faults = Vec<Diagnostic>;

fn node(line: LogicalLine<'_>, escape: Escape) -> Result<Node, Faults> {
    let LogicalLine { text, map, span, blank_inside, comments } = line;
    let builder = Builder { map, escape, head: span };
    let mut node = builder.node(text, 0)?;
    node.blank_inside = blank_inside;
    node.comments = comments.into_iter().map(str::to_owned).collect();
    Ok(node)
}

/// Reads the bodies that a node opens.
fn read_heredocs(node: &mut Node, reader: &mut Reader<'_>) -> Option<Diagnostic> {
    let taker = match &node.arguments {
        Arguments::Nested(nested) => nested,
        _ => &*node,
    };
    if !matches!(taker.keyword, Some(Keyword::Add | Keyword::Copy | Keyword::Run)) || taker.arguments.is_json() {
        return None;
    }
    for opener in openers(&node.line) {
        let mut content = String::new();
        let mut start = None;
        let mut end = 0;
        let mut closed = false;
        while let Some(line) = reader.physical() {
            start.get_or_insert(line.start);
            end = line.start;
            if opener.is_closed_by(line.raw) {
                closed = true;
                node.span = node.span.to(reader.place(Span::new(line.start, line.start + line.raw.trim_end().len())));
                break;
            }
            content.push_str(line.raw);
            end = line.start + line.raw.len();
        }
        if !closed {
            let help = format!("the here-document ends at a line that says only `{}`", opener.name);
            return Some(Diagnostic::error(node.head, "unterminated heredoc").with_help(help));
        }
        let start = start.unwrap_or(end);
        node.heredocs.push(Heredoc { opener, content, span: reader.place(Span::new(start, end)) });
    }
    None
}

struct Builder {
    map: Map,
    escape: Escape,
    head: Span,
}

impl Builder {
    fn argument(&self, offset: usize, piece: Piece<'_>) -> Argument {
        let span = self.map.span(offset + piece.range.start..offset + piece.range.end);
        Argument { text: piece.text.into_owned(), span }
    }

    fn slice(&self, offset: usize, text: &str) -> Argument {
        self.argument(offset, Piece { text: Cow::Borrowed(text), range: 0..text.len() })
    }

    /// An error about a place. BuildKit points at an instruction's first line whatever is wrong with it, so a place further down
    /// becomes a label.
    fn error(&self, at: Span, message: impl Into<String>) -> Diagnostic {
        match self.map.is_on_first_line(at) {
            true => Diagnostic::error(at, message),
            false => Diagnostic::error(self.head, message).with_label(at, "here"),
        }
    }

    /// Splits a line into keyword, flags and arguments.
    fn node(&self, line: Cow<'_, str>, depth: usize) -> Result<Node, Faults> {
        let trimmed = line.trim();
        let start = line.len() - line.trim_start().len();
        let (word, rest) = words::split_once(trimmed);
        let keyword = Keyword::parse(word);
        let word = self.slice(start, word);
        let (flags, arguments) = match rest {
            None => (Vec::new(), self.arguments(keyword, "", trimmed.len(), depth)?),
            Some(at) => {
                let (flags, length) = flags::split(&trimmed[at..], self.escape);
                let flags = flags.into_iter().map(|flag| self.argument(start + at, flag)).collect();
                let body = &trimmed[at + length..];
                let offset = start + trimmed.len() - body.trim_start().len();
                (flags, self.arguments(keyword, body.trim(), offset, depth)?)
            }
        };
        Ok(Node {
            word,
            keyword,
            flags,
            arguments,
            heredocs: Vec::new(),
            line: line.into_owned(),
            head: self.head,
            span: self.head,
            blank_inside: None,
            comments: Vec::new(),
        })
    }

    fn arguments(&self, keyword: Option<Keyword>, text: &str, at: usize, depth: usize) -> Result<Arguments, Faults> {
        use Keyword as K;
        Ok(match keyword {
            None => Arguments::Plain(Vec::new()),
            Some(K::Add | K::Copy | K::Volume) => self.json_or(text, at, Self::fields)?,
            Some(K::Cmd | K::Entrypoint | K::Run | K::Shell) => self.json_or(text, at, Self::whole)?,
            Some(K::Arg) => {
                let words = words::words(text, self.escape);
                Arguments::Plain(words.map(|word| self.argument(at, word)).collect())
            }
            Some(K::Env) => self.pairs(text, at, "ENV")?,
            Some(K::Label) => self.pairs(text, at, "LABEL")?,
            Some(K::Expose | K::From) => self.fields(text, at),
            Some(K::Healthcheck) => self.healthcheck(text, at)?,
            Some(K::Maintainer | K::StopSignal | K::User | K::Workdir) => self.whole(text, at),
            Some(K::OnBuild) if text.is_empty() => Arguments::Plain(Vec::new()),
            Some(K::OnBuild) if depth >= MAX_NESTING => {
                return Err(vec![Diagnostic::error(self.head, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]);
            }
            Some(K::OnBuild) => {
                let inner = Self { map: self.map.tail(at), escape: self.escape, head: self.head };
                Arguments::Nested(Box::new(inner.node(Cow::Borrowed(text), depth + 1)?))
            }
        })
    }

    fn whole(&self, text: &str, at: usize) -> Arguments {
        Arguments::Plain(if text.is_empty() { Vec::new() } else { vec![self.slice(at, text)] })
    }

    fn fields(&self, text: &str, at: usize) -> Arguments {
        Arguments::Plain(words::fields(text).map(|range| self.slice(at + range.start, &text[range])).collect())
    }

    fn json_or(
        &self,
        text: &str,
        at: usize,
        otherwise: impl FnOnce(&Self, &str, usize) -> Arguments,
    ) -> Result<Arguments, Faults> {
        match exec_form(text) {
            ExecForm::Strings(strings) => {
                Ok(Arguments::Json(strings.into_iter().map(|string| self.argument(at, string)).collect()))
            }
            ExecForm::Mixed => {
                let message = "when using JSON array syntax, arrays must be comprised of strings only";
                Err(vec![self.error(self.map.span(at..at + text.len()), message)])
            }
            ExecForm::No => Ok(otherwise(self, text, at)),
        }
    }

    fn healthcheck(&self, text: &str, at: usize) -> Result<Arguments, Faults> {
        if text.is_empty() {
            return Ok(Arguments::Plain(Vec::new()));
        }
        // BuildKit looks at bytes here, each a Latin-1 character, so other blanks of Unicode part nothing.
        let mut end = text.bytes().position(is_latin_blank).unwrap_or(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let rest = text[end..].trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
        let kind = self.slice(at, &text[..end]);
        let rest = self.json_or(rest, at + text.len() - rest.len(), Self::whole)?;
        Ok(Arguments::Kind(kind, Box::new(rest)))
    }

    /// Names and values; every word that is no pair is a fault of its own.
    fn pairs(&self, text: &str, at: usize, keyword: &'static str) -> Result<Arguments, Faults> {
        let mut found = Vec::new();
        let mut faults = Vec::new();
        for pair in pairs(text, keyword, self.escape) {
            match pair {
                Ok(PairPieces { name, value, form }) => {
                    found.push((self.argument(at, name), self.argument(at, value), form));
                }
                Err(error) => {
                    faults.push(self.pair_fault(&error, text, at, keyword));
                    // What follows is meant as a comment.
                    if matches!(&error, PairError::NoEquals { word, .. } if word.starts_with('#')) {
                        break;
                    }
                }
            }
        }
        if faults.is_empty() {
            return Ok(Arguments::Pairs(found));
        }
        // Nobody looks at the pairs any more, so what is wrong with them is said here.
        let blank = found.iter().filter(|(name, ..)| name.text.is_empty());
        faults.extend(blank.map(|(name, value, _)| self.error(name.span.to(value.span), blank_name(keyword))));
        Err(faults)
    }

    fn pair_fault(&self, error: &PairError, text: &str, at: usize, keyword: &str) -> Diagnostic {
        let message = error.to_string();
        match error {
            PairError::NameOnly { .. } => self
                .error(self.map.span(at..at + text.len()), message)
                .with_help(format!("write `{keyword} {text}=value`")),
            PairError::NoEquals { word, range } => {
                let help = match word.starts_with('#') {
                    true => "comments stand on lines of their own",
                    false => "quote values that contain blanks: name=\"a value\"",
                };
                self.error(self.map.span(at + range.start..at + range.end), message).with_help(help)
            }
        }
    }
}

fn is_latin_blank(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// What BuildKit says about a name that is missing before its `=`.
pub(crate) fn blank_name(keyword: &str) -> String {
    format!("{keyword} names can not be blank")
}
