//! `--cap-add`, `--cap-drop` and `--privileged`: which capabilities a container's root keeps.
//!
//! Pure. What the caller itself holds is passed in, since nothing can be given that it has not (docs/security.md).

use std::collections::BTreeSet;

use rbuild_executor::{ALL_CAPABILITIES, Capabilities, DEFAULT_CAPABILITIES};

/// A capability that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {flag}: unknown capability: {name:?}")]
pub struct UnknownCapability {
    /// The flag it was given to.
    pub flag: &'static str,
    /// What was given.
    pub name: String,
}

/// What the user changed about the capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityRequest {
    /// `--cap-add`, as typed.
    pub add: Vec<String>,
    /// `--cap-drop`, as typed.
    pub drop: Vec<String>,
    /// Whether everything the caller may hand out is given.
    pub privileged: bool,
}

/// The capabilities asked for, in the order of their numbers.
///
/// `bounding` is the caller's own bounding set: `ALL` and `--privileged` mean what is in it. A capability named one by one stays wanted even when it is not in it, so that the
/// sandbox can say that it cannot be given.
pub(crate) fn granted(request: &CapabilityRequest, bounding: Capabilities) -> Result<Vec<String>, UnknownCapability> {
    let add = normalise(&request.add, "CapAdd")?;
    let drop = normalise(&request.drop, "CapDrop")?;
    let held = || ALL_CAPABILITIES.iter().copied().filter(|name| bounding.contains(name));
    let set: BTreeSet<&str> = if request.privileged {
        held().collect()
    } else if add.contains(EVERY) {
        held().filter(|name| !drop.contains(name)).collect()
    } else if drop.contains(EVERY) {
        add
    } else {
        let kept = DEFAULT_CAPABILITIES.iter().copied().filter(|name| !drop.contains(name));
        kept.chain(add.iter().copied()).collect()
    };
    Ok(ALL_CAPABILITIES.iter().filter(|name| set.contains(**name)).map(|name| (*name).to_owned()).collect())
}

const EVERY: &str = "ALL";

/// Capability names without `CAP_` in upper case; `ALL` stays `ALL`.
fn normalise(names: &[String], flag: &'static str) -> Result<BTreeSet<&'static str>, UnknownCapability> {
    names
        .iter()
        .map(|given| {
            let upper = given.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            ALL_CAPABILITIES
                .iter()
                .chain(&[EVERY])
                .find(|known| **known == name)
                .copied()
                .ok_or_else(|| UnknownCapability { flag, name: given.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Capabilities {
        Capabilities::from_names(names).unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn tweak(add: &str, drop: &str) -> Vec<String> {
        granted(&CapabilityRequest { add: words(add), drop: words(drop), privileged: false }, set(ALL_CAPABILITIES))
            .unwrap()
    }

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(Capabilities::from_names(&tweak("", "")).unwrap().bits(), 0xa804_25fb);
    }

    #[test]
    fn additions_and_drops_combine_as_in_docker() {
        assert_eq!(tweak("", "ALL"), words(""));
        assert_eq!(tweak("NET_ADMIN cap_sys_ptrace", "all"), words("NET_ADMIN SYS_PTRACE"));
        assert_eq!(tweak("ALL", "").len(), 41);
        assert_eq!(tweak("ALL", "sys_admin").len(), 40);
        assert_eq!(tweak("CHOWN", "").len(), 14, "already there");
        assert_eq!(tweak("KILL", "KILL").len(), 14, "an addition wins over a drop");
        let tweaked = tweak("SYS_TIME", "CAP_MKNOD");
        assert!(tweaked.contains(&"SYS_TIME".to_owned()) && !tweaked.contains(&"MKNOD".to_owned()));
    }

    #[test]
    fn privileged_gives_what_the_caller_has() {
        let privileged = CapabilityRequest { privileged: true, ..CapabilityRequest::default() };
        assert_eq!(granted(&privileged, set(&["DAC_OVERRIDE", "CHOWN"])).unwrap(), words("CHOWN DAC_OVERRIDE"));
        let all = CapabilityRequest { add: words("ALL"), ..CapabilityRequest::default() };
        assert_eq!(granted(&all, set(&["CHOWN"])).unwrap(), words("CHOWN"));
    }

    #[test]
    fn unknown_names_are_refused() {
        let request = CapabilityRequest { add: words("CAP_FOO"), ..CapabilityRequest::default() };
        let error = granted(&request, set(ALL_CAPABILITIES)).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
        let request = CapabilityRequest { drop: words("x"), ..CapabilityRequest::default() };
        assert_eq!(
            granted(&request, set(ALL_CAPABILITIES)).unwrap_err().to_string(),
            "invalid CapDrop: unknown capability: \"x\""
        );
    }
}
