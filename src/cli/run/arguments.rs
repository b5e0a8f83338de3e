//! The flags that `run` and `create` share, and the request they become.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rbuild_container::{
    CapabilityRequest, Console, ContainerName, DnsSettings, ExtraHost, InitChoice, Lifetime, LogOptions, RestartPolicy,
    RootAccess, RunRequest, SecurityOptions, Signal, parse_bytes, parse_mount_flag, parse_tmpfs_flag, parse_ulimit,
    parse_volume_flag, search_domain,
};
use rbuild_executor::Rlimit;
use rbuild_image::Platform;

use super::health_arguments::HealthArgs;
use super::network_arguments::NetworkArgs;
use super::particular_arguments::ParticularArgs;
use crate::cli::limits::LimitArgs;
use crate::cli::report::Failure;
use crate::config::Settings;

/// When the image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PullPolicy {
    /// Always.
    Always,
    /// When it is not there.
    Missing,
    /// Never.
    Never,
}

/// Flags of `run` and `create`; names and short forms are Docker's.
#[derive(Debug, clap::Args)]
pub(super) struct ContainerArgs {
    /// Keep the container's input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<ContainerName>,
    /// Environment variable; without a value it takes this environment's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File with environment variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, or user:group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Further group of the process
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Program in place of the image's entry point; empty takes it away
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Host directory or volume inside: [SOURCE:]TARGET[:ro]
    #[arg(short, long, value_name = "SPEC")]
    volume: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "SPEC")]
    mount: Vec<String>,
    /// Empty directory in memory: TARGET[:size=…,mode=…]
    #[arg(long, value_name = "SPEC")]
    tmpfs: Vec<String>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Line for /etc/hosts; the address host-gateway is this machine's
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<ExtraHost>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Search domain; `.` for none
    #[arg(long, value_name = "DOMAIN", value_parser = search_domain)]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Port that the container listens on, for people to know
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// File with labels, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Run a small init that forwards signals and reaps
    #[arg(long)]
    init: bool,
    /// Give a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Give everything this user may give: capabilities, devices, kernel interfaces
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=PROFILE.json or unconfined, apparmor=PROFILE or unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Limit, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    ulimit: Vec<Rlimit>,
    #[command(flatten)]
    particular: ParticularArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    shm_size: Option<u64>,
    /// Signal that `stop` sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Seconds that `stop` waits before it kills
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Start it again when it ends: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value_t)]
    restart: RestartPolicy,
    /// Where its output is kept: json-file or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Limits of the log: max-size=BYTES, max-file=NUMBER
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// When to fetch the image
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pub(super) pull: PullPolicy,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<Platform>,
    /// Do not show how the image is fetched
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(super) cidfile: Option<PathBuf>,
    /// Show this help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

impl ContainerArgs {
    /// Whether keys are to go to a terminal inside.
    pub(super) fn wants_keyboard(&self) -> bool {
        self.interactive && self.tty
    }

