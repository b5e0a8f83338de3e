//! The configuration file: TOML, at most one, and none is needed. `docs/gc.md` and
//! `docs/registries.md` describe it for people.
//!
//! The first that exists counts, alone: what `RBUILD_CONFIG` names, `$XDG_CONFIG_HOME/rbuild/config.toml`,
//! `/etc/rbuild/config.toml`. A key that means nothing is an error, so that a slip of the pen never disables a limit.
//! Tables and keys may be spelled as in BuildKit's `buildkitd.toml` (`[worker.oci]`, `gcpolicy`, `keepBytes`, `[registry]`) and in
//! Docker's `daemon.json` (`[builder.gc]`, `defaultKeepStorage`, `filter`).

mod registry;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rbuild_cache::snapshot::SnapshotterChoice;
use rbuild_cache::{GcPolicy, HistoryLimits, Limits, PruneFilter, PruneScope, Space};
use rbuild_image::registry::HostConfig;
use rbuild_parser::suggestion;
use toml::{Table, Value};

use super::age::parse_age;
use crate::output::origins::LayerBlobPolicy;

/// What the configuration file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Policies of garbage collection, in order; none when it is switched off.
    pub gc: Vec<GcPolicy>,
    /// How much of the history of builds is kept.
    pub history: HistoryLimits,
    /// Settings of registries, by host.
    pub registries: BTreeMap<String, HostConfig>,
    /// How new layers are kept.
    pub snapshotter: SnapshotterChoice,
    /// `layerBlobs`: whether the blobs that pulled layers came as are kept.
    pub layer_blobs: LayerBlobPolicy,
    /// `networkLinger`: how long a network that nobody has stays on this host for the next container or build.
    pub network_linger: Duration,
    /// Whether builds end with hints; as the terminal is where it says nothing.
    pub hints: Option<bool>,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            gc: GcPolicy::defaults(&Limits::default()),
            history: HistoryLimits::default(),
            registries: BTreeMap::new(),
            snapshotter: SnapshotterChoice::Auto,
            layer_blobs: LayerBlobPolicy::Keep,
            network_linger: Duration::from_secs(10),
            hints: None,
        }
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no TOML.
    #[error("{}: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        detail: String,
    },
    /// A key means nothing.
    #[error("{}: unknown key {key}{}", path.display(), near.as_ref().map_or_else(String::new, |near| format!(" (did you mean {near}?)")))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with the tables it is in.
        key: String,
        /// The nearest one that means something there.
        near: Option<String>,
    },
    /// Two keys mean the same.
    #[error("{}: {first} and {second} mean the same", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// One of them.
        first: String,
        /// The other one.
        second: String,
    },
    /// A value makes no sense.
    #[error("{}: {key}: {detail}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with the tables it is in.
        key: String,
        /// What is wrong.
        detail: String,
    },
}

impl ConfigFile {
    /// Reads the first of `candidates` that exists; the defaults when none does. One that was `named` must exist.
    pub fn load(named: Option<&Path>, candidates: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut paths = named.into_iter().chain(candidates.iter().map(PathBuf::as_path).filter(|_| named.is_none()));
        let found = paths.find_map(|path| match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => None,
            other => Some((path, other)),
        });
        match found {
            None => Ok(Self::default()),
            Some((path, Ok(text))) => Self::parse(path, &text),
            Some((path, Err(source))) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads a file's text; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table = text.parse::<Table>().map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            detail: error.to_string().trim().to_owned(),
        })?;
        let top = Section { path, name: String::new(), table: &table };
        let worker = top.section("worker")?;
        let builder = top.section("builder")?;
        let known =
            ["gc", "worker", "builder", "history", "registry", "snapshotter", "layerBlobs", "networkLinger", "hints"];
        top.only(&known)?;
        let registries = top.section("registry")?.map(|section| section.registries()).transpose()?.unwrap_or_default();
        let snapshotter = top.word("snapshotter")?;
        let layer_blobs = top.word("layerBlobs")?;
        let network_linger = top.linger()?;
        let hints = top.hints()?;
        let history = top.section("history")?.map(|section| section.history()).transpose()?.unwrap_or_default();
        let mut sections: Vec<Section<'_>> = top.section("gc")?.into_iter().collect();
        if let Some(worker) = &worker {
            worker.only(&["oci", "containerd"])?;
            sections.extend(worker.section("oci")?);
            sections.extend(worker.section("containerd")?);
        }
        if let Some(builder) = &builder {
            builder.only(&["gc"])?;
            sections.extend(builder.section("gc")?);
        }
        match &sections[..] {
            [] => Ok(Self {
                gc: Self::default().gc,
                history,
                registries,
                snapshotter,
                layer_blobs,
                network_linger,
                hints,
            }),
            [section] => {
                let gc = section.policies()?;
                Ok(Self { gc, history, registries, snapshotter, layer_blobs, network_linger, hints })
            }
            [first, second, ..] => Err(ConfigError::Twice {
                path: path.to_owned(),
                first: format!("[{}]", first.name),
                second: format!("[{}]", second.name),
            }),
        }
    }
}

