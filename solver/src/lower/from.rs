//! `FROM`: base names and platforms, named contexts, base images, and what a stage begins and ends with.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rbuild_image::{ImageConfig, ImageRef, Platform};
use rbuild_parser::lint::multiple_instructions_disallowed::Seen;
use rbuild_parser::{Diagnostic, Expanded, Instruction, suggestion};

use super::goal::StageChoice;
use super::plan::{ImagePlan, PlatformPlan};
use super::resolve::{NamedContext, ResolveError, ResolvedImage};
use super::stage::{Stage, StageId, StageStep, State};
use super::{About, Fault, Lowering, Trust, fault};
use crate::op::{CopyAction, FileAction, FileOp, ImageSource, Linking, Op, Source};
use crate::vertex::{CacheUse, VertexId};

/// The search path of images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_PATH_WINDOWS: &str = r"PATH=c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

/// The name of the empty image.
const SCRATCH: &str = "scratch";

/// Names that a base's name may have been meant to be, beside those of stages (BuildKit's list).
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

impl<'a> Lowering<'a> {
    /// Reads all `FROM` lines. Named contexts replace stages of their names.
    pub(super) fn declare_stages(&mut self) {
        let file = self.file;
        for (number, from) in file.stages.iter().enumerate() {
            let span = from.origin.head;
            let mut stood_in = false;
            let expanded = self.stage_image(from).unwrap_or_else(|fault| {
                stood_in = true;
                self.errors.extend(fault.map(|fault| *fault));
                Expanded { text: SCRATCH.to_owned(), ..Expanded::default() }
            });
            let image = expanded.text.clone();
            let platform = self.stage_platform(from).unwrap_or_else(|fault| {
                stood_in = true;
                self.errors.extend(fault.map(|fault| *fault));
                None
            });
            let mut uses = self.declared.clone();
            uses.expanded(&expanded);
            if let Some((text, _)) = &platform {
                uses.expanded(text);
            }
            if self.trust == Trust::Whole {
                self.check_from(from, &expanded, platform.as_ref().map(|(text, platform)| (text, platform)));
            }
            let platform = platform.map(|(_, platform)| platform);
            let name = from.name.clone().unwrap_or_default();
            let step = |instruction: &'a Instruction| StageStep {
                instruction: Cow::Borrowed(instruction),
                span: instruction.origin().head,
                is_trigger: false,
                sources: Vec::new(),
            };
            let replacement = match name.as_str() {
                "" => None,
                name => self.named_context(name, platform.as_ref()).unwrap_or_else(|error| {
                    stood_in = true;
                    self.errors.push(*resolve_fault(span, None, error));
                    None
                }),
            };
            let id = self.stages.add(Stage {
                span,
                text: from.origin.text.clone(),
                origin: from.origin.clone(),
                shown: if name.is_empty() { format!("stage-{number}") } else { name.clone() },
                ignore_cache: self.goal.no_cache.covers(&name),
                name,
                image,
                written: true,
                base: None,
                reads: BTreeMap::new(),
                steps: from.instructions.iter().map(step).collect(),
                platform,
                reached: false,
                resolved: false,
                stood_in,
                triggered: false,
                lowered: false,
                numbered: 0,
                number: 0,
                has_cmd: false,
                seen: Seen::default(),
                image_text: None,
                uses,
                state: State::default(),
            });
            match replacement {
                Some(context) => self.replace(id, context),
                None => self.count_numbered(id),
            }
        }
    }

    /// What a stage starts from, expanded.
    fn stage_image(&self, from: &rbuild_parser::Stage) -> Result<Expanded, Option<Fault>> {
        // One that could not be read has been told.
        if from.image.raw().is_empty() {
            return Err(None);
        }
        let expanded = self.expand_global(&from.image)?;
        if expanded.text.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image.raw());
            let help = "an ARG before the first FROM gives it a value, or --build-arg does";
            let error = self.error_at(from.origin.head, from.image.span(), message).with_help(help);
            return Err((self.trust == Trust::Whole).then(|| Box::new(error)));
        }
        Ok(expanded)
    }

    fn stage_platform(&self, from: &rbuild_parser::Stage) -> Result<Option<(Expanded, Platform)>, Option<Fault>> {
        let Some(word) = &from.platform else { return Ok(None) };
        let text = self.expand_global(word).map_err(|fault| {
            fault.map(|fault| {
                let message = format!("failed to process arguments for platform {}: {}", word.raw(), fault.message);
                Box::new(Diagnostic { message, ..*fault })
            })
        })?;
        let wrong = |message: String| {
            let near = text.unmatched.iter().find_map(|name| suggestion(name, self.globals.names()));
            let near = near.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            let help = "a platform is named os/architecture[/variant], for example linux/arm64";
            let error = self.error_at(from.origin.head, word.span(), message + &near).with_help(help);
            (self.trust == Trust::Whole || text.unmatched.is_empty()).then(|| Box::new(error))
        };
        if text.text.is_empty() {
            return Err(wrong(format!("empty platform value from expression {}", word.raw())));
        }
        match text.text.parse() {
            Ok(platform) => Ok(Some((text, platform))),
            Err(error) => Err(wrong(format!("failed to parse platform {}: {error}", word.raw()))),
        }
    }

    fn count_numbered(&mut self, id: StageId) {
        let stage = &mut self.stages[id];
        let base = usize::from(stage.image != SCRATCH && stage.base.is_none());
        let makes = |step: &&StageStep<'_>| {
            use Instruction::{Add, Copy, Run, Workdir};
            matches!(step.instruction.as_ref(), Add(_) | Copy(_) | Run(_) | Workdir(_))
        };
        stage.numbered = base + stage.steps.iter().filter(makes).count();
    }

    /// A `--build-context` for a stage or an image. `scratch` and `context` cannot be replaced.
    fn named_context(&self, name: &str, platform: Option<&Platform>) -> Result<Option<NamedContext>, ResolveError> {
        if ["scratch", "context"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Ok(None);
        }
        if self.stages.alias(name).is_some() {
            return Ok(None);
        }
        let Ok(reference) = name.parse::<ImageRef>() else { return Ok(None) };
        let familiar = reference.to_string();
        let familiar = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        self.resolve.context(familiar, platform.unwrap_or(&self.target_platform))
    }

    /// Puts a named context in the place of a stage, whose instructions then do not matter.
    fn replace(&mut self, id: StageId, context: NamedContext) {
        let state = match context {
            NamedContext::Files(source) => {
                let image = ImageConfig::new(&self.target_platform);
                State { rootfs: Some(self.files(source)), image, ..State::default() }
            }
            NamedContext::Image(image) => {
                let platform = image.config.platform();
                let state = self.image_state(id, &image, &platform);
                if !image.config.os.is_empty() && !image.config.architecture.is_empty() {
                    self.stages[id].platform = Some(platform);
                }
                state
            }
        };
        let stage = &mut self.stages[id];
        stage.base = None;
        stage.steps.clear();
        stage.state = state;
        (stage.resolved, stage.triggered, stage.lowered) = (true, true, true);
        self.add_base(id);
    }

    fn files(&mut self, source: Source) -> VertexId {
        match source {
            Source::Context(context) => self.context(&context.name),
            source => {
                let name = match &source {
                    Source::Git(git) => format!("[internal] load git source {}", git.remote),
                    Source::Http(http) => format!("[internal] load {}", http.url),
                    Source::Image(_) | Source::Context(_) => String::new(),
                };
                let about = About { span: None, stage: "", text: "", name, cache_use: CacheUse::Allowed };
                let vertex = self.vertex(Op::Source(source), Vec::new(), about);
                self.graph.add(vertex)
            }
        }
    }

    /// Finds the bases of all that the target needs, with their triggers, which may need more.
    pub(super) fn resolve_reached(&mut self, target: StageId) {
        loop {
            for id in self.stages.ids() {
                self.stages[id].reached = false;
            }
            let wanted = match self.goal.stages {
                StageChoice::Needed => vec![target],
                StageChoice::All => self.stages.ids().collect(),
            };
            self.stages.mark_reached(wanted);
            for id in self.stages.ids() {
                let stage = &self.stages[id];
                if stage.reached && !stage.resolved && stage.base.is_none() {
                    self.stages[id].resolved = true;
                    if let Err(fault) = self.resolve_base(id) {
                        self.stand_in(id);
                        if self.trust == Trust::Whole {
                            self.errors.push(*fault);
                        }
                    }
                }
            }
            if !self.add_triggers() {
                return;
            }
        }
    }

    /// Lets the empty image stand in for a base that cannot be had.
    fn stand_in(&mut self, id: StageId) {
        let target = self.target_platform.clone();
        let stage = &mut self.stages[id];
        stage.state.image = empty_image(&target);
        stage.platform.get_or_insert(target);
        stage.stood_in = true;
        stage.lowered = !stage.written;
    }

    /// Finds what a stage that starts from no other stage starts from.
    fn resolve_base(&mut self, id: StageId) -> Result<(), Fault> {
        let (span, image) = (self.stages[id].span, self.stages[id].image.clone());
        let target = self.target_platform.clone();
        if image == SCRATCH {
            let stage = &mut self.stages[id];
            stage.state.image = empty_image(&target);
            stage.platform = Some(target);
            stage.lowered = !stage.written;
            return Ok(());
        }
        if let Some(stage) = self.stages.alias(&image) {
            let message = format!("build context {image}=target:{stage} is used as a base above the stage {stage:?}");
            let help = "move the stage up: a stage can only start from one that stands above it";
            return Err(Box::new(Diagnostic::error(span, message).with_help(help)));
        }
        let reference: ImageRef = image.parse().map_err(|error: rbuild_image::InvalidReference| {
            let message = format!("failed to parse stage name {image:?}: {error}");
            match self.stages.named(&image) {
                Some(_) => Box::new(Diagnostic::error(span, message).with_help("stage names are lower case here")),
                None if image.to_lowercase().parse::<ImageRef>().is_ok() => {
                    Box::new(Diagnostic::error(span, message).with_help(format!("write `{}`", image.to_lowercase())))
                }
                None => fault(span, message),
            }
        })?;
        let reference = reference.tag_or_latest();
        let wanted = self.stages[id].platform.clone().unwrap_or_else(|| target.clone());
        let found = self.named_context(&reference.to_string(), Some(&wanted));
        let (state, platform) = match found.map_err(|error| resolve_fault(span, None, error))? {
            Some(NamedContext::Files(source)) => {
                let rootfs = Some(self.files(source));
                (State { rootfs, image: empty_image(&target), ..State::default() }, wanted)
            }
            Some(NamedContext::Image(found)) => (self.image_state(id, &found, &wanted), wanted),
            None => {
                let found = self.resolve.image(&reference, &wanted);
                let found = found.map_err(|error| {
                    let near = suggestion(&image, self.stages.names().chain(COMMON_IMAGES));
                    let mut fault = resolve_fault(span, Some((&image, &reference)), error);
                    if let Some(near) = near {
                        fault.message.push_str(&format!(" (did you mean {near}?)"));
                        let is_stage = self.stages.names().any(|name| name == near);
                        if is_stage {
                            fault.help = Some(format!(
                                "no stage before it has that name, so it is looked up as an image; write {near}"
                            ));
                        }
                    }
                    fault
                })?;
                let platform = self.detect_platform(id, &found.config, wanted);
                self.check_platform(id, &image, &platform, &found.config);
                (self.image_state(id, &found, &platform), platform)
            }
        };
        let stage = &mut self.stages[id];
        stage.state = state;
        stage.platform = Some(platform);
        stage.lowered = !stage.written;
        if stage.lowered {
            self.add_base(id);
        }
        Ok(())
    }

    /// Where nobody asked for a platform, an image of this machine's other platform may decide it.
    fn detect_platform(&self, id: StageId, config: &ImageConfig, wanted: Platform) -> Platform {
        let build = &self.goal.build_platform;
        let is = |platform: &Platform| platform.os == config.os && platform.architecture == config.architecture;
        let decides = self.stages[id].platform.is_none() && self.implicit_platform && !is(&wanted) && is(build);
        if decides { build.clone() } else { wanted }
    }

    /// What a stage begins with that starts from an image; [`Self::add_base`] adds the image's vertex.
    fn image_state(&mut self, id: StageId, found: &ResolvedImage, platform: &Platform) -> State {
        let config = ImageConfig { created: None, ..found.config.without_unknown_fields() };
        let has_layers = !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|entry| !entry.empty_layer);
        let reference = found.reference.clone();
        let base = has_layers.then(|| ImageSource { reference, digest: found.digest, platform: platform.clone() });
        if has_layers {
            let shown = format!("FROM {}@{}", canonical_without_digest(&found.reference), found.shown);
            self.stages[id].image_text = Some(shown);
        }
        let inherited_history = config.history.len();
        State { image: config, inherited_history, base, ..State::default() }
    }

    /// Adds the vertex of a stage's image, when it is known how many instructions the stage has.
    fn add_base(&mut self, id: StageId) {
        let Some(shown) = self.stages[id].image_text.take() else { return };
        let Some(source) = self.stages[id].state.base.clone() else { return };
        let name = self.name_vertex(id, &shown, false);
        let (span, stage, text) = (self.stages[id].span, self.stages[id].shown.clone(), self.stages[id].text.clone());
        let about = About { span: Some(span), stage: &stage, text: &text, name, cache_use: CacheUse::Allowed };
        let vertex = self.vertex(Op::Source(Source::Image(Box::new(source))), Vec::new(), about);
        self.stages[id].state.rootfs = Some(self.graph.add(vertex));
    }

    /// Makes what a stage starts from its own.
    fn begin_stage(&mut self, id: StageId) {
        self.add_base(id);
        if let Some(base) = self.stages[id].base {
            let mut state = self.stages[base].state.clone();
            // Triggers run one level deep.
            state.image.config.on_build.clear();
            let platform = self.stages[base].platform.clone();
            self.stages[id].state = state;
            self.stages[id].platform = platform;
            self.stages[id].stood_in |= self.stages[base].stood_in;
        }
        let target = self.target_platform.clone();
        let stage = &mut self.stages[id];
        stage.has_cmd = false;
        let os = stage.platform.get_or_insert(target).os.clone();
        let config = &mut stage.state.image.config;
        if config.env_value("PATH").is_none() {
            let path = if os == "windows" { DEFAULT_PATH_WINDOWS } else { DEFAULT_PATH };
            config.env.push(path.to_owned());
        }
        let environment = config.env.clone();
        stage.state.variables.set_all(&environment);
        if !config.working_dir.is_empty() {
            config.working_dir = super::metadata::absolute_directory("", &config.working_dir);
        }
    }

    /// Files that are read in place become a layer where they are a root file system.
    pub(super) fn as_rootfs(&mut self, id: StageId, vertex: VertexId) -> VertexId {
        match self.graph.vertex(vertex).op {
            Op::Source(Source::Context(_)) => {}
            Op::Source(Source::Git(_) | Source::Http(_)) if !self.stages[id].state.layers.contains(&vertex) => {
                self.stages[id].state.layers.push(vertex);
                return vertex;
            }
            _ => return vertex,
        }
        let action = CopyAction::as_is(Some(1), "/".to_owned(), "/".to_owned());
        let op = Op::File(FileOp { actions: vec![FileAction::Copy(action)], linking: Linking::Dependent });
        let name = self.graph.vertex(vertex).name.clone();
        let (span, stage) = (self.stages[id].span, self.stages[id].shown.clone());
        let text = self.stages[id].text.clone();
        let about = About { span: Some(span), stage: &stage, text: &text, name, cache_use: CacheUse::Allowed };
        let layer = self.vertex(op, vec![None, Some(vertex)], about);
        let layer = self.graph.add(layer);
        self.stages[id].state.layers.push(layer);
        layer
    }

    /// Lowers a stage's instructions in order. One that is wrong is reported and left out.
    pub(super) fn lower_stage(&mut self, id: StageId) {
        self.begin_stage(id);
        self.stages[id].lowered = true;
        for step in std::mem::take(&mut self.stages[id].steps) {
            self.doubtful.set(false);
            let outcome = self.lower_step(id, &step);
            let beside = self.beside.take();
            let Err(last) = outcome else { continue };
            // A base that is not known may set what was asked for in vain.
            if !(self.doubtful.get() && (self.stages[id].stood_in || self.trust == Trust::Partial)) {
                self.errors.extend(beside);
                self.errors.push(*last);
            }
        }
    }

    fn lower_step(&mut self, id: StageId, step: &StageStep<'a>) -> Result<(), Fault> {
        match step.instruction.as_ref() {
            Instruction::Run(run) => self.lower_run(id, step, run),
            Instruction::Copy(copy) => self.lower_copy(id, step, copy),
            Instruction::Add(add) => self.lower_add(id, step, add),
            Instruction::Workdir(workdir) => self.lower_workdir(id, step, workdir),
            _ => self.lower_metadata(id, step),
        }
    }

    /// What is left to do once the target is lowered.
    pub(super) fn finish(&mut self, target: StageId) -> Result<PlatformPlan, Fault> {
        if let Some(last) = self.errors.pop() {
            return Err(Box::new(last));
        }
        let rootfs = self.stages[target].state.rootfs.map(|rootfs| self.as_rootfs(target, rootfs));
        let (graph, stage) = (&self.graph, &self.stages[target]);
        let State { mut image, inherited_history, base, layers, .. } = stage.state.clone();
        image.created = self.created.clone();
        image.config.labels.extend(self.goal.labels.clone());
        // Layers that no instruction made are named at the end of the history.
        let made = image.history[inherited_history..].iter().filter(|entry| !entry.empty_layer).count();
        for layer in layers.iter().skip(made) {
            let created_by = graph.vertex(*layer).name.clone();
            super::history::commit(&mut image, created_by, super::history::Effect::Layer, self.created.as_ref());
        }
        if !self.implicit_platform {
            let platform = &self.target_platform;
            image.os.clone_from(&platform.os);
            image.architecture.clone_from(&platform.architecture);
            image.variant.clone_from(&platform.variant);
            image.os_version.clone_from(&platform.os_version);
            image.os_features.clone_from(&platform.os_features);
        }
        let image = ImagePlan { config: image, inherited_history, base, layers };
        Ok(PlatformPlan { platform: self.target_platform.clone(), rootfs, image })
    }
}

/// The image of `FROM scratch`.
fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::new(platform);
    image.config.working_dir = "/".to_owned();
    let windows = platform.os == "windows";
    image.config.env.push(if windows { DEFAULT_PATH_WINDOWS } else { DEFAULT_PATH }.to_owned());
    image
}

fn canonical_without_digest(reference: &ImageRef) -> String {
    let text = reference.canonical();
    text.split_once('@').map_or(text.clone(), |(name, _)| name.to_owned())
}

fn resolve_fault(span: rbuild_parser::Span, image: Option<(&str, &ImageRef)>, error: ResolveError) -> Fault {
    let ResolveError { message, help } = error;
    let message = match image {
        Some((image, reference)) => {
            format!("{image}: failed to resolve source metadata for {}: {message}", reference.canonical())
        }
        None => message,
    };
    let mut diagnostic = Diagnostic::error(span, message);
    diagnostic.help = help;
    Box::new(diagnostic)
}
