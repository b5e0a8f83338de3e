//! Why a vertex was not answered from the cache: the nearest earlier description against the one looked up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why a vertex ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum MissReason {
    /// It was asked not to look (`--no-cache`).
    Ignored,
    /// Nothing comparable was ever recorded, or it is gone.
    NothingRecorded,
    /// It differs from the nearest earlier one.
    Changed {
        /// Display name of the earlier one.
        earlier: String,
        /// What differs.
        fields: Vec<FieldChange>,
    },
    /// Nothing in its definition differs: something that it reads ran again and came out differently.
    InputsDiffer,
}

/// One field of a description that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field, e.g. `env.3`.
    pub field: String,
    /// What it was; `None` when it is new.
    pub before: Option<String>,
    /// What it is; `None` when it is gone.
    pub after: Option<String>,
}

impl MissReason {
    /// Compares with the nearest earlier description of the same place or the same op.
    pub fn from_nearest(nearest: Option<(&str, &str)>, description: &str) -> Self {
        let Some((earlier, before)) = nearest else {
            return Self::NothingRecorded;
        };
        match changes(before, description) {
            fields if fields.is_empty() => Self::InputsDiffer,
            fields => Self::Changed { earlier: earlier.to_owned(), fields },
        }
    }
}

/// The fields that differ between two descriptions, in the order of their names.
pub fn changes(before: &str, after: &str) -> Vec<FieldChange> {
    let (before, after) = (fields(before), fields(after));
    let names: std::collections::BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let text = |value: Option<&&str>| value.map(|value| (*value).to_owned());
    names
        .into_iter()
        .filter(|name| before.get(name) != after.get(name))
        .map(|name| FieldChange {
            field: name.to_owned(),
            before: text(before.get(name)),
            after: text(after.get(name)),
        })
        .collect()
}

fn fields(description: &str) -> BTreeMap<&str, &str> {
    description.lines().filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changed_the_new_and_the_gone_field_are_named() {
        let before = "op: run\nargv.2: make\nenv.0: A=1\n";
        let after = "op: run\nargv.2: make all\nuser: app\n";
        let change = |field: &str, before: Option<&str>, after: Option<&str>| FieldChange {
            field: field.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let expected = [
            change("argv.2", Some("make"), Some("make all")),
            change("env.0", Some("A=1"), None),
            change("user", None, Some("app")),
        ];
        assert_eq!(changes(before, after), expected);
        assert_eq!(MissReason::from_nearest(Some(("x", after)), after), MissReason::InputsDiffer);
        assert_eq!(MissReason::from_nearest(None, after), MissReason::NothingRecorded);
    }
}
