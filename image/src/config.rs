//! The image configuration: what to run, as whom, and from which layers (OCI image-spec, `config.md`, with Docker's
//! additions).
//!
//! Written as BuildKit writes it: top-level fields by name, the fields of `config` in the order of Go's struct, empty
//! ones left out. Fields that this crate does not know are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::DiffId;
use crate::document::MAX_CONFIG_BYTES;
use crate::platform::Platform;
use crate::strict_json::{self, JsonError, null_as_default};

/// An image configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Processor, Go's name.
    #[serde(default)]
    pub architecture: String,
    /// Who made the image (`MAINTAINER`).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What a container made from the image runs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RuntimeConfig,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
    /// Operating system, Go's name.
    #[serde(default)]
    pub os: String,
    /// Operating system features (Windows).
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Operating system version (Windows).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The layers by the digests of their uncompressed tars.
    #[serde(default)]
    pub rootfs: RootFs,
    /// Processor variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields that this crate does not know, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a container made from an image runs, unless told otherwise. Names are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RuntimeConfig {
    /// User and group, by name or number: `app`, `1000:1000`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports, each `80/tcp`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Variables, each `NAME=value`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The words before the command's.
    #[serde(default, skip_serializing_if = "none_or_empty")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or the arguments of the entry point.
    #[serde(default, skip_serializing_if = "none_or_empty")]
    pub cmd: Option<Vec<String>>,
    /// Paths that hold data of their own.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the process starts.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Notes for tools and people.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to end: `SIGQUIT`, `3`.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Whether the command is one already escaped line (Windows, and BuildKit's shell form).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// How to see whether the container works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions to run first in a build that starts from this image.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// What the shell form of instructions runs.
    #[serde(default, skip_serializing_if = "none_or_empty")]
    pub shell: Option<Vec<String>>,
    /// Fields that this crate does not know, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The value of Go's sets: `{}`. Anything that an odd writer put there is read and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty;

impl Serialize for Empty {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?)
    }
}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// How to see whether a container works. Durations are nanoseconds; 0 means inherited or default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", argv…]` or `["CMD-SHELL", line]`; empty is inherited.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long after the start failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures in a row make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One line of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Which tool.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the instruction made no layer.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    /// Fields that this crate does not know, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default = "layers", rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: layers(), diff_ids: Vec::new() }
    }
}

impl ImageConfig {
    /// An empty configuration for a platform.
    pub fn new(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            ..Self::default()
        }
    }

    /// Parses a configuration: at most 8 MiB, no duplicate keys, nothing after it.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        strict_json::parse(bytes, MAX_CONFIG_BYTES)
    }

    /// Writes the document as BuildKit does: compact, top-level fields by name.
    pub fn to_json(&self) -> Vec<u8> {
        let why = "a configuration has only string keys and finite numbers";
        let Value::Object(map) = serde_json::to_value(self).expect(why) else {
            unreachable!("a struct becomes an object");
        };
        let sorted: BTreeMap<String, Value> = map.into_iter().collect();
        serde_json::to_vec(&sorted).expect(why)
    }

    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// What a build that starts from this image begins with: the fields that BuildKit knows, without leftovers of
    /// older tools (`container_config`, `docker_version`, `config.Hostname`, …) that would no longer be true.
    pub fn without_unknown_fields(&self) -> Self {
        let mut out = self.clone();
        out.extra.clear();
        out.config.extra.clear();
        out.history.iter_mut().for_each(|entry| entry.extra.clear());
        out
    }
}

impl RuntimeConfig {
    /// The value of the variable `name`; the last setting counts.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
    }

    /// Sets the variable `name`, in the place of an earlier setting or at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let same = |have: &&mut String| have.split_once('=').map_or(have.as_str(), |(key, _)| key) == name;
        match self.env.iter_mut().find(same) {
            Some(have) => *have = pair,
            None => self.env.push(pair),
        }
    }
}

fn layers() -> String {
    "layers".to_owned()
}

/// Older tools wrote empty texts for what is not set.
fn empty_as_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

