//! System call filters: rules by name (the built-in [`profile`], or a [`document`] of the user's), numbers by architecture
//! ([`table`]), and their compiler.

mod compile;
mod custom;
mod document;
mod profile;
mod table;

pub(crate) use custom::Circumstances;
pub use document::{ProfileError, SeccompProfile};

use self::profile::Profile;
use crate::capability::Capabilities;
use crate::sys::seccomp::Instruction;

/// The kernel takes no longer filters (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// The default filter for a program with these capabilities; `None` on a machine that there is no table for.
pub(crate) fn default_filter(capabilities: Capabilities) -> Option<Vec<Instruction>> {
    let (architectures, profile) = (table::native(), Profile::new(capabilities));
    (!architectures.is_empty()).then(|| compile::compile(architectures, |name| profile.verdict(name)))
}

/// The filter of a user's profile; `None` on a machine that there is no table for, or when it is longer than the kernel takes.
pub(crate) fn custom_filter(profile: &SeccompProfile, on: Circumstances<'_>) -> Option<Vec<Instruction>> {
    let architectures = table::native();
    let filter = (!architectures.is_empty()).then(|| compile::compile_profile(architectures, profile, on))?;
    (filter.len() <= LONGEST).then_some(filter)
}
