//! Variables: automatic ones, global arguments, and what instructions of a stage see.
//!
//! A stage sees its image's environment, its `ENV`s, and its `ARG`s that have a value; the latest setting of a name
//! counts. Proxy arguments are seen by steps only.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rbuild_image::Platform;
use rbuild_parser::{Diagnostic, ExpandFault, Expanded, Lookup, Word};

use super::goal::Goal;
use super::{Fault, Lowering, Trust, fault};

/// Variables in the order in which they were first set.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    list: Vec<(String, String)>,
    at: HashMap<String, usize>,
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.at.get(name) {
            Some(at) => value.clone_into(&mut self.list[*at].1),
            None => {
                self.at.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Sets each `NAME=value`; a text without `=` is a name with an empty value.
    pub(super) fn set_all(&mut self, pairs: &[String]) {
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.set(name, value);
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn pairs(&self) -> Vec<String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Lookup for Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.at.get(name).map(|at| self.list[*at].1.as_str())
    }
}

/// The arguments that are there without being declared, for `FROM` lines and for `ARG NAME`.
pub(super) fn automatic(goal: &Goal, target: &Platform, stage: Option<&str>) -> Variables {
    let build = &goal.build_platform;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut variables = Variables::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", text(&build.os_version)),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", text(&build.variant)),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", text(&target.os_version)),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", text(&target.variant)),
        ("TARGETSTAGE", stage.filter(|stage| !stage.is_empty()).unwrap_or("default").to_owned()),
    ] {
        variables.set(name, goal.build_args.get(name).unwrap_or(&value));
    }
    variables
}

/// The proxy variables of steps, from build arguments of those names in any case.
pub(super) fn proxies(build_args: &BTreeMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
        let given = build_args.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
            out.push(format!("{name}={value}"));
            out.push(format!("{}={value}", name.to_ascii_lowercase()));
        }
    }
    out
}

/// Arguments that steer scanners and never become variables of a step.
pub(super) fn is_no_variable(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

impl Lowering<'_> {
    /// `ARG`s before the first `FROM`.
    pub(super) fn declare_globals(&mut self) {
        for arg in &self.file.global_args {
            for declaration in &arg.args {
                let name = &declaration.name.value;
                let (value, reads) = match (self.goal.build_args.get(name), &declaration.value) {
                    (Some(given), _) => (Some(given.clone()), BTreeSet::new()),
                    (None, Some(default)) => match self.expand_global(default) {
                        Ok(expanded) => (Some(expanded.text), expanded.matched),
                        Err(fault) => {
                            self.errors.extend(fault.map(|fault| *fault));
                            continue;
                        }
                    },
                    (None, None) => (None, BTreeSet::new()),
                };
                self.declared.declare(declaration, value.as_deref(), arg.origin.head, reads);
                if let Some(value) = value {
                    self.globals.set(name, &value);
                }
            }
        }
    }

    /// Expands a word outside of stages. In a file of which parts could not be read, what is wrong with a word that asks for
    /// an unknown variable may be mended with them; then there is no fault to tell.
    pub(super) fn expand_global(&self, word: &Word) -> Result<Expanded, Option<Fault>> {
        word.expand(&self.globals).map_err(|error| {
            let required = matches!(error.fault, ExpandFault::Required { .. });
            let told = self.trust == Trust::Whole || !required;
            told.then(|| fault(word.span(), error.to_string()))
        })
    }

    /// The time that `SOURCE_DATE_EPOCH` fixes, RFC 3339.
    pub(super) fn created_time(&self) -> Result<Option<String>, Fault> {
        let Some(text) = self.goal.build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let time = text.parse::<i64>().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let invalid = || {
            let message = format!("invalid SOURCE_DATE_EPOCH: {text}");
            let help = "it is a number of seconds since 1970, for example the time of the last commit";
            Box::new(Diagnostic::file_error(message).with_help(help))
        };
        Ok(Some(time.ok_or_else(invalid)?.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_arguments_follow_the_platforms() {
        let mut goal = Goal::new("linux/arm/v7".parse().unwrap());
        goal.build_args.insert("TARGETOS".to_owned(), "plan9".to_owned());
        let variables = automatic(&goal, &"linux/amd64".parse().unwrap(), None);
        let get = |name| variables.get(name);
        assert_eq!(get("BUILDPLATFORM"), Some("linux/arm/v7"));
        assert_eq!((get("BUILDVARIANT"), get("TARGETVARIANT")), (Some("v7"), Some("")));
        assert_eq!((get("TARGETOS"), get("TARGETSTAGE"), get("NOPE")), (Some("plan9"), Some("default"), None));
    }

    #[test]
    fn proxies_are_given_in_both_cases() {
        let args = [("Http_Proxy", "p"), ("NO_PROXY", ""), ("all_proxy", "q"), ("OTHER", "x")];
        let args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(proxies(&args), ["HTTP_PROXY=p", "http_proxy=p", "ALL_PROXY=q", "all_proxy=q"]);
    }

    #[test]
    fn a_name_keeps_its_place() {
        let mut variables = Variables::default();
        variables.set_all(&["A=1".to_owned(), "B".to_owned()]);
        variables.set("A", "x=y");
        assert_eq!(variables.pairs(), ["A=x=y", "B="]);
    }
}
