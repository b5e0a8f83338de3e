//! Which images a list shows or a prune takes: `NAME[:TAG]` and `--filter`, as Docker has them.

use jiff::Timestamp;
use rbuild_cache::{Store, StoredImage};
use rbuild_image::ImageRef;
use rbuild_parser::glob;

use crate::cli::report::Failure;
use crate::config::parse_age;
use crate::exit_code::Exit;

/// Which images are meant. Kinds of conditions must all hold; of several references one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Patterns of names.
    references: Vec<String>,
    /// Whether they have no tag.
    dangling: Option<bool>,
    /// Labels that they have.
    labels: Vec<LabelFilter>,
    /// Made before this.
    before: Option<Timestamp>,
    /// Made after this.
    since: Option<Timestamp>,
    /// Made before this time.
    until: Option<Timestamp>,
}

/// A label that an image has, or has not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LabelFilter {
    key: String,
    value: Option<String>,
    present: bool,
}

/// Where filters are given: not all commands know all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterUse {
    /// `images`
    List,
    /// `image prune`
    Prune,
}

impl ImageFilter {
    /// Parses `KEY=VALUE`s, and the name that `images` is given.
    pub fn parse(
        store: &Store,
        filters: &[String],
        name: Option<&str>,
        used: FilterUse,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let mut out = Self::default();
        if let Some(pattern) = name {
            out.add_reference(pattern)?;
        }
        for filter in filters {
            let Some((key, value)) = key_and_value(filter)? else { continue };
            match (key.as_str(), used) {
                ("dangling", _) => {
                    let dangling = match value {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(Failure::new(format!("invalid filter 'dangling=[{value}]'"))),
                    };
                    if out.dangling.replace(dangling).is_some_and(|before| before != dangling) {
                        return Err(Failure::new("invalid filter 'dangling=[true false]'"));
                    }
                }
                ("label", _) => out.labels.push(LabelFilter::parse(value, true)),
                ("label!", FilterUse::Prune) => out.labels.push(LabelFilter::parse(value, false)),
                ("until", _) => out.until = Some(time(value, now)?),
                ("reference", FilterUse::List) => out.add_reference(value)?,
                ("before" | "since", FilterUse::List) => {
                    let created = super::find(store, value, None)?.record.created_at;
                    let bound = if key == "before" { &mut out.before } else { &mut out.since };
                    *bound = Some(created.unwrap_or(Timestamp::MIN));
                }
                (_, FilterUse::List) => {
                    return Err(Failure::new(format!("invalid filter '{key}'"))
                        .with_help("filters are before, dangling, label, reference, since and until"));
                }
                (_, FilterUse::Prune) => {
                    return Err(Failure::new(format!("invalid filter '{key}'"))
                        .with_help("filters are dangling, label, label! and until"));
                }
            }
        }
        Ok(out)
    }

    fn add_reference(&mut self, pattern: &str) -> Result<(), Failure> {
        glob::check(pattern.as_bytes()).map_err(|_| Failure::new(format!("invalid reference pattern {pattern:?}")))?;
        self.references.push(pattern.to_owned());
        Ok(())
    }

    /// What `dangling` says, if anything.
    pub fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// Whether names are asked for.
    pub fn asks_for_names(&self) -> bool {
        !self.references.is_empty()
    }

    /// Whether a name is asked for; any is where none is named.
    pub fn takes_name(&self, reference: &ImageRef) -> bool {
        // As people write it; with the registry that goes without saying only where the pattern names it.
        let names = |name: String| {
            let with_tag = reference.tag().map(|tag| format!("{name}:{tag}"));
            std::iter::once(name).chain(with_tag)
        };
        let matches = |pattern: &String| {
            let whole = pattern.starts_with("docker.io/").then(|| names(reference.name()));
            names(reference.familiar_name())
                .chain(whole.into_iter().flatten())
                .any(|name| glob::matches(pattern.as_bytes(), name.as_bytes()).unwrap_or(false))
        };
        self.references.is_empty() || self.references.iter().any(matches)
    }

    /// Whether an image is meant, whatever its names.
    pub fn takes(&self, store: &Store, image: &StoredImage) -> Result<bool, Failure> {
        let created = image.record.created_at.unwrap_or(Timestamp::MIN);
        let in_time = self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.until.is_none_or(|until| created < until);
        if !in_time || self.labels.is_empty() {
            return Ok(in_time);
        }
        let labels = super::config(store, &image.record.id)?.config.labels;
        Ok(self.labels.iter().all(|filter| {
            let value = labels.get(&filter.key);
            let has = value.is_some_and(|value| filter.value.as_ref().is_none_or(|wanted| wanted == value));
            has == filter.present
        }))
    }
}

/// The two parts of a filter; an empty one means nothing.
fn key_and_value(filter: &str) -> Result<Option<(String, &str)>, Failure> {
    match filter.split_once('=') {
        Some((key, value)) => Ok(Some((key.trim().to_lowercase(), value.trim()))),
        None if filter.is_empty() => Ok(None),
        None => {
            Err(Failure::new(format!("bad format of filter (expected name=value): {filter}")).with_exit(Exit::Engine))
        }
    }
}

impl LabelFilter {
    fn parse(text: &str, present: bool) -> Self {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
        Self { key: key.to_owned(), value, present }
    }
}

/// A point in time: a duration before now, a time, or seconds since the epoch.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(age) = parse_age(text) {
        return Ok(now.checked_sub(age).unwrap_or(Timestamp::MIN));
    }
    let days = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    text.parse().ok().or_else(seconds).or_else(|| days().map(|zoned| zoned.timestamp())).ok_or_else(|| {
        Failure::usage(
            format!("until: {text:?} is neither a duration nor a time"),
            "e.g. 24h, 7d or 2026-01-02T15:04:05Z",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_docker_matches_them() {
        let name: ImageRef = "alpine:3.20".parse().unwrap();
        let other: ImageRef = "ghcr.io/me/app:1".parse().unwrap();
        let takes = |pattern: &str, name: &ImageRef| {
            ImageFilter { references: vec![pattern.to_owned()], ..ImageFilter::default() }.takes_name(name)
        };
        for pattern in ["alpine", "alpine:3.20", "alp*", "*:3.*", "docker.io/library/alpine", "alpine:*"] {
            assert!(takes(pattern, &name), "{pattern}");
        }
        for pattern in ["alpine:3", "library/alpine:9", "al", "ghcr.io/*", "*/*/*", "docker.io/*"] {
            assert!(!takes(pattern, &name), "{pattern}");
        }
        assert!(takes("ghcr.io/*/app", &other) && takes("*/*/app:1", &other) && !takes("*", &other));
    }

    #[test]
    fn a_filter_is_a_key_and_a_value() {
        assert_eq!(key_and_value(" Label = a=b ").unwrap(), Some(("label".to_owned(), "a=b")));
        assert_eq!(key_and_value("").unwrap(), None);
        assert_eq!(key_and_value("label").unwrap_err().exit(), Exit::Engine);
    }

    #[test]
    fn times_are_durations_dates_or_seconds() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (text, meant) in [
            ("24h", "2026-01-01T00:00:00Z"),
            ("2025-12-31T10:00:00Z", "2025-12-31T10:00:00Z"),
            ("2025-12-31T10:00:00", "2025-12-31T10:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(time(text, now).unwrap(), meant.parse().unwrap(), "{text}");
        }
        assert!(time("soon", now).is_err());
    }
}
