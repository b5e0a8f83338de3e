//! `EXPOSE 80/TCP`.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::port::PortSpec;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "ExposeProtoCasing",
    description: "Protocol in EXPOSE instruction should be lowercase",
    url: "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
    experimental: false,
};

/// Looks at a port of an `EXPOSE`, expanded.
pub fn check(origin: &Origin, port: &PortSpec) -> Option<Diagnostic> {
    let message = || format!("Defined protocol '{}' in EXPOSE instruction should be lowercase", port.raw);
    port.protocol_has_capitals.then(|| Diagnostic::lint(&RULE, origin.span, message()))
}
