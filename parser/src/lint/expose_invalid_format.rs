//! `EXPOSE 127.0.0.1:80:80`: an image cannot know its host.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::port::PortSpec;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "ExposeInvalidFormat",
    description: "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    url: "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/",
    experimental: false,
};

/// Looks at a port of an `EXPOSE`, expanded.
pub fn check(origin: &Origin, port: &PortSpec) -> Option<Diagnostic> {
    let message =
        || format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{}'", port.raw);
    port.names_a_host.then(|| Diagnostic::lint(&RULE, origin.span, message()))
}
