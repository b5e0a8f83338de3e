//! What can be given to a build (`--call=outline`): arguments, secrets and agents that the target uses, with where they
//! are declared. And what can be built (`--call=targets`).

use std::collections::{BTreeMap, BTreeSet};

use rbuild_parser::{Diagnostic, Dockerfile, Expanded, Span};

use super::stage::StageId;
use super::{Goal, Lowering, Resolve};
use crate::graph::Graph;
use crate::op::{RunMount, RunMountKind};

/// The inputs of a target, each list in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; empty when it has none.
    pub name: String,
    /// What a comment above its `FROM` says of it.
    pub description: Option<String>,
    /// Build arguments.
    pub args: Vec<OutlineArg>,
    /// Secrets.
    pub secrets: Vec<OutlineInput>,
    /// Agents.
    pub agents: Vec<OutlineInput>,
}

/// A build argument that a target uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build.
    pub value: String,
    /// What a comment above says of it.
    pub description: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// A secret or an agent that a target uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineInput {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The instruction that uses it first.
    pub span: Span,
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; empty when it has none.
    pub name: String,
    /// What a comment above its `FROM` says of it.
    pub description: Option<String>,
    /// Whether it is built when nobody names one.
    pub is_default: bool,
    /// What it starts from, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: Option<String>,
    /// Its `FROM`.
    pub span: Span,
}

/// The stages of a Dockerfile, in order.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len();
    let target = |(number, stage): (usize, &rbuild_parser::Stage)| Target {
        name: stage.name.clone().unwrap_or_default(),
        description: stage.description.clone(),
        is_default: number + 1 == last,
        base: stage.image.raw().to_owned(),
        platform: stage.platform.as_ref().map(|platform| platform.raw().to_owned()),
        span: stage.origin.head,
    };
    file.stages.iter().enumerate().map(target).collect()
}

/// What can be given to the target of `goal`, for the first of its platforms.
pub fn outline(
    source: &rbuild_parser::Source,
    file: &Dockerfile,
    goal: &Goal,
    resolve: &dyn Resolve,
) -> Result<Outline, Vec<Diagnostic>> {
    let platform = goal.platforms.first().cloned();
    let mut lowering = Lowering::new(source, file, goal, resolve, platform, Graph::new());
    if let Err(last) = lowering.run() {
        lowering.errors.push(*last);
        lowering.errors.sort_by_key(|error| error.span.map_or(0, Span::start));
        return Err(lowering.errors);
    }
    Ok(lowering.collect(lowering.target))
}

/// What a stage uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// Arguments that are declared, by name.
    args: BTreeMap<String, Declared>,
    names: BTreeSet<String>,
    secrets: BTreeMap<String, (bool, Span)>,
    agents: BTreeMap<String, (bool, Span)>,
}

#[derive(Clone, Debug)]
struct Declared {
    value: String,
    description: Option<String>,
    span: Span,
    /// Arguments that its default is made of.
    reads: BTreeSet<String>,
}

impl Uses {
    pub(super) fn declare(
        &mut self,
        declaration: &rbuild_parser::instruction::ArgDeclaration,
        value: Option<&str>,
        span: Span,
        reads: BTreeSet<String>,
    ) {
        let (value, description) = (value.unwrap_or_default().to_owned(), declaration.description.clone());
        self.args.insert(declaration.name.value.clone(), Declared { value, description, span, reads });
    }

    pub(super) fn name(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    /// The names that a word asked for and got.
    pub(super) fn expanded(&mut self, expanded: &Expanded) {
        self.names.extend(expanded.matched.iter().cloned());
    }

    pub(super) fn mounts(&mut self, mounts: &[RunMount], span: Span) {
        for mount in mounts {
            match &mount.kind {
                RunMountKind::Secret { id, required, .. } => {
                    self.secrets.entry(id.clone()).or_insert((*required, span));
                }
                RunMountKind::Ssh { id, required, .. } => {
                    self.agents.entry(id.clone()).or_insert((*required, span));
                }
                _ => {}
            }
        }
    }

    /// The names in use, with those that defaults of others are made of.
    fn all_names(&self) -> BTreeSet<&str> {
        let mut all = BTreeSet::new();
        let mut stack: Vec<&str> = self.names.iter().map(String::as_str).collect();
        while let Some(name) = stack.pop() {
            if all.insert(name)
                && let Some(declared) = self.args.get(name)
            {
                stack.extend(declared.reads.iter().map(String::as_str));
            }
        }
        all
    }
}

impl Lowering<'_> {
    fn collect(&self, target: StageId) -> Outline {
        let mut seen = BTreeSet::new();
        let mut args: BTreeMap<&str, &Declared> = BTreeMap::new();
        let mut secrets: BTreeMap<&str, (bool, Span)> = BTreeMap::new();
        let mut agents: BTreeMap<&str, (bool, Span)> = BTreeMap::new();
        let mut stack = vec![target];
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let stage = &self.stages[id];
            for name in stage.uses.all_names() {
                if let Some(declared) = stage.uses.args.get(name) {
                    args.entry(name).or_insert(declared);
                }
            }
            for (found, uses) in [(&mut secrets, &stage.uses.secrets), (&mut agents, &stage.uses.agents)] {
                for (id, first) in uses {
                    found.entry(id).or_insert(*first);
                }
            }
            stack.extend(stage.reads.keys().rev());
            stack.extend(stage.base);
        }
        let mut args: Vec<OutlineArg> = args
            .into_iter()
            .map(|(name, declared)| OutlineArg {
                name: name.to_owned(),
                value: declared.value.clone(),
                description: declared.description.clone(),
                span: declared.span,
            })
            .collect();
        args.sort_by_key(|arg| arg.span.start());
        let inputs = |found: BTreeMap<&str, (bool, Span)>| {
            let input =
                |(name, (required, span)): (&str, (bool, Span))| OutlineInput { name: name.to_owned(), required, span };
            let mut inputs: Vec<OutlineInput> = found.into_iter().map(input).collect();
            inputs.sort_by_key(|input| input.span.start());
            inputs
        };
        Outline {
            name: self.stages[target].name.clone(),
            description: self.file.stages.get(target).and_then(|stage| stage.description.clone()),
            args,
            secrets: inputs(secrets),
            agents: inputs(agents),
        }
    }
}
