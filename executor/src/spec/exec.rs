//! What is wanted of a process that enters a sandbox which runs already (`exec`, health checks).
//!
//! It differs from the sandbox's own process in nothing but what is said here: root, mounts, namespaces and limits are those
//! of the sandbox.

use serde::{Deserialize, Serialize};

use super::{AppArmor, ProcessSpec, Resources, Seccomp};

/// One more process for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The identifier of the sandbox, for messages: `[a-z0-9-]`, at most 64 characters.
    pub id: String,
    /// The process. Its working directory must exist.
    pub process: ProcessSpec,
    /// Its capabilities, without `CAP_`.
    pub capabilities: Vec<String>,
    /// The capabilities that the sandbox's own process was given: what the system call filter is made for. More of them do
    /// not widen the filter, as in Docker.
    pub sandbox_capabilities: Vec<String>,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The AppArmor profile.
    pub apparmor: AppArmor,
    /// The limits that were asked for: where there are any, a process that cannot be put under them is not started.
    pub limits: Resources,
}
