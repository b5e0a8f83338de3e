//! `FROM`.

use super::flags::Takes;
use super::{Converter, description, origin, take_plain, text};
use crate::Diagnostic;
use crate::ast::Node;
use crate::lint;
use crate::quote::Quoted;
use crate::stage::Stage;

impl Converter<'_> {
    pub(super) fn from(&mut self, node: &mut Node) -> Option<Stage> {
        let mut arguments = take_plain(node);
        if let [_, keyword, name] = arguments.as_slice() {
            self.lint(node, lint::stage_name_casing::check(node.span, &name.text));
            self.lint(node, lint::from_as_casing::check(node.span, &node.word.text, &keyword.text));
        }
        let mut written = match arguments.as_slice() {
            [_, keyword, _] if keyword.text.eq_ignore_ascii_case("as") => arguments.pop(),
            [_] => None,
            _ => return self.refuse(self.wrong_arguments(node)),
        };
        let image = arguments.swap_remove(0);
        let mut name = written.as_ref().map(|name| name.text.to_lowercase());
        if let (Some(lower), Some(as_written)) = (&name, &written)
            && !is_stage_name(lower)
        {
            let quoted = Quoted(&as_written.text);
            let message =
                format!("invalid name for build stage: {quoted}, name can't start with a number or contain symbols");
            let help = "a stage name starts with a letter and goes on with letters, digits, `-`, `_` and `.`";
            self.report(self.error(node, as_written.span, message).with_help(help));
            (name, written) = (None, None);
        }
        let mut flags = self.flags(node, &[("platform", Takes::One)]);
        if let Some(name) = &name {
            self.lint(node, lint::invalid_definition_description::check("FROM", &[name], &node.comments, node.span));
        }
        Some(Stage {
            image: self.word(image),
            platform: flags.take_some("platform").map(|platform| self.word(platform)),
            description: name.as_deref().and_then(|name| description(&node.comments, name)),
            name,
            name_as_written: written.map(text),
            origin: origin(node),
            instructions: Vec::new(),
        })
    }

    fn wrong_arguments(&self, node: &Node) -> Diagnostic {
        let diagnostic = self.error_at_keyword(node, "FROM requires either one or three arguments");
        diagnostic.with_help("write `FROM image` or `FROM image AS name`")
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}
