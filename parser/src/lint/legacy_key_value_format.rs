//! `ENV name value` instead of `ENV name=value`.

use crate::Diagnostic;
use crate::instruction::{Origin, Pair, PairForm};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "LegacyKeyValueFormat",
    description: "Legacy key/value format with whitespace separator should not be used",
    url: "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
    experimental: false,
};

/// Looks at an `ENV` or `LABEL`.
pub fn check(origin: &Origin, pairs: &[Pair]) -> Option<Diagnostic> {
    let pair = pairs.iter().find(|pair| pair.form == PairForm::Blank)?;
    let keyword = &origin.keyword;
    let message = format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
    let value = pair.value.raw();
    let quotes = if value.contains(char::is_whitespace) && !value.starts_with(['"', '\'']) { "\"" } else { "" };
    let help = format!("write `{keyword} {}={quotes}{value}{quotes}`", pair.name.raw());
    Some(Diagnostic::lint(&RULE, origin.span, message).with_help(help))
}
