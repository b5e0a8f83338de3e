//! A tree of a git repository, as a snapshot: files owned by root, modes as git knows them, all with the time of the
//! commit, so that the same commit makes the same layer everywhere.
//!
//! A name is fixed to a commit first ([`pin`]), then exactly that commit is fetched, without history where the server
//! can cut it off ([`checkout`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rbuild_cache::SnapshotId;
use rbuild_cache::view::Timestamp;
use rbuild_executor::{FileKind, RootDir};
use rbuild_image::registry::without_credentials;
use rbuild_image::{ContainerPath, Digest};
use rbuild_solver::{GitSource, GitTimes};

use super::Fetching;
use super::git_command::{Git, GitError};
use super::git_listing::Listed;
use super::git_name::{Remote, check_reference, is_commit};
use super::git_tree::CheckedOut;
use crate::cli::report::Failure;

/// Secrets for repositories (BuildKit's names); a dot and the host may follow.
const HEADER_SECRET: &str = "GIT_AUTH_HEADER";
const TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";
/// The agent that ssh remotes use.
const AGENT: &str = "default";

/// What a source's name stands for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PinnedCommit {
    /// The commit; of a commit given by the user it may turn out to be an annotated tag.
    pub(crate) commit: String,
    /// The branch or tag that leads there, in full; `None` when the commit itself was named.
    pub(crate) name: Option<String>,
}

impl PinnedCommit {
    /// What a checkout of it depends on, beside what the source says.
    pub(crate) fn identity(&self, source: &GitSource) -> Digest {
        // Only a kept repository shows by which name it was fetched.
        let name = self.name.as_deref().filter(|_| source.keep_git_dir).unwrap_or_default();
        Digest::sha256(format!("rbuild git 1\n{}\n{name}\n", self.commit))
    }
}

/// A repository on its way.
struct Repository<'a> {
    with: Fetching<'a>,
    source: &'a GitSource,
    shown: String,
    private: PathBuf,
    git: Git<'a>,
}

/// Finds the commit that a source names, without fetching it.
pub(crate) fn pin(with: Fetching<'_>, source: &GitSource) -> Result<PinnedCommit, Failure> {
    check(source)?;
    let checksum = source.checksum.as_deref().unwrap_or_default();
    let by_checksum = source.reference.is_empty() || (source.fetch_by_commit && is_commit(checksum));
    let given = if by_checksum { checksum } else { &source.reference };
    if is_commit(given) {
        matches_checksum(source, &[given])?;
        return Ok(PinnedCommit { commit: given.to_owned(), name: None });
    }
    let repository = Repository::open(with, source)?;
    let pinned = repository.resolve();
    repository.finish(pinned)
}

/// Fetches a commit and gives its tree, or the wanted directory of it.
pub(crate) fn checkout(with: Fetching<'_>, source: &GitSource, pinned: &PinnedCommit) -> Result<SnapshotId, Failure> {
    check(source)?;
    let name = format!(
        "git {} {} keep={} submodules={} of {}",
        pinned.identity(source),
        source.subdir,
        source.keep_git_dir,
        source.submodules,
        without_credentials(&source.remote),
    );
    // Whoever wants the times of the checkout wants a checkout.
    let lasting = source.times == GitTimes::Commit;
    if let Some((snapshot, _)) = with.recall(&name).filter(|_| lasting) {
        return Ok(snapshot);
    }
    let began = Instant::now();
    let repository = Repository::open(with, source)?;
    let subject = format!("[internal] load git source {}", repository.shown);
    let snapshot = repository.fetch(pinned).and_then(|time| repository.store(time));
    let snapshot = repository.finish(snapshot)?;
    if lasting {
        with.remember(&name, &subject, snapshot, String::new(), began.elapsed());
    }
    Ok(snapshot)
}

/// Refuses what must not reach git.
fn check(source: &GitSource) -> Result<(), Failure> {
    let shown = without_credentials(&source.remote);
    Remote::parse(&source.remote)
        .map_err(|error| Failure::new(format!("the repository {shown:?} is refused: it {error}")))?;
    check_reference(&source.reference)
        .map_err(|error| Failure::new(format!("{shown}: the ref {:?} is refused: it {error}", source.reference)))?;
    match &source.checksum {
        Some(text) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err(Failure::new(format!("invalid checksum {text} for Git URL, expected hex commit hash")))
        }
        _ => Ok(()),
    }
}

