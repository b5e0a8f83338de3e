//! The types that Docker's client declares for `container inspect`: what templates see where a document says nothing.

use crate::cli::docker_types::{EMPTY, GRAPH_DRIVER, HEALTHCHECK, NUMBER, TEXT, WORDS, WORDS_BY_NAME, YES};
use crate::cli::go_template::{Field, Shape};

/// A container.
pub(in crate::cli) const CONTAINER: Shape = Shape::Struct(
    "container.InspectResponse",
    &[
        Field::new("ID", TEXT).keyed("Id"),
        Field::new("Created", TEXT),
        Field::new("Path", TEXT),
        Field::new("Args", WORDS),
        Field::new("State", Shape::Pointer("*container.State", &STATE)),
        Field::new("Image", TEXT),
        Field::new("ResolvConfPath", TEXT),
        Field::new("HostnamePath", TEXT),
        Field::new("HostsPath", TEXT),
        Field::new("LogPath", TEXT),
        Field::new("Name", TEXT),
        Field::new("RestartCount", NUMBER),
        Field::new("Driver", TEXT),
        Field::new("Platform", TEXT),
        Field::new("MountLabel", TEXT),
        Field::new("ProcessLabel", TEXT),
        Field::new("AppArmorProfile", TEXT),
        Field::new("ExecIDs", WORDS),
        Field::new("HostConfig", Shape::Pointer("*container.HostConfig", &HOST_CONFIG)),
        Field::new("GraphDriver", GRAPH_DRIVER),
        Field::optional("SizeRw", Shape::Pointer("*int64", &NUMBER)),
        Field::optional("SizeRootFs", Shape::Pointer("*int64", &NUMBER)),
        Field::new("Mounts", Shape::List(&MOUNT)),
        Field::new("Config", Shape::Pointer("*container.Config", &CONFIG)),
        Field::new("NetworkSettings", Shape::Pointer("*container.NetworkSettings", &NETWORK_SETTINGS)),
    ],
);

const STATE: Shape = Shape::Struct(
    "container.State",
    &[
        Field::new("Status", TEXT),
        Field::new("Running", YES),
        Field::new("Paused", YES),
        Field::new("Restarting", YES),
        Field::new("OOMKilled", YES),
        Field::new("Dead", YES),
        Field::new("Pid", NUMBER),
        Field::new("ExitCode", NUMBER),
        Field::new("Error", TEXT),
        Field::new("StartedAt", TEXT),
        Field::new("FinishedAt", TEXT),
        Field::optional("Health", Shape::Pointer("*container.Health", &HEALTH)),
    ],
);

const HEALTH: Shape = Shape::Struct(
    "container.Health",
    &[
        Field::new("Status", TEXT),
        Field::new("FailingStreak", NUMBER),
        Field::new("Log", Shape::List(&Shape::Pointer("*container.HealthcheckResult", &HEALTH_RESULT))),
    ],
);

const HEALTH_RESULT: Shape = Shape::Struct(
    "container.HealthcheckResult",
    &[
        Field::new("Start", Shape::Time),
        Field::new("End", Shape::Time),
        Field::new("ExitCode", NUMBER),
        Field::new("Output", TEXT),
    ],
);

const MOUNT: Shape = Shape::Struct(
    "container.MountPoint",
    &[
        Field::optional("Type", TEXT),
        Field::optional("Name", TEXT),
        Field::new("Source", TEXT),
        Field::new("Destination", TEXT),
        Field::optional("Driver", TEXT),
        Field::new("Mode", TEXT),
        Field::new("RW", YES),
        Field::new("Propagation", TEXT),
    ],
);

const CONFIG: Shape = Shape::Struct(
    "container.Config",
    &[
        Field::new("Hostname", TEXT),
        Field::new("Domainname", TEXT),
        Field::new("User", TEXT),
        Field::new("AttachStdin", YES),
        Field::new("AttachStdout", YES),
        Field::new("AttachStderr", YES),
        Field::optional("ExposedPorts", Shape::Map(&EMPTY)),
        Field::new("Tty", YES),
        Field::new("OpenStdin", YES),
        Field::new("StdinOnce", YES),
        Field::new("Env", WORDS),
        Field::new("Cmd", WORDS),
        Field::optional("Healthcheck", Shape::Pointer("*v1.HealthcheckConfig", &HEALTHCHECK)),
        Field::optional("ArgsEscaped", YES),
        Field::new("Image", TEXT),
        Field::new("Volumes", Shape::Map(&EMPTY)),
        Field::new("WorkingDir", TEXT),
        Field::new("Entrypoint", WORDS),
        Field::optional("NetworkDisabled", YES),
        Field::optional("MacAddress", TEXT),
        Field::new("OnBuild", WORDS),
        Field::new("Labels", WORDS_BY_NAME),
        Field::optional("StopSignal", TEXT),
        Field::optional("StopTimeout", Shape::Pointer("*int", &NUMBER)),
        Field::optional("Shell", WORDS),
    ],
);

