//! A build context behind a URL: a git repository, a tar, or a Dockerfile alone. As in BuildKit, the ignore file of such
//! a context is not used: it is for what a user's own directory has too much of.

use std::path::Path;
use std::time::Instant;

use rbuild_cache::SnapshotId;
use rbuild_image::registry::without_credentials;
use rbuild_image::{Algorithm, ContainerPath};
use rbuild_parser::{Ignore, Source};
use rbuild_solver::{GitSource, git_context};

use super::{ContextFiles, Loaded, LocalContext, MAX_TEXT, dockerfile, stream};
use crate::cli::report::Failure;
use crate::fetch::{Fetching, checkout, download, pin};
use crate::request::{BuildRequest, DockerfileInput};

/// The name of a fetched file in the context that it is.
const FILE: &str = "context";
/// The build argument that keeps `.git` in a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The agent that is used for ssh remotes.
const AGENT: &str = "default";

/// Fetches the context, and finds the Dockerfile.
pub(super) fn load(with: &Fetching<'_>, request: &BuildRequest, url: &str) -> Result<Loaded, Failure> {
    let wrong = |message: String| {
        Failure::usage(
            format!("the build context {:?}: {message}", without_credentials(url)),
            "e.g. https://example.com/repository.git#branch:directory",
        )
    };
    if let Some(mut git) = git_context(url).map_err(wrong)? {
        git.keep_git_dir |= request.build_args.iter().any(|(name, value)| name == KEEP_GIT_DIR && is_true(value));
        return from_git(with, request, &git);
    }
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(wrong("not a repository, and not a file behind an http or https URL".to_owned()));
    }
    from_file(with, request, url)
}

fn from_git(with: &Fetching<'_>, request: &BuildRequest, git: &GitSource) -> Result<Loaded, Failure> {
    // Whoever names a repository by ssh means to use the agent at hand.
    let agent: Vec<_> = match (&with.engine.settings().ssh_auth_sock, with.ssh) {
        (Some(socket), []) => vec![(AGENT.to_owned(), socket.clone())],
        (_, given) => given.to_vec(),
    };
    let with = Fetching { ssh: &agent, ..*with };
    let pinned = pin(with, git)?;
    let snapshot = checkout(with, git, &pinned)?;
    inside(&with, request, snapshot)
}

fn from_file(with: &Fetching<'_>, request: &BuildRequest, url: &str) -> Result<Loaded, Failure> {
    let file = download(*with, url, FILE, Algorithm::Sha256, &|_, _| {})?;
    let shown = without_credentials(url);
    let name = format!("tar {}", file.digest);
    if let Some((snapshot, _)) = with.recall(&name) {
        return inside(with, request, snapshot);
    }
    let began = Instant::now();
    let view = with.store.snapshots().view(Some(file.snapshot))?;
    let content = view.open(&ContainerPath::root().join(FILE))?;
    match stream::read(with.store, with.lease, Box::new(content), &shown)? {
        stream::Unpacked::Files(Some(snapshot)) => {
            with.remember(&name, &format!("[internal] unpack {shown}"), snapshot, String::new(), began.elapsed());
            inside(with, request, snapshot)
        }
        stream::Unpacked::Files(None) => Err(Failure::new(format!("{shown} is an empty archive"))),
        stream::Unpacked::Dockerfile(text) => {
            // The file is all there is of the context, and a path given with -f can only mean this one.
            let context =
                LocalContext { files: ContextFiles::Snapshot(Some(file.snapshot)), ignore: Ignore::default() };
            let dockerfile = match &request.dockerfile {
                DockerfileInput::Stdin => dockerfile::read(Path::new("/"), &request.dockerfile)?.0,
                DockerfileInput::Default | DockerfileInput::Path(_) => Source::new("Dockerfile", text),
            };
            Ok(Loaded { dockerfile, context })
        }
    }
}

/// Finds the Dockerfile in a fetched tree, or where the request says.
fn inside(with: &Fetching<'_>, request: &BuildRequest, snapshot: SnapshotId) -> Result<Loaded, Failure> {
    let context = LocalContext { files: ContextFiles::Snapshot(Some(snapshot)), ignore: Ignore::default() };
    let is_local = match &request.dockerfile {
        DockerfileInput::Stdin => true,
        DockerfileInput::Path(path) => path.is_absolute(),
        DockerfileInput::Default => false,
    };
    if is_local {
        let dockerfile = dockerfile::read(Path::new("/"), &request.dockerfile)?.0;
        return Ok(Loaded { dockerfile, context });
    }
    let view = with.store.snapshots().view(Some(snapshot))?;
    let read = |path: &str| -> Result<Option<Vec<u8>>, Failure> { Ok(view.read_regular(path, MAX_TEXT)?) };
    let (_, dockerfile) = dockerfile::read_inside(&read, &request.dockerfile)?;
    Ok(Loaded { dockerfile, context })
}

fn is_true(value: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True"].contains(&value)
}
