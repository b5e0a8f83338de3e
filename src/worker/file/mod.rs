//! `COPY`, `ADD` and `WORKDIR`: writes a layer straight from its sources against a merged view of the parent; needs no
//! mount and no container.
//!
//! [`make_layer`] does a [`FileOp`], [`selection_digest`] says what it would read, [`tree_digest`] does that for a bind
//! mount. Rules are BuildKit's, see `docs` of the corpus cases `copy-*`, `add-*` and `workdir-*`:
//!
//! - A directory source means its contents. An existing destination directory keeps its metadata, one below it takes the
//!   source's. What is made on the way has mode 0755 (an octal `--chmod` counts) and the `--chown` owner.
//! - Symlinks are followed in a source that was named, never inside a copied tree, and in the destination path inside
//!   the image.
//! - A file never replaces a directory, a directory never anything else.
//!
//! Does not decide what is copied from where: sources are [`SourceTree`]s that the caller made.

mod archive;
mod copy;
mod digest;
mod mode;
mod owner;
mod select;
mod source;

use std::io;
use std::sync::Arc;

use rbuild_cache::snapshot::{Committed, LayerWriteError, Snapshot, SnapshotError, Snapshots};
use rbuild_cache::{Lease, SnapshotId};
use rbuild_image::ContainerPath;
use rbuild_image::layer::TarError;
use rbuild_parser::IgnoreError;
use rbuild_solver::{FileAction, FileOp, Linking};

pub use digest::{selection_digest, tree_digest};
pub use mode::InvalidMode;
pub use owner::OwnerError;
pub use source::{ContextTree, SourceTree};

/// Why a file step cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A source that is not there (or ignored).
    #[error("\"{path}\": not found")]
    NotFound {
        /// Which, from the root of its context or stage.
        path: ContainerPath,
    },
    /// A directory was to be copied onto something else.
    #[error("cannot copy to non-directory: {path}")]
    OntoNonDirectory {
        /// What is in the way.
        path: ContainerPath,
    },
    /// A file was to be copied onto a directory.
    #[error("cannot replace to directory {path} with file")]
    OntoDirectory {
        /// What is in the way.
        path: ContainerPath,
    },
    /// A directory that is needed is something else.
    #[error("mkdir {path}: not a directory")]
    NotADirectory {
        /// What is in the way.
        path: ContainerPath,
    },
    /// A source number that the step does not have.
    #[error("the step has no source number {input}")]
    NoSource {
        /// Which.
        input: usize,
    },
    /// A `--chmod` that makes no sense.
    #[error(transparent)]
    Mode(#[from] InvalidMode),
    /// A `--chown` that cannot be looked up.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A pattern that cannot be read.
    #[error(transparent)]
    Pattern(#[from] IgnoreError),
    /// A source that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: ContainerPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive that cannot be unpacked.
    #[error("cannot unpack {path}")]
    Archive {
        /// Which.
        path: ContainerPath,
        /// Why.
        #[source]
        source: TarError,
    },
    /// A destination that cannot be written.
    #[error(transparent)]
    Write(#[from] LayerWriteError),
    /// The store said no.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The build was stopped.
    #[error("cancelled")]
    Cancelled,
}

/// What a step reads: one tree per input, in the order of the vertex's inputs. Only those that its actions name are
/// looked at.
pub type Sources = [Option<Arc<dyn SourceTree>>];

/// Tells whether to stop.
pub type IsCancelled<'a> = &'a dyn Fn() -> bool;

/// Does `op` on top of `base` and commits the result, held by `lease`.
pub fn make_layer(
    snapshots: &Snapshots,
    op: &FileOp,
    base: Option<SnapshotId>,
    sources: &Sources,
    lease: &Lease,
    cancelled: IsCancelled<'_>,
) -> Result<Snapshot<Committed>, FileError> {
    let parent = match op.linking {
        Linking::Dependent => base,
        Linking::Independent => None,
    };
    let active = snapshots.prepare(parent, lease)?;
    let mut writer = active.writer()?;
    for action in &op.actions {
        let mut copier = copy::Copier::new(&mut writer, cancelled);
        match action {
            FileAction::Copy(copy) => match copy.input {
                Some(input) => {
                    let source = sources.get(input).and_then(Option::as_ref).ok_or(FileError::NoSource { input })?;
                    copier.copy(copy, source)?;
                }
                None => {
                    let empty: Arc<dyn SourceTree> = Arc::new(rbuild_cache::view::View::empty());
                    copier.copy(copy, &empty)?;
                }
            },
            FileAction::Write(write) => copier.write(write)?,
            FileAction::MakeDir(make) => copier.make_directory(make)?,
        }
    }
    writer.finish()?;
    drop(writer);
    let committed = active.commit(lease)?;
    match (op.linking, base) {
        (Linking::Independent, Some(_)) => Ok(snapshots.rebase(committed.id(), base, lease)?),
        _ => Ok(committed),
    }
}
