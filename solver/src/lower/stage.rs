//! Stages and how they hang together: names, numbers, who reads whom, cycles, what the target reaches.
//!
//! Images that are only copied or mounted from are stages too, implicit ones, as in BuildKit: they count when it is
//! decided whether stage names are shown, and they come after the written ones.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Index, IndexMut};

use rbuild_image::{ImageConfig, Platform};
use rbuild_parser::instruction::Origin;
use rbuild_parser::lint::multiple_instructions_disallowed::Seen;
use rbuild_parser::word::{Style, expand_text};
use rbuild_parser::{Diagnostic, Instruction, NoVariables, Span, did_you_mean};

use super::outline::Uses;
use super::scope::Variables;
use super::{Fault, Lowering, fault};
use crate::op::ImageSource;
use crate::vertex::VertexId;

/// Position of a stage.
pub(super) type StageId = usize;

/// A stage on its way to vertices.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    /// Its `FROM` line, or the instruction that named an image.
    pub(super) span: Span,
    /// The `FROM` line as people see it.
    pub(super) text: String,
    /// Where that is, with the checks that a comment switches there.
    pub(super) origin: Origin,
    /// The name it was given; empty without.
    pub(super) name: String,
    /// The name that people see; empty where there is only one stage.
    pub(super) shown: String,
    /// What it starts from, expanded.
    pub(super) image: String,
    /// Whether it was written down; otherwise it stands for an image that something is read from.
    pub(super) written: bool,
    /// The stage it starts from, where that is one.
    pub(super) base: Option<StageId>,
    /// The stages it reads, each with the first instruction that does.
    pub(super) reads: BTreeMap<StageId, Span>,
    pub(super) steps: Vec<StageStep<'a>>,
    pub(super) platform: Option<Platform>,
    pub(super) ignore_cache: bool,
    /// Whether the target needs it.
    pub(super) reached: bool,
    /// Whether its base is known.
    pub(super) resolved: bool,
    /// Whether an empty image stands in for its base, because that cannot be had.
    pub(super) stood_in: bool,
    /// Whether the triggers of its base are among its steps.
    pub(super) triggered: bool,
    /// Whether its result is known.
    pub(super) lowered: bool,
    /// How many of its instructions people see numbered, and how many of them are lowered.
    pub(super) numbered: usize,
    pub(super) number: usize,
    /// Whether a `CMD` was in it.
    pub(super) has_cmd: bool,
    /// Which instructions of which only one counts were in it.
    pub(super) seen: Seen,
    /// `FROM …` with a digest, until the image has its vertex.
    pub(super) image_text: Option<String>,
    /// What it uses of what can be given to a build.
    pub(super) uses: Uses,
    pub(super) state: State,
}

/// An instruction of a stage.
#[derive(Clone, Debug)]
pub(super) struct StageStep<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// Where it is shown: for a trigger the `FROM` line.
    pub(super) span: Span,
    pub(super) is_trigger: bool,
    /// What it copies from or mounts, in the order of its `--from` and `--mount` flags; `None` is the build context.
    pub(super) sources: Vec<Option<StageId>>,
}

/// What a stage has come to: what the next instruction sees, and what a stage that starts from it inherits.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) variables: Variables,
    /// Declared arguments in order, for the history of `RUN`.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) image: ImageConfig,
    /// How much of the history was there before.
    pub(super) inherited_history: usize,
    pub(super) base: Option<ImageSource>,
    pub(super) rootfs: Option<VertexId>,
    pub(super) layers: Vec<VertexId>,
    pub(super) workdir_set: bool,
}

/// All stages of a Dockerfile.
#[derive(Debug, Default)]
pub(super) struct Stages<'a> {
    all: Vec<Stage<'a>>,
    by_name: HashMap<String, StageId>,
    /// Names that stand for stages (`--build-context NAME=target:STAGE`), both in lower case.
    aliases: BTreeMap<String, String>,
}

impl<'a> Stages<'a> {
    /// No stages yet; `aliases` are names and the stages that they stand for.
    pub(super) fn new(aliases: &[(String, String)]) -> Self {
        let lower = |(name, stage): &(String, String)| (alias_key(name), stage.to_lowercase());
        Self { aliases: aliases.iter().map(lower).collect(), ..Self::default() }
    }

