//! What `inspect` says about a container: Docker's document, with Docker's names.
//!
//! What Docker knows and rbuild does not have (a storage driver's private paths, labels of SELinux) is there and empty, so that
//! templates and programs written for Docker find every field.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use rbuild_container::{
    ContainerMount, ContainerMountSource, ContainerRecord, ContainerStatus, Containers, DEFAULT_STOP_TIMEOUT, Signal,
    VolumeOwnership,
};
use rbuild_executor::{Access, AppArmor, Propagation};
use serde_json::{Map, Value, json};

use super::host_config;

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
        "HostConfig": host_config::host_config(record),
        "GraphDriver": {"Data": null, "Name": "rbuild"},
        "Mounts": record.config.mounts.iter().filter_map(|mount| mounted(mount, containers)).collect::<Vec<_>>(),
        "Config": config(record),
        "NetworkSettings": record.network_settings(),
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
    // What is published is exposed.
    let published = config.ports.iter().flat_map(|port| {
        let protocol = port.protocol.name();
        port.inside.clone().map(move |number| format!("{number}/{protocol}"))
    });
    let exposed: BTreeSet<String> = published.chain(config.exposed_ports.iter().cloned()).collect();
    let volumes = config.mounts.iter().filter(|mount| is_volume(mount)).map(|mount| mount.target.to_string());
    let mut document = json!({
        "Hostname": config.hostname,
        "Domainname": config.particulars.domainname.as_deref().unwrap_or_default(),
        "User": config.user,
        "AttachStdin": config.input_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(&mut exposed.into_iter()),
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
    });
    if let Value::Object(fields) = &mut document {
        // As in Docker, what is only the default is not said.
        if fields["ExposedPorts"].is_null() {
            fields.remove("ExposedPorts");
        }
        if config.stop_signal != Signal::TERM {
            fields.insert("StopSignal".to_owned(), config.stop_signal.to_string().into());
        }
        if config.stop_timeout != DEFAULT_STOP_TIMEOUT {
            fields.insert("StopTimeout".to_owned(), config.stop_timeout.into());
        }
        fields.extend(config.healthcheck.as_ref().map(|check| ("Healthcheck".to_owned(), json!(check))));
        if !config.shell.is_empty() {
            fields.insert("Shell".to_owned(), json!(config.shell));
        }
    }
    document
}

pub(super) fn some(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { json!(words) }
}

fn is_volume(mount: &ContainerMount) -> bool {
    matches!(mount.source, ContainerMountSource::Volume { ownership: VolumeOwnership::Anonymous, .. })
}

/// The name of where later mounts are seen.
pub(super) fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
        Propagation::Shared => "rshared",
    }
}

/// Memory is no mount in Docker's list unless it was asked for with `--mount`.
fn mounted(mount: &ContainerMount, containers: &Containers) -> Option<Value> {
    let (kind, name, source, driver) = match &mount.source {
        ContainerMountSource::Volume { name, .. } => {
            ("volume", Some(name.to_string()), containers.volume_data(name), Some("local"))
        }
        ContainerMountSource::Bind { path, .. } => ("bind", None, path.clone(), None),
        ContainerMountSource::Tmpfs { typed: Some(_), .. } => return None,
        ContainerMountSource::Tmpfs { typed: None, .. } => ("tmpfs", None, PathBuf::new(), None),
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
        let propagation = match &mount.source {
            ContainerMountSource::Bind { manner, .. } => propagation_name(manner.propagation),
            _ => "",
        };
        fields.insert("Propagation".to_owned(), propagation.into());
    }
    Some(shown)
}
