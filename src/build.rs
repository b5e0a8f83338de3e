//! A build from request to result: context, Dockerfile, graph, solve, outputs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;
use rbuild_cache::remote::forget;
use rbuild_cache::{BuildId, Lease, Store};
use rbuild_image::{Digest, ImageConfig, Platform};
use rbuild_parser::{Diagnostic, Dockerfile, Source};
use rbuild_solver::{
    Event, EventSink, Goal, Limits, NoCache, OnFailure, Op, Plan, PlatformPlan, Product, RunNetwork, SolveError,
    SolveOptions, StoreCache, Surroundings, Ulimit, solve,
};

use crate::advice;
use crate::annotation::{self, Annotation};
use crate::build_record::{self, Notes, Recorder};
use crate::cli::report::{Failure, story};
use crate::context::{self, LocalContext};
use crate::dockerfile;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::failure_help::{self, NOT_THERE, SEE_OUTPUT};
use crate::foreign;
use crate::output::attest::Attester;
use crate::output::image::check_rights;
use crate::output::{self, Built, Exported};
use crate::progress::{Ending, LogFile, Mode, Progress, View, misses};
use crate::remote_cache::{ExportParts, Exports, Imports, SharedCache, base_images};
use crate::report_page::{self, Subject};
use crate::request::{BuildNetwork, BuildRequest, CacheChoice, Entitlement, Explain};
use crate::resolve::{Freshness, Outside};
use crate::ssh_agents::SshAgents;
use crate::timings::{self, Phase, Timings};
use crate::worker::{EngineWorker, Parts};

