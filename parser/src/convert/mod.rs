//! Syntax to typed instructions: which flags, how many arguments, in which form. One fault per instruction, in BuildKit's words
//! and found in BuildKit's order.

mod copy;
mod exec;
mod flags;
mod from;
mod metadata;
mod run;

use crate::ast::{Argument, Arguments, Keyword, Node};
use crate::instruction::{Instruction, Origin, Text};
use crate::lint::Config;
use crate::stage::Stage;
use crate::suggest::suggestion_any_case;
use crate::word::{Escape, Word};
use crate::{Diagnostic, Span, directive};

/// What a node becomes.
#[expect(clippy::large_enum_variant, reason = "nearly every one is an instruction, and it moves on at once")]
pub(crate) enum Converted {
    /// A `FROM`.
    Stage(Box<Stage>),
    /// Anything else.
    Instruction(Instruction),
}

/// What all conversions share.
pub(crate) struct Converter<'a> {
    /// The text that spans point into.
    pub(crate) text: &'a str,
    /// The escape character of words.
    pub(crate) escape: Escape,
    /// Findings of build checks that need nothing but the instruction.
    pub(crate) lints: Vec<(Diagnostic, Option<Box<Config>>)>,
}

impl Converter<'_> {
    /// Converts a node.
    pub(crate) fn convert(&mut self, node: &mut Node) -> Result<Converted, Diagnostic> {
        let Some(keyword) = node.keyword else { return Err(self.unknown(node)) };
        let instruction = match keyword {
            Keyword::From => return self.from(node).map(|stage| Converted::Stage(Box::new(stage))),
            Keyword::Add => Instruction::Add(self.add(node)?),
            Keyword::Arg => Instruction::Arg(self.arg(node)?),
            Keyword::Cmd => Instruction::Cmd(self.cmd(node)?),
            Keyword::Copy => Instruction::Copy(self.copy(node)?),
            Keyword::Entrypoint => Instruction::Entrypoint(self.entrypoint(node)?),
            Keyword::Env => Instruction::Env(self.env(node)?),
            Keyword::Expose => Instruction::Expose(self.expose(node)?),
            Keyword::Healthcheck => Instruction::Healthcheck(self.healthcheck(node)?),
            Keyword::Label => Instruction::Label(self.label(node)?),
            Keyword::Maintainer => Instruction::Maintainer(self.maintainer(node)?),
            Keyword::OnBuild => Instruction::OnBuild(self.on_build(node)?),
            Keyword::Run => Instruction::Run(self.run(node)?),
            Keyword::Shell => Instruction::Shell(self.shell(node)?),
            Keyword::StopSignal => Instruction::StopSignal(self.stop_signal(node)?),
            Keyword::User => Instruction::User(self.user(node)?),
            Keyword::Volume => Instruction::Volume(self.volume(node)?),
            Keyword::Workdir => Instruction::Workdir(self.workdir(node)?),
        };
        Ok(Converted::Instruction(instruction))
    }

    fn unknown(&self, node: &Node) -> Diagnostic {
        let word = &node.word.text;
        let mut message = format!("unknown instruction: {word}");
        let found = suggestion_any_case(word, Keyword::ALL.iter().map(|(name, _)| *name));
        if let Some(name) = &found {
            message.push_str(&format!(" (did you mean {name}?)"));
        }
        let diagnostic = Diagnostic::error(node.word.span, message);
        match found {
            Some(name) => diagnostic.with_help(format!("write `{name}`")),
            None => diagnostic.with_help("an instruction that goes on in the next line ends with a backslash"),
        }
    }

    fn word(&self, argument: Argument) -> Word {
        Word::new(argument.text, argument.span, self.escape)
    }

    fn words(&self, arguments: Vec<Argument>) -> Vec<Word> {
        arguments.into_iter().map(|argument| self.word(argument)).collect()
    }

    /// An error about a place in an instruction. BuildKit points at an instruction's first line whatever is wrong with it, so
    /// a place further down becomes a label.
    fn error(&self, node: &Node, at: Span, message: impl Into<String>) -> Diagnostic {
        let start = node.word.span.start();
        match self.text.get(start..at.start()) {
            Some(between) if between.contains('\n') => {
                Diagnostic::error(node.word.span, message).with_label(at, "here")
            }
            _ => Diagnostic::error(at, message),
        }
    }

    /// An error about an instruction as a whole.
    fn error_at_keyword(&self, node: &Node, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(node.word.span, message)
    }

    fn exactly_one(&self, node: &mut Node, name: &str) -> Result<Argument, Diagnostic> {
        match <[Argument; 1]>::try_from(take_plain(node)) {
            Ok([one]) => Ok(one),
            Err(_) => Err(self.error_at_keyword(node, format!("{name} requires exactly one argument"))),
        }
    }

    fn at_least_one(&self, node: &mut Node, name: &str) -> Result<Vec<Argument>, Diagnostic> {
        let arguments = take_plain(node);
        if arguments.is_empty() {
            return Err(self.error_at_keyword(node, format!("{name} requires at least one argument")));
        }
        Ok(arguments)
    }

    fn lint(&mut self, node: &Node, found: Option<Diagnostic>) {
        if let Some(diagnostic) = found {
            self.lints.push((diagnostic, checks(node)));
        }
    }
}

/// The checks that a comment above a node switches.
pub(crate) fn checks(node: &Node) -> Option<Box<Config>> {
    if node.comments.is_empty() {
        return None;
    }
    let comments: Vec<&str> = node.comments.iter().map(String::as_str).collect();
    // One that cannot be read changes nothing.
    let config = Config::parse(directive::check_among(&comments)?).ok()?;
    Some(Box::new(config))
}

/// Takes the arguments out of a node, whatever their form.
fn take_plain(node: &mut Node) -> Vec<Argument> {
    match &mut node.arguments {
        Arguments::Plain(arguments) | Arguments::Json(arguments) => std::mem::take(arguments),
        _ => Vec::new(),
    }
}

/// The origin of what a node becomes; takes its text.
pub(crate) fn origin(node: &mut Node) -> Origin {
    let line = std::mem::take(&mut node.line);
    let trimmed = line.trim();
    Origin {
        keyword: std::mem::take(&mut node.word.text),
        text: if trimmed.len() == line.len() { line } else { trimmed.to_owned() },
        span: node.span,
        head: node.head,
        checks: checks(node),
    }
}

fn text(argument: Argument) -> Text {
    Text { value: argument.text, span: argument.span }
}

/// The text after `NAME ` in the first comment that starts so.
fn description(comments: &[String], name: &str) -> Option<String> {
    comments.iter().find_map(|comment| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}