    /// Adds a stage. One whose image is the name of an earlier stage, to the letter, starts from that.
    pub(super) fn add(&mut self, mut stage: Stage<'a>) -> StageId {
        let id = self.all.len();
        let image = self.aliases.get(&alias_key(&stage.image)).unwrap_or(&stage.image);
        stage.base = self.by_name.get(image).copied();
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.to_lowercase(), id);
        }
        self.all.push(stage);
        id
    }

    /// Finds a stage by name, whatever its case.
    pub(super) fn named(&self, name: &str) -> Option<StageId> {
        let name = self.aliases.get(&alias_key(name)).cloned().unwrap_or_else(|| name.to_lowercase());
        self.by_name.get(&name).copied()
    }

    /// The stage that a name stands for.
    pub(super) fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.get(&alias_key(name)).map(String::as_str)
    }

    /// Refuses names that stand for stages that there are none of.
    pub(super) fn check_aliases(&self) -> Result<(), Fault> {
        let unknown = self.aliases.iter().find(|(_, stage)| !self.by_name.contains_key(*stage));
        let Some((name, stage)) = unknown else { return Ok(()) };
        let message = format!("build context {name}=target:{stage}: target stage {stage:?} could not be found");
        let known: Vec<&str> = self.names().collect();
        Err(Box::new(Diagnostic::file_error(message).with_help(format!("the stages are: {}", known.join(", ")))))
    }

    pub(super) fn ids(&self) -> std::ops::Range<StageId> {
        0..self.all.len()
    }

    pub(super) fn last(&self) -> StageId {
        self.all.len() - 1
    }

    /// Where there is only one stage, its name is not shown.
    pub(super) fn name_for_people(&mut self) {
        if let [only] = self.all.as_mut_slice() {
            only.shown.clear();
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|stage| stage.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Marks what `wanted` stages need.
    pub(super) fn mark_reached(&mut self, wanted: Vec<StageId>) {
        let mut stack = wanted;
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut self.all[id].reached, true) {
                stack.extend(self.all[id].base);
                stack.extend(self.all[id].reads.keys());
            }
        }
    }
}

/// A name as named contexts are looked up.
fn alias_key(name: &str) -> String {
    let name = name.to_lowercase();
    name.strip_suffix(":latest").map_or(name.clone(), str::to_owned)
}

impl<'a> Index<StageId> for Stages<'a> {
    type Output = Stage<'a>;

    fn index(&self, id: StageId) -> &Stage<'a> {
        &self.all[id]
    }
}

impl<'a> IndexMut<StageId> for Stages<'a> {
    fn index_mut(&mut self, id: StageId) -> &mut Stage<'a> {
        &mut self.all[id]
    }
}

