//! What a user's profile says about a call, on this machine and for these capabilities.

use super::document::{Action, Rule, SeccompProfile, Test};
use crate::capability::Capabilities;

/// What a profile depends on beside the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) capabilities: Capabilities,
    /// The kernel's release, e.g. `6.18.44`.
    pub(crate) release: &'a str,
}

/// The verdict on one call: the first of `conditional` whose tests all hold, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) conditional: Vec<(Vec<Test>, Action)>,
    pub(super) otherwise: Action,
}

impl SeccompProfile {
    /// What happens to the call of this name. As in libseccomp, a rule without tests decides before those with tests, and a
    /// rule that says what holds anyway says nothing.
    pub(super) fn judge(&self, name: &str, on: Circumstances<'_>) -> Judgement {
        let applies = |rule: &&Rule| {
            rule.action != self.default && rule.names.iter().any(|listed| listed == name) && rule.applies(on)
        };
        let rules: Vec<&Rule> = self.rules.iter().filter(applies).collect();
        if let Some(rule) = rules.iter().find(|rule| rule.tests.is_empty()) {
            return Judgement { conditional: Vec::new(), otherwise: rule.action };
        }
        let conditional = rules.iter().map(|rule| (rule.tests.clone(), rule.action)).collect();
        Judgement { conditional, otherwise: self.default }
    }

    /// What happens to a call that is newer than the tables: where calls are refused with an error number, the one that makes
    /// the C library fall back (rule S-01).
    pub(super) fn unknown(&self) -> Judgement {
        let otherwise = match self.default {
            Action::Fail(_) => Action::Fail(libc::ENOSYS as u16),
            other => other,
        };
        Judgement { conditional: Vec::new(), otherwise }
    }

    /// Whether calls of this architecture (libseccomp's name) are let through the rules at all.
    pub(super) fn covers(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.iter().any(|listed| listed == architecture)
    }
}

impl Rule {
    fn applies(&self, on: Circumstances<'_>) -> bool {
        let has = |capability: &String| on.capabilities.contains(capability.strip_prefix("CAP_").unwrap_or(capability));
        let here = |arch: &String| arch == NATIVE;
        let includes = &self.includes;
        includes.caps.iter().all(has)
            && (includes.arches.is_empty() || includes.arches.iter().any(here))
            && (includes.min_kernel.is_empty() || at_least(on.release, &includes.min_kernel))
            && !self.excludes.caps.iter().any(has)
            && !self.excludes.arches.iter().any(here)
            && (self.excludes.min_kernel.is_empty() || !at_least(on.release, &self.excludes.min_kernel))
    }
}

/// This architecture as Docker's profiles name it.
#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = "arm64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: &str = std::env::consts::ARCH;

/// Whether a kernel release is `least` (`4.8`) or newer.
fn at_least(release: &str, least: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).take(2).map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(release) >= numbers(least)
}
