//! Profiles that a user brings, in Docker's JSON form and in the OCI runtime's: read once, strictly, and kept as data.
//!
//! Docker's form says which capabilities, architectures and kernels a rule is for; the runtime's form has rules only. What
//! could make a profile weaker than it reads (an unknown action, operator or field that matters) is an error (rule S-07).

use serde::{Deserialize, Serialize};

/// A system call filter as a user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProfile {
    pub(super) default: Action,
    pub(super) architectures: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    Allow,
    Fail(u16),
    Trap,
    Trace(u16),
    Log,
    KillThread,
    KillProcess,
}

/// Calls of these names whose arguments pass all tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) tests: Vec<Test>,
    pub(super) includes: Conditions,
    pub(super) excludes: Conditions,
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) index: u32,
    pub(super) operator: Operator,
    pub(super) value: u64,
    /// What a masked argument must be.
    pub(super) second: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// What a rule is for, or not for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Conditions {
    pub(super) caps: Vec<String>,
    pub(super) arches: Vec<String>,
    pub(super) min_kernel: String,
}

/// Why a profile is not one.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON of the right form.
    #[error("not a seccomp profile: {reason}")]
    Form {
        /// What the reader says, with line and column.
        reason: String,
    },
    /// An action that filters cannot take, or that nobody would answer.
    #[error("the seccomp action {action} is not supported")]
    Action {
        /// Its name.
        action: String,
    },
    /// System calls have six arguments.
    #[error("seccomp rule for {name}: there is no argument {index}")]
    Argument {
        /// A call of the rule.
        name: String,
        /// The number given.
        index: u32,
    },
    /// An error number that the kernel cannot return.
    #[error("{errno} is no error number")]
    Errno {
        /// The number given.
        errno: u32,
    },
    /// Flags, listeners and the like.
    #[error("{what} in seccomp profiles is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    /// A name, as Podman's profiles have it; the number decides.
    #[serde(rename = "defaultErrno")]
    _default_errno: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<Mapped>>,
    #[serde(default)]
    syscalls: Option<Vec<Written>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    #[serde(rename = "listenerMetadata")]
    _listener_metadata: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mapped {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    /// A number or a name, as Podman's profiles have it; the number decides.
    #[serde(rename = "errno")]
    _errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

impl SeccompProfile {
    /// Reads a profile.
    pub fn parse(json: &[u8]) -> Result<Self, ProfileError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| ProfileError::Form { reason: error.to_string() })?;
        if document.listener_path.is_some_and(|path| !path.is_empty()) {
            return Err(ProfileError::Unsupported { what: "a listener".to_owned() });
        }
        // Flags of the call that loads a filter; this one keeps the kernel's mitigations and logging as they are.
        if let Some(flag) = document.flags.unwrap_or_default().first() {
            return Err(ProfileError::Unsupported { what: format!("the flag {flag}") });
        }
        let mut architectures = document.architectures.unwrap_or_default();
        for mapped in document.arch_map.unwrap_or_default() {
            architectures.push(mapped.architecture);
            architectures.extend(mapped.sub_architectures.unwrap_or_default());
        }
        let rules = document.syscalls.unwrap_or_default().into_iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { default: action(&document.default_action, document.default_errno_ret)?, architectures, rules })
    }
}

fn rule(written: Written) -> Result<Rule, ProfileError> {
    let names: Vec<String> = written.name.into_iter().chain(written.names.unwrap_or_default()).collect();
    let tests = written.args.unwrap_or_default().into_iter().map(|argument| {
        if argument.index > 5 {
            let name = names.first().cloned().unwrap_or_default();
            return Err(ProfileError::Argument { name, index: argument.index });
        }
        let Argument { index, value, value_two, op } = argument;
        Ok(Test { index, operator: op, value, second: value_two })
    });
    let tests = tests.collect::<Result<_, _>>()?;
    Ok(Rule {
        action: action(&written.action, written.errno_ret)?,
        names,
        tests,
        includes: written.includes.unwrap_or_default(),
        excludes: written.excludes.unwrap_or_default(),
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    /// The kernel's largest error number.
    const MAX_ERRNO: u32 = 4095;
    let number = |default: i32| {
        let errno = errno.unwrap_or(default.unsigned_abs());
        u16::try_from(errno).ok().filter(|_| errno <= MAX_ERRNO).ok_or(ProfileError::Errno { errno })
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Fail(number(libc::EPERM)?),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number(libc::EPERM)?),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(ProfileError::Action { action: other.to_owned() }),
    })
}
