//! `ONBUILD`: triggers of a base become the first instructions of the stage that starts from it, one level deep.

use std::borrow::Cow;

use rbuild_parser::{Diagnostic, Instruction, parse_trigger};

use super::stage::{StageId, StageStep};
use super::{Fault, Lowering, fault};

impl<'a> Lowering<'a> {
    /// Puts the triggers of reached stages in front of their instructions. True when they read something, so that
    /// more may be reached now.
    pub(super) fn add_triggers(&mut self) -> bool {
        let mut reads_more = false;
        for id in self.stages.ids() {
            let stage = &self.stages[id];
            if !stage.reached || stage.triggered {
                continue;
            }
            self.stages[id].triggered = true;
            let triggers = self.triggers_of_base(id);
            match self.read_triggers(id, &triggers) {
                Ok(steps) => {
                    reads_more |= steps.iter().any(|step| step.sources.iter().any(Option::is_some));
                    let stage = &mut self.stages[id];
                    stage.numbered += steps.len();
                    stage.steps.splice(0..0, steps);
                }
                Err(fault) => self.errors.push(*fault),
            }
        }
        reads_more
    }

    fn triggers_of_base(&mut self, id: StageId) -> Vec<String> {
        match self.stages[id].base {
            Some(base) => {
                let trigger = |step: &StageStep<'_>| match step.instruction.as_ref() {
                    Instruction::OnBuild(onbuild) => Some(onbuild.trigger.clone()),
                    _ => None,
                };
                self.stages[base].steps.iter().filter_map(trigger).collect()
            }
            None => std::mem::take(&mut self.stages[id].state.image.config.on_build),
        }
    }

    /// Reads triggers as Dockerfile text; what is wrong with one is shown at the `FROM` line.
    fn read_triggers(&mut self, id: StageId, triggers: &[String]) -> Result<Vec<StageStep<'a>>, Fault> {
        let span = self.stages[id].span;
        let mut steps = Vec::with_capacity(triggers.len());
        for trigger in triggers {
            let parsed = parse_trigger(trigger, self.file.escape(), span);
            if let Some(error) = parsed.diagnostics.into_iter().find(Diagnostic::is_error) {
                let label = format!("a trigger of the base: ONBUILD {trigger}");
                return Err(Box::new(Diagnostic { span: Some(span), ..error }.with_label(span, label)));
            }
            let Some(instruction) = parsed.value else {
                return Err(fault(span, "onbuild trigger should be a single expression"));
            };
            let step = StageStep { instruction: Cow::Owned(instruction), span, is_trigger: true, sources: Vec::new() };
            steps.push(self.link_step(id, step)?);
        }
        Ok(steps)
    }
}
