//! The plan of a process that enters a sandbox.
//!
//! The order matters. Whatever needs the host (its cgroups, its procfs) comes before the sandbox's namespaces are entered, and
//! afterwards nothing of the host is held any more; only then the process is born that those in the sandbox can see.

use serde::{Deserialize, Serialize};

use super::{Allowed, HostFacts, MissingCwd, Namespace, ProcessPlan};
use crate::capability::Capabilities;
use crate::spawn_error::SpawnError;
use crate::spec::{ExecSpec, Init, Resources};

/// Everything that has to be done to enter a sandbox, in order, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The sandbox, for messages.
    pub id: String,
    /// What is done on the way.
    pub steps: Vec<ExecStep>,
    /// The program.
    pub process: ProcessPlan,
    /// What its system call filter is made for.
    pub filter_for: Capabilities,
}

/// One step on the way into a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecStep {
    /// Joins the sandbox's cgroups.
    JoinCgroups(OutOfReach),
    /// Makes a session keyring of its own.
    SessionKeyring,
    /// Has the kernel confine the program from its `execve` on.
    AppArmor(String),
    /// Enters those of the sandbox's namespaces that are not this process's own.
    Enter(Vec<Namespace>),
    /// Makes a terminal of the sandbox's `/dev/pts`.
    Terminal,
    /// Closes everything but what the program gets.
    CloseHost,
}

/// What if this user may not join the sandbox's cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutOfReach {
    /// The process does not start: it would escape limits that were asked for.
    Refuse,
    /// It stays in the caller's.
    Stay,
}

/// Turns a specification into a plan.
pub fn exec(spec: &ExecSpec, host: &HostFacts) -> Result<ExecPlan, SpawnError> {
    super::check_id(&spec.id)?;
    let allowed = Allowed {
        capabilities: &spec.capabilities,
        no_new_privileges: spec.no_new_privileges,
        seccomp: &spec.seccomp,
        apparmor: &spec.apparmor,
    };
    let mut process = super::process(&spec.process, &allowed, (Init::Process, MissingCwd::Refuse), host)?;
    let unlimited = spec.limits == Resources::default();
    let mut steps = vec![
        ExecStep::JoinCgroups(if unlimited { OutOfReach::Stay } else { OutOfReach::Refuse }),
        ExecStep::SessionKeyring,
    ];
    // Written through the host's procfs, which nothing in the sandbox can have replaced (rule S-20).
    steps.extend(process.apparmor.take().map(ExecStep::AppArmor));
    let mut namespaces = vec![Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Ipc, Namespace::Uts];
    namespaces.push(Namespace::Net);
    if host.time_namespaces {
        namespaces.push(Namespace::Time);
    }
    namespaces.push(Namespace::Cgroup);
    steps.push(ExecStep::Enter(namespaces));
    if spec.process.terminal {
        steps.push(ExecStep::Terminal);
    }
    steps.push(ExecStep::CloseHost);
    let filter_for = super::capabilities(&spec.sandbox_capabilities)?.intersection(host.bounding);
    Ok(ExecPlan { id: spec.id.clone(), steps, process, filter_for })
}
