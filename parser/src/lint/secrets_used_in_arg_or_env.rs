//! `ARG` and `ENV` are kept in the image for all to read.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::quote::Quoted;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "SecretsUsedInArgOrEnv",
    description: "Sensitive data should not be used in the ARG or ENV commands",
    url: "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
    experimental: false,
};

/// Words that name secrets, alone or between underscores.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words that tell that it is no secret after all.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable with this name holds a secret, as far as names tell.
pub fn names_secret(name: &str) -> bool {
    let says = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    says(&SECRET) && !says(&HARMLESS)
}

/// Looks at a name that an `ARG` or `ENV` (as `keyword`) declares, expanded where the instruction expands names.
pub fn check(origin: &Origin, keyword: &str, name: &str) -> Option<Diagnostic> {
    if !names_secret(name) {
        return None;
    }
    let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", Quoted(name));
    let help = "hand it over with `RUN --mount=type=secret`";
    Some(Diagnostic::lint(&RULE, origin.span, message).with_help(help))
}
