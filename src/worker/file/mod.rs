//! `COPY`, `ADD` and `WORKDIR`: writes a layer straight from its sources against a merged view of the parent; needs no
//! mount and no container.
//!
//! `exec` does a [`FileOp`], `selection_digest` says what a step would read of one input. Rules are BuildKit's:
//!
//! - A directory source means its contents. An existing destination directory keeps its metadata, one below it takes the
//!   source's. What is made on the way has mode 0755 (an octal `--chmod` counts) and the `--chown` owner.
//! - Symlinks are followed in a source that was named, never inside a copied tree, and in the destination path inside
//!   the image.
//! - A file never replaces a directory, a directory never anything else.
//!
//! `job` knows the worker; everything else only sees `SourceTree`s and a writer.

mod archive;
mod copy;
mod digest;
mod job;
mod mode;
mod owner;
mod select;
mod source;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::sync::Arc;

use rbuild_cache::snapshot::{LayerWriteError, LayerWriter};
use rbuild_cache::view::View;
use rbuild_image::ContainerPath;
use rbuild_image::layer::TarError;
use rbuild_parser::IgnoreError;
use rbuild_solver::{FileAction, FileOp};

use crate::cli::report::Failure;
pub(super) use job::{copy_tree, exec, perform, selection_digest};
use mode::InvalidMode;
use owner::OwnerError;
use source::{ContextTree, SourceTree};

/// Why a file step cannot be done.
#[derive(Debug, thiserror::Error)]
enum FileError {
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
    /// The build was stopped.
    #[error("cancelled")]
    Cancelled,
}

/// What a step reads: one tree per input, in the order of the vertex's inputs. Only those that its actions name are
/// looked at.
type Sources = [Option<Arc<dyn SourceTree>>];

/// Tells whether to stop.
type IsCancelled<'a> = &'a dyn Fn() -> bool;

/// Unpacks a tar that is a build context, as `ADD` would: names of whiteouts are ordinary names.
pub(crate) fn unpack_context(
    tar: &mut dyn Read,
    writer: &mut LayerWriter,
    cancelled: IsCancelled<'_>,
) -> Result<(), Failure> {
    let top = ContainerPath::root();
    let unpacked = archive::unpack_stream(&mut copy::Copier::new(writer, cancelled), tar, &top, &top, None);
    unpacked.and_then(|()| Ok(writer.finish()?)).map_err(|error| match error {
        FileError::Cancelled => Failure::interrupted(),
        // The archive has a name that people know, and no path.
        FileError::Archive { source, .. } => Failure::from_error("", &source),
        other => Failure::from_error("", &other),
    })
}

/// Does the actions of `op`, in order.
fn write_layer(
    op: &FileOp,
    sources: &Sources,
    writer: &mut LayerWriter,
    cancelled: IsCancelled<'_>,
) -> Result<(), FileError> {
    for action in &op.actions {
        let mut copier = copy::Copier::new(writer, cancelled);
        match action {
            FileAction::Copy(copy) => match copy.input {
                Some(input) => {
                    let source = sources.get(input).and_then(Option::as_ref).ok_or(FileError::NoSource { input })?;
                    copier.copy(copy, source)?;
                }
                None => {
                    let empty: Arc<dyn SourceTree> = Arc::new(View::empty());
                    copier.copy(copy, &empty)?;
                }
            },
            FileAction::Write(write) => copier.write(write)?,
            FileAction::MakeDir(make) => copier.make_directory(make)?,
        }
    }
    Ok(writer.finish()?)
}
