//! Filters as BuildKit has them: `FIELD`, `FIELD==VALUE`, `FIELD!=VALUE`, `FIELD~=REGEX`, several joined by commas all of
//! which must hold. `=` is `==`, as in `docker builder prune --filter`.
//!
//! | field | is |
//! |---|---|
//! | `id` | the number of the record, as `cache ls` shows it |
//! | `parents` | the snapshot below |
//! | `description` | the step, or the id of a cache mount |
//! | `type` | `regular`, `source.git.checkout`, `exec.cachemount`, `internal`: compressed layers kept for the next push |
//! | `inuse`, `shared`, `private`, `mutable`, `immutable` | whether; alone or `=true`, `=false` |
//!
//! BuildKit's types `source.local` and `frontend` are known and never match: contexts are read where they are.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its id.
    pub id: &'a str,
    /// The snapshot below.
    pub parent: &'a str,
    /// The step, or the id of a cache mount.
    pub description: &'a str,
    /// What it is.
    pub kind: RecordKind,
    /// Whether an image or a container has its layer too.
    pub shared: bool,
    /// Whether a live process uses it.
    pub in_use: bool,
}

/// Kinds of things that the cache keeps, as BuildKit names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// What a step gave.
    Regular,
    /// A checked out repository.
    GitCheckout,
    /// A cache mount.
    CacheMount,
    /// A compressed layer that is kept for the next push.
    Internal,
}

impl RecordKind {
    /// BuildKit's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Internal => "internal",
        }
    }
}

const KINDS: [&str; 6] = ["regular", "source.git.checkout", "exec.cachemount", "source.local", "internal", "frontend"];
const TEXTS: [&str; 4] = ["id", "parents", "description", "type"];
const FLAGS: [&str; 5] = ["inuse", "shared", "private", "mutable", "immutable"];

/// Narrows what may go; see the module.
#[derive(Clone, Debug)]
pub struct PruneFilter {
    text: String,
    terms: Vec<Term>,
}

/// A text that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It names no field.
    #[error("unknown filter field {field:?}: there are {}, {}", TEXTS.join(", "), FLAGS.join(", "))]
    Field {
        /// What it names.
        field: String,
    },
    /// It compares with something that never is.
    #[error("filter {field}: {value:?} is none of {}", wanted.join(", "))]
    Value {
        /// The field.
        field: String,
        /// What it is compared with.
        value: String,
        /// What would make sense.
        wanted: Vec<&'static str>,
    },
    /// A regular expression is none.
    #[error("filter {field}: {value:?} is no regular expression")]
    Regex {
        /// The field.
        field: String,
        /// The expression.
        value: String,
    },
    /// A field of text has no value.
    #[error("filter {field} needs a value: {field}==VALUE, {field}!=VALUE or {field}~=REGEX")]
    NoValue {
        /// The field.
        field: String,
    },
}

#[derive(Clone, Debug)]
struct Term {
    field: &'static str,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Is(String),
    IsNot(String),
    Matches(Regex),
    Holds(bool),
}

impl PartialEq for PruneFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PruneFilter {}

impl fmt::Display for PruneFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for PruneFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let terms = text.split(',').map(|term| Term::parse(term.trim())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), terms })
    }
}

impl PruneFilter {
    /// Whether something is what it asks for.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.terms.iter().all(|term| term.matches(subject))
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let end = text.find(['=', '!', '~']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let known = TEXTS.iter().chain(&FLAGS).find(|field| **field == name);
        let Some(field) = known.copied() else { return Err(InvalidFilter::Field { field: name.to_owned() }) };
        let operators = ["==", "!=", "~=", "="];
        let operator = operators.into_iter().find(|operator| rest.starts_with(operator));
        let value = operator.map_or("", |operator| &rest[operator.len()..]).trim_matches('"');
        if FLAGS.contains(&field) {
            let wrong = || InvalidFilter::Value {
                field: field.to_owned(),
                value: value.to_owned(),
                wanted: vec!["true", "false"],
            };
            let holds = match value {
                "" if rest.is_empty() => true,
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(wrong()),
            };
            return Ok(Self { field, test: Test::Holds(holds != (operator == Some("!="))) });
        }
        let test = match operator {
            Some("~=") => Test::Matches(
                Regex::new(value)
                    .map_err(|_| InvalidFilter::Regex { field: field.to_owned(), value: value.to_owned() })?,
            ),
            Some("!=") => Test::IsNot(value.to_owned()),
            Some(_) => Test::Is(value.to_owned()),
            None => return Err(InvalidFilter::NoValue { field: field.to_owned() }),
        };
        if let ("type", Test::Is(value) | Test::IsNot(value)) = (field, &test)
            && !KINDS.contains(&value.as_str())
        {
            let (field, value) = (field.to_owned(), value.clone());
            return Err(InvalidFilter::Value { field, value, wanted: KINDS.to_vec() });
        }
        Ok(Self { field, test })
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let text = match self.field {
            "id" => subject.id,
            "parents" => subject.parent,
            "description" => subject.description,
            "type" => subject.kind.as_str(),
            _ => "",
        };
        let holds = match self.field {
            "inuse" => subject.in_use,
            "shared" => subject.shared,
            "private" => !subject.shared,
            "mutable" => subject.kind == RecordKind::CacheMount,
            "immutable" => subject.kind != RecordKind::CacheMount,
            _ => false,
        };
        match &self.test {
            Test::Is(value) => text == value,
            Test::IsNot(value) => text != value,
            Test::Matches(regex) => regex.is_match(text),
            Test::Holds(wanted) => holds == *wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_in_buildkit() {
        let step = Subject {
            id: "12",
            parent: "7",
            description: "RUN apt-get update",
            kind: RecordKind::Regular,
            shared: false,
            in_use: true,
        };
        let mount = Subject { id: "m", kind: RecordKind::CacheMount, description: "/root/.cache", ..step };
        let cases = [
            ("id==12", true, false),
            ("id=12", true, false),
            ("id!=12", false, true),
            ("description~=apt.*update", true, false),
            ("description~=\"^/root\"", false, true),
            ("type==exec.cachemount", false, true),
            ("type==regular,inuse", true, false),
            ("type==source.local", false, false),
            ("mutable", false, true),
            ("immutable", true, false),
            ("shared=true", false, false),
            ("private", true, true),
            ("inuse=false", false, false),
            ("parents==7", true, true),
        ];
        for (text, on_step, on_mount) in cases {
            let filter: PruneFilter = text.parse().unwrap();
            assert_eq!((filter.matches(&step), filter.matches(&mount)), (on_step, on_mount), "{text}");
        }
    }

    #[test]
    fn what_can_never_match_is_an_error() {
        let errors: Vec<String> = ["colour=red", "type==files", "inuse=maybe", "id~=(", "description", ""]
            .iter()
            .map(|text| text.parse::<PruneFilter>().unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        unknown filter field "colour": there are id, parents, description, type, inuse, shared, private, mutable, immutable
        filter type: "files" is none of regular, source.git.checkout, exec.cachemount, source.local, internal, frontend
        filter inuse: "maybe" is none of true, false
        filter id: "(" is no regular expression
        filter description needs a value: description==VALUE, description!=VALUE or description~=REGEX
        unknown filter field "": there are id, parents, description, type, inuse, shared, private, mutable, immutable
        "#);
    }
}
