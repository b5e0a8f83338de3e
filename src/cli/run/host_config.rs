//! What `inspect` says about how a container was asked for: Docker's `HostConfig`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_container::{
    ContainerMountSource, ContainerRecord, InitChoice, Lifetime, Particulars, PortRequest, RootAccess, VolumeOwnership,
};
use rbuild_executor::plan::{MASKED_PATHS, READ_ONLY_PATHS};
use rbuild_executor::{Access, AppArmor, DEFAULT_CAPABILITIES, Propagation, Resources, Rlimit, Seccomp};
use serde_json::{Value, json};

use super::details::{propagation_name, some};

/// The document.
pub(super) fn host_config(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let particulars = &config.particulars;
    let resources = &config.resources;
    let default = |name: &str| DEFAULT_CAPABILITIES.contains(&name);
    let named = |name: &str| format!("CAP_{name}");
    let added: Vec<String> = config.capabilities.iter().filter(|name| !default(name)).map(|name| named(name)).collect();
    let taken = DEFAULT_CAPABILITIES.iter().filter(|name| !config.capabilities.iter().any(|own| own == *name));
    let dropped: Vec<String> = taken.map(|name| named(name)).collect();
    let mut binds = Vec::new();
    let mut tmpfs = BTreeMap::new();
    for mount in &config.mounts {
        let read_only = if mount.access == Access::ReadOnly { ":ro" } else { "" };
        match &mount.source {
            ContainerMountSource::Bind { path, manner, .. } => {
                let mut modes = Vec::new();
                modes.extend((mount.access == Access::ReadOnly).then_some("ro"));
                let tied = manner.propagation != Propagation::Private;
                modes.extend(tied.then(|| propagation_name(manner.propagation)));
                let modes = if modes.is_empty() { String::new() } else { format!(":{}", modes.join(",")) };
                binds.push(format!("{}:{}{modes}", path.display(), mount.target));
            }
            ContainerMountSource::Volume { name, ownership: VolumeOwnership::Named, .. } => {
                binds.push(format!("{name}:{}{read_only}", mount.target));
            }
            ContainerMountSource::Volume { .. } => {}
            ContainerMountSource::Tmpfs { typed: Some(typed), .. } => {
                tmpfs.insert(mount.target.to_string(), typed.clone());
            }
            ContainerMountSource::Tmpfs { typed: None, .. } => {}
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
        "PortBindings": port_bindings(&config.ports),
        "RestartPolicy": {"Name": config.restart.name(), "MaximumRetryCount": config.restart.maximum()},
        "AutoRemove": config.lifetime == Lifetime::Process,
        "VolumeDriver": "",
        "VolumesFrom": list(&particulars.volumes_from),
        "ConsoleSize": [0, 0],
        "CapAdd": if added.is_empty() { Value::Null } else { json!(added) },
        "CapDrop": if dropped.is_empty() { Value::Null } else { json!(dropped) },
        "CgroupnsMode": "private",
        "Dns": config.dns.servers,
        "DnsOptions": config.dns.options,
        "DnsSearch": config.dns.search,
        "ExtraHosts": config.extra_hosts.iter().map(|host| format!("{}:{}", host.name, host.address)).collect::<Vec<_>>(),
        "GroupAdd": some(&config.group_add),
    });
    let sysctls = particulars.sysctls.typed();
    let mut limits = json!({
        "IpcMode": particulars.ipc.to_string(),
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": particulars.oom_score_adj.unwrap_or(0),
        "PidMode": particulars.processes.to_string(),
        "Privileged": config.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": config.root == RootAccess::ReadOnly,
        "SecurityOpt": security(record),
        "Tmpfs": tmpfs,
        "UTSMode": particulars.uts.to_string(),
        "UsernsMode": "",
        "ShmSize": config.shm_size,
        "Runtime": "rbuild",
        "Isolation": "",
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "Memory": resources.memory.unwrap_or(0),
        "NanoCpus": resources.cpu_millis.unwrap_or(0) * 1_000_000,
        "CgroupParent": resources.cgroup_parent.as_deref().unwrap_or_default(),
        "CpusetCpus": resources.cpuset_cpus.as_deref().unwrap_or_default(),
        "MemorySwap": memory_swap(resources),
        "OomKillDisable": resources.oom_kill_disable,
        "Init": config.init == InitChoice::Reaper,
        "PidsLimit": resources.pids.map(|count| i64::try_from(count).unwrap_or(-1)),
        "Ulimits": if ulimits.is_empty() { Value::Null } else { Value::Array(ulimits) },
        "Devices": devices(particulars),
        "DeviceCgroupRules": list(&particulars.device_rules),
        "Sysctls": if sysctls.is_empty() { Value::Null } else { json!(sysctls) },
        "CpusetMems": resources.cpuset_mems.as_deref().unwrap_or_default(),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwappiness": resources.memory_swappiness,
        "BlkioWeight": resources.disks.weight.unwrap_or(0),
        "BlkioWeightDevice": by_device(&resources.disks.device_weights, "Weight"),
        "BlkioDeviceReadBps": by_device(&resources.disks.read_bytes, "Rate"),
        "BlkioDeviceWriteBps": by_device(&resources.disks.write_bytes, "Rate"),
        "BlkioDeviceReadIOps": by_device(&resources.disks.reads, "Rate"),
        "BlkioDeviceWriteIOps": by_device(&resources.disks.writes, "Rate"),
    });
    if let Value::Object(fields) = &mut limits
        && !particulars.annotations.is_empty()
    {
        fields.insert("Annotations".to_owned(), json!(particulars.annotations));
    }
    if let (Value::Object(fields), Value::Object(more), Value::Object(rest)) = (&mut document, limits, rest(record)) {
        fields.extend(more);
        fields.extend(rest);
    }
    document
}

