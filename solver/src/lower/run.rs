//! `RUN`: the command with its here-documents, and everything that its sandbox is told.

use rbuild_image::ContainerPath;
use rbuild_parser::Diagnostic;
use rbuild_parser::instruction::{Network, Run, Script, Security};
use rbuild_parser::lint::secrets_used_in_arg_or_env::names_secret;

use super::history::{self, Effect};
use super::metadata::Named;
use super::name::Shown;
use super::scope::{Variables, proxies};
use super::stage::{StageId, StageStep};
use super::{Fault, Lowering};
use crate::op::{Op, RunMount, RunMountKind, RunNetwork, RunOp, RunSecurity};

/// The host name of steps when nobody sets one.
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";
/// The size of `/dev/shm` when nobody sets one.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;
/// Where here-documents that are programs are put.
const PIPES: &str = "/dev/pipes";

impl Lowering<'_> {
    pub(super) fn lower_run(&mut self, id: StageId, step: &StageStep<'_>, run: &Run) -> Result<(), Fault> {
        let shell = self.shell(id);
        let mut mounts = Vec::new();
        let mut shown = run.origin.text.clone();
        let in_shell = |text: String| shell.iter().cloned().chain([text]).collect::<Vec<_>>();
        let script = run.script();
        let argv = match &script {
            Script::Exec(argv) => argv.clone(),
            Script::Shell(text) => in_shell(text.clone()),
            Script::File { name, content } => {
                let target = ContainerPath::new(PIPES).join(name);
                let kind = RunMountKind::Inline { content: content.clone(), mode: 0o755 };
                let argv = in_shell(target.to_string());
                mounts.push(RunMount { target: Some(target), kind });
                argv
            }
        };
        if let Some(summary) = run.summary() {
            shown.push_str(&format!(" ({summary})"));
        }
        let network = self.network(step, run)?;
        let security = self.security(step, run)?;
        if let Some(device) = run.devices.first() {
            let message = format!("device {} cannot be given: rbuild has no CDI devices", device.name);
            return Err(Box::new(Diagnostic::error(device.span, message).with_help("remove --device")));
        }
        let mut inputs = Vec::new();
        let resolved = self.lower_mounts(id, step, run, &mut inputs)?;
        self.stages[id].uses.mounts(&resolved, run.origin.span);
        let mut masked = self.stages[id].state.variables.clone();
        mask_secrets(&resolved, &mut masked);
        mounts.extend(resolved);

        let mut env = self.stages[id].state.variables.pairs();
        env.extend(agent_variable(&mounts, &env));
        let stage = &self.stages[id];
        let config = &stage.state.image.config;
        let is_set =
            |name: &str| config.env.iter().any(|pair| pair.split_once('=').is_some_and(|(set, _)| set == name));
        let declared = stage.state.args.iter().map(|(name, _)| name);
        let arguments = declared.filter(|name| !is_set(name)).cloned().collect();
        let op = RunOp {
            argv: argv.clone(),
            env,
            arguments,
            proxy_env: proxies(&self.goal.build_args),
            cwd: ContainerPath::new(&config.working_dir),
            user: config.user.clone(),
            mounts,
            network,
            security,
            platform: stage.platform.clone().unwrap_or_else(|| self.target_platform.clone()),
            hostname: self.hostname(),
            extra_hosts: self.goal.extra_hosts.clone(),
            shm_size: self.goal.shm_size.filter(|size| *size > 0).unwrap_or(DEFAULT_SHM_SIZE),
            ulimits: self.goal.ulimits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard)).collect(),
        };
        let created_by = history::run(&argv, &stage.state.args, &stage.state.variables);
        let text = self.shown_text(&shown, Shown::Command, &masked);
        let name = self.name_vertex(id, &text, step.is_trigger);
        let cache_use = self.cache_use(id, step);
        self.add_layer(id, step, Op::Run(Box::new(op)), inputs, Named { name, text }, cache_use);
        self.commit(id, created_by, Effect::Layer);
        Ok(())
    }

    /// As told, or as the build argument says that BuildKit has for it.
    fn hostname(&self) -> String {
        let argument = self.goal.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty());
        self.goal.hostname.as_ref().or(argument).cloned().unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned())
    }

    fn network(&self, step: &StageStep<'_>, run: &Run) -> Result<RunNetwork, Fault> {
        match run.network {
            Network::Default => Ok(self.goal.network),
            Network::None => Ok(RunNetwork::None),
            Network::Host if self.goal.entitlements.network_host => Ok(RunNetwork::Host),
            Network::Host => Err(not_allowed(step, "network.host")),
        }
    }

    fn security(&self, step: &StageStep<'_>, run: &Run) -> Result<RunSecurity, Fault> {
        match run.security {
            Security::Sandbox => Ok(RunSecurity::Sandbox),
            Security::Insecure if self.goal.entitlements.security_insecure => Ok(RunSecurity::Insecure),
            Security::Insecure => Err(not_allowed(step, "security.insecure")),
        }
    }
}

fn not_allowed(step: &StageStep<'_>, entitlement: &str) -> Fault {
    let help = format!("if you trust this Dockerfile, build with --allow {entitlement}");
    Box::new(Diagnostic::error(step.span, format!("{entitlement} is not allowed")).with_help(help))
}

/// A variable that holds a secret, or whose name says so, is shown as one: names of steps are kept.
fn mask_secrets(mounts: &[RunMount], variables: &mut Variables) {
    let named: Vec<String> = variables.names().filter(|name| names_secret(name)).map(str::to_owned).collect();
    for name in named {
        variables.set(&name, "****");
    }
    for mount in mounts {
        if let RunMountKind::Secret { env: Some(name), .. } = &mount.kind {
            variables.set(name, "****");
        }
    }
}

/// `SSH_AUTH_SOCK` names the first agent's socket, even where no agent is given.
fn agent_variable(mounts: &[RunMount], env: &[String]) -> Option<String> {
    let is_agent = |mount: &&RunMount| matches!(mount.kind, RunMountKind::Ssh { .. });
    let target = mounts.iter().find(is_agent)?.target.as_ref()?;
    let set = env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK="));
    (!set).then(|| format!("SSH_AUTH_SOCK={target}"))
}
