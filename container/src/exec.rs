//! What is executed in a container that runs: the container's own configuration with what `exec` changes of it.
//!
//! Pure: what the machine has to say (the user's ids, the caller's capabilities) is passed in. By Docker's rules a process that
//! enters is confined like the container's own, and `--privileged` gives it capabilities but no wider system call filter.

use rbuild_executor::{ALL_CAPABILITIES, Capabilities, ExecSpec, ProcessSpec, users::User};
use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

use crate::config::ContainerConfig;
use crate::create::process_environment;
use crate::id::ContainerId;
use crate::request::Console;
use crate::sandbox::with_groups;

/// A command for a container that runs, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; the container's entry point has no part in it.
    pub command: Vec<String>,
    /// `-e` and `--env-file`: `NAME=value`, or a bare `NAME` that takes the variable away.
    pub env: Vec<String>,
    /// `-u`; the container's own user without it.
    pub user: Option<String>,
    /// `-w`; the container's own without it.
    pub working_dir: Option<String>,
    /// `-t` and `-i`.
    pub console: Console,
    /// `--privileged`: all capabilities that the caller may hand out.
    pub privileged: bool,
}

/// What only the machine knows about a command.
pub(crate) struct ExecFacts {
    /// The user, looked up in the container.
    pub(crate) user: User,
    /// Further groups, looked up in the container.
    pub(crate) groups: Vec<u32>,
    /// The capabilities the caller may hand out.
    pub(crate) bounding: Capabilities,
}

impl ExecRequest {
    /// Who executes it.
    pub(crate) fn user<'a>(&'a self, config: &'a ContainerConfig) -> &'a str {
        self.user.as_deref().filter(|user| !user.is_empty()).unwrap_or(&config.user)
    }

    /// Where it begins; the working directory that was asked for as an error when it is relative.
    fn cwd(&self, config: &ContainerConfig) -> Result<ContainerPath, String> {
        match self.working_dir.as_deref().filter(|path| !path.is_empty()) {
            None => Ok(config.working_dir.clone()),
            Some(path) if path.starts_with('/') => Ok(ContainerPath::new(path)),
            Some(path) => Err(path.to_owned()),
        }
    }
}

/// The process to send into a container's sandbox; the relative working directory that was asked for as an error.
pub(crate) fn exec_spec(
    id: &ContainerId,
    config: &ContainerConfig,
    request: &ExecRequest,
    facts: ExecFacts,
) -> Result<ExecSpec, String> {
    let env: Vec<String> = config.env.iter().chain(&request.env).cloned().collect();
    let all = || ALL_CAPABILITIES.iter().filter(|name| facts.bounding.contains(name)).map(|name| (*name).to_owned());
    Ok(ExecSpec {
        id: id.to_string(),
        process: ProcessSpec {
            argv: request.command.clone(),
            env: process_environment(&env, &config.hostname, request.console.terminal, &facts.user.home),
            cwd: request.cwd(config)?,
            user: with_groups(facts.user.ids, facts.groups),
            rlimits: config.ulimits.clone(),
            terminal: request.console.terminal,
        },
        capabilities: if request.privileged { all().collect() } else { config.capabilities.clone() },
        sandbox_capabilities: config.capabilities.clone(),
        no_new_privileges: config.no_new_privileges,
        seccomp: config.seccomp.clone(),
        apparmor: config.apparmor.clone(),
        limits: config.resources.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;
    use rbuild_executor::{Ids, Seccomp};

    fn facts() -> ExecFacts {
        let ids = Ids { uid: 5, gid: 6, groups: vec![6] };
        ExecFacts {
            user: User { ids, name: Some("app".into()), home: "/home/app".into() },
            groups: vec![6, 7],
            bounding: Capabilities::from_names(&["CHOWN", "SYS_ADMIN"]).unwrap(),
        }
    }

    fn spec(change: impl FnOnce(&mut ContainerConfig, &mut ExecRequest)) -> Result<ExecSpec, String> {
        let mut record = sample("web");
        let mut request = ExecRequest { command: vec!["ls".into()], ..ExecRequest::default() };
        change(&mut record.config, &mut request);
        exec_spec(&record.id, &record.config, &request, facts())
    }

    #[test]
    fn a_command_is_executed_as_the_containers_own_process_would_be() {
        let spec = spec(|config, _| {
            config.entrypoint = vec!["/init".into()];
            config.env = vec!["A=1".into()];
            config.working_dir = ContainerPath::new("/srv");
            config.no_new_privileges = true;
            config.seccomp = Seccomp::Unconfined;
            config.capabilities = vec!["KILL".into()];
            config.hostname = "h".into();
        })
        .unwrap();
        assert_eq!(spec.process.argv, ["ls"], "without the entry point");
        let env = spec.process.env.join(" ");
        assert!(env.ends_with("HOSTNAME=h A=1 HOME=/home/app") && !env.contains("TERM"), "{env}");
        assert_eq!((spec.process.cwd, spec.process.terminal), (ContainerPath::new("/srv"), false));
        assert_eq!(spec.process.user, Ids { uid: 5, gid: 6, groups: vec![6, 7] });
        assert_eq!((spec.capabilities, spec.sandbox_capabilities), (vec!["KILL".to_owned()], vec!["KILL".to_owned()]));
        assert!(spec.no_new_privileges && spec.seccomp == Seccomp::Unconfined);
    }

    #[test]
    fn what_was_asked_for_comes_before_the_containers_own() {
        let spec = spec(|config, request| {
            config.env = vec!["A=1".into(), "B=2".into()];
            config.user = "web".into();
            request.env = vec!["A=3".into(), "B".into(), "C=4".into()];
            request.working_dir = Some("/data".into());
            request.console.terminal = true;
            request.privileged = true;
            request.user = Some("app".into());
            assert_eq!(request.user(config), "app");
            request.user = Some(String::new());
            assert_eq!(request.user(config), "web");
        })
        .unwrap();
        let env = spec.process.env.join(" ");
        assert!(env.contains("TERM=xterm A=3 C=4") && !env.contains("B="), "{env}");
        assert_eq!(spec.process.cwd, ContainerPath::new("/data"));
        assert_eq!(spec.capabilities, ["CHOWN", "SYS_ADMIN"], "what the caller has");
        assert_eq!(spec.sandbox_capabilities.len(), 14, "the filter stays");
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        assert_eq!(spec(|_, request| request.working_dir = Some("data".into())).unwrap_err(), "data");
        assert!(spec(|_, request| request.working_dir = Some(String::new())).is_ok());
    }
}
