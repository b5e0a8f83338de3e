//! File steps as jobs: which tree is behind which input, and failures as people read them.

use std::path::Path;
use std::sync::Arc;

use rbuild_cache::snapshot::{Active, LayerWriter, Metadata, Snapshot};
use rbuild_cache::view::View;
use rbuild_cache::{FileIndex, Listing, SnapshotId};
use rbuild_executor::RootDir;
use rbuild_image::{ContainerPath, ContentDigest};
use rbuild_parser::suggestion;
use rbuild_solver::{Control, FileAction, FileOp, Job, JobError, Linking, Op, Product, RunMountKind};

use super::copy::Copier;
use super::select::select_whole;
use super::{ContextTree, FileError, SourceTree, digest, write_layer};
use crate::context::ContextFiles;
use crate::failure_help::NOT_THERE;
use crate::worker::EngineWorker;
use crate::worker::failure::{FailJob, failed, of_error};

/// Does a file step; its product is the committed layer on top of `inputs[0]`.
pub(in crate::worker) fn exec(
    worker: &EngineWorker<'_>,
    job: &Job,
    op: &FileOp,
    control: Control<'_>,
) -> Result<Product, JobError> {
    let base = match job.inputs.first() {
        Some(Product::Snapshot(base)) => *base,
        _ => return Err(failed("a file step starts from a snapshot").into()),
    };
    let parent = match op.linking {
        Linking::Dependent => base,
        Linking::Independent => None,
    };
    let active = worker.snapshots.prepare(parent, worker.lease).or_fail("cannot prepare a layer")?;
    perform(worker, job, op, &active, control)?;
    let made = active.commit_soon(worker.lease).or_fail("cannot store a layer")?;
    if op.linking == Linking::Independent && base.is_some() {
        let moved = worker.snapshots.rebase(made, base, worker.lease).or_fail("cannot store a layer")?;
        return Ok(Product::Snapshot(Some(moved.id())));
    }
    Ok(Product::Snapshot(Some(made)))
}

/// Does the actions of `op` in an active snapshot.
pub(in crate::worker) fn perform(
    worker: &EngineWorker<'_>,
    job: &Job,
    op: &FileOp,
    active: &Snapshot<Active>,
    control: Control<'_>,
) -> Result<(), JobError> {
    let mut sources = vec![None; job.inputs.len()];
    for action in &op.actions {
        if let FileAction::Copy(copy) = action
            && let Some(input) = copy.input
            && let Some(product) = job.inputs.get(input)
            && sources[input].is_none()
        {
            sources[input] = Some(tree_of(worker, product, None)?);
        }
    }
    let mut writer = active.writer().or_fail("cannot prepare a layer")?;
    let cancelled = || control.cancel.is_cancelled();
    write_layer(op, &sources, &mut writer, &cancelled).map_err(|error| match &error {
        FileError::NotFound { path } => {
            not_found(path, sources.iter().flatten().find_map(|tree| nearest(tree.as_ref(), path)))
        }
        other => explain(other),
    })
}

/// Digests what `job` reads through input number `input`, be it copied or mounted; lists the files as well where a
/// list is given.
pub(in crate::worker) fn selection_digest(
    worker: &EngineWorker<'_>,
    job: &Job,
    input: usize,
    listing: Option<&mut Listing>,
    control: Control<'_>,
) -> Result<ContentDigest, JobError> {
    if control.cancel.is_cancelled() {
        return Err(JobError::Cancelled);
    }
    let Some(product) = job.inputs.get(input) else {
        return Err(explain(&FileError::NoSource { input }));
    };
    let index = match product {
        Product::Context(name) => match &worker.context(name)?.files {
            ContextFiles::Directory(path) => {
                Some(worker.file_index(name, path).or_fail("cannot read what is known of the context")?)
            }
            ContextFiles::Snapshot(_) => None,
        },
        Product::Snapshot(_) => None,
    };
    let tree = tree_of(worker, product, index)?;
    let digest = match &job.vertex.op {
        Op::File(op) => digest::selection_digest(op, input, &*tree, listing),
        Op::Run(run) => {
            let read = |kind: &RunMountKind| match kind {
                RunMountKind::Bind { input: from, source, .. } | RunMountKind::Cache { input: from, source, .. }
                    if *from == Some(input) =>
                {
                    Some(source.clone())
                }
                _ => None,
            };
            let paths: Vec<ContainerPath> = run.mounts.iter().filter_map(|mount| read(&mount.kind)).collect();
            digest::tree_digest(&*tree, &paths.iter().collect::<Vec<_>>(), listing)
        }
        Op::Source(_) => return Err(failed("a source reads no input").into()),
    };
    digest.map_err(|error| match error {
        FileError::NotFound { path } => {
            let why = excluded(worker, product, &path).or_else(|| nearest(&*tree, &path));
            not_found(&path, why)
        }
        other => explain(&other),
    })
}