fn none_or_empty(words: &Option<Vec<String>>) -> bool {
    words.as_ref().is_none_or(Vec::is_empty)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_in_buildkits_order_and_empty_ones_not_at_all() {
        let mut config = ImageConfig::new(&"linux/arm64".parse().unwrap());
        config.created = Some("2024-01-02T03:04:05.000000006Z".to_owned());
        config.config = RuntimeConfig {
            shell: Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]),
            on_build: vec!["RUN true".to_owned()],
            healthcheck: Some(Healthcheck { test: vec!["NONE".to_owned()], retries: 3, ..Healthcheck::default() }),
            args_escaped: true,
            stop_signal: Some("SIGQUIT".to_owned()),
            labels: [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())].into(),
            working_dir: "/w".to_owned(),
            volumes: [("/data".to_owned(), Empty)].into(),
            cmd: Some(vec!["x".to_owned()]),
            entrypoint: Some(Vec::new()),
            env: vec!["PATH=/bin".to_owned()],
            exposed_ports: [("80/tcp".to_owned(), Empty)].into(),
            user: "app".to_owned(),
            extra: Map::new(),
        };
        config.history.push(History { created_by: "RUN x".to_owned(), empty_layer: true, ..History::default() });
        insta::assert_snapshot!(String::from_utf8(config.to_json()).unwrap(), @r#"{"architecture":"arm64","config":{"User":"app","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin"],"Cmd":["x"],"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":{"a":"2","b":"1"},"StopSignal":"SIGQUIT","ArgsEscaped":true,"Healthcheck":{"Test":["NONE"],"Retries":3},"OnBuild":["RUN true"],"Shell":["/bin/bash","-c"]},"created":"2024-01-02T03:04:05.000000006Z","history":[{"created_by":"RUN x","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
        insta::assert_snapshot!(String::from_utf8(ImageConfig::default().to_json()).unwrap(), @r#"{"architecture":"","config":{},"history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]}}"#);
    }

    #[test]
    fn dockers_nulls_and_unknown_fields_are_read_and_kept() {
        let text = r#"{"architecture":"amd64","config":{"Hostname":"","StopSignal":"","Env":null,"Cmd":["sh"],"Volumes":null,
            "OnBuild":null,"Labels":null,"Entrypoint":null,"ExposedPorts":{"1/udp":{}},"Healthcheck":{"Interval":5}},
            "container_config":{"Tty":false},"created":"2020-01-01T00:00:00Z","docker_version":"20.10","os":"linux",
            "history":[{"created_by":"x","empty_layer":true,"odd":1}],"rootfs":{"type":"layers","diff_ids":null},
            "moby.buildkit.cache.v0":"x"}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, 5);
        insta::assert_snapshot!(String::from_utf8(config.to_json()).unwrap(), @r#"{"architecture":"amd64","config":{"ExposedPorts":{"1/udp":{}},"Cmd":["sh"],"Healthcheck":{"Interval":5},"Hostname":""},"container_config":{"Tty":false},"created":"2020-01-01T00:00:00Z","docker_version":"20.10","history":[{"created_by":"x","empty_layer":true,"odd":1}],"moby.buildkit.cache.v0":"x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
        insta::assert_snapshot!(String::from_utf8(config.without_unknown_fields().to_json()).unwrap(), @r#"{"architecture":"amd64","config":{"ExposedPorts":{"1/udp":{}},"Cmd":["sh"],"Healthcheck":{"Interval":5}},"created":"2020-01-01T00:00:00Z","history":[{"created_by":"x","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
    }

    #[test]
    fn malformed_configurations_are_refused() {
        for bad in [
            "",
            "[]",
            "null",
            r#"{"config":[]}"#,
            r#"{"config":{"Env":"A=b"}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:short"]}}"#,
            r#"{"config":{"User":"a","User":"b"}}"#,
            r#"{"os":"linux"}x"#,
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_is_set_in_its_place() {
        let mut config = RuntimeConfig { env: vec!["A=1".into(), "AB=2".into(), "C".into()], ..Default::default() };
        config.set_env("A", "x=y");
        config.set_env("C", "3");
        config.set_env("D", "");
        assert_eq!(config.env, ["A=x=y", "AB=2", "C=3", "D="]);
        assert_eq!((config.env_value("A"), config.env_value("Z")), (Some("x=y"), None));
    }
    proptest::proptest! {
        #[test]
        fn no_change_to_a_configuration_makes_the_parser_panic(
            changes in proptest::collection::vec((0usize..400, 0u8..), 0..4),
        ) {
            let mut bytes = br#"{"architecture":"amd64","os":"linux","created":"x","config":{"Env":["A=b"],"Cmd":["x"],
                "Labels":{"a":"b"},"Volumes":{"/d":{}},"Healthcheck":{"Test":["CMD"],"Interval":1},"ArgsEscaped":true},
                "history":[{"created_by":"x","empty_layer":true}],"rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(config) = ImageConfig::parse(&bytes) {
                let again = ImageConfig::parse(&config.to_json()).unwrap();
                proptest::prop_assert_eq!(again.to_json(), config.to_json());
            }
        }
    }
}
