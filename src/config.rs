//! The process environment and its files, turned into [`Settings`] once. Nothing else reads either.

mod age;
mod detach_keys;
mod file;
mod registries;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

pub use age::{InvalidAge, parse_age};
pub use file::{ConfigError, ConfigFile};
use rbuild_executor::{IdMap, StackingChoice, user_namespace};
pub use registries::{HostFiles, Registries};

/// How the daemon that `DOCKER_HOST` names is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerTls {
    /// `DOCKER_TLS`: with TLS.
    pub wanted: bool,
    /// `DOCKER_TLS_VERIFY`: and the daemon must prove who it is.
    pub verify: bool,
    /// `DOCKER_CERT_PATH`: where the certificates are; Docker's configuration where it is not set.
    pub certificates: Option<PathBuf>,
}

/// What the environment says, parsed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Root of the store when `--root` is not given.
    pub root: PathBuf,
    /// The directory that relative paths of the command line count from.
    pub cwd: PathBuf,
    /// `RBUILD_CONFIG`: the configuration file, instead of the usual places.
    pub config_file: Option<PathBuf>,
    /// Where a configuration file may be; the first counts.
    pub config_places: Vec<PathBuf>,
    /// The user's directory for configuration (`XDG_CONFIG_HOME`, else `~/.config`).
    pub config_home: Option<PathBuf>,
    /// Where other tools of this host say how registries are reached.
    pub host_files: HostFiles,
    /// `DOCKER_HOST`: the Docker daemon that `--load` loads into.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`: Docker's context, instead of the one that its configuration names.
    pub docker_context: Option<String>,
    /// How `DOCKER_HOST` is spoken to.
    pub docker_tls: DockerTls,
    /// Docker's client configuration (`DOCKER_CONFIG`, else `~/.docker`), for credentials.
    pub docker_config: Option<PathBuf>,
    /// Whether standard error may carry colour and cursor movement.
    pub stderr_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether colours are wanted at all (`NO_COLOR` unset or empty, `TERM` not `dumb`).
    pub colour: bool,
    /// `BUILDKIT_PROGRESS`: the progress view where `--progress` is not given.
    pub progress: Option<String>,
    /// `SOURCE_DATE_EPOCH`, unparsed: it becomes a build argument.
    pub source_date_epoch: Option<String>,
    /// `http_proxy` and its kin, both spellings, as found.
    pub proxies: BTreeMap<String, String>,
    /// `SSL_CERT_FILE`.
    pub ssl_cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`.
    pub ssl_cert_dir: Option<PathBuf>,
    /// `PATH`, for programs that the user's configuration names (credential helpers).
    pub path: Option<OsString>,
    /// `SSH_AUTH_SOCK`: the default agent of `--ssh default`.
    pub ssh_auth_sock: Option<PathBuf>,
    /// Whether this process is the program `rbuild`, which can be started anew for what outlives it; no other is.
    pub is_program: bool,
    /// The command line, shortened: how this process calls itself to others that wait for it.
    pub command: String,
    /// The arguments of this process without values that may be secret, for the history of builds.
    pub arguments: Vec<String>,
    /// Effective user and group id, in this process's user namespace.
    pub ids: (u32, u32),
    /// Ids of the user namespace, unless it is the initial one.
    pub user_namespace: Option<IdMap>,
    /// `RBUILD_ISOLATION`: what confines where `--isolation` is not given.
    pub isolation: Option<String>,
    /// `RBUILD_OVERLAY`: what layers are put over each other with where `--overlay` is not given.
    pub overlay: Option<String>,
    /// What layers are put over each other with.
    pub stacking: StackingChoice,
    /// `RBUILD_SNAPSHOTTER`, or what `--snapshotter` says: how new layers are kept.
    pub snapshotter: Option<String>,
    /// `RBUILD_LAYER_BLOBS`: whether the blobs that pulled layers came as are kept.
    pub layer_blobs: Option<String>,
    /// `RBUILD_NETWORK_LINGER`: how long a network that nobody has stays on this host.
    pub network_linger: Option<String>,
    /// `RBUILD_HINTS`: whether a build ends with hints where neither `--hints` nor `--no-hints` is given.
    pub hints: Option<String>,
    /// `GITHUB_WORKSPACE`, `CI_PROJECT_DIR`: the top of the repository that a job works in.
    pub workspace: Option<PathBuf>,
    /// Terminal type, handed to containers with `-t`.
    pub term: Option<String>,
    /// What the terminal does with its lines when its window changes.
    pub reflow: Reflow,
}

/// What a terminal does with a line that a narrower window has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reflow {
    /// It stands on several lines then; nearly all do this.
    #[default]
    Wraps,
    /// Its end is cut off: the kernel's console, xterm, GNU screen.
    Cuts,
}

/// Names of proxy variables that builds and the registry client know, in lower case.
const PROXY_VARIABLES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

impl Settings {
    /// Reads the environment of this process.
    pub fn from_environment() -> Self {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let user_namespace = user_namespace::current_ids().ok().filter(|map| !map.is_identity());
        // The store belongs to the user, by whatever number it goes in here.
        let user = user_namespace.as_ref().and_then(IdMap::root_outside).filter(|_| ids.0 == 0).unwrap_or(ids.0);
        let home = text("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let user_config = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let mut host_files = HostFiles::below(Path::new("/"), user_config.as_deref());
        if let Some(named) = path("CONTAINERS_REGISTRIES_CONF") {
            host_files.containers = vec![named];
        }
        let config_home = user_config.clone();
        let config_places = user_config.into_iter().chain([PathBuf::from("/etc")]);
        let docker_config = path("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let proxies = PROXY_VARIABLES
            .iter()
            .flat_map(|name| [(*name).to_owned(), name.to_uppercase()])
            .filter_map(|name| text(&name).map(|value| (name, value)))
            .collect();
        let term = text("TERM");
        let cuts = term.as_deref() == Some("linux") || text("XTERM_VERSION").is_some() || text("STY").is_some();
        let arguments = harmless_arguments();
        Self {
            root: path("RBUILD_ROOT").unwrap_or_else(|| default_root(user, home.as_deref())),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            config_file: path("RBUILD_CONFIG"),
            config_home,
            config_places: config_places.map(|place| place.join("rbuild/config.toml")).collect(),
            host_files,
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_tls: DockerTls {
                wanted: text("DOCKER_TLS").is_some(),
                verify: text("DOCKER_TLS_VERIFY").is_some(),
                certificates: path("DOCKER_CERT_PATH"),
            },
            docker_config,
            stderr_is_terminal: std::io::stderr().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            colour: text("NO_COLOR").is_none() && term.as_deref() != Some("dumb"),
            progress: text("BUILDKIT_PROGRESS"),
            source_date_epoch: text("SOURCE_DATE_EPOCH"),
            proxies,
            ssl_cert_file: path("SSL_CERT_FILE"),
            ssl_cert_dir: path("SSL_CERT_DIR"),
            path: variable("PATH"),
            ssh_auth_sock: path("SSH_AUTH_SOCK"),
            is_program: false,
            command: shortened(&arguments),
            arguments,
            ids,
            user_namespace,
            isolation: text("RBUILD_ISOLATION"),
            overlay: text("RBUILD_OVERLAY"),
            stacking: StackingChoice::default(),
            snapshotter: text("RBUILD_SNAPSHOTTER"),
            layer_blobs: text("RBUILD_LAYER_BLOBS"),
            network_linger: text("RBUILD_NETWORK_LINGER"),
            hints: text("RBUILD_HINTS"),
            workspace: path("GITHUB_WORKSPACE").or_else(|| path("CI_PROJECT_DIR")),
            term,
            reflow: if cuts { Reflow::Cuts } else { Reflow::Wraps },
        }
    }

    /// The value of an arbitrary variable: only for `--build-arg NAME`, `-e NAME` and `--secret env=NAME`, where the
    /// user names a variable of theirs.
    pub fn user_variable(name: &str) -> Option<OsString> {
        variable(name)
    }

    /// Makes a path of the command line absolute.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.cwd.join(path)
    }
}

/// The arguments of this process without values that may be secret.
fn harmless_arguments() -> Vec<String> {
    let secret = ["--build-arg", "--secret", "--password", "-p", "-e", "--env", "--label"];
    let mut words = Vec::new();
    let mut arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = arguments.next() {
        let name = word.split('=').next().unwrap_or_default();
        if secret.contains(&name) {
            words.push(format!("{name}=…"));
            if !word.contains('=') {
                arguments.next();
            }
        } else {
            words.push(word);
        }
    }
    words
}

/// A command line of at most 200 characters.
fn shortened(words: &[String]) -> String {
    let line = format!("rbuild {}", words.join(" "));
    if line.chars().count() > 200 { line.chars().take(199).chain(['…']).collect() } else { line }
}

fn default_root(uid: u32, home: Option<&Path>) -> PathBuf {
    if uid == 0 {
        return PathBuf::from("/var/lib/rbuild");
    }
    let data = path("XDG_DATA_HOME").or_else(|| home.map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from(format!("/var/tmp/rbuild-{uid}"))).join("rbuild")
}

fn path(name: &str) -> Option<PathBuf> {
    variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok().filter(|value| !value.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "this file is the one reader of the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
