//! What `inspect` says about a container: Docker's document, with Docker's names.
//!
//! What Docker knows and rbuild does not have (a storage driver's private paths, labels of SELinux) is there and empty, so that
//! templates and programs written for Docker find every field.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_container::{
    Connection, ContainerMount, ContainerMountSource, ContainerRecord, ContainerStatus, Containers, InitChoice,
    Lifetime, RootAccess, VolumeOwnership,
};
use rbuild_executor::{Access, AppArmor, DEFAULT_CAPABILITIES, Rlimit, Seccomp};
use serde_json::{Map, Value, json};

/// Docker's time for what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The document.
pub(in crate::cli) fn details(record: &ContainerRecord, containers: &Containers) -> Value {
    let argv = record.config.argv();
    let directory = containers.directory_of(&record.id);
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    json!({
        "Id": record.id.as_str(),
        "Created": record.created.to_string(),
        "Path": argv.first(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(record),
        "Image": record.image.id.to_string(),
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": containers.log_file(&record.id).to_string_lossy(),
        "Name": format!("/{}", record.name),
        "RestartCount": record.state.restarts,
        "Driver": "rbuild",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor(record),
        "ExecIDs": null,
        "HostConfig": host_config(record),
        "GraphDriver": {"Data": null, "Name": "rbuild"},
        "Mounts": record.config.mounts.iter().filter_map(|mount| mounted(mount, containers)).collect::<Vec<_>>(),
        "Config": config(record),
        "NetworkSettings": network_settings(record),
    })
}

fn state(record: &ContainerRecord) -> Value {
    let state = &record.state;
    let time = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
    let mut document = json!({
        "Status": state.status.name(),
        "Running": state.status.is_live() || state.status == ContainerStatus::Restarting,
        "Paused": state.status == ContainerStatus::Paused,
        "Restarting": state.status == ContainerStatus::Restarting,
        "OOMKilled": state.exit.as_ref().is_some_and(|exit| exit.out_of_memory()),
        "Dead": state.status == ContainerStatus::Dead,
        "Pid": state.process.map_or(0, |process| process.pid),
        "ExitCode": state.exit.as_ref().map_or(0, |exit| exit.code()),
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    });
    if let (Some(health), Value::Object(fields)) = (&record.health, &mut document) {
        let log = health.log.iter().map(|result| {
            json!({
                "Start": result.start.to_string(),
                "End": result.end.to_string(),
                "ExitCode": result.exit_code,
                "Output": result.output,
            })
        });
        let shown = json!({
            "Status": health.status.name(),
            "FailingStreak": health.failing_streak,
            "Log": log.collect::<Vec<_>>(),
        });
        fields.insert("Health".to_owned(), shown);
    }
    document
}

fn apparmor(record: &ContainerRecord) -> String {
    match &record.config.apparmor {
        AppArmor::HostDefault => String::new(),
        AppArmor::Unconfined => "unconfined".to_owned(),
        AppArmor::Profile(name) => name.clone(),
    }
}

fn config(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let set = |names: &mut dyn Iterator<Item = String>| -> Value {
        let set: Map<String, Value> = names.map(|name| (name, json!({}))).collect();
        if set.is_empty() { Value::Null } else { Value::Object(set) }
    };
    let volumes = config.mounts.iter().filter(|mount| is_volume(mount)).map(|mount| mount.target.to_string());
    let mut document = json!({
        "Hostname": config.hostname,
        "Domainname": "",
        "User": config.user,
        "AttachStdin": config.input_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(&mut config.exposed_ports.iter().cloned()),
        "Tty": config.console.terminal,
        "OpenStdin": config.console.interactive,
        "StdinOnce": config.input_once,
        "Env": config.env,
        "Cmd": some(&config.command),
        "Image": record.image.name,
        "Volumes": set(&mut volumes.into_iter()),
        "WorkingDir": if config.working_dir.to_string() == "/" { String::new() } else { config.working_dir.to_string() },
        "Entrypoint": some(&config.entrypoint),
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal.to_string(),
        "StopTimeout": config.stop_timeout,
    });
    if document["ExposedPorts"].is_null()
        && let Value::Object(fields) = &mut document
    {
        fields.remove("ExposedPorts");
    }
    if let Value::Object(fields) = &mut document {
        fields.extend(config.healthcheck.as_ref().map(|check| ("Healthcheck".to_owned(), json!(check))));
        if !config.shell.is_empty() {
            fields.insert("Shell".to_owned(), json!(config.shell));
        }
    }
    document
}

fn some(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { json!(words) }
}

fn is_volume(mount: &ContainerMount) -> bool {
    matches!(mount.source, ContainerMountSource::Volume { ownership: VolumeOwnership::Anonymous, .. })
}

fn host_config(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let resources = &config.resources;
    let default = |name: &str| DEFAULT_CAPABILITIES.contains(&name);
    let added: Vec<&String> = config.capabilities.iter().filter(|name| !default(name)).collect();
    let dropped: Vec<&str> =
        DEFAULT_CAPABILITIES.iter().copied().filter(|name| !config.capabilities.iter().any(|c| c == name)).collect();
    let mut binds = Vec::new();
    let mut tmpfs = BTreeMap::new();
    for mount in &config.mounts {
        let read_only = if mount.access == Access::ReadOnly { ":ro" } else { "" };
        match &mount.source {
            ContainerMountSource::Bind { path, .. } => {
                binds.push(format!("{}:{}{read_only}", path.display(), mount.target));
            }
            ContainerMountSource::Volume { name, ownership: VolumeOwnership::Named, .. } => {
                binds.push(format!("{name}:{}{read_only}", mount.target));
            }
            ContainerMountSource::Volume { .. } => {}
            ContainerMountSource::Tmpfs { size, mode } => {
                let size = size.map_or_else(String::new, |size| format!("size={size},"));
                tmpfs.insert(mount.target.to_string(), format!("{size}mode={mode:o}"));
            }
        }
    }
    let ulimits: Vec<Value> = config
        .ulimits
        .iter()
        .map(|Rlimit { name, soft, hard }| json!({"Name": name.to_lowercase(), "Soft": soft, "Hard": hard}))
        .collect();
    let mut document = json!({
        "Binds": some(&binds),
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log.driver.name(), "Config": log_config(record)},
        "NetworkMode": config.network.to_string(),
        "PortBindings": {},
        "RestartPolicy": {"Name": config.restart.name(), "MaximumRetryCount": config.restart.maximum()},
        "AutoRemove": config.lifetime == Lifetime::Process,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "CapAdd": if added.is_empty() { Value::Null } else { json!(added) },
        "CapDrop": if dropped.is_empty() { Value::Null } else { json!(dropped) },
        "CgroupnsMode": "private",
        "Dns": config.dns.servers,
        "DnsOptions": config.dns.options,
        "DnsSearch": config.dns.search,
        "ExtraHosts": config.extra_hosts.iter().map(|host| format!("{}:{}", host.name, host.address)).collect::<Vec<_>>(),
        "GroupAdd": some(&config.group_add),
    });
    let limits = json!({
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": config.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": config.root == RootAccess::ReadOnly,
        "SecurityOpt": security(record),
        "Tmpfs": tmpfs,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": config.shm_size,
        "Runtime": "rbuild",
        "Isolation": "",
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "Memory": resources.memory.unwrap_or(0),
        "NanoCpus": resources.cpu_millis.unwrap_or(0) * 1_000_000,
        "CgroupParent": resources.cgroup_parent.as_deref().unwrap_or_default(),
        "CpusetCpus": resources.cpuset_cpus.as_deref().unwrap_or_default(),
        "MemorySwap": resources.memory_swap.unwrap_or(0),
        "OomKillDisable": false,
        "Init": config.init == InitChoice::Reaper,
        "PidsLimit": resources.pids,
        "Ulimits": if ulimits.is_empty() { Value::Null } else { Value::Array(ulimits) },
        "Devices": [],
        "Sysctls": null,
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut document, limits) {
        fields.extend(more);
    }
    document
}

fn log_config(record: &ContainerRecord) -> BTreeMap<&'static str, String> {
    let log = &record.config.log;
    let mut options = BTreeMap::new();
    if let Some(size) = log.max_size {
        options.insert("max-size", size.to_string());
        options.insert("max-file", log.max_file.to_string());
    }
    options
}