const PORT_BINDINGS: Shape = Shape::Map(&Shape::List(&Shape::Struct(
    "nat.PortBinding",
    &[Field::new("HostIP", TEXT).keyed("HostIp"), Field::new("HostPort", TEXT)],
)));

const WEIGHT_DEVICES: Shape =
    Shape::List(&Shape::Struct("blkiodev.WeightDevice", &[Field::new("Path", TEXT), Field::new("Weight", NUMBER)]));

const THROTTLED_DEVICES: Shape =
    Shape::List(&Shape::Struct("blkiodev.ThrottleDevice", &[Field::new("Path", TEXT), Field::new("Rate", NUMBER)]));

const DEVICES: Shape = Shape::List(&Shape::Struct(
    "container.DeviceMapping",
    &[Field::new("PathOnHost", TEXT), Field::new("PathInContainer", TEXT), Field::new("CgroupPermissions", TEXT)],
));

const ULIMITS: Shape = Shape::List(&Shape::Struct(
    "units.Ulimit",
    &[Field::new("Name", TEXT), Field::new("Hard", NUMBER), Field::new("Soft", NUMBER)],
));

const HOST_CONFIG: Shape = Shape::Struct(
    "container.HostConfig",
    &[
        Field::new("Binds", WORDS),
        Field::new("ContainerIDFile", TEXT),
        Field::new(
            "LogConfig",
            Shape::Struct("container.LogConfig", &[Field::new("Type", TEXT), Field::new("Config", WORDS_BY_NAME)]),
        ),
        Field::new("NetworkMode", TEXT),
        Field::new("PortBindings", PORT_BINDINGS),
        Field::new(
            "RestartPolicy",
            Shape::Struct(
                "container.RestartPolicy",
                &[Field::new("Name", TEXT), Field::new("MaximumRetryCount", NUMBER)],
            ),
        ),
        Field::new("AutoRemove", YES),
        Field::new("VolumeDriver", TEXT),
        Field::new("VolumesFrom", WORDS),
        Field::new("ConsoleSize", Shape::List(&NUMBER)),
        Field::optional("Annotations", WORDS_BY_NAME),
        Field::new("CapAdd", WORDS),
        Field::new("CapDrop", WORDS),
        Field::new("CgroupnsMode", TEXT),
        Field::new("DNS", WORDS).keyed("Dns"),
        Field::new("DNSOptions", WORDS).keyed("DnsOptions"),
        Field::new("DNSSearch", WORDS).keyed("DnsSearch"),
        Field::new("ExtraHosts", WORDS),
        Field::new("GroupAdd", WORDS),
        Field::new("IpcMode", TEXT),
        Field::new("Cgroup", TEXT),
        Field::new("Links", WORDS),
        Field::new("OomScoreAdj", NUMBER),
        Field::new("PidMode", TEXT),
        Field::new("Privileged", YES),
        Field::new("PublishAllPorts", YES),
        Field::new("ReadonlyRootfs", YES),
        Field::new("SecurityOpt", WORDS),
        Field::optional("StorageOpt", WORDS_BY_NAME),
        Field::optional("Tmpfs", WORDS_BY_NAME),
        Field::new("UTSMode", TEXT),
        Field::new("UsernsMode", TEXT),
        Field::new("ShmSize", NUMBER),
        Field::optional("Sysctls", WORDS_BY_NAME),
        Field::optional("Runtime", TEXT),
        Field::new("Isolation", TEXT),
        Field::new("CPUShares", NUMBER).keyed("CpuShares"),
        Field::new("Memory", NUMBER),
        Field::new("NanoCPUs", NUMBER).keyed("NanoCpus"),
        Field::new("CgroupParent", TEXT),
        Field::new("BlkioWeight", NUMBER),
        Field::new("BlkioWeightDevice", WEIGHT_DEVICES),
        Field::new("BlkioDeviceReadBps", THROTTLED_DEVICES),
        Field::new("BlkioDeviceWriteBps", THROTTLED_DEVICES),
        Field::new("BlkioDeviceReadIOps", THROTTLED_DEVICES),
        Field::new("BlkioDeviceWriteIOps", THROTTLED_DEVICES),
        Field::new("CPUPeriod", NUMBER).keyed("CpuPeriod"),
        Field::new("CPUQuota", NUMBER).keyed("CpuQuota"),
        Field::new("CPURealtimePeriod", NUMBER).keyed("CpuRealtimePeriod"),
        Field::new("CPURealtimeRuntime", NUMBER).keyed("CpuRealtimeRuntime"),
        Field::new("CpusetCpus", TEXT),
        Field::new("CpusetMems", TEXT),
        Field::new("Devices", DEVICES),
        Field::new("DeviceCgroupRules", WORDS),
        Field::new("DeviceRequests", Shape::List(&EMPTY)),
        Field::optional("KernelMemory", NUMBER),
        Field::optional("KernelMemoryTCP", NUMBER),
        Field::new("MemoryReservation", NUMBER),
        Field::new("MemorySwap", NUMBER),
        Field::new("MemorySwappiness", Shape::Pointer("*int64", &NUMBER)),
        Field::new("OomKillDisable", Shape::Pointer("*bool", &YES)),
        Field::new("PidsLimit", Shape::Pointer("*int64", &NUMBER)),
        Field::new("Ulimits", ULIMITS),
        Field::new("CPUCount", NUMBER).keyed("CpuCount"),
        Field::new("CPUPercent", NUMBER).keyed("CpuPercent"),
        Field::new("IOMaximumIOps", NUMBER),
        Field::new("IOMaximumBandwidth", NUMBER),
        Field::optional("Mounts", Shape::List(&EMPTY)),
        Field::new("MaskedPaths", WORDS),
        Field::new("ReadonlyPaths", WORDS),
        Field::optional("Init", Shape::Pointer("*bool", &YES)),
    ],
);

