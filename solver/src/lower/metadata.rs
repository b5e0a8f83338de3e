//! Instructions that only change the configuration: no vertex, no layer. `WORKDIR` is among them and makes both.

use std::collections::BTreeSet;

use rbuild_image::{ContainerPath, Empty, Healthcheck};
use rbuild_parser::instruction::{
    Arg, CommandLine, Env, Expose, Healthcheck as HealthcheckInstruction, HealthcheckKind, Label, Pair, Volume, Workdir,
};
use rbuild_parser::{Diagnostic, ExpandError, ExpandFault, Instruction, Lookup, Span, Word, lint, port};

use super::history::{self, Effect};
use super::name::Shown;
use super::scope::is_no_variable;
use super::signal::is_signal;
use super::stage::{StageId, StageStep};
use super::{About, Fault, Lowering, all};
use crate::op::{FileAction, FileOp, Linking, MakeDirAction, Op};
use crate::vertex::CacheUse;

impl Lowering<'_> {
    /// Expands a word with what a stage has set so far.
    pub(super) fn expand(&self, id: StageId, word: &Word, step: &StageStep<'_>) -> Result<String, Fault> {
        let expanded = word.expand(&self.stages[id].state.variables);
        let expanded = expanded.map_err(|error| self.expansion_fault(step, word.span(), &error))?;
        self.check_unset(id, step, &expanded.unmatched);
        Ok(expanded.text)
    }

    pub(super) fn expand_all(&self, id: StageId, words: &[Word], step: &StageStep<'_>) -> Result<Vec<String>, Fault> {
        all(&self.beside, words.iter().map(|word| self.expand(id, word, step)))
    }

    /// A word of a step that cannot be expanded.
    pub(super) fn expansion_fault(&self, step: &StageStep<'_>, at: Span, error: &ExpandError) -> Fault {
        let error = match &error.fault {
            ExpandFault::Required { name, .. } => {
                self.doubtful.set(true);
                let help = format!("give {name} a value above, with ARG or ENV, or with --build-arg {name}=…");
                self.step_error(step, at, error.to_string()).with_help(help)
            }
            _ => self.step_error(step, at, error.to_string()),
        };
        Box::new(error)
    }

    /// An error about a place in a step. What is wrong with a trigger is shown at the `FROM` that brings it.
    pub(super) fn step_error(&self, step: &StageStep<'_>, at: Span, message: impl Into<String>) -> Diagnostic {
        self.error_at(step.span, if step.is_trigger { step.span } else { at }, message)
    }

    /// The shell of a stage's instructions in shell form.
    pub(super) fn shell(&self, id: StageId) -> Vec<String> {
        let image = &self.stages[id].state.image;
        let default: &[&str] = if image.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        let own = image.config.shell.clone().filter(|shell| !shell.is_empty());
        own.unwrap_or_else(|| default.iter().map(|word| (*word).to_owned()).collect())
    }

    pub(super) fn commit(&mut self, id: StageId, created_by: String, effect: Effect) {
        history::commit(&mut self.stages[id].state.image, created_by, effect, self.created.as_ref());
    }

    pub(super) fn lower_metadata(&mut self, id: StageId, step: &StageStep<'_>) -> Result<(), Fault> {
        self.check_command(id, &step.instruction);
        let created_by = match step.instruction.as_ref() {
            Instruction::Arg(arg) => self.lower_arg(id, step, arg)?,
            Instruction::Env(env) => self.lower_env(id, step, env)?,
            Instruction::Label(label) => self.lower_label(id, step, label)?,
            Instruction::Expose(expose) => self.lower_expose(id, step, expose)?,
            Instruction::Volume(volume) => self.lower_volume(id, step, volume)?,
            Instruction::Healthcheck(check) => self.lower_healthcheck(id, check),
            Instruction::Maintainer(maintainer) => {
                self.stages[id].state.image.author.clone_from(&maintainer.name.value);
                format!("MAINTAINER {}", maintainer.name.value)
            }
            Instruction::User(user) => {
                let user = self.expand(id, &user.user, step)?;
                self.stages[id].state.image.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Instruction::StopSignal(signal) => {
                let word = &signal.signal;
                let signal = self.expand(id, word, step)?;
                if !is_signal(&signal) {
                    let error = self.step_error(step, word.span(), format!("invalid signal: {signal}"));
                    return Err(Box::new(error.with_help("write a number or a name, for example SIGTERM")));
                }
                self.stages[id].state.image.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Shell(shell) => {
                let argv: Vec<String> = shell.argv.iter().map(|word| word.value.clone()).collect();
                let created_by = format!("SHELL {}", history::plain_list(&argv));
                self.stages[id].state.image.config.shell = Some(argv);
                created_by
            }
            Instruction::Cmd(cmd) => {
                let argv = cmd.command.argv(&self.shell(id));
                let created_by = format!("CMD {}", history::quoted_list(&argv));
                self.stages[id].has_cmd = true;
                let config = &mut self.stages[id].state.image.config;
                config.cmd = Some(argv);
                // Meant for Windows, set by BuildKit everywhere.
                config.args_escaped = true;
                created_by
            }
            Instruction::Entrypoint(entrypoint) => {
                let argv = entrypoint.command.argv(&self.shell(id));
                let created_by = format!("ENTRYPOINT {}", history::quoted_list(&argv));
                let keeps_cmd = self.stages[id].has_cmd;
                let config = &mut self.stages[id].state.image.config;
                config.entrypoint = Some(argv);
                if !keeps_cmd {
                    config.cmd = None;
                }
                created_by
            }
            Instruction::OnBuild(onbuild) => {
                self.stages[id].state.image.config.on_build.push(onbuild.trigger.clone());
                return Ok(()); // leaves no trace in the history
            }
            Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_) => {
                unreachable!("these make vertices")
            }
        };
        self.commit(id, created_by, Effect::Metadata);
        Ok(())
    }

    /// Each declaration of one `ARG` sees those before it.
    fn lower_arg(&mut self, id: StageId, step: &StageStep<'_>, arg: &Arg) -> Result<String, Fault> {
        let mut shown = Vec::with_capacity(arg.args.len());
        for declaration in &arg.args {
            let name = &declaration.name.value;
            self.warn(lint::secrets_used_in_arg_or_env::check(&arg.origin, "ARG", name), &arg.origin);
            let value = match (self.goal.build_args.get(name), &declaration.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(id, default, step)?),
                (None, None) => self.globals.get(name).map(str::to_owned),
            };
            // One that only takes over a global argument is that argument.
            let takes_over = declaration.value.is_none() && !self.goal.build_args.contains_key(name);
            let uses = &mut self.stages[id].uses;
            if !takes_over || value.is_none() {
                uses.declare(declaration, value.as_deref(), arg.origin.head, BTreeSet::new());
            }
            uses.name(name);
            let state = &mut self.stages[id].state;
            if let Some(value) = value.as_ref().filter(|_| !is_no_variable(name)) {
                state.variables.set(name, value);
            }
            shown.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            state.args.push((name.clone(), value));
        }
        Ok(format!("ARG {}", shown.join(" ")))
    }

    fn lower_env(&mut self, id: StageId, step: &StageStep<'_>, env: &Env) -> Result<String, Fault> {
        self.warn(lint::legacy_key_value_format::check(&env.origin, &env.pairs), &env.origin);
        let pairs = self.expand_pairs(id, step, &env.pairs)?;
        let mut created_by = String::from("ENV");
        for (name, value) in pairs {
            self.warn(lint::secrets_used_in_arg_or_env::check(&env.origin, "ENV", &name), &env.origin);
            created_by.push_str(&format!(" {name}={value}"));
            let state = &mut self.stages[id].state;
            // What was never set has no place yet: thousands of variables are not searched for each new one.
            match state.variables.get(&name) {
                Some(_) => state.image.config.set_env(&name, &value),
                None => state.image.config.env.push(format!("{name}={value}")),
            }
            state.variables.set(&name, &value);
        }
        Ok(created_by)
    }

    fn lower_label(&mut self, id: StageId, step: &StageStep<'_>, label: &Label) -> Result<String, Fault> {
        self.warn(lint::legacy_key_value_format::check(&label.origin, &label.pairs), &label.origin);
        let pairs = self.expand_pairs(id, step, &label.pairs)?;
        let mut created_by = String::from("LABEL");
        for (name, value) in pairs {
            created_by.push_str(&format!(" {name}={value}"));
            self.stages[id].state.image.config.labels.insert(name, value);
        }
        Ok(created_by)
    }

    /// All pairs of one instruction see what was set before it.
    fn expand_pairs(&self, id: StageId, step: &StageStep<'_>, pairs: &[Pair]) -> Result<Vec<(String, String)>, Fault> {
        let words: Vec<&Word> = pairs.iter().flat_map(|pair| [&pair.name, &pair.value]).collect();
        let texts = all(&self.beside, words.into_iter().map(|word| self.expand(id, word, step)))?;
        let mut texts = texts.into_iter();
        Ok(std::iter::from_fn(|| Some((texts.next()?, texts.next()?))).collect())
    }

    fn lower_expose(&mut self, id: StageId, step: &StageStep<'_>, expose: &Expose) -> Result<String, Fault> {
        let one = |word: &Word| {
            let words = word.expand_words(&self.stages[id].state.variables);
            let words = words.map_err(|error| self.expansion_fault(step, word.span(), &error))?;
            self.doubtful.set(self.doubtful.get() || !words.unmatched.is_empty());
            let ports = words.words.iter().map(|text| {
                let port = port::parse(text).map_err(|error| {
                    let help = "write a port or a range, for example 8080, 53/udp or 7000-7010";
                    Box::new(self.step_error(step, word.span(), error.to_string()).with_help(help))
                })?;
                self.warn(lint::expose_invalid_format::check(&expose.origin, &port), &expose.origin);
                self.warn(lint::expose_proto_casing::check(&expose.origin, &port), &expose.origin);
                Ok(port.ports)
            });
            all(&self.beside, ports)
        };
        let ports = all(&self.beside, expose.ports.iter().map(one))?;
        let ports: Vec<String> = ports.into_iter().flatten().flatten().collect();
        let exposed = ports.iter().map(|port| (port.clone(), Empty));
        self.stages[id].state.image.config.exposed_ports.extend(exposed);
        Ok(format!("EXPOSE {}", history::plain_list(&ports)))
    }

    fn lower_volume(&mut self, id: StageId, step: &StageStep<'_>, volume: &Volume) -> Result<String, Fault> {
        let paths = self.expand_all(id, &volume.paths, step)?;
        if let Some(at) = paths.iter().position(String::is_empty) {
            let message = "VOLUME specified can not be an empty string";
            return Err(Box::new(self.step_error(step, volume.paths[at].span(), message)));
        }
        let volumes = paths.iter().map(|path| (path.clone(), Empty));
        self.stages[id].state.image.config.volumes.extend(volumes);
        Ok(format!("VOLUME {}", history::plain_list(&paths)))
    }

    fn lower_healthcheck(&mut self, id: StageId, check: &HealthcheckInstruction) -> String {
        let check = match &check.check {
            HealthcheckKind::None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
            HealthcheckKind::Command { command, interval, timeout, start_period, start_interval, retries } => {
                let kind = match command {
                    CommandLine::Shell(_) => "CMD-SHELL",
                    CommandLine::Exec(_) => "CMD",
                };
                let test = [vec![kind.to_owned()], command.argv(&[])].concat();
                let (interval, timeout, retries) = (*interval, *timeout, *retries);
                let (start_period, start_interval) = (*start_period, *start_interval);
                Healthcheck { test, interval, timeout, start_period, start_interval, retries }
            }
        };
        let created_by = history::healthcheck(&check);
        self.stages[id].state.image.config.healthcheck = Some(check);
        created_by
    }

    /// `WORKDIR` makes the directory, owned by the current user, in a layer of its own; only `/` makes none.
    pub(super) fn lower_workdir(&mut self, id: StageId, step: &StageStep<'_>, workdir: &Workdir) -> Result<(), Fault> {
        let path = self.expand(id, &workdir.path, step)?;
        if path.is_empty() {
            let error = self.step_error(step, workdir.path.span(), "normalizing workdir: cannot normalize nothing");
            return Err(Box::new(error.with_help("the path is empty: give its variable a value, or a default")));
        }
        let set_before = self.stages[id].state.workdir_set;
        let found = lint::workdir_relative_path::check(&workdir.origin, &path, set_before);
        self.warn(found, &workdir.origin);
        let config = &mut self.stages[id].state.image.config;
        let path = absolute_directory(&config.working_dir, &path);
        config.working_dir.clone_from(&path);
        let owner = Some(config.user.clone()).filter(|user| !user.is_empty());
        self.stages[id].state.workdir_set = true;
        if path == "/" {
            self.commit(id, format!("WORKDIR {path}"), Effect::Metadata);
            return Ok(());
        }
        let text = self.shown_text(&workdir.origin.text, Shown::Words, &self.stages[id].state.variables);
        let name = self.name_vertex(id, &text, step.is_trigger);
        let make = MakeDirAction { path: ContainerPath::new(&path), owner, mode: 0o755 };
        let op = Op::File(FileOp { actions: vec![FileAction::MakeDir(make)], linking: Linking::Dependent });
        let cache_use = self.max_age();
        self.add_layer(id, step, op, Vec::new(), Named { name, text }, cache_use);
        self.commit(id, format!("WORKDIR {path}"), Effect::Layer);
        Ok(())
    }

    /// Adds a vertex on top of a stage's root file system, which it becomes.
    pub(super) fn add_layer(
        &mut self,
        id: StageId,
        step: &StageStep<'_>,
        op: Op,
        more_inputs: Vec<Option<crate::vertex::VertexId>>,
        named: Named,
        cache_use: CacheUse,
    ) {
        let rootfs = self.stages[id].state.rootfs.map(|rootfs| self.as_rootfs(id, rootfs));
        let inputs = [vec![rootfs], more_inputs].concat();
        let stage = self.stages[id].shown.clone();
        let about = About { span: Some(step.span), stage: &stage, text: &named.text, name: named.name, cache_use };
        let vertex = self.vertex(op, inputs, about);
        let vertex = self.graph.add(vertex);
        let state = &mut self.stages[id].state;
        state.rootfs = Some(vertex);
        state.layers.push(vertex);
    }
}

/// A vertex as people see it: with its number, and the instruction alone.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) text: String,
}

/// An absolute directory is kept to the letter; a relative one is joined and made normal.
pub(super) fn absolute_directory(current: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { ContainerPath::new(current).join(path).to_string() }
}