fn security(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let mut options = Vec::new();
    if config.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &config.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(_) => options.push("seccomp=profile".to_owned()),
    }
    match &config.apparmor {
        AppArmor::HostDefault => {}
        AppArmor::Unconfined => options.push("apparmor=unconfined".to_owned()),
        AppArmor::Profile(name) => options.push(format!("apparmor={name}")),
    }
    some(&options)
}

/// Memory is no mount in Docker's list unless it was asked for with `--mount`, which is not kept.
fn mounted(mount: &ContainerMount, containers: &Containers) -> Option<Value> {
    let (kind, name, source, driver) = match &mount.source {
        ContainerMountSource::Volume { name, .. } => {
            ("volume", Some(name.to_string()), containers.volume_data(name), Some("local"))
        }
        ContainerMountSource::Bind { path, .. } => ("bind", None, path.clone(), None),
        ContainerMountSource::Tmpfs { .. } => return None,
    };
    let mut shown = json!({"Type": kind});
    if let Value::Object(fields) = &mut shown {
        if let Some(name) = name {
            fields.insert("Name".to_owned(), name.into());
        }
        fields.insert("Source".to_owned(), source.to_string_lossy().into());
        fields.insert("Destination".to_owned(), mount.target.to_string().into());
        if let Some(driver) = driver {
            fields.insert("Driver".to_owned(), driver.into());
        }
        fields.insert("Mode".to_owned(), if mount.access == Access::ReadOnly { "ro" } else { "" }.into());
        fields.insert("RW".to_owned(), (mount.access == Access::ReadWrite).into());
        fields.insert("Propagation".to_owned(), if kind == "bind" { "rprivate" } else { "" }.into());
    }
    Some(shown)
}

