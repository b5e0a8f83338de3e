//! Which steps may be answered by earlier results: `--no-cache` and its finer forms, and `--cache-max-age`.

use std::fmt;
use std::str::FromStr;

use rbuild_parser::Diagnostic;

use super::Lowering;
use super::stage::{StageId, StageStep};
use crate::vertex::CacheUse;

/// How a user names one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepName {
    /// By any line of its instruction, from 1.
    Line(u32),
    /// By its stage, name or position from 0, and its number there as people see it: `[build 2/5]` is `build:2`.
    Numbered {
        /// The stage.
        stage: String,
        /// The number, from 1.
        number: usize,
    },
}

/// A text that names no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither a line of the Dockerfile nor STAGE:NUMBER")]
pub struct InvalidStepName {
    text: String,
}

impl FromStr for StepName {
    type Err = InvalidStepName;

    fn from_str(text: &str) -> Result<Self, InvalidStepName> {
        let parsed = match text.rsplit_once(':') {
            // `L12` is how `cache why` names a line.
            None => text.strip_prefix('L').unwrap_or(text).parse().ok().filter(|line| *line > 0).map(Self::Line),
            Some((stage, number)) => {
                let number = number.parse().ok().filter(|number| *number > 0 && !stage.is_empty());
                number.map(|number| Self::Numbered { stage: stage.to_owned(), number })
            }
        };
        parsed.ok_or_else(|| InvalidStepName { text: text.to_owned() })
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "{line}"),
            Self::Numbered { stage, number } => write!(f, "{stage}:{number}"),
        }
    }
}

impl Lowering<'_> {
    /// Whether the step that was named last may be answered from the cache.
    pub(super) fn cache_use(&mut self, id: StageId, step: &StageStep<'_>) -> CacheUse {
        let named: Vec<usize> = (0..self.goal.no_cache_steps.len())
            .filter(|at| self.is_named(&self.goal.no_cache_steps[*at], id, step))
            .collect();
        self.steps_found.extend(&named);
        if self.stages[id].ignore_cache || !named.is_empty() {
            return CacheUse::Ignored;
        }
        self.max_age()
    }

    /// What holds for steps that `--no-cache` does not mean.
    pub(super) fn max_age(&self) -> CacheUse {
        self.goal.oldest.map_or(CacheUse::Allowed, CacheUse::Since)
    }

    fn is_named(&self, name: &StepName, id: StageId, step: &StageStep<'_>) -> bool {
        let stage = &self.stages[id];
        match name {
            StepName::Line(line) => {
                let whole = if step.is_trigger { step.span } else { step.instruction.origin().span };
                let first = self.source.position(whole.start()).line;
                let last = self.source.position(whole.end().saturating_sub(1).max(whole.start())).line;
                (first..=last).contains(line)
            }
            StepName::Numbered { stage: name, number } => {
                let is_stage = stage.name.eq_ignore_ascii_case(name) || (stage.written && name.parse() == Ok(id));
                is_stage && !name.is_empty() && *number == stage.number
            }
        }
    }

    /// A step that was named and is none is a mistake: it would be cached unseen.
    pub(super) fn check_named_steps(&mut self) {
        for (at, name) in self.goal.no_cache_steps.iter().enumerate() {
            if !self.steps_found.contains(&at) {
                let message = format!("--no-cache-step {name}: what is built has no step there");
                let help = "name a RUN, COPY or ADD by a line of it, or by STAGE:NUMBER as progress shows it: \
                            [build 2/5] is build:2";
                self.errors.push(Diagnostic::file_error(message).with_help(help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::Goal;
    use crate::lower::tests::{goal, plan, plan_for};

    #[test]
    fn a_step_is_a_line_or_a_number_in_a_stage() {
        let numbered = |stage: &str, number| StepName::Numbered { stage: stage.to_owned(), number };
        let cases =
            [("7", Some(StepName::Line(7))), ("build:2", Some(numbered("build", 2))), ("0:3", Some(numbered("0", 3)))];
        for (text, step) in cases {
            let parsed: StepName = text.parse().unwrap();
            assert_eq!((Some(&parsed), parsed.to_string().as_str()), (step.as_ref(), text));
        }
        assert_eq!("L12".parse(), Ok(StepName::Line(12)), "as `cache why` says it");
        for wrong in ["", "0", "x", "L", "L0", ":2", "a:0", "a:", "-1", "a:b"] {
            assert!(wrong.parse::<StepName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn named_steps_run_again_and_a_name_without_a_step_is_refused() {
        let text = "FROM a AS one\nRUN x\\\n y\nENV A=1\nRUN z\nFROM b\nCOPY --from=one /x /x\nWORKDIR /w\nRUN y\n";
        let ignored = |name: &str| {
            let goal = Goal { no_cache_steps: vec![name.parse().unwrap()], ..goal() };
            let plan = plan_for(text, &goal, None)?;
            let ids = plan.graph.ids();
            let ignored = ids.filter(|id| plan.graph.vertex(*id).cache_use == CacheUse::Ignored);
            Ok::<_, Vec<String>>(ignored.map(|id| plan.graph.vertex(id).name.clone()).collect::<Vec<_>>())
        };
        for (name, expected) in [
            ("2", "[one 2/3] RUN x y"),
            ("3", "[one 2/3] RUN x y"),
            ("one:2", "[one 2/3] RUN x y"),
            ("ONE:3", "[one 3/3] RUN z"),
            ("0:3", "[one 3/3] RUN z"),
            ("1:2", "[stage-1 2/4] COPY --from=one /x /x"),
            ("9", "[stage-1 4/4] RUN y"),
        ] {
            assert_eq!(ignored(name).unwrap(), [expected], "{name}");
        }
        for name in ["4", "99", "one:9", "one:1", "nowhere:2", "1:3"] {
            let error = format!("0: --no-cache-step {name}: what is built has no step there");
            assert_eq!(ignored(name).unwrap_err(), [error]);
        }
    }

    #[test]
    fn a_limit_on_age_is_a_field_of_every_step() {
        let oldest = jiff::Timestamp::from_second(1_000).unwrap();
        let goal = Goal { oldest: Some(oldest), no_cache_steps: vec!["2".parse().unwrap()], ..goal() };
        let plan = plan("FROM a\nRUN x\nWORKDIR /w\nCOPY x /x\nRUN y\n", &goal);
        let uses: Vec<_> = plan.graph.ids().map(|id| plan.graph.vertex(id).cache_use).collect();
        let since = CacheUse::Since(oldest);
        assert_eq!(uses, [CacheUse::Allowed, CacheUse::Ignored, since, CacheUse::Allowed, since, since]);
    }
}
