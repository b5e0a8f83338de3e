//! What a build was asked for, as far as it is recorded: names and values, never secrets.

use rbuild_cache::Detail;
use rbuild_image::Digest;
use rbuild_parser::lint::secrets_used_in_arg_or_env::names_secret;
use serde::{Deserialize, Serialize};

use super::Notes;
use super::git::{self, Checkout};
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::request::{BuildNetwork, BuildRequest, CacheChoice, ContextInput, DockerfileInput};
use crate::timings::PhaseTime;

/// What is shown of a value that may be secret.
const MASKED: &str = "****";

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NameValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What a build was asked for, and what became known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildInputs {
    /// How people know the build: its context's name, its Dockerfile's, its target.
    pub name: String,
    /// The context: a directory, a URL without credentials, or `-`.
    pub context: String,
    /// The Dockerfile, relative to the context where it is inside; `-` is standard input.
    pub dockerfile: String,
    /// Digest of its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_digest: Option<Digest>,
    /// The target stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was built for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Build arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build_args: Vec<NameValue>,
    /// Labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<NameValue>,
    /// Further contexts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named_contexts: Vec<NameValue>,
    /// The names that the image gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Ids of the images that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Digest>,
    /// The repository that the context is a checkout of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcs_source: Option<String>,
    /// The commit that is checked out there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcs_revision: Option<String>,
    /// Network of `RUN` steps, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Whether nothing was to be taken from the cache.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Stages of which nothing was to be taken from the cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_cache_filter: Vec<String>,
    /// What people were warned of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What to do about the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What rbuild itself spent its time with, until the record was written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
}

impl BuildInputs {
    /// What a request asks for.
    pub(super) fn of(request: &BuildRequest, settings: &Settings) -> Self {
        let (context, checkout) = match &request.context {
            ContextInput::Directory(path) => (path.display().to_string(), git::checkout(path)),
            ContextInput::Stdin => ("-".to_owned(), None),
            ContextInput::Url(url) => (without_credentials(url), None),
            ContextInput::Empty => (String::new(), None),
        };
        let dockerfile = match &request.dockerfile {
            DockerfileInput::Default => "Dockerfile".to_owned(),
            DockerfileInput::Stdin => "-".to_owned(),
            DockerfileInput::Url(url) => without_credentials(url),
            DockerfileInput::Path(path) => match &request.context {
                ContextInput::Directory(context) => {
                    let whole = settings.absolute(path);
                    whole.strip_prefix(context).unwrap_or(&whole).display().to_string()
                }
                _ => path.display().to_string(),
            },
        };
        let Checkout { remote, revision } = checkout.unwrap_or_default();
        let mut inputs = Self {
            name: String::new(),
            context,
            dockerfile,
            target: request.target.clone(),
            platforms: request.platforms.iter().map(ToString::to_string).collect(),
            build_args: request.build_args.iter().map(masked).collect(),
            labels: request.labels.iter().map(masked).collect(),
            named_contexts: request.named_contexts.iter().map(named_context).collect(),
            tags: request.tags.iter().map(ToString::to_string).collect(),
            vcs_source: remote.map(|remote| without_credentials(&remote)),
            vcs_revision: revision,
            network: match request.network {
                BuildNetwork::Default => None,
                BuildNetwork::None => Some("none".to_owned()),
                BuildNetwork::Host => Some("host".to_owned()),
            },
            no_cache: request.cache == CacheChoice::Ignore,
            no_cache_filter: match &request.cache {
                CacheChoice::IgnoreStages(stages) => stages.clone(),
                CacheChoice::Use | CacheChoice::Ignore => Vec::new(),
            },
            ..Self::default()
        };
        inputs.name = inputs.short_name();
        inputs
    }

    /// Adds what the build found out.
    pub(super) fn complete(&mut self, notes: &Notes, warnings: &[String], failure: Option<&Failure>) {
        self.dockerfile_digest = notes.dockerfile_digest;
        if !notes.platforms.is_empty() {
            self.platforms.clone_from(&notes.platforms);
        }
        self.images.clone_from(&notes.images);
        warnings.clone_into(&mut self.warnings);
        self.phases.clone_from(&notes.phases);
        self.help = failure.and_then(Failure::help).map(str::to_owned);
    }