fn matches_checksum(source: &GitSource, found: &[&str]) -> Result<(), Failure> {
    let Some(checksum) = &source.checksum else { return Ok(()) };
    let wanted = checksum.to_ascii_lowercase();
    if found.iter().any(|commit| commit.starts_with(&wanted)) {
        return Ok(());
    }
    Err(Failure::new(format!("expected checksum to match {checksum}, got {}", found.join(" or ")))
        .with_help("the ref does not lead to that commit (any more)"))
}

impl<'a> Repository<'a> {
    fn open(with: Fetching<'a>, source: &'a GitSource) -> Result<Self, Failure> {
        let shown = without_credentials(&source.remote);
        let remote = Remote::parse(&source.remote)
            .map_err(|error| Failure::new(format!("the repository {shown:?} is refused: it {error}")))?;
        let header = match remote.protocol {
            "http" | "https" => authorization(with, &remote)?,
            _ => None,
        };
        let agent = with.ssh.iter().find(|(id, _)| id == AGENT).map(|(_, socket)| socket.as_path());
        let private = with.lease.scratch_name("git")?;
        fs::create_dir(&private)
            .map_err(|error| Failure::from_error(&format!("cannot create {}", private.display()), &error))?;
        let header = header.as_deref().map(|header| (remote.token_scope(), header));
        let agent = agent.filter(|_| remote.protocol == "ssh");
        let git = Git::new(with.engine.settings(), with.engine.cancel(), &private, agent, header)
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self { with, source, shown, private, git })
    }

    /// Cleans up, whatever came out.
    fn finish<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        // The lease's end removes what is left.
        if let Err(error) = fs::remove_dir_all(&self.private) {
            tracing::debug!(%error, "a checkout stays until the lease ends");
        }
        result
    }

    fn failed(&self, doing: &str, error: &GitError) -> Failure {
        if matches!(error, GitError::Cancelled) {
            return Failure::interrupted();
        }
        // Messages name the remote as it was given.
        let text = error.to_string().replace(&self.source.remote, &self.shown);
        let failure = Failure::new(format!("{doing} {}: {text}", self.shown));
        let login =
            ["Authentication failed", "could not read Username", "Permission denied", "terminal prompts disabled"];
        if !login.iter().any(|sign| text.contains(sign)) {
            return failure;
        }
        failure.with_help(match self.source.remote.starts_with("http") {
            true => "give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE",
            false => "give an agent that has a key with --ssh default",
        })
    }

    fn tree(&self) -> PathBuf {
        self.private.join("tree")
    }

    fn resolve(&self) -> Result<PinnedCommit, Failure> {
        let (remote, wanted) = (self.source.remote.as_str(), self.source.reference.as_str());
        let wanted = if wanted == "HEAD" { "" } else { wanted };
        let peeled = format!("{wanted}^{{}}");
        let arguments: &[&str] = match wanted {
            "" => &["ls-remote", "--symref", "--", remote, "HEAD"],
            _ => &["ls-remote", "--", remote, wanted, &peeled],
        };
        let listed =
            self.git.run(&self.private, arguments).map_err(|error| self.failed("failed to fetch remote", &error))?;
        let found = Listed::choose(&listed, wanted).ok_or_else(|| match wanted {
            "" => Failure::new(format!("could not find default branch for repository: {}", self.shown)),
            _ => Failure::new(format!("repository does not contain ref {wanted}: {}", self.shown)),
        })?;
        if !is_commit(found.commit) || found.peeled.is_some_and(|peeled| !is_commit(peeled)) {
            return Err(Failure::new(format!("{}: invalid commit sha {:?}", self.shown, found.commit)));
        }
        let all: Vec<&str> = std::iter::once(found.commit).chain(found.peeled).collect();
        matches_checksum(self.source, &all)?;
        let commit = found.peeled.unwrap_or(found.commit).to_owned();
        Ok(PinnedCommit { commit, name: Some(found.name.to_owned()) })
    }

    /// Fetches and checks out; gives the commit's time.
    fn fetch(&self, pinned: &PinnedCommit) -> Result<i64, Failure> {
        let tree = self.tree();
        fs::create_dir(&tree)
            .map_err(|error| Failure::from_error(&format!("cannot create {}", tree.display()), &error))?;
        let format = if pinned.commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        let fetching = |error: GitError| self.failed("failed to fetch remote", &error);
        self.git.run(&tree, &["init", "-q", "--template=", format]).map_err(fetching)?;
        self.git.run(&tree, &["remote", "add", "--", "origin", &self.source.remote]).map_err(fetching)?;
        self.fetch_commit(&tree, pinned).map_err(fetching)?;
        let commit = self.commit_of(&tree, &pinned.commit).map_err(fetching)?;
        matches_checksum(self.source, &[&pinned.commit, &commit])?;
        let checking_out = |error: GitError| self.failed("failed to checkout remote", &error);
        self.git.run(&tree, &["checkout", "-q", "--detach", &commit, "--"]).map_err(checking_out)?;
        if self.source.submodules && tree.join(".gitmodules").symlink_metadata().is_ok() {
            self.submodules(&tree).map_err(|error| self.failed("failed to update submodules for", &error))?;
        }
        let time = self.git.run(&tree, &["log", "-1", "--format=%ct", &commit, "--"]).map_err(checking_out)?;
        Ok(time.trim().parse().unwrap_or(0))
    }

    fn commit_of(&self, tree: &Path, object: &str) -> Result<String, GitError> {
        let commit = format!("{object}^{{commit}}");
        self.git
            .run(tree, &["rev-parse", "--verify", "-q", "--end-of-options", &commit])
            .map(|text| text.trim().to_owned())
    }

    fn fetch_commit(&self, tree: &Path, pinned: &PinnedCommit) -> Result<(), GitError> {
        let fetch = |depth: Option<&str>, what: &str| {
            let mut arguments = vec!["fetch", "-q", "-u", "--no-tags"];
            arguments.extend(depth);
            arguments.extend(["--", "origin", what]);
            self.git.run(tree, &arguments).map(drop)
        };
        const SHALLOW: Option<&str> = Some("--depth=1");
        if let Some(name) = pinned.name.as_ref().filter(|_| !self.source.fetch_by_commit) {
            // By name first: every server gives that. A kept repository keeps the name.
            let refspec = format!("+{name}:{name}");
            match fetch(SHALLOW, &refspec) {
                Err(error) if error.wants_more_history() => fetch(None, &refspec)?,
                other => other?,
            }
            if self.commit_of(tree, name)? == pinned.commit {
                return Ok(());
            }
            // The name leads elsewhere by now; the commit may still be had.
            self.git.run(tree, &["update-ref", "-d", name])?;
        }
        match fetch(SHALLOW, &pinned.commit) {
            Err(error) if error.wants_more_history() => {}
            other => return other,
        }
        fetch(None, "+refs/heads/*:refs/remotes/origin/*")?;
        if self.commit_of(tree, &pinned.commit).is_err() {
            fetch(None, "+refs/tags/*:refs/tags/*")?;
        }
        self.commit_of(tree, &pinned.commit).map(drop).map_err(|error| match error {
            GitError::Failed { .. } => GitError::Failed {
                command: "fetch".to_owned(),
                messages: format!("the repository has no commit {}", pinned.commit),
            },
            other => other,
        })
    }

    fn submodules(&self, tree: &Path) -> Result<(), GitError> {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        match self.git.run(tree, &[&update[..], &["--depth=1"]].concat()) {
            Err(error) if error.wants_more_history() => self.git.run(tree, &update).map(drop),
            other => other.map(drop),
        }
    }

    /// Makes a snapshot of the checkout.
    fn store(&self, time: i64) -> Result<SnapshotId, Failure> {
        let tree = self.tree();
        let subdir = ContainerPath::new(&self.source.subdir);
        let keep = self.source.keep_git_dir && subdir.is_root();
        if keep {
            self.tidy(&tree).map_err(|error| self.failed("cannot keep the repository of", &error))?;
        }
        let unreadable =
            |error: io::Error| Failure::from_error(&format!("cannot read the checkout of {}", self.shown), &error);
        let root = Arc::new(RootDir::open(&tree).map_err(unreadable)?);
        // Symlinks of the repository lead nowhere but inside it.
        let top = root.resolve(&subdir).and_then(|top| match root.stat(&top)?.kind {
            FileKind::Directory if top.components().next() != Some(b".git") => Ok(top),
            FileKind::Directory => Err(io::ErrorKind::NotFound.into()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        });
        let top = top.map_err(|error| {
            Failure::new(format!("{}: failed to open subdir {}: {}", self.shown, self.source.subdir, plain(&error)))
        })?;
        let active = self.with.store.snapshots().prepare(None, self.with.lease)?;
        let mut writer = active.writer()?;
        let mtime = match self.source.times {
            GitTimes::Commit => Some(Timestamp { seconds: time, nanoseconds: 0 }),
            GitTimes::Checkout => None,
        };
        let checked_out = CheckedOut { root, top, keep, mtime };
        checked_out.copy(&ContainerPath::root(), &mut writer, &|| self.with.check_cancelled())?;
        writer.finish()?;
        drop(writer);
        Ok(active.commit(self.with.lease)?.id())
    }

    /// Removes what a kept repository need not show: credentials, and traces of how it was made.
    fn tidy(&self, tree: &Path) -> Result<(), GitError> {
        self.git.run(tree, &["remote", "set-url", "--", "origin", &self.shown])?;
        self.git.run(tree, &["reflog", "expire", "--all", "--expire=now"])?;
        for name in ["FETCH_HEAD", "ORIG_HEAD"] {
            match fs::remove_file(tree.join(".git").join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(GitError::Run(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// The header that a secret makes for a remote: for its host, or for every one.
fn authorization(with: Fetching<'_>, remote: &Remote<'_>) -> Result<Option<String>, Failure> {
    for suffix in [format!(".{}", remote.host), String::new()] {
        let header = with.secret(&format!("{HEADER_SECRET}{suffix}"))?;
        let header = match header {
            Some(header) => Some(header),
            None => with.secret(&format!("{TOKEN_SECRET}{suffix}"))?.map(|token| basic(&token)),
        };
        if let Some(header) = header {
            if remote.is_clear_text() {
                return Err(Failure::new(format!(
                    "credentials are not sent to {} without TLS",
                    without_credentials(remote.url)
                ))
                .with_help("use an https or ssh URL, or build without the GIT_AUTH_… secret"));
            }
            return Ok(Some(header));
        }
    }
    Ok(None)
}

fn basic(token: &str) -> String {
    format!("basic {}", BASE64_STANDARD.encode(format!("x-access-token:{token}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn source(remote: &str, reference: &str, checksum: Option<&str>) -> GitSource {
        GitSource {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            subdir: String::new(),
            keep_git_dir: false,
            submodules: true,
            checksum: checksum.map(str::to_owned),
            commit: None,
            times: GitTimes::Commit,
            fetch_by_commit: false,
        }
    }

    #[test]
    fn nothing_that_looks_like_an_option_reaches_git() {
        for (remote, reference, checksum) in [
            ("--upload-pack=x", "", None),
            ("https://-x/r.git", "", None),
            ("ext::sh -c x", "", None),
            ("https://h/r.git", "--output=/etc/passwd", None),
            ("https://h/r.git", "a:b", None),
            ("https://h/r.git", "", Some("--x")),
            ("https://h/r.git", "", Some("")),
        ] {
            assert!(check(&source(remote, reference, checksum)).is_err(), "{remote} {reference} {checksum:?}");
        }
        assert!(check(&source("https://h/r.git", "main", Some("ABC123"))).is_ok());
    }

    #[test]
    fn checksums_match_by_their_beginning() {
        let with = |checksum| source("https://h/r.git", "", Some(checksum));
        assert!(matches_checksum(&with("BBBB"), &[A, B]).is_ok());
        let failure = matches_checksum(&with("cc"), &[A, B]).unwrap_err();
        assert_eq!(failure.message(), format!("expected checksum to match cc, got {A} or {B}"));
    }
}
