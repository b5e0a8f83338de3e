//! BuildKit's build checks, one file each: same names, messages and links. Those that need only the text are run by
//! [`parse`](crate::parse); the others are functions that whoever expands words and resolves images calls with what it knows.
//! Every finding goes through a [`Config`], which holds what `# check=` switched.

use std::collections::BTreeSet;

use crate::mount::parse_bool;
use crate::quote::Quoted;
use crate::{Diagnostic, Severity};

pub mod consistent_instruction_casing;
pub mod copy_ignored_file;
pub mod duplicate_stage_name;
pub mod expose_invalid_format;
pub mod expose_proto_casing;
pub mod from_as_casing;
pub mod from_platform_flag_const_disallowed;
pub mod invalid_base_image_platform;
pub mod invalid_default_arg_in_from;
pub mod invalid_definition_description;
pub mod json_args_recommended;
pub mod legacy_key_value_format;
pub mod maintainer_deprecated;
pub mod multiple_instructions_disallowed;
pub mod no_empty_continuation;
pub mod redundant_target_platform;
pub mod reserved_stage_name;
pub mod secrets_used_in_arg_or_env;
pub mod stage_name_casing;
pub mod undefined_arg_in_from;
pub mod undefined_var;
pub mod workdir_relative_path;

/// A build check.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as `# check=skip=` knows it.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// Where it is explained; empty for one rule.
    pub url: &'static str,
    /// Whether it must be asked for by `# check=experimental=`.
    pub experimental: bool,
}

/// All checks, by name.
pub const RULES: [&Rule; 22] = [
    &consistent_instruction_casing::RULE,
    &copy_ignored_file::RULE,
    &duplicate_stage_name::RULE,
    &expose_invalid_format::RULE,
    &expose_proto_casing::RULE,
    &from_as_casing::RULE,
    &from_platform_flag_const_disallowed::RULE,
    &invalid_base_image_platform::RULE,
    &invalid_default_arg_in_from::RULE,
    &invalid_definition_description::RULE,
    &json_args_recommended::RULE,
    &legacy_key_value_format::RULE,
    &maintainer_deprecated::RULE,
    &multiple_instructions_disallowed::RULE,
    &no_empty_continuation::RULE,
    &redundant_target_platform::RULE,
    &reserved_stage_name::RULE,
    &secrets_used_in_arg_or_env::RULE,
    &stage_name_casing::RULE,
    &undefined_arg_in_from::RULE,
    &undefined_var::RULE,
    &workdir_relative_path::RULE,
];

/// Which checks run, and whether a finding fails the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// No check runs but experimental ones that are asked for.
    pub skip_all: bool,
    /// Checks that do not run.
    pub skip: BTreeSet<String>,
    /// All experimental checks run.
    pub experimental_all: bool,
    /// Experimental checks that run.
    pub experimental: BTreeSet<String>,
    /// A finding fails the build.
    pub error: bool,
}

/// Options that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CheckOptionError {
    #[error("invalid check option {}", Quoted(.0))]
    Unknown(String),
    #[error("failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax", Quoted(.option), Quoted(.value))]
    NotBoolean { option: String, value: String },
}

impl Config {
    /// Reads `skip=A,B;experimental=C;error=true`.
    pub fn parse(options: &str) -> Result<Self, CheckOptionError> {
        let mut config = Self::default();
        let options = options.trim();
        if options.is_empty() {
            return Ok(config);
        }
        for option in options.splitn(3, ';') {
            let Some((key, value)) = option.split_once('=') else {
                return Err(CheckOptionError::Unknown(option.to_owned()));
            };
            let (key, value) = (key.trim(), value.trim());
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match (key, value) {
                ("skip", "all") => config.skip_all = true,
                ("skip", _) => config.skip = names(),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", _) => config.experimental = names(),
                ("error", _) => {
                    config.error = parse_bool(value).ok_or_else(|| CheckOptionError::NotBoolean {
                        option: option.to_owned(),
                        value: value.to_owned(),
                    })?;
                }
                _ => return Err(CheckOptionError::Unknown(key.to_owned())),
            }
        }
        Ok(config)
    }

    /// Whether a check runs; `nearby` is what a comment above the instruction switched.
    pub fn runs(&self, rule: &Rule, nearby: Option<&Self>) -> bool {
        let any = |asks: fn(&Self, &str) -> bool| asks(self, rule.name) || nearby.is_some_and(|it| asks(it, rule.name));
        if rule.experimental {
            return any(|config, name| config.experimental_all || config.experimental.contains(name));
        }
        !any(|config, name| config.skip_all || config.skip.contains(name))
    }

    /// Whether a finding is wanted. Errors always are.
    pub fn wants(&self, finding: &Diagnostic, nearby: Option<&Self>) -> bool {
        finding.rule.is_none_or(|rule| self.runs(rule, nearby))
    }

    /// The error that `error=true` makes of wanted findings.
    pub fn verdict<'a>(&self, findings: impl IntoIterator<Item = &'a Diagnostic>) -> Option<Diagnostic> {
        if !self.error {
            return None;
        }
        let warnings = findings.into_iter().filter(|finding| finding.severity == Severity::Warning);
        let names: BTreeSet<&str> = warnings.filter_map(|finding| Some(finding.rule?.name)).collect();
        if names.is_empty() {
            return None;
        }
        let names: Vec<&str> = names.into_iter().collect();
        Some(Diagnostic::file_error(format!("lint violation found for rules: {}", names.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let config = Config::parse("skip=StageNameCasing, FromAsCasing;error=true").unwrap();
        assert!(config.error);
        assert!(!config.runs(&from_as_casing::RULE, None));
        assert!(config.runs(&undefined_var::RULE, None));
        assert!(!config.runs(&invalid_definition_description::RULE, None));
        assert!(!Config::parse("skip=all").unwrap().runs(&undefined_var::RULE, None));
        assert!(Config::parse("skip=all;experimental=all").unwrap().runs(&invalid_definition_description::RULE, None));
        let nearby = Config::parse("skip=UndefinedVar").unwrap();
        assert!(!Config::default().runs(&undefined_var::RULE, Some(&nearby)));
        for (options, message) in [
            ("skip", "invalid check option \"skip\""),
            ("hop=1", "invalid check option \"hop\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(Config::parse(options).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn rules_are_sorted_and_linked() {
        assert!(RULES.is_sorted_by_key(|rule| rule.name));
        for rule in RULES {
            let mut path = String::new();
            let chars: Vec<char> = rule.name.replace("JSON", "Json").chars().collect();
            for c in chars {
                if c.is_uppercase() && !path.is_empty() {
                    path.push('-');
                }
                path.extend(c.to_lowercase());
            }
            let url = format!("https://docs.docker.com/go/dockerfile/rule/{path}/");
            assert!(rule.url == url || rule.name == "InvalidBaseImagePlatform", "{}", rule.name);
        }
    }
}