/// What a build gave.
#[derive(Clone, Debug)]
pub struct BuildResult {
    /// Digest of the image's config; of the first platform's where there are several.
    pub image_id: Option<Digest>,
    /// Bytes of its files, the base image's included; of the first platform.
    pub size: Option<u64>,
    /// What the outputs made, for `--metadata-file`.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Builds.
pub fn build(engine: &Engine, request: &BuildRequest, mode: Mode) -> Result<BuildResult, Failure> {
    let began = Instant::now();
    let timings = Timings::since(began);
    let opening = timings.start(Phase::Open);
    let log = request.log_file.as_deref().map(LogFile::create).transpose()?;
    let watched = engine.settings().stderr_is_terminal && matches!(mode, Mode::Auto | Mode::Tty);
    let wants_hints = engine.hints(request.hints, watched)?;
    let mut found = Vec::new();
    let store = engine.store()?;
    output::origins::make_room(engine)?;
    let keeper = engine.keep_ceiling()?;
    let lease = store.lease("build")?;
    let meanwhile = store.snapshots().convert_meanwhile();
    let recorder = Recorder::begin(engine, store, &lease, request, Timestamp::now());
    drop(opening);
    let build = recorder.as_ref().map(|recorder| recorder.id().clone());
    let mut notes = Notes { build, ..Notes::default() };
    let (result, view, journal) = match prepare(engine, store, &lease, request, &timings) {
        Err(failure) => (Err(failure), View::default(), None),
        Ok(prepared) => {
            found = prepared.found.iter().map(|one| Annotation::of(&prepared.source, one)).collect();
            let progress = Progress::start(mode, engine.settings(), began)
                .masked(engine.mask())
                .logged(log.as_ref())
                .journaled(recorder.as_ref().map(Recorder::journal));
            let result = run(engine, &lease, request, prepared, &progress, &timings, &mut notes);
            let made = |built: &BuildResult| built.image_id.zip(built.size);
            let ending = result.as_ref().map_or(Ending::Other, |built| Ending::Built(made(built)));
            let (view, journal) = progress.finish(ending);
            if request.explain == Explain::AtEnd {
                story(&misses::told(&view, &notes.vertices));
            }
            (result, view, journal)
        }
    };
    drop(meanwhile);
    notes.phases = timings.phases();
    if let Some(recorder) = recorder {
        timings.measure(Phase::Record, || recorder.finish(&result, &view, journal, &notes));
    }
    let hints = match (&result, &notes.build) {
        (Ok(_), Some(build)) if wants_hints => advice::after(store, build).unwrap_or_else(|failure| {
            tracing::debug!(error = failure.message(), "no hints");
            Vec::new()
        }),
        _ => Vec::new(),
    };
    let told = match mode {
        Mode::Quiet | Mode::None => String::new(),
        Mode::Rawjson => advice::as_json(&hints),
        Mode::Auto | Mode::Tty | Mode::Plain => advice::as_text(&hints),
    };
    story(&told);
    if let Some(log) = &log {
        let failed = result.as_ref().err().map(|failure| engine.mask().text(&failure.report()));
        log.say(failed.as_deref().unwrap_or(&advice::as_text(&hints)));
        story(&log.finish().unwrap_or_default());
    }
    let cleaning = timings.start(Phase::Clean);
    // What this build held is free to go now.
    drop(lease);
    if let Err(error) = store.remove_replaced_layers() {
        tracing::debug!(%error, "left for a collection");
    }
    if let Err(failure) = output::origins::let_go_now(engine) {
        tracing::debug!(error = failure.message(), "left for a collection");
    }
    keeper.finish();
    drop(cleaning);
    if request.show_timings {
        story(&timings::table(&timings.phases()));
    }
    let traced = request.trace.as_deref().map_or(Ok(()), |file| write_trace(store, notes.build.as_ref(), file));
    // A failed build stays the failure that is told.
    let told = request.annotate.as_ref().map_or(Ok(()), |to| {
        let failures = result.as_ref().err().filter(|failure| failure.exit() != Exit::Interrupted);
        found.extend(failures.map(Failure::annotations).unwrap_or_default());
        annotation::tell(to, request, engine.settings(), &found)
    });
    result.and_then(|result| traced.and(told).map(|()| result))
}

/// Writes what was recorded of a build as a trace.
fn write_trace(store: &Store, build: Option<&BuildId>, file: &Path) -> Result<(), Failure> {
    let build = build.ok_or_else(|| Failure::new("there is no trace: the build could not be recorded"))?;
    let subject = Subject::find(store, build.as_str())?;
    output::write_whole_file(file, format!("{}\n", report_page::trace(&subject)).as_bytes())
}

/// A build that has been planned.
pub(crate) struct Prepared {
    /// The Dockerfile.
    pub(crate) source: Source,
    /// What is to be done.
    pub(crate) plan: Plan,
    /// Build contexts by name.
    pub(crate) contexts: BTreeMap<String, LocalContext>,
    /// What people should know.
    pub(crate) warnings: Vec<String>,
    /// What the build checks found.
    found: Vec<Diagnostic>,
    /// Agents that steps may use.
    agents: SshAgents,
}

/// Reads the context and the Dockerfile, and plans.
pub(crate) fn prepare(
    engine: &Engine,
    store: &Store,
    lease: &Lease,
    request: &BuildRequest,
    timings: &Timings,
) -> Result<Prepared, Failure> {
    let loading = timings.start(Phase::Context);
    let agents = SshAgents::start(engine.settings(), lease, &request.ssh)?;
    let loaded = context::load(engine, lease, request, agents.sockets())?;
    drop(loading);
    let parsed = timings.measure(Phase::Parse, || dockerfile::read(&loaded.dockerfile, request))?;
    let _planning = timings.start(Phase::Plan);
    let fresh = if request.pull { Freshness::Registry } else { Freshness::Stored };
    let outside = Outside::new(engine, store, lease, &request.named_contexts, fresh).timed(timings);
    let multi_platform = dockerfile::is_multi_platform(request)?;
    let oldest = request.cache_max_age.map(|age| {
        store.now().saturating_sub(jiff::SignedDuration::try_from(age).unwrap_or(jiff::SignedDuration::MAX))
    });
    let goal = Goal {
        ignore: Some(loaded.context.ignore.patterns.clone()),
        oldest: oldest.transpose().unwrap_or(Some(Timestamp::MIN)),
        multi_platform,
        ..goal(request)
    };
    let plan = dockerfile::plan(&loaded.dockerfile, &parsed, &goal, &outside, request)
        .map_err(|diagnostics| Failure::diagnostics(&loaded.dockerfile, &diagnostics))?;
    let found: Vec<&Diagnostic> = parsed.diagnostics.iter().chain(&plan.warnings).collect();
    if let Some(violation) = violations(&parsed.value, &found) {
        return Err(Failure::diagnostics(&loaded.dockerfile, &[violation]));
    }
    let (mut contexts, mut warnings) = outside.finish();
    warnings.extend(dockerfile::idle_arguments(request));
    contexts.insert(String::new(), loaded.context);
    let found = parsed.diagnostics.iter().chain(&plan.warnings);
    warnings.extend(found.clone().map(|diagnostic| warning_text(&loaded.dockerfile, diagnostic)));
    let found = found.cloned().collect();
    Ok(Prepared { source: loaded.dockerfile, plan, contexts, warnings, found, agents })
}

/// The error that findings of build checks are where the Dockerfile says so (`# check=error=true`).
pub(crate) fn violations(file: &Dockerfile, found: &[&Diagnostic]) -> Option<Diagnostic> {
    let verdict = file.checks.verdict(found.iter().copied())?;
    let first = found.iter().find_map(|one| one.rule.and(one.span));
    let help = "mend what `rbuild --check` shows, or take `error=true` out of the check directive";
    Some(Diagnostic { span: first, ..verdict }.with_help(help))
}

/// A warning as the end of a build shows it.
fn warning_text(source: &Source, diagnostic: &Diagnostic) -> String {
    let line = diagnostic.span.map(|span| source.position(span.start()).line);
    let rule = diagnostic.rule.map_or("", |rule| rule.name);
    let place = line.map_or_else(String::new, |line| format!(" ({}:{line})", source.name()));
    if rule.is_empty() {
        format!("{}{place}", diagnostic.message)
    } else {
        format!("{rule}: {}{place}", diagnostic.message)
    }
}

/// The request in the solver's words.
pub(crate) fn goal(request: &BuildRequest) -> Goal {
    let mut goal = Goal::new(Platform::host());
    goal.target = request.target.clone();
    goal.build_args = request.build_args.iter().cloned().collect();
    goal.platforms = request.platforms.clone();
    let stage = |(name, given): &(String, String)| Some((name.clone(), given.strip_prefix("target:")?.to_owned()));
    goal.stage_contexts = request.named_contexts.iter().filter_map(stage).collect();
    goal.labels = request.labels.iter().cloned().collect();
    goal.no_cache = match &request.cache {
        CacheChoice::Use => NoCache::Nothing,
        CacheChoice::Ignore => NoCache::Everything,
        CacheChoice::IgnoreStages(stages) => NoCache::Stages(stages.clone()),
    };
    goal.no_cache_steps = request.no_cache_steps.clone();
    goal.network = match request.network {
        BuildNetwork::Default => RunNetwork::Default,
        BuildNetwork::None => RunNetwork::None,
        BuildNetwork::Host => RunNetwork::Host,
    };
    goal.entitlements.network_host = allowed(request).contains(&Entitlement::NetworkHost);
    goal.entitlements.security_insecure = request.allow.contains(&Entitlement::SecurityInsecure);
    goal.hostname = goal.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned();
    goal.extra_hosts = request.extra_hosts.clone();
    goal.shm_size = request.shm_size;
    let ulimit = |(name, soft, hard): &(String, u64, u64)| Ulimit { name: name.clone(), soft: *soft, hard: *hard };
    goal.ulimits = request.ulimits.iter().map(ulimit).collect();
    goal
}

/// What steps may do: naming the host's network on the command line grants it, as in Docker.
fn allowed(request: &BuildRequest) -> Vec<Entitlement> {
    let mut allowed = request.allow.clone();
    if request.network == BuildNetwork::Host {
        allowed.push(Entitlement::NetworkHost);
    }
    allowed
}

fn run(
    engine: &Engine,
    lease: &Lease,
    request: &BuildRequest,
    prepared: Prepared,
    progress: &Progress,
    timings: &Timings,
    notes: &mut Notes,
) -> Result<BuildResult, Failure> {
    let Prepared { source, plan, contexts, warnings, found: _, agents } = prepared;
    let store = engine.store()?;
    let preparing = timings.start(Phase::Prepare);
    // What another place has need not run here.
    if request.cache_from.is_empty() {
        foreign::check(&plan.graph)?;
    }
    check_rights(engine, request)?;
    notes.dockerfile_digest = Some(Digest::sha256(source.text()));
    notes.platforms = plan.platforms.iter().map(|platform| platform.platform.to_string()).collect();
    let allow = allowed(request);
    let began = progress.began();
    let worker = EngineWorker::new(Parts {
        engine,
        store,
        lease,
        contexts,
        allow: &allow,
        resources: &request.resources,
        secrets: &request.secrets,
        ssh: agents.sockets(),
        began,
        last_program: plan.graph.ids().rev().find(|id| matches!(plan.graph.vertex(*id).op, Op::Run(_))),
    })?;
    let build = notes.build.clone();
    let project = request.project(engine.settings());
    let build = build.as_ref().map(BuildId::as_str);
    let local =
        StoreCache { store, lease, build, project: &project, began: progress.began_at(), recorded: OnceLock::new() };
    let options = SolveOptions { limits: limits(request.jobs), began, on_failure: OnFailure::Cancel };
    // The layers below come with the root: its snapshot is their chain.
    let targets: Vec<_> = plan.platforms.iter().filter_map(|platform| platform.rootfs).collect();
    let imports = Imports::new(engine, store, lease, progress, &request.cache_from);
    let exports = Exports::new(&ExportParts {
        engine,
        store,
        lease,
        imports: &imports,
        progress,
        graph: &plan.graph,
        targets: &targets,
        wanted: &request.cache_to,
    })?;
    let cache = SharedCache { local, imports: &imports, exports: &exports };
    let around = Surroundings { worker: &worker, cache: &cache, events: progress, cancel: engine.cancel() };
    drop(preparing);
    let solved = timings.measure(Phase::Solve, || exports.pushing(|| solve(&plan.graph, &targets, around, options)));
    worker.remember_contexts();
    // Goes on while the outputs are written.
    let _closing = worker.close();
    notes.vertices = solved.vertices;
    if request.show_cached_logs {
        build_record::recall(store, &notes.vertices, progress)?;
    }
    for message in warnings {
        progress.emit(Event::Warning { vertex: None, message });
    }
    let assembling = timings.start(Phase::Assemble);
    let products = solved.products.map_err(|error| solve_failure(&error, &source, &plan))?;
    let products: BTreeMap<_, _> = targets.iter().copied().zip(products).collect();
    let mut built = Vec::new();
    for platform in &plan.platforms {
        built.push(finish(store, platform, &products)?);
    }
    exports.embed(&notes.vertices, &mut built)?;
    let ended = Timestamp::now();
    let attester = Attester {
        request,
        dockerfile: &source,
        graph: &plan.graph,
        build: build.map(str::to_owned),
        times: (!request.is_timeless()).then(|| (progress.began_at(), ended)),
    };
    let parts = output::Parts { engine, store, lease, request, built: &built, attester: &attester };
    let bases = base_images(&plan.graph);
    drop(assembling);
    let mut exported = Vec::new();
    for output in &request.outputs {
        exported.push(timings.measure(Phase::Export, || output::write(&parts, output, &bases, progress))?);
    }
    let image_id = exported.iter().find_map(|exported| exported.id);
    timings.measure(Phase::CacheExport, || exports.finish(&notes.vertices, &built))?;
    let id = match (image_id, built.first()) {
        (Some(id), _) => Some(id),
        (None, Some(built)) => Some(Digest::sha256(built.config.to_json())),
        (None, None) => None,
    };
    notes.images = built.iter().map(|built| Digest::sha256(built.config.to_json())).collect();
    if let (Some(id), Some(first)) = (id, notes.images.first_mut()) {
        *first = id;
    }
    let size = built.first().map(|built| built.size);
    Ok(BuildResult { image_id: id, size, metadata: metadata(&exported, id, build) })
}

/// What outputs made, in buildx's words.
fn metadata(
    exported: &[Exported],
    id: Option<Digest>,
    build: Option<&str>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut out = serde_json::Map::new();
    out.extend(build.map(|build| ("buildx.build.ref".to_owned(), build.into())));
    let Some(id) = id.filter(|_| exported.iter().any(|one| one.id.is_some())) else { return out };
    out.insert("containerimage.config.digest".to_owned(), id.to_string().into());
    match exported.iter().find_map(|one| one.root.as_ref()) {
        Some(root) => {
            let shown = serde_json::to_value(root).expect("a descriptor has only string keys");
            out.insert("containerimage.descriptor".to_owned(), shown);
            out.insert("containerimage.digest".to_owned(), root.digest.to_string().into());
        }
        // An image that is only kept has no manifest: Docker gives its id here, too.
        None => drop(out.insert("containerimage.digest".to_owned(), id.to_string().into())),
    }
    let names: std::collections::BTreeSet<String> =
        exported.iter().flat_map(|one| &one.names).map(rbuild_image::ImageRef::canonical).collect();
    if !names.is_empty() {
        out.insert("image.name".to_owned(), names.into_iter().collect::<Vec<_>>().join(",").into());
    }
    out
}

/// How much goes on at once: as much as the user said, or else measured steps share the processors, and those that are
/// not measured, or wait for others, are more.
fn limits(jobs: Option<usize>) -> Limits {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let several = (processors * 2).max(8);
    match jobs {
        Some(jobs) => Limits { jobs, processors: None, transfers: several },
        None => Limits { jobs: several, processors: Some(processors), transfers: several },
    }
}

/// The result for one platform: the config with the layers that were made.
fn finish(
    store: &Store,
    platform: &PlatformPlan,
    products: &BTreeMap<rbuild_solver::VertexId, Product>,
) -> Result<Built, Failure> {
    let snapshot = match platform.rootfs.and_then(|rootfs| products.get(&rootfs)) {
        Some(Product::Snapshot(snapshot)) => *snapshot,
        Some(Product::Context(name)) => return Err(Failure::new(format!("the result is the build context {name:?}"))),
        None => None,
    };
    let mut config = platform.image.config.clone();
    let base_layers = config.rootfs.diff_ids.len();
    forget(&mut config);
    let layers = snapshot.map(|top| store.snapshots().layers(top)).transpose()?.unwrap_or_default();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff.diff_id).collect();
    let made: Vec<Timestamp> = layers.iter().map(|layer| layer.created_at).collect();
    date_history(&mut config, platform.image.inherited_history, &made);
    Ok(Built { config, snapshot, size: layers.iter().map(|layer| layer.size).sum(), base_layers })
}