/// What is hidden, and what Docker has and nothing here sets.
fn rest(record: &ContainerRecord) -> Value {
    let bare = record.config.privileged || record.config.unmasked;
    json!({
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "DeviceRequests": null,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": if bare { Value::Null } else { json!(MASKED_PATHS) },
        "ReadonlyPaths": if bare { Value::Null } else { json!(READ_ONLY_PATHS) },
    })
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
    if config.unmasked {
        options.push("systempaths=unconfined".to_owned());
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

/// Ports as they were asked for, by those of the container.
fn port_bindings(ports: &[PortRequest]) -> BTreeMap<String, Vec<Value>> {
    let mut bindings = BTreeMap::<String, Vec<Value>>::new();
    for port in ports {
        for (number, inside) in port.inside.clone().enumerate() {
            // Several ports of the host for one of the container are a range to choose from.
            let outside = match &port.host {
                None => String::new(),
                Some(host) if port.inside.len() == 1 && host.len() > 1 => format!("{}-{}", host.start(), host.end()),
                Some(host) => host.clone().nth(number).map_or_else(String::new, |port| port.to_string()),
            };
            let address = port.address.map_or_else(String::new, |address| address.to_string());
            let binding = json!({"HostIp": address, "HostPort": outside});
            bindings.entry(format!("{inside}/{}", port.protocol.name())).or_default().push(binding);
        }
    }
    bindings
}

fn list<T: ToString>(values: &[T]) -> Value {
    some(&values.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn devices(particulars: &Particulars) -> Vec<Value> {
    let device = |device: &rbuild_container::DeviceRequest| {
        json!({
            "PathOnHost": device.path.to_string_lossy(),
            "PathInContainer": format!("/dev/{}", device.name),
            "CgroupPermissions": device.access.to_string(),
        })
    };
    particulars.devices.iter().map(device).collect()
}

fn by_device(limits: &[(PathBuf, u64)], value: &str) -> Vec<Value> {
    limits.iter().map(|(path, number)| json!({"Path": path.to_string_lossy(), value: number})).collect()
}

/// Memory and swap together: Docker's default is twice the memory, and -1 is no limit.
fn memory_swap(resources: &Resources) -> i64 {
    let bytes = match resources.memory_swap {
        Some(u64::MAX) => return -1,
        Some(bytes) => bytes,
        None => resources.memory.unwrap_or(0).saturating_mul(2),
    };
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_they_were_asked_for() {
        let ports: Vec<PortRequest> = ["8080:80", "127.0.0.1::53/udp", "90-91:70-71", "5000-5005:60", "80"]
            .map(|text| text.parse().unwrap())
            .into();
        let shown = serde_json::to_string(&port_bindings(&ports)).unwrap();
        insta::assert_snapshot!(shown, @r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":""}],"60/tcp":[{"HostIp":"","HostPort":"5000-5005"}],"70/tcp":[{"HostIp":"","HostPort":"90"}],"71/tcp":[{"HostIp":"","HostPort":"91"}],"80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"","HostPort":""}]}"#);
    }
}
