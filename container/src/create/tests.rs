//! The merge of image and request, by tables: what Docker does with each flag.

use super::*;
use crate::capability::CapabilityRequest;
use crate::request::{Console, Lifetime, SecurityOptions};
use rbuild_executor::ALL_CAPABILITIES;

fn merged(image: &RuntimeConfig, request: &RunRequest) -> Result<ContainerConfig, InvalidRequest> {
    let id: ContainerId = "0123456789ab".repeat(6)[..64].parse().unwrap();
    merge(
        image,
        request,
        Surroundings {
            id: &id,
            bounding_capabilities: Capabilities::from_names(ALL_CAPABILITIES).unwrap(),
            volume_name: &mut || "anonymous".parse().unwrap(),
        },
    )
}

fn shell() -> RuntimeConfig {
    RuntimeConfig { cmd: Some(vec!["sh".into()]), ..RuntimeConfig::default() }
}

#[test]
fn an_image_without_a_request_gives_dockers_defaults() {
    let config = merged(&shell(), &RunRequest::default()).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap(), @r#"
    {
      "entrypoint": [],
      "command": [
        "sh"
      ],
      "env": [],
      "user": "",
      "group_add": [],
      "working_dir": "/",
      "hostname": "0123456789ab",
      "labels": {},
      "console": {
        "terminal": false,
        "interactive": false
      },
      "lifetime": "kept",
      "mounts": [],
      "network": "default",
      "networks": [
        {
          "network": "bridge",
          "aliases": [],
          "addresses": [],
          "mac": null,
          "gateway_priority": 0
        }
      ],
      "ports": [],
      "publish_all": false,
      "extra_hosts": [],
      "dns": {
        "servers": [],
        "search": [],
        "options": []
      },
      "exposed_ports": [],
      "capabilities": [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SYS_CHROOT",
        "MKNOD",
        "AUDIT_WRITE",
        "SETFCAP"
      ],
      "privileged": false,
      "no_new_privileges": false,
      "seccomp": "Default",
      "apparmor": "HostDefault",
      "root": "read-write",
      "ulimits": [],
      "resources": {
        "memory": null,
        "memory_swap": null,
        "cpu_millis": null,
        "cpu_shares": null,
        "cpuset_cpus": null,
        "pids": null,
        "cgroup_parent": null
      },
      "shm_size": 67108864,
      "init": "process",
      "stop_signal": "SIGTERM",
      "stop_timeout": 10,
      "restart": "no",
      "log": {
        "driver": "json-file",
        "max_size": null,
        "max_file": 1
      },
      "input_once": false
    }
    "#);
    assert_eq!(serde_json::from_str::<ContainerConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn the_request_wins_over_the_image() {
    let image = RuntimeConfig {
        user: "app".into(),
        working_dir: "/srv/../app/".into(),
        stop_signal: Some("SIGQUIT".into()),
        labels: [("a".into(), "image".into()), ("b".into(), "image".into())].into(),
        ..shell()
    };
    let config = merged(&image, &RunRequest::default()).unwrap();
    assert_eq!((config.user.as_str(), config.working_dir.to_string().as_str()), ("app", "/app"));
    assert_eq!((config.stop_signal, config.labels["a"].as_str()), (Signal::QUIT, "image"));

    let request = RunRequest {
        user: Some("0:0".into()),
        working_dir: Some("/tmp".into()),
        stop_signal: Some(Signal::INT),
        stop_timeout: Some(3),
        hostname: Some("web.example".into()),
        labels: [("a".into(), "user".into())].into(),
        console: Console { terminal: true, interactive: true },
        lifetime: Lifetime::Process,
        shm_size: Some(1 << 20),
        ..RunRequest::default()
    };
    let config = merged(&image, &request).unwrap();
    assert_eq!((config.user.as_str(), config.working_dir.to_string().as_str()), ("0:0", "/tmp"));
    assert_eq!((config.stop_signal, config.stop_timeout), (Signal::INT, 3));
    assert_eq!(config.labels, [("a".into(), "user".into()), ("b".into(), "image".into())].into());
    assert_eq!((config.hostname.as_str(), config.shm_size), ("web.example", 1 << 20));
    assert_eq!(config.lifetime, Lifetime::Process);
    assert!(config.console.terminal && config.console.interactive);
}

#[test]
fn privileged_lifts_the_filter_and_gives_every_capability() {
    let request = RunRequest {
        capabilities: CapabilityRequest { privileged: true, ..CapabilityRequest::default() },
        ..RunRequest::default()
    };
    let config = merged(&shell(), &request).unwrap();
    assert!(config.privileged && config.seccomp == Seccomp::Unconfined);
    assert_eq!(config.capabilities.len(), 41);
    let request = RunRequest {
        security: SecurityOptions {
            no_new_privileges: true,
            seccomp: Seccomp::Unconfined,
            ..SecurityOptions::default()
        },
        ..RunRequest::default()
    };
    let config = merged(&shell(), &request).unwrap();
    assert!(config.no_new_privileges && config.seccomp == Seccomp::Unconfined && !config.privileged);
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let with = |change: &dyn Fn(&mut RunRequest)| {
        let mut request = RunRequest::default();
        change(&mut request);
        merged(&shell(), &request).unwrap_err().to_string()
    };
    assert_eq!(
        with(&|r| r.working_dir = Some("srv".into())),
        "the working directory 'srv' is invalid, it needs to be an absolute path"
    );
    let unnamed = RunRequest { hostname: Some(String::new()), ..RunRequest::default() };
    assert_eq!(merged(&shell(), &unnamed).unwrap().hostname, "0123456789ab", "an empty name asks for none");
    for bad in ["-x", ".x", "a b", "a/b", &"x".repeat(65)] {
        assert_eq!(with(&|r| r.hostname = Some(bad.to_owned())), format!("invalid hostname: {bad:?}"));
    }
    assert_eq!(with(&|r| r.command = vec!["a\0b".into()]), "a NUL byte in the command");
    assert_eq!(with(&|r| r.env = vec!["A=a\0b".into()]), "a NUL byte in the environment");
    assert_eq!(with(&|r| r.resources.memory = Some(1)), "minimum memory limit allowed is 6MB");
    let image = RuntimeConfig { stop_signal: Some("SIGFOO".into()), ..shell() };
    assert_eq!(merged(&image, &RunRequest::default()).unwrap_err().to_string(), "invalid signal: SIGFOO");
    assert_eq!(
        merged(&RuntimeConfig::default(), &RunRequest::default()).unwrap_err().to_string(),
        "no command specified"
    );
}
