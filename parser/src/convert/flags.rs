//! Flags against what an instruction declares.

use super::Converter;
use crate::ast::{Argument, Node};
use crate::suggest::did_you_mean;
use crate::{Diagnostic, Span};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Switch,
    /// One value.
    One,
    /// A value each time it is given.
    Many,
}

/// Flags that are in order.
#[derive(Default)]
pub(super) struct Flags {
    values: Vec<(&'static str, Argument)>,
}

impl Flags {
    pub(super) fn take(&mut self, name: &str) -> Option<Argument> {
        let at = self.values.iter().position(|(known, _)| *known == name)?;
        Some(self.values.remove(at).1)
    }

    /// A value; one that is empty counts as none.
    pub(super) fn take_some(&mut self, name: &str) -> Option<Argument> {
        self.take(name).filter(|value| !value.text.is_empty())
    }

    pub(super) fn take_all(&mut self, name: &str) -> Vec<Argument> {
        let (taken, rest) = std::mem::take(&mut self.values).into_iter().partition(|(known, _)| *known == name);
        self.values = rest;
        Vec::into_iter(taken).map(|(_, value)| value).collect()
    }

    /// A switch, if it was given.
    pub(super) fn switch(&mut self, name: &str) -> Option<bool> {
        self.take(name).map(|value| value.text == "true")
    }
}

impl Converter<'_> {
    /// Reads a node's flags; notes each that is wrong.
    pub(super) fn flags(&self, node: &Node, declared: &[(&'static str, Takes)]) -> Flags {
        let mut flags = Flags::default();
        for flag in &node.flags {
            let (name, value) = match flag.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.text.as_str(), None),
            };
            let fault = |message: String| self.error(node, flag.span, message);
            let bare = name.strip_prefix("--").unwrap_or(name);
            let Some((known, takes)) = declared.iter().find(|(known, _)| *known == bare) else {
                self.report(self.unknown_flag(node, flag, name, bare, declared));
                continue;
            };
            if *takes != Takes::Many && flags.values.iter().any(|(seen, _)| seen == known) {
                self.report(fault(format!("duplicate flag specified: {name}")));
                continue;
            }
            let value = match (takes, value) {
                (Takes::Switch, Some("")) | (Takes::One | Takes::Many, None) => {
                    let help = format!("write `{name}=VALUE`");
                    self.report(fault(format!("missing a value on flag: {name}")).with_help(help));
                    continue;
                }
                (Takes::Switch, None) => "true".to_owned(),
                (Takes::Switch, Some(value)) => match value.to_lowercase().as_str() {
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => {
                        let help = format!("write `{name}` or `{name}=false`");
                        let message = format!("expecting boolean value for flag {name}, not: {value}");
                        self.report(fault(message).with_help(help));
                        continue;
                    }
                },
                (Takes::One | Takes::Many, Some(value)) => value.to_owned(),
            };
            flags.values.push((known, Argument { text: value, span: value_span(flag, name) }));
        }
        flags
    }

    fn unknown_flag(
        &self,
        node: &Node,
        flag: &Argument,
        name: &str,
        bare: &str,
        declared: &[(&'static str, Takes)],
    ) -> Diagnostic {
        let near = did_you_mean(bare, declared.iter().map(|(known, _)| *known));
        let message = format!("unknown flag: {name}{near}");
        let keyword = node.word.text.to_uppercase();
        let known: Vec<_> = declared.iter().map(|(known, _)| format!("--{known}")).collect();
        let help = match known.as_slice() {
            [] => format!("{keyword} takes no flags"),
            known => format!("{keyword} takes {}", known.join(", ")),
        };
        self.error(node, flag.span, message).with_help(help)
    }
}

/// The place of a flag's value, where the flag stands in the source as it reads.
fn value_span(flag: &Argument, name: &str) -> Span {
    let (start, end) = (flag.span.start(), flag.span.end());
    if end - start == flag.text.len() && flag.text.len() > name.len() {
        return Span::new(start + name.len() + 1, end);
    }
    flag.span
}
