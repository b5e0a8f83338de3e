//! Instructions that only change what an image says about itself.

use super::{Converter, description, origin, text};
use crate::ast::{Argument, Arguments, Keyword, Node, blank_name};
use crate::instruction::{
    Arg, ArgDeclaration, Env, Expose, Label, Maintainer, OnBuild, Pair, StopSignal, Text, User, Volume, Workdir,
};
use crate::{Span, Word, lint};

impl Converter<'_> {
    /// Flags of an `ARG` are not looked at; so BuildKit.
    pub(super) fn arg(&mut self, node: &mut Node) -> Option<Arg> {
        let mut args = Vec::new();
        for word in self.at_least_one(node, "ARG")? {
            let (name, value) = match word.text.split_once('=') {
                Some(("", _)) => {
                    self.report(self.error(node, word.span, blank_name("ARG")));
                    continue;
                }
                Some((name, value)) => (name, Some(value)),
                None => (word.text.as_str(), None),
            };
            let middle = (word.span.start() + name.len()).min(word.span.end());
            let value_span = Span::new((middle + 1).min(word.span.end()), word.span.end());
            args.push(ArgDeclaration {
                description: description(&node.comments, name),
                name: Text { value: name.to_owned(), span: Span::new(word.span.start(), middle) },
                value: value.map(|value| Word::new(value, value_span, self.escape)),
            });
        }
        if !node.comments.is_empty() {
            let names: Vec<&str> = args.iter().map(|arg| arg.name.value.as_str()).collect();
            self.lint(node, lint::invalid_definition_description::check("ARG", &names, &node.comments, node.span));
        }
        Some(Arg { origin: origin(node), args })
    }

    pub(super) fn env(&self, node: &mut Node) -> Option<Env> {
        self.flags(node, &[]);
        Some(Env { pairs: self.pairs(node, "ENV")?, origin: origin(node) })
    }

    pub(super) fn label(&self, node: &mut Node) -> Option<Label> {
        self.flags(node, &[]);
        Some(Label { pairs: self.pairs(node, "LABEL")?, origin: origin(node) })
    }

    fn pairs(&self, node: &mut Node, keyword: &str) -> Option<Vec<Pair>> {
        let pairs = match std::mem::take(&mut node.arguments) {
            Arguments::Pairs(pairs) if !pairs.is_empty() => pairs,
            _ => return self.refuse(self.error_at_keyword(node, format!("{keyword} requires at least one argument"))),
        };
        let pair = |(name, value, form): (Argument, Argument, _)| {
            if name.text.is_empty() {
                return self.refuse(self.error(node, name.span.to(value.span), blank_name(keyword)));
            }
            Some(Pair { name: self.word(name), value: self.word(value), form })
        };
        Some(pairs.into_iter().filter_map(pair).collect())
    }

    pub(super) fn maintainer(&mut self, node: &mut Node) -> Option<Maintainer> {
        self.lint(node, Some(lint::maintainer_deprecated::finding(node.span)));
        let name = self.exactly_one(node, "MAINTAINER");
        self.flags(node, &[]);
        let name = text(name?);
        Some(Maintainer { origin: origin(node), name })
    }

    pub(super) fn workdir(&self, node: &mut Node) -> Option<Workdir> {
        let path = self.exactly_one(node, "WORKDIR");
        self.flags(node, &[]);
        let path = self.word(path?);
        Some(Workdir { origin: origin(node), path })
    }

    pub(super) fn user(&self, node: &mut Node) -> Option<User> {
        let user = self.exactly_one(node, "USER");
        self.flags(node, &[]);
        let user = self.word(user?);
        Some(User { origin: origin(node), user })
    }

    /// Flags of a `STOPSIGNAL` are not looked at; so BuildKit.
    pub(super) fn stop_signal(&self, node: &mut Node) -> Option<StopSignal> {
        let signal = self.word(self.exactly_one(node, "STOPSIGNAL")?);
        Some(StopSignal { origin: origin(node), signal })
    }

    pub(super) fn expose(&self, node: &mut Node) -> Option<Expose> {
        let arguments = self.at_least_one(node, "EXPOSE");
        self.flags(node, &[]);
        let mut ports = self.words(arguments?);
        ports.sort_by(|a, b| a.raw().cmp(b.raw()));
        Some(Expose { origin: origin(node), ports })
    }

    pub(super) fn volume(&self, node: &mut Node) -> Option<Volume> {
        let arguments = self.at_least_one(node, "VOLUME");
        self.flags(node, &[]);
        let arguments = arguments?;
        let path = |argument: Argument| match argument.text.trim() {
            "" => self.refuse(self.error(node, argument.span, "VOLUME specified can not be an empty string")),
            path => Some(Word::new(path, argument.span, self.escape)),
        };
        Some(Volume { paths: arguments.into_iter().filter_map(path).collect(), origin: origin(node) })
    }

    pub(super) fn on_build(&self, node: &mut Node) -> Option<OnBuild> {
        let Arguments::Nested(inner) = std::mem::take(&mut node.arguments) else {
            return self.refuse(self.error_at_keyword(node, "ONBUILD requires at least one argument"));
        };
        self.flags(node, &[]);
        let forbidden = match inner.keyword {
            Some(Keyword::OnBuild) => Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            Some(Keyword::Maintainer) => Some("MAINTAINER isn't allowed as an ONBUILD trigger"),
            Some(Keyword::From) => Some("FROM isn't allowed as an ONBUILD trigger"),
            _ => None,
        };
        if let Some(message) = forbidden {
            return self.refuse(self.error(node, inner.word.span, message));
        }
        let mut trigger = without_keyword(&node.line).to_owned();
        for heredoc in &node.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.content);
            trigger.push_str(&heredoc.opener.name);
        }
        Some(OnBuild { origin: origin(node), trigger })
    }
}

/// What follows `ONBUILD` and the blanks after it.
fn without_keyword(line: &str) -> &str {
    const BLANK: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];
    let trimmed = line.trim_start_matches(BLANK);
    match trimmed.get(..7) {
        Some(word) if word.eq_ignore_ascii_case("onbuild") => trimmed[7..].trim_start_matches(BLANK),
        _ => line,
    }
}
