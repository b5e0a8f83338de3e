//! The default system call filter: rules by name ([`profile`]), numbers by architecture ([`table`]), and their compiler.

mod compile;
mod profile;
mod table;

use crate::capability::Capabilities;
use crate::sys::seccomp::Instruction;

/// The default filter for a program with these capabilities; `None` on a machine that there is no table for.
pub(crate) fn default_filter(capabilities: Capabilities) -> Option<Vec<Instruction>> {
    let architectures = table::native();
    (!architectures.is_empty()).then(|| compile::compile(architectures, |name| profile::verdict(name, capabilities)))
}