    /// As the store keeps it.
    pub(super) fn to_detail(&self) -> Detail {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(detail)) => detail,
            Ok(_) | Err(_) => Detail::new(),
        }
    }

    /// From what the store has. What cannot be read is left out.
    pub(super) fn from_detail(detail: &Detail) -> Self {
        serde_json::from_value(serde_json::Value::Object(detail.clone())).unwrap_or_default()
    }

    /// buildx's name of a build: `BUILDKIT_BUILD_NAME`, else context and Dockerfile as short as they are telling.
    fn short_name(&self) -> String {
        let given = self.build_args.iter().find(|arg| arg.name == "BUILDKIT_BUILD_NAME" && !arg.value.is_empty());
        if let Some(given) = given {
            return given.value.clone();
        }
        let base = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let directory = match self.context.as_str() {
            "-" | "" => String::new(),
            url if url.contains("://") => url.to_owned(),
            path => base(path),
        };
        let file = match self.dockerfile.as_str() {
            "-" | "Dockerfile" => String::new(),
            path => path.strip_suffix("/Dockerfile").unwrap_or(path).to_owned(),
        };
        let name = match (directory.as_str(), file.as_str()) {
            (directory, "") => directory.to_owned(),
            ("", file) => base(file),
            // It is elsewhere: its directory tells more than the context's.
            (_, file) if file.starts_with('/') => {
                file.rsplitn(3, '/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/")
            }
            (directory, file) => format!("{directory}/{file}"),
        };
        match (name.as_str(), self.target.as_deref()) {
            (name, None) => name.to_owned(),
            ("", Some(target)) => target.to_owned(),
            (name, Some(target)) => format!("{name} ({target})"),
        }
    }
}

fn masked((name, value): &(String, String)) -> NameValue {
    let value = if names_secret(name) { MASKED.to_owned() } else { without_credentials(value) };
    NameValue { name: name.clone(), value }
}

fn named_context((name, value): &(String, String)) -> NameValue {
    NameValue { name: name.clone(), value: without_credentials(value) }
}

/// A text without the user part of a URL in it (`https://user:token@host/…`).
pub(super) fn without_credentials(text: &str) -> String {
    let Some(scheme) = text.find("://") else { return text.to_owned() };
    let rest = &text[scheme + 3..];
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{}{}", &text[..scheme + 3], &rest[at + 1..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_named_as_buildx_names_them() {
        let name = |context: &str, dockerfile: &str, target: Option<&str>| {
            let target = target.map(str::to_owned);
            BuildInputs { context: context.into(), dockerfile: dockerfile.into(), target, ..BuildInputs::default() }
                .short_name()
        };
        assert_eq!(name("/src/app", "Dockerfile", None), "app");
        assert_eq!(name("/src/app/", "Dockerfile", Some("test")), "app (test)");
        assert_eq!(name("/src/app", "web.Dockerfile", None), "app/web.Dockerfile");
        assert_eq!(name("/src/app", "docker/Dockerfile", None), "app/docker");
        assert_eq!(name("/src/app", "/etc/x/web.Dockerfile", None), "x/web.Dockerfile");
        assert_eq!(name("-", "Dockerfile", Some("t")), "t");
        assert_eq!(name("https://github.com/a/b.git#main", "Dockerfile", None), "https://github.com/a/b.git#main");
    }

    #[test]
    fn secrets_are_not_recorded() {
        let shown = |name: &str, value: &str| masked(&(name.to_owned(), value.to_owned())).value;
        assert_eq!(shown("NPM_TOKEN", "abc"), "****");
        assert_eq!(shown("VERSION", "1"), "1");
        assert_eq!(shown("URL", "https://me:pw@host/x@y"), "https://host/x@y");
        assert_eq!(without_credentials("a@b"), "a@b");
    }
}
