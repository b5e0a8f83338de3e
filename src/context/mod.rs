//! Build contexts: where the files of `COPY` and the Dockerfile come from. A directory is read in place; what comes as
//! a stream is unpacked into the store first, confined as any image layer is.

mod dockerfile;
mod ignore_file;
mod remote;
mod stream;

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_cache::{Lease, SnapshotId, Store};
use rbuild_parser::Source;

pub use ignore_file::IgnoreFile;

use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::fetch::Fetching;
use crate::request::{BuildRequest, ContextInput, DockerfileInput};
use stream::Unpacked;

/// The largest Dockerfile or ignore file that is read, in bytes.
pub(crate) const MAX_TEXT: u64 = 8 << 20;

/// A context that is ready to be read.
#[derive(Debug)]
pub struct LocalContext {
    /// Where its files are.
    pub files: ContextFiles,
    /// What of them is invisible.
    pub ignore: IgnoreFile,
}

/// Where a context's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextFiles {
    /// A directory of the user's.
    Directory(PathBuf),
    /// A snapshot: a tar that was unpacked; `None` is an empty one.
    Snapshot(Option<SnapshotId>),
}

/// What a build starts from.
#[derive(Debug)]
pub struct Loaded {
    /// The Dockerfile.
    pub dockerfile: Source,
    /// The main context.
    pub context: LocalContext,
}

/// Finds the Dockerfile and the main context of a request.
pub fn load(
    engine: &Engine,
    lease: &Lease,
    request: &BuildRequest,
    ssh: &[(String, PathBuf)],
) -> Result<Loaded, Failure> {
    let fetched = match &request.dockerfile {
        DockerfileInput::Url(url) => {
            Some(remote::dockerfile(&Fetching::of(engine, engine.store()?, lease, request, ssh), url)?)
        }
        _ => None,
    };
    match &request.context {
        ContextInput::Directory(directory) => from_directory(directory, &request.dockerfile, fetched),
        ContextInput::Stdin => {
            let cancelled = || engine.cancel().is_cancelled();
            let store = engine.store()?;
            let unpacked = stream::read(store, lease, Box::new(std::io::stdin()), "standard input", &cancelled)?;
            from_stream(store, unpacked, &request.dockerfile, fetched)
        }
        ContextInput::Empty => from_stream(engine.store()?, Unpacked::Files(None), &request.dockerfile, fetched),
        ContextInput::Url(url) => {
            remote::load(&Fetching::of(engine, engine.store()?, lease, request, ssh), request, url, fetched)
        }
    }
}

/// A named context that is a directory.
pub fn named_directory(directory: &Path) -> Result<LocalContext, Failure> {
    check_directory(directory)?;
    let ignore = dockerfile::ignore_file(directory, None)?;
    Ok(LocalContext { files: ContextFiles::Directory(directory.to_owned()), ignore })
}

fn from_directory(directory: &Path, input: &DockerfileInput, fetched: Option<Source>) -> Result<Loaded, Failure> {
    check_directory(directory)?;
    let (dockerfile, path) = match fetched {
        Some(fetched) => (fetched, None),
        None => dockerfile::read(directory, input)?,
    };
    let ignore = dockerfile::ignore_file(directory, path.as_deref())?;
    Ok(Loaded { dockerfile, context: LocalContext { files: ContextFiles::Directory(directory.to_owned()), ignore } })
}

/// As in BuildKit, no ignore file is used: what comes as an archive was chosen by whoever made it.
fn from_stream(
    store: &Store,
    unpacked: Unpacked,
    input: &DockerfileInput,
    fetched: Option<Source>,
) -> Result<Loaded, Failure> {
    let snapshot = match unpacked {
        Unpacked::Dockerfile(_) if *input != DockerfileInput::Default => {
            return Err(Failure::usage(
                "both standard input and -f give a Dockerfile",
                "leave -f out, or feed a tar with the context",
            ));
        }
        Unpacked::Dockerfile(text) => {
            let context = LocalContext { files: ContextFiles::Snapshot(None), ignore: IgnoreFile::default() };
            return Ok(Loaded { dockerfile: Source::new("Dockerfile", text), context });
        }
        Unpacked::Files(snapshot) => snapshot,
    };
    let dockerfile = match fetched {
        Some(fetched) => fetched,
        None => {
            let view = store.snapshots().view(snapshot)?;
            let read = |path: &str| -> Result<Option<Vec<u8>>, Failure> { Ok(view.read_regular(path, MAX_TEXT)?) };
            dockerfile::read_inside(&read, input)?
        }
    };
    let context = LocalContext { files: ContextFiles::Snapshot(snapshot), ignore: IgnoreFile::default() };
    Ok(Loaded { dockerfile, context })
}

fn check_directory(directory: &Path) -> Result<(), Failure> {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(format!("the build context {} is not a directory", directory.display()))
            .with_help("name the directory with your files; -f names the Dockerfile")),
        Err(error) => Err(Failure::new(format!("cannot read the build context {}: {error}", directory.display()))
            .with_help("name an existing directory, e.g. `rbuild -t hello:0.1 .`")),
    }
}
