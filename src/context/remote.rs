//! A build context behind a URL: a git repository, a tar, or a Dockerfile alone. As in BuildKit, the ignore file of such
//! a context is not used: it is for what a user's own directory has too much of.

use std::path::Path;
use std::time::Instant;

use rbuild_cache::SnapshotId;
use rbuild_image::registry::without_credentials;
use rbuild_image::{Algorithm, ContainerPath};
use rbuild_parser::Source;
use rbuild_solver::{GitSource, git_context};

use super::{ContextFiles, IgnoreFile, Loaded, LocalContext, MAX_TEXT, dockerfile, stream};
use crate::cli::report::Failure;
use crate::fetch::{Fetching, checkout, download, pin};
use crate::request::{BuildRequest, DockerfileInput};

/// The name of a fetched file in the context that it is.
const FILE: &str = "context";
/// The name of a fetched Dockerfile.
const NAME: &str = "Dockerfile";
/// The build argument that keeps `.git` in a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The agent that is used for ssh remotes.
const AGENT: &str = "default";

/// Fetches a Dockerfile by its URL.
pub(super) fn dockerfile(with: &Fetching<'_>, url: &str) -> Result<Source, Failure> {
    let file = download(*with, url, NAME, Algorithm::Sha256, &|_, _| {})?;
    let view = with.store.snapshots().view(Some(file.snapshot))?;
    let shown = without_credentials(url);
    let bytes = view
        .read_regular(NAME, MAX_TEXT)?
        .ok_or_else(|| Failure::new(format!("failed to read dockerfile: {shown} is not there")))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("failed to read dockerfile: {shown} is not UTF-8 text")))?;
    Ok(Source::new(NAME, text))
}

/// Fetches the context, and finds the Dockerfile unless it was fetched already.
pub(super) fn load(
    with: &Fetching<'_>,
    request: &BuildRequest,
    url: &str,
    dockerfile: Option<Source>,
) -> Result<Loaded, Failure> {
    let wrong = |message: String| {
        Failure::usage(
            format!("the build context {:?}: {message}", without_credentials(url)),
            "e.g. https://example.com/repository.git#branch:directory",
        )
    };
    if let Some(mut git) = git_context(url).map_err(wrong)? {
        git.keep_git_dir |= request.build_args.iter().any(|(name, value)| name == KEEP_GIT_DIR && is_true(value));
        return from_git(with, request, &git, dockerfile);
    }
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(wrong("not a repository, and not a file behind an http or https URL".to_owned()));
    }
    from_file(with, request, url, dockerfile)
}

fn from_git(
    with: &Fetching<'_>,
    request: &BuildRequest,
    git: &GitSource,
    dockerfile: Option<Source>,
) -> Result<Loaded, Failure> {
    // Whoever names a repository by ssh means to use the agent at hand.
    let agent: Vec<_> = match (&with.engine.settings().ssh_auth_sock, with.ssh) {
        (Some(socket), []) => vec![(AGENT.to_owned(), socket.clone())],
        (_, given) => given.to_vec(),
    };
    let with = Fetching { ssh: &agent, ..*with };
    let pinned = pin(with, git)?;
    let snapshot = checkout(with, git, &pinned)?;
    inside(&with, request, snapshot, dockerfile)
}

fn from_file(
    with: &Fetching<'_>,
    request: &BuildRequest,
    url: &str,
    dockerfile: Option<Source>,
) -> Result<Loaded, Failure> {
    let file = download(*with, url, FILE, Algorithm::Sha256, &|_, _| {})?;
    let shown = without_credentials(url);
    let name = format!("tar {}", file.digest);
    if let Some((snapshot, _)) = with.recall(&name) {
        return inside(with, request, snapshot, dockerfile);
    }
    let began = Instant::now();
    let view = with.store.snapshots().view(Some(file.snapshot))?;
    let content = view.open(&ContainerPath::root().join(FILE))?;
    match stream::read(with.store, with.lease, Box::new(content), &shown, &|| with.engine.cancel().is_cancelled())? {
        stream::Unpacked::Files(Some(snapshot)) => {
            with.remember(&name, &format!("[internal] unpack {shown}"), snapshot, String::new(), began.elapsed());
            inside(with, request, snapshot, dockerfile)
        }
        stream::Unpacked::Files(None) => Err(Failure::new(format!("{shown} is an empty archive"))),
        stream::Unpacked::Dockerfile(text) => {
            // The file is all there is of the context, and a path given with -f can only mean this one.
            let context =
                LocalContext { files: ContextFiles::Snapshot(Some(file.snapshot)), ignore: IgnoreFile::default() };
            let own = match dockerfile {
                Some(own) => Some(own),
                None => local(request)?,
            };
            Ok(Loaded { dockerfile: own.unwrap_or_else(|| Source::new(NAME, text)), context })
        }
    }
}

/// Finds the Dockerfile in a fetched tree, or where the request says.
fn inside(
    with: &Fetching<'_>,
    request: &BuildRequest,
    snapshot: SnapshotId,
    dockerfile: Option<Source>,
) -> Result<Loaded, Failure> {
    let context = LocalContext { files: ContextFiles::Snapshot(Some(snapshot)), ignore: IgnoreFile::default() };
    let own = match dockerfile {
        Some(own) => Some(own),
        None => local(request)?,
    };
    if let Some(dockerfile) = own {
        return Ok(Loaded { dockerfile, context });
    }
    let view = with.store.snapshots().view(Some(snapshot))?;
    let read = |path: &str| -> Result<Option<Vec<u8>>, Failure> { Ok(view.read_regular(path, MAX_TEXT)?) };
    Ok(Loaded { dockerfile: dockerfile::read_inside(&read, &request.dockerfile)?, context })
}

/// The Dockerfile, where the request says that it is not in the context.
fn local(request: &BuildRequest) -> Result<Option<Source>, Failure> {
    let is_local = match &request.dockerfile {
        DockerfileInput::Stdin => true,
        DockerfileInput::Path(path) => path.is_absolute(),
        DockerfileInput::Default | DockerfileInput::Url(_) => false,
    };
    Ok(if is_local { Some(dockerfile::read(Path::new("/"), &request.dockerfile)?.0) } else { None })
}

fn is_true(value: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True"].contains(&value)
}
