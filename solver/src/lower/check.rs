//! Build checks that need expanded words or resolved images; those that need only the text have run in the parser.

use std::collections::BTreeSet;

use rbuild_image::{ImageConfig, ImageRef, Platform};
use rbuild_parser::instruction::Origin;
use rbuild_parser::{Diagnostic, Expanded, Instruction, Stage as From, lint};

use super::scope::Variables;
use super::stage::{StageId, StageStep};
use super::{Lowering, Trust};

impl Lowering<'_> {
    /// Keeps a finding unless the file or a comment above its instruction switched it off.
    pub(super) fn warn(&self, findings: impl IntoIterator<Item = Diagnostic>, origin: &Origin) {
        let wanted = |finding: &Diagnostic| self.file.checks.wants(finding, origin.checks.as_deref());
        self.warnings.borrow_mut().extend(findings.into_iter().filter(wanted));
    }

    /// Names that a word of an instruction asked for in vain.
    pub(super) fn check_unset(&self, id: StageId, step: &StageStep<'_>, unset: &BTreeSet<String>) {
        if unset.is_empty() {
            return;
        }
        self.doubtful.set(true);
        // A base that is not known may set them.
        if self.stages[id].stood_in || self.trust == Trust::Partial {
            return;
        }
        let (origin, state) = (step.instruction.origin(), &self.stages[id].state);
        let declared = |name: &str| state.args.iter().any(|(known, _)| known == name);
        self.warn(lint::undefined_var::check(origin, unset, declared, state.variables.names()), origin);
    }

    /// The base name and platform of a `FROM`, as they were expanded.
    pub(super) fn check_from(&self, from: &From, image: &Expanded, platform: Option<(&Expanded, &Platform)>) {
        let origin = &from.origin;
        let globals = self.file.global_args.iter().flat_map(|arg| &arg.args);
        let declared: BTreeSet<&str> =
            globals.map(|declaration| declaration.name.value.as_str()).chain(self.globals.names()).collect();
        self.warn(lint::undefined_arg_in_from::check(origin, &image.unmatched, &declared), origin);
        let (Some((expanded, parsed)), Some(word)) = (platform, &from.platform) else { return };
        self.warn(lint::undefined_arg_in_from::check(origin, &expanded.unmatched, &declared), origin);
        let target = rbuild_parser::Lookup::get(&self.globals, "TARGETPLATFORM");
        self.warn(lint::redundant_target_platform::check(origin, word, expanded, target), origin);
        let constant = &lint::from_platform_flag_const_disallowed::check;
        self.warn(constant(from, expanded, &parsed.os, &parsed.architecture), origin);
    }

    /// Base names that are none without build arguments; `automatic` are the arguments that need no declaration.
    pub(super) fn check_default_bases(&self, automatic: &Variables) {
        let mut defaults = automatic.clone();
        for declaration in self.file.global_args.iter().flat_map(|arg| &arg.args) {
            if let Some(value) = &declaration.value {
                let Ok(value) = value.expand(&defaults) else { return };
                defaults.set(&declaration.name.value, &value.text);
            }
        }
        for from in &self.file.stages {
            let Ok(image) = from.image.expand(&defaults) else { return };
            if image.text.parse::<ImageRef>().is_err() {
                self.warn([lint::invalid_default_arg_in_from::finding(from)], &from.origin);
            }
        }
    }

    pub(super) fn check_platform(&self, id: StageId, image: &str, wanted: &Platform, config: &ImageConfig) {
        if wanted.os == config.os && wanted.architecture == config.architecture {
            return;
        }
        let origin = &self.stages[id].origin;
        let (wanted, actual) = (wanted.normalised().to_string(), config.platform().to_string());
        self.warn([lint::invalid_base_image_platform::finding(origin, image, &wanted, &actual)], origin);
    }

    /// Instructions of which only the last counts, and those that put a shell around a program.
    pub(super) fn check_command(&mut self, id: StageId, instruction: &Instruction) {
        let origin = instruction.origin();
        let found = self.stages[id].seen.check(instruction);
        self.warn(found, origin);
        let has_shell = self.stages[id].state.image.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        let command = match instruction {
            Instruction::Cmd(cmd) => &cmd.command,
            Instruction::Entrypoint(entrypoint) => &entrypoint.command,
            _ => return,
        };
        // So may it set a shell.
        if !self.stages[id].stood_in {
            self.warn(lint::json_args_recommended::check(origin, command, has_shell), origin);
        }
    }

    pub(super) fn check_ignored(&self, step: &StageStep<'_>, source: &str) {
        if let Some(ignore) = &self.goal.ignore {
            let instruction = step.instruction.as_ref();
            self.warn(lint::copy_ignored_file::check(instruction, source, ignore), instruction.origin());
        }
    }
}
