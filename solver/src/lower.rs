//! `Dockerfile` → graph and image configuration, exactly as BuildKit's Dockerfile front end means it
//! (`frontend/dockerfile/dockerfile2llb`). Pure: what lies outside is asked of a [`Resolve`].
//!
//! 1. Global arguments, then every `FROM` line: base names and platforms expanded ([`from`]).
//! 2. Who reads whom; cycles; what the target reaches ([`stage`]). Triggers of reached bases are put in front of the
//!    stages' own instructions ([`onbuild`]).
//! 3. Each reached stage in order, instruction by instruction: variables ([`scope`]), metadata ([`metadata`]), files
//!    ([`copy`], [`remote`]), commands ([`run`], [`mount`]). Each effect adds a vertex; metadata adds none.
//!
//! Does not stop at the first mistake: an instruction that cannot be lowered is skipped and reported. A base that cannot
//! be had is stood in for by an empty image, and nothing is said about its stage that its variables might change.

mod cache_use;
mod check;
mod chmod;
mod copy;
mod from;
mod git_ref;
mod goal;
mod history;
mod metadata;
mod mount;
mod name;
mod onbuild;
mod outline;
mod plan;
mod remote;
mod resolve;
mod run;
mod scope;
mod signal;
mod stage;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use rbuild_image::Platform;
use rbuild_parser::{Diagnostic, Dockerfile, Span};

pub use cache_use::{InvalidStepName, StepName};
pub use goal::{Entitlements, Goal, NoCache, StageChoice, Ulimit};
pub use outline::{Outline, OutlineArg, OutlineInput, Target, outline, targets};
pub use plan::{ImagePlan, Plan, PlatformPlan};
pub use remote::{git_context, http_context};
pub use resolve::{NamedContext, Resolve, ResolveError, ResolvedImage};

use crate::graph::Graph;
use crate::op::{ContextSource, Op, Source};
use crate::vertex::{CacheUse, Origin, Vertex, VertexId};
use outline::Uses;
use scope::Variables;
use stage::{StageId, Stages};

/// A diagnostic on its way up.
type Fault = Box<Diagnostic>;

/// Lowers a Dockerfile for all platforms of `goal` into one graph, or says all that is wrong with it: errors in the
/// order of the text, then warnings.
pub fn lower(
    source: &rbuild_parser::Source,
    file: &Dockerfile,
    goal: &Goal,
    resolve: &dyn Resolve,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut graph = Graph::new();
    let mut platforms = Vec::new();
    let mut errors: Vec<Diagnostic> = Vec::new();
    let mut warnings: Vec<Diagnostic> = Vec::new();
    let wanted = match goal.platforms.as_slice() {
        [] => vec![None],
        some => some.iter().map(|platform| Some(platform.clone())).collect(),
    };
    for platform in wanted {
        let mut lowering = Lowering::new(source, file, goal, resolve, platform, std::mem::take(&mut graph));
        match lowering.run() {
            Ok(plan) => platforms.push(plan),
            Err(fault) => lowering.errors.push(*fault),
        }
        graph = lowering.graph;
        add_new(&mut errors, lowering.errors);
        add_new(&mut warnings, lowering.warnings.into_inner());
    }
    if errors.is_empty() {
        return Ok(Plan { graph, platforms, warnings });
    }
    errors.sort_by_key(|error| error.span.map_or(0, Span::start));
    errors.extend(warnings);
    Err(errors)
}

/// What else is wrong with a file of which parts could not be read, as far as that can be told without asking for base
/// images; `replaced` are the stages that named contexts stand in for.
pub fn more_faults(
    source: &rbuild_parser::Source,
    file: &Dockerfile,
    goal: &Goal,
    replaced: &dyn Fn(&str) -> bool,
) -> Vec<Diagnostic> {
    let platform = goal.platforms.first().cloned();
    let nothing = resolve::Nothing { replaced };
    let mut lowering = Lowering::new(source, file, goal, &nothing, platform, Graph::new());
    lowering.trust = Trust::Partial;
    if let Err(last) = lowering.run() {
        lowering.errors.push(*last);
    }
    let mut errors = lowering.errors;
    errors.sort_by_key(|error| error.span.map_or(0, Span::start));
    errors.extend(lowering.warnings.into_inner());
    errors
}

/// How much of a file could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// All of it.
    Whole,
    /// Parts; base images are not asked for.
    Partial,
}

/// Platforms mostly find the same things.
fn add_new(known: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for diagnostic in more {
        if !known.contains(&diagnostic) {
            known.push(diagnostic);
        }
    }
}