    /// What is asked for and means nothing.
    pub(super) fn warning(&self) -> Option<&'static str> {
        self.network.warning()
    }

    /// What is asked for. `words` are the image and the command behind it.
    pub(super) fn request(&self, words: &[String], remove: bool, settings: &Settings) -> Result<RunRequest, Failure> {
        let mut mounts = Vec::new();
        for text in &self.volume {
            mounts.push(parse_volume_flag(text, &settings.cwd)?);
        }
        for text in &self.mount {
            mounts.push(parse_mount_flag(text, &settings.cwd)?);
        }
        for text in &self.tmpfs {
            mounts.push(parse_tmpfs_flag(text)?);
        }
        if remove && self.restart != RestartPolicy::No {
            return Err(Failure::new("conflicting options: --restart and --rm"));
        }
        let mut security = SecurityOptions::default();
        for text in &self.security_opt {
            security.apply(text, &settings.cwd)?;
        }
        Ok(RunRequest {
            name: self.name.clone(),
            command: words.iter().skip(1).cloned().collect(),
            entrypoint: self.entrypoint.clone(),
            env: environment(&self.env_file, &self.env, settings)?,
            user: self.user.clone(),
            group_add: self.group_add.clone(),
            working_dir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            labels: self.labels(settings)?,
            console: Console { terminal: self.tty, interactive: self.interactive },
            lifetime: if remove { Lifetime::Process } else { Lifetime::Kept },
            mounts,
            network: self.network.networks()?,
            ports: self.network.ports(),
            publish_all: self.network.publish_all,
            extra_hosts: self.add_host.clone(),
            dns: DnsSettings {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            expose: self.expose.clone(),
            capabilities: CapabilityRequest {
                add: self.cap_add.clone(),
                drop: self.cap_drop.clone(),
                privileged: self.privileged,
            },
            security,
            root: if self.read_only { RootAccess::ReadOnly } else { RootAccess::ReadWrite },
            ulimits: self.ulimit.clone(),
            resources: self.limits.of_container()?,
            shm_size: self.shm_size,
            init: if self.init { InitChoice::Reaper } else { InitChoice::Process },
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            restart: self.restart,
            log: LogOptions::parse(self.log_driver.as_deref(), &self.log_opt)?,
            particulars: self.particular.request()?,
            health: self.health.request()?,
            input_once: false,
        })
    }

    /// The labels of the files, then those of `--label`.
    fn labels(&self, settings: &Settings) -> Result<BTreeMap<String, String>, Failure> {
        let mut labels = BTreeMap::new();
        let mut add = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if key.is_empty() {
                return Err(Failure::new(format!("invalid label format: {text:?}")));
            }
            labels.insert(key.to_owned(), value.to_owned());
            Ok(())
        };
        for file in &self.label_file {
            let text = read_lines(&settings.absolute(file))?;
            let lines = text.lines().map(str::trim_start);
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).try_for_each(&mut add)?;
        }
        self.label.iter().try_for_each(|text| add(text))?;
        Ok(labels)
    }
}

/// The variables of the files (`--env-file`), then those of `-e`.
pub(super) fn environment(files: &[PathBuf], flags: &[String], settings: &Settings) -> Result<Vec<String>, Failure> {
    let mut env = Vec::new();
    for file in files {
        let text = read_lines(&settings.absolute(file))?;
        for line in text.lines() {
            env.extend(env_file_line(line, &own_variable).map_err(Failure::new)?);
        }
    }
    for text in flags {
        env.push(env_flag(text, &own_variable).map_err(Failure::new)?);
    }
    Ok(env)
}

fn own_variable(name: &str) -> Option<String> {
    Settings::user_variable(name)?.into_string().ok()
}

fn read_lines(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::from_error(&format!("cannot read {}", path.display()), &error))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// One `-e`: a bare name takes the value from this environment; when it has none, the name stays bare, which takes the
/// image's variable away.
fn env_flag(text: &str, own: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err(format!("invalid environment variable: {text}")),
        None => Ok(own(text).map_or_else(|| text.to_owned(), |value| format!("{text}={value}"))),
    }
}

/// One line of an `--env-file`: comments and empty lines give nothing, and neither does a bare name that this
/// environment does not have.
fn env_file_line(line: &str, own: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (line.trim_end(), None),
    };
    if name.is_empty() {
        return Err(format!("no variable name on line '{line}'"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("variable '{name}' contains whitespaces"));
    }
    Ok(match value {
        Some(value) => Some(format!("{name}={value}")),
        None => own(name).map(|value| format!("{name}={value}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<String> {
        (name == "SET").then(|| "own value".to_owned())
    }

    #[test]
    fn variables_come_from_the_flag_or_from_here() {
        for (text, want) in [
            ("A=1", Ok("A=1")),
            ("A=", Ok("A=")),
            ("A=b=c", Ok("A=b=c")),
            ("SET", Ok("SET=own value")),
            ("UNSET", Ok("UNSET")),
            ("=x", Err("invalid environment variable: =x")),
            ("", Err("invalid environment variable: ")),
        ] {
            assert_eq!(env_flag(text, &own).as_deref().map_err(String::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn environment_files_have_comments_and_bare_names() {
        for (line, want) in [
            ("", Ok(None)),
            ("# A=1", Ok(None)),
            ("  A=1", Ok(Some("A=1"))),
            ("A= x ", Ok(Some("A= x "))),
            ("A=\"quoted\"", Ok(Some("A=\"quoted\""))),
            ("SET", Ok(Some("SET=own value"))),
            ("UNSET", Ok(None)),
            ("=x", Err("no variable name on line '=x'")),
            ("A B=1", Err("variable 'A B' contains whitespaces")),
            ("A =1", Err("variable 'A ' contains whitespaces")),
        ] {
            let got = env_file_line(line, &own);
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(String::as_str), want, "{line:?}");
        }
    }
}
