//! Syntax to typed instructions: which flags, how many arguments, in which form. All faults of an instruction are noted, in
//! BuildKit's words; the first is the one that BuildKit would report. An instruction with a fault is left out, but for a `FROM`
//! whose image can be read, so that what follows finds its stage.

mod copy;
mod exec;
mod flags;
mod from;
mod metadata;
mod run;

use std::cell::RefCell;

use crate::ast::{Argument, Arguments, Keyword, Node};
use crate::instruction::{Instruction, Origin, Text};
use crate::lint::Config;
use crate::stage::Stage;
use crate::suggest::suggestion_any_case;
use crate::word::{Escape, Word};
use crate::{Diagnostic, Span, directive};

/// What a node becomes.
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
    /// What is wrong with the instruction at hand.
    pub(crate) faults: RefCell<Vec<Diagnostic>>,
}

impl<'a> Converter<'a> {
    /// Converts the nodes of a text.
    pub(crate) fn new(text: &'a str, escape: Escape) -> Self {
        Self { text, escape, lints: Vec::new(), faults: RefCell::default() }
    }

    /// Converts a node; what is wrong with it comes beside.
    pub(crate) fn convert(&mut self, node: &mut Node) -> (Option<Converted>, Vec<Diagnostic>) {
        let converted = self.typed(node);
        let faults = self.faults.take();
        let keep = faults.is_empty() || matches!(converted, Some(Converted::Stage(_)));
        (converted.filter(|_| keep), faults)
    }

    fn typed(&mut self, node: &mut Node) -> Option<Converted> {
        let Some(keyword) = node.keyword else { return self.refuse(self.unknown(node)) };
        let instruction = match keyword {
            Keyword::From => return self.from(node).map(|stage| Converted::Stage(Box::new(stage))),
            Keyword::Add => Instruction::Add(Box::new(self.add(node)?)),
            Keyword::Arg => Instruction::Arg(self.arg(node)?),
            Keyword::Cmd => Instruction::Cmd(self.cmd(node)?),
            Keyword::Copy => Instruction::Copy(Box::new(self.copy(node)?)),
            Keyword::Entrypoint => Instruction::Entrypoint(self.entrypoint(node)?),
            Keyword::Env => Instruction::Env(self.env(node)?),
            Keyword::Expose => Instruction::Expose(self.expose(node)?),
            Keyword::Healthcheck => Instruction::Healthcheck(Box::new(self.healthcheck(node)?)),
            Keyword::Label => Instruction::Label(self.label(node)?),
            Keyword::Maintainer => Instruction::Maintainer(self.maintainer(node)?),
            Keyword::OnBuild => Instruction::OnBuild(self.on_build(node)?),
            Keyword::Run => Instruction::Run(Box::new(self.run(node)?)),
            Keyword::Shell => Instruction::Shell(self.shell(node)?),
            Keyword::StopSignal => Instruction::StopSignal(self.stop_signal(node)?),
            Keyword::User => Instruction::User(self.user(node)?),
            Keyword::Volume => Instruction::Volume(self.volume(node)?),
            Keyword::Workdir => Instruction::Workdir(self.workdir(node)?),
        };
        Some(Converted::Instruction(instruction))
    }

    fn unknown(&self, node: &Node) -> Diagnostic {
        let word = &node.word.text;
        let mut message = format!("unknown instruction: {word}");
        let found = nearest(word);
        if let Some(name) = &found {
            message.push_str(&format!(" (did you mean {name}?)"));
        }
        let diagnostic = Diagnostic::error(node.word.span, message);
        match found {
            Some(name) => diagnostic.with_help(format!("write `{name}`")),
            None => diagnostic.with_help(not_an_instruction(word)),
        }
    }

    /// Notes a fault.
    fn report(&self, fault: Diagnostic) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes a fault that leaves nothing to go on with.
    fn refuse<T>(&self, fault: Diagnostic) -> Option<T> {
        self.report(fault);
        None
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

    fn exactly_one(&self, node: &mut Node, name: &str) -> Option<Argument> {
        match <[Argument; 1]>::try_from(take_plain(node)) {
            Ok([one]) => Some(one),
            Err(_) => self.refuse(self.error_at_keyword(node, format!("{name} requires exactly one argument"))),
        }
    }

    fn at_least_one(&self, node: &mut Node, name: &str) -> Option<Vec<Argument>> {
        let arguments = take_plain(node);
        if arguments.is_empty() {
            return self.refuse(self.error_at_keyword(node, format!("{name} requires at least one argument")));
        }
        Some(arguments)
    }

    fn lint(&mut self, node: &Node, found: Option<Diagnostic>) {
        if let Some(diagnostic) = found {
            self.lints.push((diagnostic, checks(node)));
        }
    }
}

/// What a word at the start of a line may have been meant as, when it is like no instruction.
fn not_an_instruction(word: &str) -> String {
    if word.ends_with(':') {
        return "this reads like YAML, a compose file perhaps: a Dockerfile has lines such as `FROM busybox`; -f names another \
                file"
            .to_owned();
    }
    if word.chars().any(char::is_lowercase) {
        return format!(
            "a command is written `RUN {word} …`; an instruction that goes on in the next line ends with a backslash"
        );
    }
    "an instruction that goes on in the next line ends with a backslash".to_owned()
}

/// The instruction that an unknown one was meant to be, in the case of what was written.
pub(crate) fn nearest(word: &str) -> Option<String> {
    suggestion_any_case(word, Keyword::ALL.iter().map(|(name, _)| *name))
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
