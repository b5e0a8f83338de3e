//! A base image of another platform than the one built for.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::quote::Quoted;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    url: "",
    experimental: false,
};

/// The finding; `expected` and `actual` are normalised platforms.
pub fn finding(from: &Origin, image: &str, expected: &str, actual: &str) -> Diagnostic {
    let (expected, actual) = (Quoted(expected), Quoted(actual));
    let message =
        format!("Base image {image} was pulled with platform {actual}, expected {expected} for current build");
    Diagnostic::lint(&RULE, from.span, message)
}