const IPAM: Shape = Shape::Struct(
    "network.EndpointIPAMConfig",
    &[
        Field::optional("IPv4Address", TEXT),
        Field::optional("IPv6Address", TEXT),
        Field::optional("LinkLocalIPs", WORDS),
    ],
);

const ENDPOINT: Shape = Shape::Struct(
    "network.EndpointSettings",
    &[
        Field::new("IPAMConfig", Shape::Pointer("*network.EndpointIPAMConfig", &IPAM)),
        Field::new("Links", WORDS),
        Field::new("Aliases", WORDS),
        Field::new("MacAddress", TEXT),
        Field::new("DriverOpts", WORDS_BY_NAME),
        Field::new("GwPriority", NUMBER),
        Field::new("NetworkID", TEXT),
        Field::new("EndpointID", TEXT),
        Field::new("Gateway", TEXT),
        Field::new("IPAddress", TEXT),
        Field::new("IPPrefixLen", NUMBER),
        Field::new("IPv6Gateway", TEXT),
        Field::new("GlobalIPv6Address", TEXT),
        Field::new("GlobalIPv6PrefixLen", NUMBER),
        Field::new("DNSNames", WORDS),
    ],
);

const NETWORK_SETTINGS: Shape = Shape::Struct(
    "container.NetworkSettings",
    &[
        Field::new("Bridge", TEXT),
        Field::new("SandboxID", TEXT),
        Field::new("SandboxKey", TEXT),
        Field::new("Ports", PORT_BINDINGS),
        Field::new("HairpinMode", YES),
        Field::new("LinkLocalIPv6Address", TEXT),
        Field::new("LinkLocalIPv6PrefixLen", NUMBER),
        Field::new("SecondaryIPAddresses", Shape::List(&EMPTY)),
        Field::new("SecondaryIPv6Addresses", Shape::List(&EMPTY)),
        Field::new("EndpointID", TEXT),
        Field::new("Gateway", TEXT),
        Field::new("GlobalIPv6Address", TEXT),
        Field::new("GlobalIPv6PrefixLen", NUMBER),
        Field::new("IPAddress", TEXT),
        Field::new("IPPrefixLen", NUMBER),
        Field::new("IPv6Gateway", TEXT),
        Field::new("MacAddress", TEXT),
        Field::new("Networks", Shape::Map(&Shape::Pointer("*network.EndpointSettings", &ENDPOINT))),
    ],
);
