//! Planning and keying without a machine: `./dev bench-micro plan`.
//!
//! `graph` makes the steps of a Dockerfile; `keys_of_a_cached_build` computes every key, asks a cache that knows all of them,
//! and walks through the scheduler: what is left of a build when nothing has to run.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::Timestamp;
use rbuild_cache::{ResultId, SnapshotId};
use rbuild_image::{ContentDigest, Digest, ImageConfig, ImageRef, Platform};
use rbuild_parser::{Dockerfile, Source, parse};
use rbuild_solver::{
    About, CancelToken, Claim, Control, Event, EventSink, Executed, Found, Goal, Job, JobError, Key, Limits,
    NamedContext, NewStep, OnFailure, Pinned, Plan, Product, RecordFailure, Resolve, ResolveError, ResolvedImage,
    SolveOptions, StepCache, Surroundings, Worker, lower, solve,
};

fn main() {
    divan::main();
}

/// So many stages of four steps; the last one copies from all.
fn dockerfile(stages: usize) -> (Source, Dockerfile) {
    let mut text = String::new();
    for stage in 0..stages {
        let below = if stage % 8 == 0 { "base".to_owned() } else { format!("s{}", stage - 1) };
        let _infallible = write!(
            text,
            "FROM {below} AS s{stage}\nENV STAGE={stage}\nCOPY src/{stage} /src/\nRUN make -C /src && make install\nRUN true {stage}\n"
        );
    }
    text.push_str("FROM base\n");
    for stage in 0..stages {
        let _infallible = writeln!(text, "COPY --from=s{stage} /src /out/{stage}");
    }
    let source = Source::new("Dockerfile", text);
    let parsed = parse(&source);
    assert!(!parsed.has_errors());
    (source, parsed.value)
}

/// One base image, at hand.
struct Base;

impl Resolve for Base {
    fn image(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let digest = Digest::sha256(reference.to_string());
        let config = Arc::new(ImageConfig::new(platform));
        Ok(ResolvedImage { reference: reference.clone(), shown: digest, digest, config })
    }

    fn context(&self, _name: &str, _platform: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        Ok(None)
    }
}

fn plan(source: &Source, file: &Dockerfile) -> Plan {
    lower(source, file, &Goal::new(Platform::host()), &Base).unwrap()
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn graph(bencher: Bencher<'_, '_>, stages: usize) {
    let (source, file) = dockerfile(stages);
    bencher.counter(ItemsCount::new(stages * 4)).bench(|| plan(&source, &file));
}

/// Never runs anything.
struct Idle;

impl Worker for Idle {
    fn pin(&self, source: &rbuild_solver::Source, _: Control<'_>) -> Result<Pinned, JobError> {
        Ok(Pinned { source: source.clone(), identity: Some(Digest::sha256("base")) })
    }

    fn selection_digest(&self, job: &Job, input: usize, _: Control<'_>) -> Result<ContentDigest, JobError> {
        Ok(ContentDigest::new(Digest::sha256(format!("{} {input}", job.vertex.name))))
    }

    fn rootfs_identity(&self, _: Option<&SnapshotId>, _: Control<'_>) -> Result<ContentDigest, JobError> {
        Ok(ContentDigest::new(Digest::sha256("rootfs")))
    }

    fn exec<'a>(&'a self, job: &Job, _: Control<'a>) -> Result<Executed<'a>, JobError> {
        match &job.vertex.op {
            rbuild_solver::Op::Source(rbuild_solver::Source::Context(context)) => {
                Ok(Product::Context(context.name.clone()).into())
            }
            _ => Ok(Product::Snapshot(None).into()),
        }
    }
}

/// Knows every key.
struct KnowsAll;

impl StepCache for KnowsAll {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        let found = Found {
            result: ResultId::from_row(1),
            snapshot: None,
            name: String::new(),
            duration: Duration::ZERO,
            made: Timestamp::UNIX_EPOCH,
            usage: None,
        };
        Ok(vec![Some(found); keys.len()])
    }

    fn record(&self, _: &[Key], _: Option<&About>, _: &NewStep) -> Result<ResultId, RecordFailure> {
        Ok(ResultId::from_row(1))
    }

    fn add_keys(&self, _: ResultId, _: &[Key], _: Option<&About>) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn touch(&self, _: &[ResultId]) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn claim(&self, _: &Key, _: &CancelToken, _: &(dyn Fn(&str) + Sync)) -> Result<Option<Claim>, RecordFailure> {
        Ok(Some(Claim { guard: Box::new(()) }))
    }
}

struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _event: Event) {}
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn keys_of_a_cached_build(bencher: Bencher<'_, '_>, stages: usize) {
    let (source, file) = dockerfile(stages);
    let plan = plan(&source, &file);
    let targets: Vec<_> = plan.platforms.iter().filter_map(|platform| platform.rootfs).collect();
    bencher.counter(ItemsCount::new(stages * 4)).bench(|| {
        let cancel = CancelToken::new();
        let around = Surroundings { worker: &Idle, cache: &KnowsAll, events: &Nobody, cancel: &cancel };
        let limits = Limits { jobs: 4, processors: None, transfers: 4 };
        let options = SolveOptions { limits, began: Instant::now(), on_failure: OnFailure::Cancel };
        let solved = solve(&plan.graph, &targets, around, options);
        assert!(solved.products.is_ok());
        solved
    });
}