/// Dates an image as BuildKit does, so that a fully cached build gives the same image again: a new entry with a layer
/// has the time when that was made, one without has its predecessor's, and the image the last one's.
fn date_history(config: &mut ImageConfig, inherited: usize, made: &[Timestamp]) {
    let mut layer = 0;
    for (at, entry) in config.history.iter_mut().enumerate() {
        if entry.empty_layer {
            continue;
        }
        if let (true, Some(time)) = (at >= inherited, made.get(layer)) {
            entry.created.get_or_insert_with(|| time.to_string());
        }
        layer += 1;
    }
    // Entries before the first new layer have that one's time, not one of the base image.
    let new = config.history.iter().skip(inherited).find_map(|entry| entry.created.clone());
    let mut last = new.or_else(|| config.history.iter().rev().find_map(|entry| entry.created.clone()));
    for entry in config.history.iter_mut().skip(inherited) {
        match &entry.created {
            Some(created) => last = Some(created.clone()),
            None => entry.created.clone_from(&last),
        }
    }
    if config.created.is_none() {
        config.created = last;
    }
}

fn solve_failure(error: &SolveError, source: &Source, plan: &Plan) -> Failure {
    match error {
        SolveError::Cancelled { .. } => Failure::interrupted(),
        SolveError::Failed { vertex, failure, .. } => {
            let mut shown = Failure::new(failure.message.clone());
            let vertex = plan.graph.vertex(*vertex);
            let unknown = failure.help.as_deref().is_none_or(|help| help == SEE_OUTPUT || help == NOT_THERE);
            let by_text = vertex.origin.span.filter(|_| unknown);
            let by_text = by_text.and_then(|span| failure_help::of_instruction(source, span, &vertex.op));
            if let Some(help) = by_text.or_else(|| failure.help.clone()) {
                shown = shown.with_help(help);
            }
            match vertex.origin.span {
                Some(span) => shown.at(source, span),
                None => shown,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: Option<&str>, empty_layer: bool) -> rbuild_image::History {
        rbuild_image::History { created: created.map(str::to_owned), empty_layer, ..Default::default() }
    }

    #[test]
    fn history_is_dated_by_layers() {
        let time = |second: i64| Timestamp::from_second(second).unwrap();
        let mut config = ImageConfig::new(&Platform::host());
        config.created = None;
        let base = "2020-01-01T00:00:00Z";
        config.history = vec![
            entry(Some(base), false),
            entry(None, true),
            entry(None, false),
            entry(None, true),
            entry(None, false),
        ];
        date_history(&mut config, 1, &[time(1), time(1000), time(2000)]);
        let dates: Vec<_> = config.history.iter().map(|entry| entry.created.clone().unwrap()).collect();
        let (first, second) = (time(1000).to_string(), time(2000).to_string());
        assert_eq!(dates, [base, &first, &first, &first, &second]);
        assert_eq!(config.created, Some(second));
    }
}