impl<'a> Lowering<'a> {
    /// The stage to build: by name, whatever its case; never by number.
    pub(super) fn find_target(&self) -> Result<StageId, Fault> {
        let Some(name) = self.goal.target.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(self.stages.last());
        };
        self.stages.named(name).ok_or_else(|| {
            let known: Vec<&str> = self.stages.names().collect();
            let near = did_you_mean(name, known.iter().copied());
            let help = match known.as_slice() {
                [] => "no stage of this Dockerfile has a name; give one with `FROM … AS NAME`".to_owned(),
                known => format!("the stages are: {}", known.join(", ")),
            };
            let message = format!("target stage {name:?} could not be found{near}");
            Box::new(Diagnostic::file_error(message).with_help(help))
        })
    }

    /// Finds out what each instruction reads.
    pub(super) fn link_stages(&mut self) {
        for id in self.stages.ids() {
            let steps = std::mem::take(&mut self.stages[id].steps);
            let mut linked = Vec::with_capacity(steps.len());
            for step in steps {
                match self.link_step(id, step) {
                    Ok(step) => linked.push(step),
                    Err(fault) => self.errors.push(*fault),
                }
            }
            self.stages[id].steps = linked;
        }
    }

    /// Finds the stages that a step reads, adding implicit ones for images.
    pub(super) fn link_step(&mut self, stage: StageId, mut step: StageStep<'a>) -> Result<StageStep<'a>, Fault> {
        let span = step.span;
        let origin = step.instruction.origin().clone();
        let place = |at: Span| if step.is_trigger { span } else { at };
        step.sources = match step.instruction.as_ref() {
            Instruction::Copy(copy) => match copy.from.as_ref().filter(|from| !from.value.is_empty()) {
                Some(from) => vec![Some(self.copy_source(&from.value.clone(), place(from.span), span, &origin)?)],
                None => vec![None],
            },
            Instruction::Add(_) => vec![None],
            Instruction::Run(run) => {
                let froms: Vec<Option<String>> = run.mounts.iter().map(|m| m.from().map(str::to_owned)).collect();
                froms
                    .into_iter()
                    .map(|from| Some(self.named_source(from.as_deref().unwrap_or("scratch"), span, &origin)))
                    .collect()
            }
            _ => Vec::new(),
        };
        for source in step.sources.iter().flatten() {
            self.stages[stage].reads.entry(*source).or_insert(span);
        }
        Ok(step)
    }

    /// `COPY --from`: a number, a name, or an image.
    fn copy_source(&mut self, from: &str, at: Span, span: Span, origin: &Origin) -> Result<StageId, Fault> {
        let expanded = expand_text(from, &Style::word(self.file.escape()), &NoVariables);
        let expanded = expanded.map_err(|error| Box::new(self.error_at(span, at, error.to_string())))?;
        if expanded.text != from {
            let message = "variable expansion is not supported for --from, \
                define a new stage with FROM using ARG from global scope as a workaround";
            return Err(Box::new(self.error_at(span, at, message)));
        }
        match from.parse::<i64>() {
            Ok(number) => {
                let id = usize::try_from(number).ok().filter(|id| *id < self.stages.ids().len());
                id.ok_or_else(|| {
                    let help = "stages are counted from 0 in the order of their FROM lines";
                    let message = format!("invalid stage index {number}");
                    Box::new(self.error_at(span, at, message).with_help(help))
                })
            }
            Err(_) => Ok(self.named_source(from, span, origin)),
        }
    }

    /// An error about a place in an instruction. BuildKit points at an instruction's first line whatever is wrong with it,
    /// so a place further down becomes a label.
    pub(super) fn error_at(&self, instruction: Span, at: Span, message: impl Into<String>) -> Diagnostic {
        let between = self.source.text().get(instruction.start()..at.start());
        match between {
            Some(between) if between.contains('\n') => Diagnostic::error(instruction, message).with_label(at, "here"),
            Some(_) => Diagnostic::error(at, message),
            None => Diagnostic::error(instruction, message),
        }
    }

    fn named_source(&mut self, from: &str, span: Span, origin: &Origin) -> StageId {
        if let Some(id) = self.stages.named(from) {
            return id;
        }
        let (image, text) = (from.to_owned(), format!("FROM {from}"));
        let state = State::default();
        self.stages.add(Stage {
            span,
            text,
            origin: origin.clone(),
            name: String::new(),
            shown: String::new(),
            image,
            written: false,
            base: None,
            reads: BTreeMap::new(),
            steps: Vec::new(),
            platform: None,
            ignore_cache: false,
            reached: false,
            resolved: false,
            stood_in: false,
            triggered: true,
            lowered: false,
            numbered: 0,
            number: 0,
            has_cmd: false,
            seen: Seen::default(),
            image_text: None,
            uses: Uses::default(),
            state,
        })
    }

    /// Refuses stages that read each other, also where the target needs none of them.
    pub(super) fn check_cycles(&self) -> Result<(), Fault> {
        let mut visits = vec![Visit::New; self.stages.ids().len()];
        for start in self.stages.ids() {
            let mut path: Vec<Walk> = Vec::new();
            self.enter(start, &mut visits, &mut path);
            while let Some(walk) = path.last_mut() {
                let Some((next, span)) = walk.todo.pop() else {
                    visits[walk.stage] = Visit::Done;
                    path.pop();
                    continue;
                };
                walk.by = span;
                if visits[next] == Visit::Open {
                    let cycle: Vec<&Walk> = path.iter().skip_while(|walk| walk.stage != next).collect();
                    return Err(self.circular(start, &cycle));
                }
                self.enter(next, &mut visits, &mut path);
            }
        }
        Ok(())
    }

    fn circular(&self, start: StageId, cycle: &[&Walk]) -> Fault {
        let message = format!("circular dependency detected on stage: {}", self.stages[start].shown);
        let mut diagnostic = fault(cycle[0].by, message);
        for (at, walk) in cycle.iter().enumerate() {
            let next = &self.stages[cycle[(at + 1) % cycle.len()].stage].shown;
            diagnostic = Box::new(diagnostic.with_label(walk.by, format!("reads {next}")));
        }
        diagnostic
    }

    fn enter(&self, stage: StageId, visits: &mut [Visit], path: &mut Vec<Walk>) {
        if visits[stage] == Visit::New {
            visits[stage] = Visit::Open;
            let mut todo: Vec<_> = self.stages[stage].reads.iter().map(|(id, span)| (*id, *span)).collect();
            todo.reverse();
            path.push(Walk { stage, by: self.stages[stage].span, todo });
        }
    }
}

/// A stage on the way through those that it reads.
struct Walk {
    stage: StageId,
    /// The instruction that reads the next one.
    by: Span,
    todo: Vec<(StageId, Span)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Done,
}