const ENABLED: &[&str] = &["enabled", "gc"];
const RESERVED: &[&str] =
    &["reservedSpace", "keepStorage", "keepBytes", "defaultReservedSpace", "defaultKeepStorage", "gckeepstorage"];
const MAX_USED: &[&str] = &["maxUsedSpace", "defaultMaxUsedSpace"];
const MIN_FREE: &[&str] = &["minFreeSpace", "defaultMinFreeSpace"];
const POLICY: &[&str] = &["policy", "gcpolicy"];
const DURATION: &[&str] = &["keepDuration"];
const FILTERS: &[&str] = &["filters", "filter"];
const ALL: &[&str] = &["all"];

/// A table of the file.
struct Section<'a> {
    path: &'a Path,
    name: String,
    table: &'a Table,
}

impl<'a> Section<'a> {
    fn section(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Section { path: self.path, name: self.full(key), table })),
            Some(_) => Err(self.wrong(key, "a table is wanted")),
        }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn wrong(&self, key: &str, detail: impl Into<String>) -> ConfigError {
        ConfigError::Value { path: self.path.to_owned(), key: self.full(key), detail: detail.into() }
    }

    /// Fails when there is any other key.
    fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ConfigError::UnknownKey {
                path: self.path.to_owned(),
                key: self.full(key),
                near: nearest(key, known),
            }),
        }
    }

    /// The value of a key with several spellings.
    fn get(&self, spellings: &[&'static str]) -> Result<Option<(&'static str, &'a Value)>, ConfigError> {
        let mut found = spellings.iter().filter_map(|key| Some((*key, self.table.get(*key)?)));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => Err(ConfigError::Twice {
                path: self.path.to_owned(),
                first: self.full(first),
                second: self.full(second),
            }),
            (first, _) => Ok(first),
        }
    }

    fn flag(&self, spellings: &[&'static str]) -> Result<Option<bool>, ConfigError> {
        match self.get(spellings)? {
            None => Ok(None),
            Some((_, Value::Boolean(value))) => Ok(Some(*value)),
            Some((key, _)) => Err(self.wrong(key, "true or false is wanted")),
        }
    }

    fn space(&self, spellings: &[&'static str]) -> Result<Option<Space>, ConfigError> {
        match self.get(spellings)? {
            None => Ok(None),
            Some((_, Value::Integer(bytes))) if *bytes >= 0 => Ok(Some(Space::Bytes(bytes.unsigned_abs()))),
            Some((key, Value::String(text))) => {
                text.parse().map(Some).map_err(|error: rbuild_cache::InvalidSpace| self.wrong(key, error.to_string()))
            }
            Some((key, _)) => {
                Err(self.wrong(key, "bytes, a size such as \"10GB\" or a part of the disk such as \"20%\" is wanted"))
            }
        }
    }

    /// `hints`, a key of its own.
    fn hints(&self) -> Result<Option<bool>, ConfigError> {
        match self.table.get("hints") {
            None => Ok(None),
            Some(Value::Boolean(wanted)) => Ok(Some(*wanted)),
            Some(_) => Err(self.wrong("hints", "true or false is wanted")),
        }
    }

    /// A key of its own whose value is one of some words; the word itself says which there are.
    fn word<T>(&self, key: &'static str) -> Result<T, ConfigError>
    where
        T: FromStr<Err: Display> + Default,
    {
        let text = match self.table.get(key) {
            None => return Ok(T::default()),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Boolean(other)) => other.to_string(),
            Some(Value::Integer(other)) => other.to_string(),
            Some(other) => other.type_str().to_owned(),
        };
        text.parse().map_err(|error: T::Err| self.wrong(key, error.to_string()))
    }

    fn linger(&self) -> Result<Duration, ConfigError> {
        match self.table.get("networkLinger") {
            None => Ok(ConfigFile::default().network_linger),
            Some(Value::String(text)) => {
                parse_age(text).map_err(|error| self.wrong("networkLinger", error.to_string()))
            }
            Some(other) => Err(self.wrong(
                "networkLinger",
                format!("a duration in quotes is wanted, e.g. \"10s\", not {}", other.type_str()),
            )),
        }
    }

    /// `[history]`: BuildKit's `maxEntries`, and a size.
    fn history(&self) -> Result<HistoryLimits, ConfigError> {
        self.only(&["maxEntries", "maxUsedSpace"])?;
        let mut limits = HistoryLimits::default();
        match self.table.get("maxEntries") {
            None => {}
            Some(Value::Integer(entries)) if *entries > 0 => {
                limits.builds = usize::try_from(*entries).unwrap_or(usize::MAX);
            }
            Some(_) => return Err(self.wrong("maxEntries", "a number of builds above 0 is wanted")),
        }
        match self.space(&["maxUsedSpace"])? {
            None => {}
            Some(Space::Bytes(bytes)) => limits.bytes = bytes,
            Some(_) => return Err(self.wrong("maxUsedSpace", "bytes or a size such as \"512MB\" is wanted")),
        }
        Ok(limits)
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        Ok(Limits { reserved: self.space(RESERVED)?, max_used: self.space(MAX_USED)?, min_free: self.space(MIN_FREE)? })
    }

    fn policies(&self) -> Result<Vec<GcPolicy>, ConfigError> {
        self.only(&[ENABLED, RESERVED, MAX_USED, MIN_FREE, POLICY].concat())?;
        let limits = self.limits()?;
        let given = match self.get(POLICY)? {
            None => None,
            Some((key, Value::Array(tables))) => {
                let one = |(number, table): (usize, &'a Value)| match table {
                    Value::Table(table) => {
                        Section { path: self.path, name: format!("{}[{number}]", self.full(key)), table }.policy()
                    }
                    _ => Err(self.wrong(key, "tables are wanted")),
                };
                Some((1..).zip(tables).map(one).collect::<Result<Vec<_>, _>>()?)
            }
            Some((key, _)) => return Err(self.wrong(key, "tables are wanted: [[…]]")),
        };
        if self.flag(ENABLED)? == Some(false) {
            return Ok(Vec::new());
        }
        let unset = Limits { reserved: None, max_used: None, min_free: None };
        let mut policies = match given {
            // As BuildKit: limits replace the default ones together.
            None if limits == unset => GcPolicy::defaults(&Limits::default()),
            None => GcPolicy::defaults(&limits),
            Some(_) if limits != unset => {
                let key = [RESERVED, MAX_USED, MIN_FREE].concat().into_iter().find(|key| self.table.contains_key(*key));
                let detail = "has no meaning beside policies of one's own: say it in each of them";
                return Err(self.wrong(key.unwrap_or_default(), detail));
            }
            Some(policies) => policies,
        };
        GcPolicy::number(&mut policies);
        Ok(policies)
    }

    fn policy(&self) -> Result<GcPolicy, ConfigError> {
        self.only(&[RESERVED, MAX_USED, MIN_FREE, DURATION, FILTERS, ALL].concat())?;
        let scope = if self.flag(ALL)? == Some(true) { PruneScope::All } else { PruneScope::Cache };
        let Limits { reserved, max_used, min_free } = self.limits()?;
        let mut policy = GcPolicy { reserved, max_used, min_free, ..GcPolicy::new("", scope) };
        policy.unused_for = match self.get(DURATION)? {
            None => None,
            Some((_, Value::Integer(seconds))) if *seconds >= 0 => Some(Duration::from_secs(seconds.unsigned_abs())),
            Some((key, Value::String(text))) => {
                Some(parse_age(text).map_err(|error| self.wrong(key, error.to_string()))?)
            }
            Some((key, _)) => return Err(self.wrong(key, "seconds or a duration such as \"48h\" is wanted")),
        };
        match self.get(FILTERS)? {
            None => {}
            Some((key, Value::Array(filters))) => {
                for filter in filters {
                    let Value::String(text) = filter else { return Err(self.wrong(key, "texts are wanted")) };
                    self.filter(key, text, &mut policy)?;
                }
            }
            Some((key, _)) => return Err(self.wrong(key, "a list of texts is wanted")),
        }
        Ok(policy)
    }

    fn filter(&self, key: &str, text: &str, policy: &mut GcPolicy) -> Result<(), ConfigError> {
        match text.split_once('=') {
            Some(("unused-for" | "until", age)) => {
                policy.unused_for = Some(parse_age(age).map_err(|error| self.wrong(key, error.to_string()))?);
            }
            _ => policy.filters.push(text.parse::<PruneFilter>().map_err(|error| self.wrong(key, error.to_string()))?),
        }
        Ok(())
    }
}

/// The key that was meant, whatever its case.
fn nearest(key: &str, known: &[&str]) -> Option<String> {
    let lower: Vec<String> = known.iter().map(|key| key.to_lowercase()).collect();
    let key = key.to_lowercase().replace(['-', '_'], "");
    let found = match lower.contains(&key) {
        true => key,
        false => suggestion(&key, lower.iter().map(String::as_str))?,
    };
    known.iter().zip(&lower).find(|(_, lower)| **lower == found).map(|(key, _)| (*key).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_linger_as_long_as_it_says() {
        let parse = |text: &str| ConfigFile::parse(Path::new("config.toml"), text);
        let linger = |text: &str| parse(text).unwrap().network_linger.as_secs();
        assert_eq!((linger(""), linger("networkLinger = \"0s\"\n"), linger("networkLinger = \"1m\"\n")), (10, 0, 60));
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(refused("networkLinger = \"soon\"\n"), @r#"config.toml: networkLinger: "soon" is not a duration, e.g. 24h or 7d"#);
        insta::assert_snapshot!(refused("networkLinger = 10\n"), @r#"config.toml: networkLinger: a duration in quotes is wanted, e.g. "10s", not integer"#);
    }

    #[test]
    fn the_way_to_keep_layers_is_one_of_three() {
        let parse = |text: &str| ConfigFile::parse(Path::new("config.toml"), text);
        let parsed = parse("snapshotter = \"directory\"\n[history]\nmaxEntries = 50\n").unwrap();
        assert_eq!(parsed.snapshotter, SnapshotterChoice::Directory);
        assert_eq!(parse("").unwrap().snapshotter, SnapshotterChoice::Auto);
        let error = parse("snapshotter = \"btrfs\"\n").unwrap_err().to_string();
        assert!(error.contains("\"btrfs\" is no way to keep layers"), "{error}");
        assert!(parse("snapshotter = 1\n").is_err());
        assert_eq!(parse("").unwrap().layer_blobs, LayerBlobPolicy::Keep);
        assert_eq!(parse("layerBlobs = \"drop\"\n").unwrap().layer_blobs, LayerBlobPolicy::Drop);
        assert_eq!(parse("layerBlobs = \"auto\"\n").unwrap().layer_blobs, LayerBlobPolicy::Auto);
        let error = parse("layerBlobs = true\n").unwrap_err().to_string();
        assert!(error.contains("keep, drop or auto is wanted"), "{error}");
        assert_eq!((parse("hints = false\n").unwrap().hints, parse("").unwrap().hints), (Some(false), None));
        assert!(parse("hints = \"no\"\n").is_err());
    }

    #[test]
    fn the_history_has_limits_of_its_own() {
        let parse = |text: &str| ConfigFile::parse(Path::new("config.toml"), text);
        let parsed = parse("[history]\nmaxEntries = 50\nmaxUsedSpace = \"64MB\"\n").unwrap();
        assert_eq!(
            parsed,
            ConfigFile { history: HistoryLimits { builds: 50, bytes: 64 << 20 }, ..ConfigFile::default() }
        );
        for bad in ["maxEntries = 0", "maxEntries = \"x\"", "maxUsedSpace = \"10%\"", "maxAge = 5"] {
            assert!(parse(&format!("[history]\n{bad}\n")).is_err(), "{bad}");
        }
    }

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let parsed = ConfigFile::parse(Path::new("config.toml"), text);
        parsed.map(|file| file.gc.into_iter().map(|policy| policy.rule).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_and_policies_in_three_dialects() {
        assert_eq!(parse("").unwrap().len(), 4);
        assert_eq!(parse("[gc]\nenabled = false\n").unwrap(), [""; 0]);
        let ours = parse("[gc]\nmaxUsedSpace = \"20GB\"\n").unwrap();
        assert_eq!(ours[2], "gc policy 3 (maxUsedSpace 20GB)", "limits replace the default ones together");
        let policies = parse(
            "[[gc.policy]]\nkeepDuration = \"48h\"\nfilters = [\"type==exec.cachemount\"]\n\
             [[gc.policy]]\nall = true\nreservedSpace = \"10%\"\nminFreeSpace = 1073741824\n",
        );
        assert_eq!(
            policies.unwrap(),
            ["gc policy 1 (keepDuration 48h)", "gc policy 2 (minFreeSpace 1GB, reservedSpace 10%)"]
        );
        let buildkit = parse(
            "[worker.oci]\ngc = true\n[[worker.oci.gcpolicy]]\nkeepBytes = 536870912\nkeepDuration = 172800\n\
             filters = [ \"type==source.local\", \"type==exec.cachemount\"]\n[[worker.oci.gcpolicy]]\nall = true\nkeepBytes = \"1GB\"\n",
        );
        assert_eq!(
            buildkit.unwrap(),
            ["gc policy 1 (keepDuration 48h, reservedSpace 512MB)", "gc policy 2 (reservedSpace 1GB)"]
        );
        let docker = parse(
            "[builder.gc]\nenabled = true\npolicy = [ { keepStorage = \"10GB\", filter = [\"unused-for=2200h\"] }, { all = true, reservedSpace = \"1GB\" } ]\n",
        );
        assert_eq!(docker.unwrap()[0], "gc policy 1 (keepDuration 2200h, reservedSpace 10GB)");
        assert_eq!(
            parse("[builder.gc]\ndefaultKeepStorage = \"9GB\"\n").unwrap()[3],
            "gc policy 4 (reservedSpace 9GB)"
        );
    }

    #[test]
    fn slips_of_the_pen_are_errors() {
        let cases = [
            "[gc]\nmaxUsedSpce = \"1GB\"\n",
            "[gc]\nmax_used_space = \"1GB\"\n",
            "[gcc]\n",
            "[gc]\nenabled = 1\n",
            "[gc]\nminFreeSpace = \"much\"\n",
            "[gc]\nmaxUsedSpace = -1\n",
            "[[gc.policy]]\nkeepDuration = \"2 days\"\n",
            "[[gc.policy]]\nfilters = [\"kind==x\"]\n",
            "[gc]\nkeepBytes = 1\nreservedSpace = 2\n",
            "[gc]\nmaxUsedSpace = 1\n[[gc.policy]]\nall = true\n",
            "[gc]\n[builder.gc]\n",
            "[worker.oci]\nplatforms = []\n",
            "gc = 5\n",
        ];
        let errors: Vec<String> = cases.iter().map(|text| parse(text).unwrap_err()).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        config.toml: unknown key gc.maxUsedSpce (did you mean maxUsedSpace?)
        config.toml: unknown key gc.max_used_space (did you mean maxUsedSpace?)
        config.toml: unknown key gcc (did you mean gc?)
        config.toml: gc.enabled: true or false is wanted
        config.toml: gc.minFreeSpace: "much" is no amount of room: bytes, a size such as 10GB, or a part of the disk such as 20%
        config.toml: gc.maxUsedSpace: bytes, a size such as "10GB" or a part of the disk such as "20%" is wanted
        config.toml: gc.policy[1].keepDuration: "2 days" is not a duration, e.g. 24h or 7d
        config.toml: gc.policy[1].filters: unknown filter field "kind": there are id, parents, description, type, inuse, shared, private, mutable, immutable
        config.toml: gc.reservedSpace and gc.keepBytes mean the same
        config.toml: gc.maxUsedSpace: has no meaning beside policies of one's own: say it in each of them
        config.toml: [gc] and [builder.gc] mean the same
        config.toml: unknown key worker.oci.platforms
        config.toml: gc: a table is wanted
        "#);
        let syntax = parse("[gc\n").unwrap_err();
        assert!(syntax.starts_with("config.toml: ") && syntax.contains("line 1"), "{syntax}");
    }

    #[test]
    fn the_first_file_counts_and_a_named_one_must_exist() {
        let home = tempfile::tempdir().unwrap();
        let [user, system] = ["user", "system"].map(|name| home.path().join(name));
        let candidates = [user.clone(), system.clone()];
        assert_eq!(ConfigFile::load(None, &candidates).unwrap(), ConfigFile::default());
        std::fs::write(&system, "[gc]\nenabled = false\n").unwrap();
        assert_eq!(ConfigFile::load(None, &candidates).unwrap().gc, []);
        std::fs::write(&user, "").unwrap();
        assert_eq!(ConfigFile::load(None, &candidates).unwrap().gc.len(), 4);
        let absent = home.path().join("absent");
        assert!(matches!(ConfigFile::load(Some(&absent), &candidates), Err(ConfigError::Read { .. })));
    }
}
