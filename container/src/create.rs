//! Image configuration and request merged into what the container is, by Docker's rules.
//!
//! Pure: identifiers, names of anonymous volumes and the caller's capabilities are passed in. Each rule has a table of
//! cases beside it.

mod command;
mod environment;
mod limits;
mod mounts;
mod ports;

use std::collections::BTreeMap;

use rbuild_executor::{AppArmor, Capabilities, Seccomp};
use rbuild_image::{ContainerPath, RuntimeConfig};

pub use command::NoCommand;
pub(crate) use environment::process_environment;
pub use limits::{InvalidLimit, check_limits};
pub use mounts::InvalidMounts;
pub use ports::InvalidPort;

use crate::capability::{self, UnknownCapability};
use crate::config::ContainerConfig;
use crate::etc_files::HostAddress;
use crate::health::{self, InvalidHealthcheck};
use crate::id::ContainerId;
use crate::network::{EndpointSettings, InvalidAttachment, NetworkChoice};
use crate::particulars::InvalidParticulars;
use crate::request::RunRequest;
use crate::signal::{InvalidSignal, Signal};
use crate::volume::VolumeName;

/// A request that cannot become a container of this image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Nothing to execute.
    #[error(transparent)]
    Command(#[from] NoCommand),
    /// The mounts contradict each other.
    #[error(transparent)]
    Mounts(#[from] InvalidMounts),
    /// A capability that does not exist.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// A limit the kernel or another limit does not allow.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// A port that is none.
    #[error(transparent)]
    Port(#[from] InvalidPort),
    /// Networks that do not go together, or flags that do not go with them.
    #[error(transparent)]
    Network(#[from] InvalidAttachment),
    /// The image's stop signal is none.
    #[error(transparent)]
    StopSignal(#[from] InvalidSignal),
    /// Particulars that do not go together.
    #[error(transparent)]
    Particulars(#[from] InvalidParticulars),
    /// A health check that makes no sense.
    #[error(transparent)]
    Health(#[from] InvalidHealthcheck),
    /// The working directory is relative.
    #[error("the working directory '{path}' is invalid, it needs to be an absolute path")]
    WorkingDir {
        /// What the user or the image gave.
        path: String,
    },
    /// No name that a machine can have.
    #[error("invalid hostname: {name:?}")]
    Hostname {
        /// What was given.
        name: String,
    },
    /// A NUL byte, which neither arguments nor variables can hold.
    #[error("a NUL byte in {place}")]
    Nul {
        /// Where.
        place: &'static str,
    },
}

/// What only the machine knows about a new container.
pub struct Surroundings<'a> {
    /// Its identifier.
    pub id: &'a ContainerId,
    /// The capabilities the caller may hand out.
    pub bounding_capabilities: Capabilities,
    /// Draws a name for each anonymous volume.
    pub volume_name: &'a mut dyn FnMut() -> VolumeName,
}

/// Docker's default for `--shm-size`.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;
/// Docker's default for `--stop-timeout`, in seconds.
pub const DEFAULT_STOP_TIMEOUT: u32 = 10;
/// The kernel's limit for host names.
const MAX_HOSTNAME: usize = 64;

/// Merges a request into an image's configuration.
pub fn merge(
    image: &RuntimeConfig,
    request: &RunRequest,
    surroundings: Surroundings<'_>,
) -> Result<ContainerConfig, InvalidRequest> {
    let (entrypoint, command) = command::merge(image, request)?;
    let env = environment::merge(&image.env, &request.env);
    for (place, words) in [("the command", &entrypoint), ("the command", &command), ("the environment", &env)] {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(InvalidRequest::Nul { place });
        }
    }
    let stop_signal = match (request.stop_signal, image.stop_signal.as_deref()) {
        (Some(signal), _) => signal,
        (None, None | Some("")) => Signal::TERM,
        (None, Some(text)) => text.parse()?,
    };
    let (network, networks) = network(request)?;
    let mut labels: BTreeMap<String, String> = image.labels.clone();
    labels.extend(request.labels.clone());
    Ok(ContainerConfig {
        entrypoint,
        command,
        env,
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        group_add: request.group_add.clone(),
        working_dir: working_dir(request.working_dir.as_deref().unwrap_or(&image.working_dir))?,
        hostname: hostname(asked_hostname(request).unwrap_or(surroundings.id.short()))?,
        labels,
        console: request.console,
        lifetime: request.lifetime,
        mounts: mounts::merge(image, request, surroundings.volume_name)?,
        particulars: request.particulars.checked(&network, asked_hostname(request))?,
        network,
        networks: Some(networks),
        ports: request.ports.clone(),
        publish_all: request.publish_all,
        extra_hosts: request.extra_hosts.clone(),
        dns: request.dns.clone(),
        exposed_ports: ports::merge(image, &request.expose)?,
        capabilities: capability::granted(&request.capabilities, surroundings.bounding_capabilities)?,
        privileged: request.capabilities.privileged,
        no_new_privileges: request.security.no_new_privileges,
        unmasked: request.security.unmasked,
        seccomp: match &request.security.seccomp {
            Seccomp::Default if request.capabilities.privileged => Seccomp::Unconfined,
            given => given.clone(),
        },
        apparmor: match &request.security.apparmor {
            AppArmor::HostDefault if request.capabilities.privileged => AppArmor::Unconfined,
            given => given.clone(),
        },
        root: request.root,
        ulimits: request.ulimits.clone(),
        resources: check_limits(&request.resources)?,
        shm_size: request.shm_size.filter(|bytes| *bytes != 0).unwrap_or(DEFAULT_SHM_SIZE),
        init: request.init,
        stop_signal,
        stop_timeout: request.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
        restart: request.restart,
        log: request.log,
        healthcheck: health::merge(image.healthcheck.as_ref(), &request.health)?,
        shell: image.shell.clone().unwrap_or_default(),
        input_once: request.input_once,
    })
}

/// The networks, and whether the other flags go with them.
fn network(request: &RunRequest) -> Result<(NetworkChoice, Vec<EndpointSettings>), InvalidRequest> {
    let (choice, endpoints) = request.network.resolve()?;
    let gateway = request.extra_hosts.iter().any(|host| host.address == HostAddress::Gateway);
    let given = [
        (asked_hostname(request).is_some(), "hostname"),
        (!request.dns.is_default(), "dns"),
        (!request.extra_hosts.is_empty(), "custom host-to-IP mapping"),
        (!request.ports.is_empty() || request.publish_all, "port publishing"),
        (!request.expose.is_empty(), "port exposing"),
    ];
    match choice {
        NetworkChoice::Container(_) => match given.into_iter().find(|(given, _)| *given) {
            Some((_, what)) if what.starts_with("port ") => Err(InvalidAttachment::PortsWithContainer { what }.into()),
            Some((_, what)) => Err(InvalidAttachment::WithContainer { what }.into()),
            None => Ok((choice, endpoints)),
        },
        NetworkChoice::None if gateway => {
            Err(InvalidAttachment::WithMode { what: "host-gateway", mode: choice.to_string() }.into())
        }
        _ => Ok((choice, endpoints)),
    }
}

fn working_dir(path: &str) -> Result<ContainerPath, InvalidRequest> {
    if path.is_empty() {
        Ok(ContainerPath::root())
    } else if path.starts_with('/') {
        Ok(ContainerPath::new(path))
    } else {
        Err(InvalidRequest::WorkingDir { path: path.to_owned() })
    }
}

/// The host name that was asked for; an empty one asks for none.
fn asked_hostname(request: &RunRequest) -> Option<&str> {
    request.hostname.as_deref().filter(|name| !name.is_empty())
}

fn hostname(name: &str) -> Result<String, InvalidRequest> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.bytes().all(fits) || name.starts_with(['-', '.']) {
        return Err(InvalidRequest::Hostname { name: name.to_owned() });
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
