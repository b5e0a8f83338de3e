//! What a collection may take, and how much of it: BuildKit's policies.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::filter::{PruneFilter, Subject};
use crate::path_error::{AtPath, PathError};

/// For how long tombstones and unused file digests are remembered.
const MEMORY: Duration = Duration::from_secs(60 * 24 * 3600);

/// Which cache records and mounts may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// None: only what nothing keeps.
    Garbage,
    /// Those whose layers no image or container shares, and cache mounts.
    Cache,
    /// All of them; images and containers keep their layers all the same.
    All,
}

/// Which images may go. Those that a container or a live process uses stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageScope {
    /// None.
    None,
    /// Those without a tag.
    Dangling,
    /// All.
    Unused,
}

/// An amount of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// That many bytes.
    Bytes(u64),
    /// That part of the file system.
    Percent(u8),
    /// That part of the file system, but at most so many bytes.
    PercentUpTo(u8, u64),
}

/// A text that is no amount of room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no amount of room: bytes, a size such as 10GB, or a part of the disk such as 20%")]
pub struct InvalidSpace {
    /// The text.
    pub text: String,
}

impl Space {
    /// In bytes, on a file system of that size.
    pub fn of(self, total: u64) -> u64 {
        let part = |percent: u8| (u128::from(total) * u128::from(percent) / 100) as u64;
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => part(percent),
            Self::PercentUpTo(percent, bytes) => part(percent).min(bytes),
        }
    }
}

impl FromStr for Space {
    type Err = InvalidSpace;

    /// Reads `512MB` and `512MiB` (both 2²⁰, as BuildKit has it), `1.5g`, `1000` and `20%`.
    fn from_str(text: &str) -> Result<Self, InvalidSpace> {
        let wrong = || InvalidSpace { text: text.to_owned() };
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim_end().parse::<u8>().ok().filter(|percent| *percent <= 100);
            return percent.map(Self::Percent).ok_or_else(wrong);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..end].parse().map_err(|_| wrong())?;
        let unit = text[end..].trim().to_ascii_lowercase();
        let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" if unit.is_empty() || unit == "b" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(wrong()),
        };
        Ok(Self::Bytes((number * (1_u64 << shift) as f64) as u64))
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => {
                const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
                let unit = (0..UNITS.len()).rev().find(|unit| *bytes >= 1 << (10 * unit)).unwrap_or(0);
                let rounded = (*bytes as f64 / (1_u64 << (10 * unit)) as f64 * 10.0).round() / 10.0;
                write!(f, "{rounded}{}", UNITS[unit])
            }
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::PercentUpTo(percent, bytes) => write!(f, "{percent}%, at most {}", Self::Bytes(*bytes)),
        }
    }
}

/// What a collection may take, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// How tombstones name this rule: `prune --all`, `gc policy 2 (maxUsedSpace 10GB)`.
    pub rule: String,
    /// Which cache records and mounts may go.
    pub scope: PruneScope,
    /// Which images may go.
    pub images: ImageScope,
    /// Only what was not used for that long.
    pub unused_for: Option<Duration>,
    /// Only what matches one of these; everything, when there are none.
    pub filters: Vec<PruneFilter>,
    /// The cache never gets smaller than this.
    pub reserved: Option<Space>,
    /// The cache never stays larger than this.
    pub max_used: Option<Space>,
    /// The file system keeps this much free, as far as the cache has it to give.
    pub min_free: Option<Space>,
    /// For how long tombstones and unused file digests are remembered.
    pub memory: Duration,
}

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// What this user may still take.
    pub free: u64,
}

impl DiskSpace {
    pub(crate) fn at(root: &Path) -> Result<Self, PathError> {
        let status = rustix::fs::statvfs(root).at("inspect the file system of", root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Self { total: bytes(status.f_blocks), free: bytes(status.f_bavail) })
    }
}

impl GcPolicy {
    /// Takes everything in `scope`.
    pub fn new(rule: impl Into<String>, scope: PruneScope) -> Self {
        Self {
            rule: rule.into(),
            scope,
            images: ImageScope::None,
            unused_for: None,
            filters: Vec::new(),
            reserved: None,
            max_used: None,
            min_free: None,
            memory: MEMORY,
        }
    }

