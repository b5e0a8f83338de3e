//! Life after the build: containers.
//!
//! A container is a sandbox with a name and a life. What it is ([`ContainerConfig`]) is decided once, when it is
//! created, by a pure merge of the image's configuration and the user's request; a start turns that into a sandbox.
//! There is no daemon: everything about a container is in its directory below the store's `containers/`, and the
//! process that runs it holds its lock.

mod capability;
mod config;
mod containers;
mod create;
mod document;
mod etc_files;
mod events;
mod exec;
mod exit;
mod health;
mod id;
mod inbox;
mod list;
mod logs;
mod monitor;
mod mounts;
mod name;
mod network;
mod network_document;
mod particulars;
mod port_list;
mod process_id;
mod quantity;
mod record;
mod relay;
mod request;
mod restart;
mod sandbox;
mod signal;
mod status;
mod terminal;
mod volume;
mod volumes;

pub use capability::{CapabilityRequest, UnknownCapability};
pub use config::{ContainerConfig, ContainerMount, ContainerMountSource, VolumeOwnership};
pub use containers::{
    AnonymousVolumes, AttachError, Attached, Attendance, Boot, BootError, ContainerChange, Containers, CopyError,
    CopyLinks, CopyOwners, CreateError, ExecError, ExportError, Files, FindError, Foreground, Listing, LiveError,
    LoadError, NewContainer, Outcome, PublishError, RemoveError, RemoveOptions, RenameError, RunningContainer,
    StartError, StopError, Supervised, Supervision, UpdateError, WorkingDirError,
};
pub use create::{
    DEFAULT_STOP_TIMEOUT, InvalidLimit, InvalidMounts, InvalidPort, InvalidRequest, NoCommand, Surroundings,
    check_limits, merge,
};
pub use etc_files::{
    DnsSettings, ExtraHost, HostAddress, HostFiles, InvalidExtraHost, InvalidSearchDomain, search_domain,
};
pub use events::{Event, EventKind, EventLog, EventReader};
pub use exec::ExecRequest;
pub use exit::ContainerExit;
pub use health::{Health, HealthRequest, HealthResult, HealthStatus, InvalidHealthcheck};
pub use id::{ContainerId, InvalidContainerId};
pub use inbox::SignalInbox;
pub use list::Width;
pub use logs::{InvalidLogOption, LogDriver, LogEntry, LogOptions, LogReadError, LogReader, LogWindow, Stream};
pub use monitor::{
    Arrival, AttachRequest, Bond, Caller, CallerStreams, DetachKeys, Followed, InvalidDetachKeys, LinkError,
    MonitorLink, Session, StartFailure,
};
pub use mounts::{
    CopyUp, InvalidMount, InvalidTie, MissingSource, MountRequest, MountRequestSource, parse_mount_flag,
    parse_tmpfs_flag, parse_volume_flag,
};
pub use name::{ContainerName, InvalidContainerName};
pub use network::{
    Addressing, Connection, DriverOptions, EndpointOwner, EndpointRecord, EndpointRequest, EndpointSettings, HostPort,
    HostResolver, InvalidAttachment, InvalidDriverOption, InvalidMacAddress, InvalidPortRequest, Joined, Life,
    MacAddress, NameServer, NameServerError, Names, Network, NetworkChoice, NetworkError, NetworkId, NetworkRange,
    NetworkRequest, NetworkState, Networks, NewNetwork, NoBridge, OUTSIDE_KIND, PROCESS_KIND, Place, PortRelays,
    PortRequest, PortTaken, Presence, PublishedPort, Purpose, Reachable, Reached, ReservedPort, UnsupportedNetwork,
    Uplink, UplinkError, Upstream, Via, parse_address,
};
pub use particulars::{
    DeviceRequest, InvalidDevice, InvalidNamespace, InvalidParticulars, InvalidSysctl, InvalidVolumesFrom, IpcChoice,
    Particulars, ProcessChoice, Sysctls, UtsChoice, VolumesFrom,
};
pub use process_id::ProcessId;
pub use quantity::{InvalidQuantity, bytes as parse_bytes, cpu_millis as parse_cpus, ulimit as parse_ulimit};
pub use record::{ContainerRecord, ContainerState, ImageOrigin, RecordError, Wanted};
pub use request::{Console, InitChoice, InvalidSecurityOption, Lifetime, RootAccess, RunRequest, SecurityOptions};
pub use restart::{InvalidRestartPolicy, RestartPolicy};
pub use signal::{InvalidSignal, Signal};
pub use status::{Change, ContainerStatus, InvalidChange};
pub use terminal::size as terminal_size;
pub use volume::{InvalidVolumeName, VolumeName};
pub use volumes::{
    InvalidVolumeOptions, NewVolume, PopulateError, PrunedVolumes, Seed, UNBORN_VOLUME_KIND, Volume, VolumeError,
    VolumeOptions, remove_unborn_volume,
};
