//! `--filter` of the `prune` commands for containers, networks, volumes and all of it: `until`, `label` and `label!`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::report::Failure;
use super::time::parse_time;
use crate::exit_code::Exit;

/// What a prune is limited to. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PruneFilter {
    labels: Vec<LabelCondition>,
    until: Option<Timestamp>,
    /// As typed, for the question.
    typed: Vec<String>,
}

/// A label that must be there, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LabelCondition {
    key: String,
    value: Option<String>,
    present: bool,
}

impl LabelCondition {
    /// `KEY` or `KEY=VALUE`.
    pub(super) fn parse(text: &str, present: bool) -> Self {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
        Self { key: key.to_owned(), value, present }
    }

    /// Whether labels are as it says.
    pub(super) fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = labels.get(&self.key).is_some_and(|own| self.value.as_ref().is_none_or(|value| own == value));
        has == self.present
    }
}

impl PruneFilter {
    /// Parses what was typed; `known` are the names that the command has.
    pub(super) fn parse(typed: &[String], known: &[&str], now: Timestamp) -> Result<Self, Failure> {
        let mut filter =
            Self { typed: typed.iter().filter(|text| !text.is_empty()).cloned().collect(), ..Self::default() };
        for text in typed.iter().filter(|text| !text.is_empty()) {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!("bad format of filter (expected name=value): {text}")).with_exit(Exit::Engine)
            })?;
            if !known.contains(&key) {
                return Err(Failure::new(format!("invalid filter '{key}'"))
                    .with_help(format!("filters are {}", known.join(", "))));
            }
            match key {
                "until" => filter.until = Some(parse_time(value, now)?),
                "label" => filter.labels.push(LabelCondition::parse(value, true)),
                "label!" => filter.labels.push(LabelCondition::parse(value, false)),
                // Seen to by the command itself.
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Whether something is meant.
    pub(super) fn takes(&self, labels: &BTreeMap<String, String>, created: Timestamp) -> bool {
        self.labels.iter().all(|one| one.holds(labels)) && self.until.is_none_or(|until| created < until)
    }

    /// Whether labels decide.
    pub(super) fn asks_for_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Only what is older than this.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// What a question says of it.
    pub(super) fn described(&self) -> String {
        if self.typed.is_empty() {
            return String::new();
        }
        let items: String = self.typed.iter().map(|text| format!("  - {text}\n")).collect();
        format!("\n  Items to be pruned will be filtered with:\n{items}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_age_are_asked_for() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let parse = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|&text| text.to_owned()).collect();
            PruneFilter::parse(&typed, &["until", "label", "label!"], now)
        };
        let labels: BTreeMap<_, _> = [("tier".to_owned(), "db".to_owned())].into();
        for (typed, takes) in [
            (&[][..], true),
            (&["label=tier"], true),
            (&["label=tier=db"], true),
            (&["label=tier=web"], false),
            (&["label!=tier"], false),
            (&["label!=tier=web"], true),
            (&["until=10m"], true),
            (&["until=1h"], false),
            (&["label=tier", "until=1h"], false),
        ] {
            assert_eq!(
                parse(typed).unwrap().takes(&labels, Timestamp::from_second(999_000).unwrap()),
                takes,
                "{typed:?}"
            );
        }
        assert_eq!(parse(&["colour=red"]).unwrap_err().message(), "invalid filter 'colour'");
        assert!(parse(&["until"]).unwrap_err().message().starts_with("bad format of filter"));
        assert_eq!(parse(&[]).unwrap().described(), "");
        assert!(parse(&["until=1h"]).unwrap().described().ends_with("- until=1h\n"));
    }
}
