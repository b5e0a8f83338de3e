//! `ADD` of URLs and repositories: sources of their own, fetched beside other work.

use rbuild_image::Digest;

use super::git_ref::{GitRef, percent_decoded};
use super::stage::{StageId, StageStep};
use super::{About, Fault, Lowering, fault};
use crate::op::{GitSource, HttpSource, Op, Source};
use crate::vertex::{CacheUse, VertexId};

/// The name of a file whose URL names none.
const UNNAMED: &str = "__unnamed__";

/// A source of an `ADD`, with the flags that matter only for remote ones.
pub(super) struct Remote<'a> {
    pub(super) source: &'a str,
    pub(super) checksum: Option<&'a str>,
    pub(super) keep_git_dir: Option<bool>,
}

/// A remote source as a vertex.
pub(super) struct Found {
    pub(super) vertex: VertexId,
    /// The file's name; `None` for a repository.
    pub(super) filename: Option<String>,
}

impl Lowering<'_> {
    /// Adds the vertex of a remote source; `None` for a path.
    pub(super) fn lower_remote(
        &mut self,
        id: StageId,
        step: &StageStep<'_>,
        remote: &Remote<'_>,
        text: &str,
    ) -> Result<Option<Found>, Fault> {
        let git = GitRef::parse(remote.source).map_err(|message| fault(step.span, message))?;
        let (source, filename) = match git {
            Some(git) => (Source::Git(git_source(git, remote).map_err(|message| fault(step.span, message))?), None),
            None if is_http(remote.source) => {
                let checksum = remote.checksum.map(|text| digest(text).map_err(|message| fault(step.span, message)));
                let filename = filename(remote.source);
                let source = HttpSource {
                    url: remote.source.to_owned(),
                    checksum: checksum.transpose()?,
                    filename: filename.clone(),
                };
                (Source::Http(source), Some(filename))
            }
            None => return Ok(None),
        };
        let stage = self.stages[id].shown.clone();
        let name = format!("{text} ({})", remote.source);
        let about = About { span: Some(step.span), stage: &stage, text, name, cache_use: CacheUse::Allowed };
        let vertex = self.vertex(Op::Source(source), Vec::new(), about);
        Ok(Some(Found { vertex: self.graph.add(vertex), filename }))
    }
}

/// The repository that a build context names, if it names one; an error where it does with a query that makes no sense.
pub fn git_context(text: &str) -> Result<Option<GitSource>, String> {
    let remote = Remote { source: text, checksum: None, keep_git_dir: None };
    GitRef::parse_context(text)?.map(|git| git_source(git, &remote)).transpose()
}

/// The file that a build context names by URL, if it names one; there it is called `context`.
pub fn http_context(text: &str) -> Option<HttpSource> {
    is_http(text).then(|| HttpSource { url: text.to_owned(), checksum: None, filename: "context".to_owned() })
}

/// Whether a source is fetched by URL, and not a repository.
pub(super) fn is_http(source: &str) -> bool {
    let url = source.starts_with("http://") || source.starts_with("https://");
    url && !GitRef::parse(source).is_ok_and(|git| git.is_some())
}

fn git_source(git: GitRef, remote: &Remote<'_>) -> Result<GitSource, String> {
    let keep_git_dir = match (remote.keep_git_dir, git.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => return Err("inconsistent keep-git-dir configuration".to_owned()),
        (flag, query) => query.or(flag).unwrap_or(false),
    };
    let checksum = match (remote.checksum, git.checksum) {
        (Some(flag), Some(query)) if flag != query => return Err(format!("checksum mismatch {flag:?} != {query:?}")),
        (flag, query) => query.or_else(|| flag.map(str::to_owned)),
    };
    Ok(GitSource {
        remote: git.remote,
        reference: git.reference,
        subdir: git.subdir,
        keep_git_dir,
        submodules: git.submodules.unwrap_or(true),
        checksum,
        commit: None,
        times: git.times,
        fetch_by_commit: git.fetch_by_commit,
    })
}

fn digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error| match text.split_once(':') {
        Some(("sha256" | "sha512", _)) | None => format!("invalid checksum digest format: {error}"),
        Some((algorithm, _)) => format!("unsupported digest algorithm {algorithm:?} in checksum {text:?}"),
    })
}

/// The last part of the URL's path; redirects and headers do not matter.
fn filename(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    match percent_decoded(last).as_str() {
        "" | "." | ".." => UNNAMED.to_owned(),
        name => name.rsplit('/').next().unwrap_or(UNNAMED).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_path_of_their_url() {
        for (url, want) in [
            ("http://h/a/b.tar?x=/y#z", "b.tar"),
            ("http://h/a/", "a"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("https://h/a%20b", "a b"),
            ("https://h/..", UNNAMED),
            ("https://h/a%2Fb", "b"),
        ] {
            assert_eq!(filename(url), want, "{url}");
        }
    }

    #[test]
    fn steps_are_named_without_passwords() {
        for (text, want) in [
            ("ADD https://u:p@h/x /y (https://u:p@h/x)", "ADD https://xxxxx:xxxxx@h/x /y (https://xxxxx:xxxxx@h/x)"),
            ("ADD [\"https://t@h/x\", \"/y\"]", "ADD [\"https://xxxxx@h/x\", \"/y\"]"),
            ("COPY a@b /c", "COPY a@b /c"),
            ("ADD https://h/x?a=u@v /y", "ADD https://h/x?a=u@v /y"),
        ] {
            assert_eq!(super::super::redacted(text), want);
        }
    }

    #[test]
    fn checksums_are_digests() {
        assert!(digest("md5:abc").unwrap_err().contains("unsupported digest algorithm"));
        assert!(digest("sha256:12").unwrap_err().contains("invalid checksum digest"));
    }
}