    /// Takes only what nothing keeps.
    pub fn garbage() -> Self {
        Self::new("unused", PruneScope::Garbage)
    }

    /// BuildKit's default policies for these limits: first what is cheap to have again and was not used for two days,
    /// then what was not used for sixty, then the rest, and last what images share.
    pub fn defaults(limits: &Limits) -> Vec<Self> {
        let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
        let limited = |scope| Self {
            reserved: limits.reserved,
            max_used: limits.max_used,
            min_free: limits.min_free,
            ..Self::new("", scope)
        };
        let cheap = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout", "type==internal"];
        let mut policies = vec![
            Self {
                filters: cheap.iter().map(|text| text.parse().expect("these filters are sound")).collect(),
                unused_for: days(2),
                max_used: Some(Space::Bytes(512 << 20)),
                ..Self::new("", PruneScope::Cache)
            },
            Self { unused_for: days(60), ..limited(PruneScope::Cache) },
            limited(PruneScope::Cache),
            limited(PruneScope::All),
        ];
        Self::number(&mut policies);
        policies
    }

    /// Names the rules of policies that are applied in order, as tombstones will.
    pub fn number(policies: &mut [Self]) {
        for (number, policy) in (1..).zip(policies) {
            let unused = policy.unused_for.map(|time| format!("keepDuration {}h", time.as_secs() / 3600));
            let named = [
                ("maxUsedSpace", policy.max_used),
                ("minFreeSpace", policy.min_free),
                ("reservedSpace", policy.reserved),
            ];
            let limits = named.iter().filter_map(|(name, space)| Some(format!("{name} {}", (*space)?)));
            let parts: Vec<String> = unused.into_iter().chain(limits).collect();
            policy.rule = format!("gc policy {number} ({})", parts.join(", "));
        }
    }

    /// How many bytes of `used` may stay when `incoming` more are to come; `None` when all that may go goes.
    pub(super) fn keep(&self, disk: DiskSpace, used: u64, incoming: u64) -> Option<u64> {
        if self.reserved.is_none() && self.max_used.is_none() && self.min_free.is_none() {
            return None;
        }
        let bytes = |space: Option<Space>| space.map(|space| space.of(disk.total));
        let (used, free) = (used.saturating_add(incoming), disk.free.saturating_sub(incoming));
        let lacking = bytes(self.min_free).map(|wanted| wanted.saturating_sub(free));
        let below_free = lacking.map(|lacking| used.saturating_sub(lacking));
        // Only a reserve given: everything above it goes.
        let keep = match (bytes(self.max_used), below_free) {
            (Some(most), Some(below)) => most.min(below),
            (Some(most), None) => most,
            (None, Some(below)) => below,
            (None, None) => 0,
        };
        Some(keep.max(bytes(self.reserved).unwrap_or(0)).saturating_sub(incoming))
    }

    /// Whether it takes everything in its scope, but for what was used lately.
    pub(super) fn is_unlimited(&self) -> bool {
        let limits = [self.reserved, self.max_used, self.min_free];
        self.filters.is_empty() && limits.iter().all(Option::is_none)
    }

    /// Whether it limits the cache as a whole, not only what is old or matches something.
    pub(super) fn is_ceiling(&self) -> bool {
        self.scope != PruneScope::Garbage && self.unused_for.is_none() && self.filters.is_empty()
    }

    /// Since when something must not have been used to go.
    pub(super) fn horizon(&self, now: Timestamp) -> Timestamp {
        match self.unused_for {
            None => Timestamp::MAX,
            Some(time) => now.checked_sub(time).unwrap_or(Timestamp::MIN),
        }
    }

    /// Whether this policy may take something that was last used at that time.
    pub(super) fn takes(&self, subject: &Subject<'_>, used_at: Timestamp, now: Timestamp) -> bool {
        let matches = self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(subject));
        self.scope != PruneScope::Garbage && matches && used_at < self.horizon(now)
    }
}