/// Copies the directory `source` of a view, contents and metadata, into the empty directory `root`.
pub(in crate::worker) fn copy_tree(view: &View, source: &ContainerPath, root: &Path) -> std::io::Result<()> {
    let tree: Arc<dyn SourceTree> = Arc::new(view.clone());
    let selected = select_whole(&*tree, source).map_err(std::io::Error::other)?;
    if !selected.stat.kind.is_directory() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    let mut writer = LayerWriter::into_directory(root)?;
    let top = ContainerPath::root();
    let copied = Copier::new(&mut writer, &|| false).copy_whole(&tree, &selected, &top);
    copied.map_err(std::io::Error::other)?;
    let finished = writer.set_directory_metadata(&top, &Metadata::from(&selected.stat)).and_then(|()| writer.finish());
    finished.map_err(std::io::Error::other)
}

/// The files behind an input.
fn tree_of(
    worker: &EngineWorker<'_>,
    product: &Product,
    index: Option<Arc<FileIndex>>,
) -> Result<Arc<dyn SourceTree>, JobError> {
    let view = |snapshot: Option<SnapshotId>| worker.snapshots.view(snapshot).or_fail("cannot read a snapshot");
    match product {
        Product::Snapshot(snapshot) => Ok(Arc::new(view(*snapshot)?)),
        Product::Context(name) => {
            let context = worker.context(name)?;
            Ok(match &context.files {
                ContextFiles::Directory(path) => Arc::new(
                    ContextTree::directory(path, context.ignore.patterns.clone(), index)
                        .or_fail("cannot open the build context")?,
                ),
                ContextFiles::Snapshot(snapshot) => Arc::new(view(*snapshot)?),
            })
        }
    }
}

fn not_found(path: &ContainerPath, why: Option<String>) -> JobError {
    failed(format!("failed to compute cache key: \"{path}\": not found")).help(why.as_deref().unwrap_or(NOT_THERE))
}

/// The names next to where a path ends that are like the one that is missing.
fn nearest(tree: &dyn SourceTree, path: &ContainerPath) -> Option<String> {
    let mut here = ContainerPath::root();
    for name in path.components() {
        let next = here.join(name);
        if tree.stat(&next).ok()?.is_some() {
            here = next;
            continue;
        }
        let entries = tree.list(&here).ok()?;
        let names: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.name)).collect();
        let wanted = String::from_utf8_lossy(name);
        let near = suggestion(&wanted, names.iter().map(AsRef::as_ref))
            .or_else(|| names.iter().find(|known| known.eq_ignore_ascii_case(&wanted)).map(ToString::to_string))?;
        return Some(format!("did you mean {}?", here.join(near.as_bytes())));
    }
    None
}

/// Why a file that is there is not there for the build.
fn excluded(worker: &EngineWorker<'_>, product: &Product, path: &ContainerPath) -> Option<String> {
    let Product::Context(name) = product else { return None };
    let context = worker.context(name).ok()?;
    let ContextFiles::Directory(directory) = &context.files else { return None };
    RootDir::open(directory).ok()?.lstat(path).ok()?;
    context.ignore.reason(path)
}

fn explain(error: &FileError) -> JobError {
    match error {
        FileError::Cancelled => JobError::Cancelled,
        FileError::NotFound { path } => not_found(path, None),
        other => of_error("", other),
    }
}