fn network_settings(record: &ContainerRecord) -> Value {
    let state = &record.state.network;
    let mut ports: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &state.ports {
        let inside = format!("{}/{}", port.inside, port.protocol.name());
        let outside = json!({"HostIp": port.host.ip().to_string(), "HostPort": port.host.port().to_string()});
        ports.entry(inside).or_default().push(outside);
    }
    let mut shown: Map<String, Value> = ports.into_iter().map(|(inside, outside)| (inside, json!(outside))).collect();
    for port in record.config.exposed_ports.iter().filter(|_| record.state.status.is_live()) {
        shown.entry(port.clone()).or_insert(Value::Null);
    }
    let networks: Map<String, Value> =
        state.connections.iter().map(|connection| (connection.network.clone(), endpoint(connection))).collect();
    let first = state.connections.first().map(endpoint);
    let of_first = |name: &str| first.as_ref().map_or_else(|| json!(""), |first| first[name].clone());
    json!({
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": false,
        "Ports": shown,
        "SandboxKey": "",
        "EndpointID": of_first("EndpointID"),
        "Gateway": of_first("Gateway"),
        "GlobalIPv6Address": of_first("GlobalIPv6Address"),
        "IPAddress": of_first("IPAddress"),
        "IPPrefixLen": if first.is_some() { of_first("IPPrefixLen") } else { json!(0) },
        "IPv6Gateway": of_first("IPv6Gateway"),
        "MacAddress": of_first("MacAddress"),
        "Networks": networks,
    })
}

fn endpoint(connection: &Connection) -> Value {
    let at = connection.addresses.iter().position(|address| address.is_ipv4());
    let at6 = connection.addresses.iter().position(|address| address.is_ipv6());
    let address = |at: Option<usize>| at.map_or_else(String::new, |at| connection.addresses[at].to_string());
    let prefix = |at: Option<usize>| at.and_then(|at| connection.prefixes.get(at)).copied().unwrap_or(0);
    let gateway = |ipv4: bool| {
        let found = connection.gateways.iter().find(|gateway| gateway.is_ipv4() == ipv4);
        found.map_or_else(String::new, ToString::to_string)
    };
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": connection.names,
        "NetworkID": connection.id.as_str(),
        "EndpointID": connection.endpoint,
        "Gateway": gateway(true),
        "IPAddress": address(at),
        "IPPrefixLen": prefix(at),
        "IPv6Gateway": gateway(false),
        "GlobalIPv6Address": address(at6),
        "GlobalIPv6PrefixLen": prefix(at6),
        "MacAddress": connection.mac.map_or_else(String::new, |mac| mac.to_string()),
        "DriverOpts": null,
    })
}