/// The limits of BuildKit's default policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The cache never gets smaller than this.
    pub reserved: Option<Space>,
    /// The cache never stays larger than this.
    pub max_used: Option<Space>,
    /// The file system keeps this much free.
    pub min_free: Option<Space>,
}

impl Default for Limits {
    /// BuildKit's: 10 % of the disk, at most 10 GB, are the cache's own; it takes no more than 80 %, at most 100 GB, and
    /// leaves 20 % free.
    fn default() -> Self {
        Self {
            reserved: Some(Space::PercentUpTo(10, 10_000_000_000)),
            max_used: Some(Space::PercentUpTo(80, 100_000_000_000)),
            min_free: Some(Space::Percent(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_buildkit_reads_them() {
        let cases = [
            ("0", 0),
            ("1000", 1000),
            ("512MB", 512 << 20),
            ("512mib", 512 << 20),
            ("1.5g", 3 << 29),
            ("2 KB", 2048),
            ("7b", 7),
            ("20%", 200),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<Space>().unwrap().of(1000), bytes, "{text}");
        }
        for bad in ["", "MB", "5x", "101%", "-1", "1ib", "%", "1..2", "10i"] {
            assert!(bad.parse::<Space>().is_err(), "{bad}");
        }
        let shown = ["1000", "10GB", "1.5m", "20%"].map(|text| text.parse::<Space>().unwrap().to_string());
        assert_eq!(shown, ["1000B", "10GB", "1.5MB", "20%"]);
    }

    /// The table of BuildKit's `calculateKeepBytes`.
    #[test]
    fn what_may_stay_follows_from_three_limits() {
        let disk = DiskSpace { total: 1000, free: 100 };
        let space = |bytes: Option<u64>| bytes.map(Space::Bytes);
        let cases = [
            // reserved, max used, min free -> keep of 500
            (None, None, None, None),
            (Some(50), None, None, Some(50)),
            (None, Some(300), None, Some(300)),
            (None, None, Some(100), Some(500)),
            (None, None, Some(150), Some(450)),
            (None, Some(480), Some(150), Some(450)),
            (None, Some(400), Some(150), Some(400)),
            (Some(470), Some(400), Some(150), Some(470)),
            (None, None, Some(900), Some(0)),
            (Some(30), None, Some(900), Some(30)),
        ];
        for (reserved, max_used, min_free, keep) in cases {
            let policy = GcPolicy {
                reserved: space(reserved),
                max_used: space(max_used),
                min_free: space(min_free),
                ..GcPolicy::new("test", PruneScope::Cache)
            };
            assert_eq!(policy.keep(disk, 500, 0), keep, "{reserved:?} {max_used:?} {min_free:?}");
        }
        let policy = GcPolicy { max_used: space(Some(300)), ..GcPolicy::new("test", PruneScope::Cache) };
        assert_eq!(policy.keep(disk, 290, 30), Some(270), "room is made for what comes");
        let policy = GcPolicy { min_free: space(Some(90)), ..GcPolicy::new("test", PruneScope::Cache) };
        assert_eq!(policy.keep(disk, 500, 30), Some(480));
    }

    #[test]
    fn rules_have_names_that_people_find_in_their_file() {
        let rules: Vec<String> = GcPolicy::defaults(&Limits::default()).into_iter().map(|policy| policy.rule).collect();
        insta::assert_snapshot!(rules.join("\n"), @r"
        gc policy 1 (keepDuration 48h, maxUsedSpace 512MB)
        gc policy 2 (keepDuration 1440h, maxUsedSpace 80%, at most 93.1GB, minFreeSpace 20%, reservedSpace 10%, at most 9.3GB)
        gc policy 3 (maxUsedSpace 80%, at most 93.1GB, minFreeSpace 20%, reservedSpace 10%, at most 9.3GB)
        gc policy 4 (maxUsedSpace 80%, at most 93.1GB, minFreeSpace 20%, reservedSpace 10%, at most 9.3GB)
        ");
    }
}