/// The work of lowering for one platform.
struct Lowering<'a> {
    source: &'a rbuild_parser::Source,
    file: &'a Dockerfile,
    goal: &'a Goal,
    resolve: &'a dyn Resolve,
    /// What the image is for.
    target_platform: Platform,
    /// Nobody asked for a platform: the base image may decide.
    implicit_platform: bool,
    /// The created times of this build.
    created: Option<String>,
    globals: Variables,
    /// The global arguments, for outlines.
    declared: Uses,
    stages: Stages<'a>,
    target: StageId,
    graph: Graph,
    trust: Trust,
    /// Whether a variable was asked for in vain since the instruction at hand began.
    doubtful: Cell<bool>,
    /// What is wrong with the instruction at hand beside the fault that it ends with.
    beside: RefCell<Vec<Diagnostic>>,
    /// Which of the steps that were named with `--no-cache-step` there are.
    steps_found: BTreeSet<usize>,
    errors: Vec<Diagnostic>,
    warnings: RefCell<Vec<Diagnostic>>,
}

impl<'a> Lowering<'a> {
    fn new(
        source: &'a rbuild_parser::Source,
        file: &'a Dockerfile,
        goal: &'a Goal,
        resolve: &'a dyn Resolve,
        platform: Option<Platform>,
        graph: Graph,
    ) -> Self {
        Self {
            source,
            file,
            goal,
            resolve,
            implicit_platform: platform.is_none(),
            target_platform: platform.unwrap_or_else(|| goal.build_platform.clone()),
            created: None,
            globals: Variables::default(),
            declared: Uses::default(),
            stages: Stages::new(&goal.stage_contexts),
            target: 0,
            graph,
            trust: Trust::Whole,
            doubtful: Cell::new(false),
            beside: RefCell::default(),
            steps_found: BTreeSet::new(),
            errors: Vec::new(),
            warnings: RefCell::default(),
        }
    }

    fn run(&mut self) -> Result<PlatformPlan, Fault> {
        self.created = self.created_time()?;
        if self.file.stages.is_empty() {
            return Err(Box::new(Diagnostic::file_error("dockerfile contains no stages to build")));
        }
        let last = self.file.stages.last().and_then(|stage| stage.name.clone());
        let wanted = self.goal.target.clone().or(last);
        self.globals = scope::automatic(self.goal, &self.target_platform, wanted.as_deref());
        if self.trust == Trust::Whole {
            self.check_default_bases(&self.globals);
        }
        self.declare_globals();
        self.declare_stages();
        if self.trust == Trust::Whole {
            self.errors.extend(self.stages.check_aliases().err().map(|fault| *fault));
        }
        let target = self.find_target().unwrap_or_else(|fault| {
            self.errors.push(*fault);
            self.stages.last()
        });
        self.target = target;
        self.link_stages();
        self.check_cycles()?;
        self.stages.name_for_people();
        self.resolve_reached(target);
        for id in self.stages.ids() {
            if self.stages[id].reached && !self.stages[id].lowered {
                self.lower_stage(id);
            }
        }
        self.check_named_steps();
        self.finish(target)
    }

    /// A vertex that an instruction made.
    fn vertex(&self, op: Op, inputs: Vec<Option<VertexId>>, about: About<'_>) -> Vertex {
        let line = match about.span {
            Some(span) => self.source.position(span.start()).line,
            None => 0,
        };
        Vertex {
            op,
            inputs,
            // Both are shown and kept: a password in a URL is not.
            origin: Origin { span: about.span, line, stage: about.stage.to_owned(), text: redacted(about.text) },
            name: redacted(&about.name),
            cache_use: about.cache_use,
        }
    }

    /// The build context, once for all.
    fn context(&mut self, name: &str) -> VertexId {
        let op = Op::Source(Source::Context(ContextSource { name: name.to_owned() }));
        let shown = match name {
            "" => "[internal] load build context".to_owned(),
            name => format!("[context {name}] load from client"),
        };
        let about = About { span: None, stage: "", text: "", name: shown, cache_use: CacheUse::Allowed };
        let vertex = self.vertex(op, Vec::new(), about);
        self.graph.add(vertex)
    }
}

/// Where a vertex comes from and how people see it.
struct About<'a> {
    span: Option<Span>,
    stage: &'a str,
    text: &'a str,
    name: String,
    cache_use: CacheUse,
}

/// A step's text without the credentials of URLs in it.
fn redacted(text: &str) -> String {
    if !(text.contains("://") && text.contains('@')) {
        return text.to_owned();
    }
    let words = text.split_inclusive([' ', '\t', '\n', '(', '"', '=', ',']);
    words.map(rbuild_image::registry::without_credentials).collect()
}

/// All results, or the last of the faults, the others being left in `beside`.
fn all<T>(
    beside: &RefCell<Vec<Diagnostic>>,
    results: impl IntoIterator<Item = Result<T, Fault>>,
) -> Result<Vec<T>, Fault> {
    let (mut good, mut last) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(fault) => beside.borrow_mut().extend(last.replace(fault).map(|earlier: Fault| *earlier)),
        }
    }
    last.map_or(Ok(good), Err)
}

fn fault(span: Span, message: impl Into<String>) -> Fault {
    Box::new(Diagnostic::error(span, message))
}
