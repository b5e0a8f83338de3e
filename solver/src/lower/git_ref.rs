//! Which texts name a git repository, and what in it (BuildKit's `dfgitutil.ParseGitRef`):
//! `https://host/repo.git#branch:dir`, `git@host:repo.git?tag=v1&subdir=x`, `ssh://…`, `git://…`.

use crate::op::GitTimes;

/// The folders of branches and tags.
const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// A repository, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GitRef {
    /// Without query and fragment.
    pub(super) remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub(super) reference: String,
    /// Directory; empty for the whole tree.
    pub(super) subdir: String,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) submodules: Option<bool>,
    pub(super) times: GitTimes,
    pub(super) fetch_by_commit: bool,
}

impl GitRef {
    /// `None` when `text` names no repository, an error when it does with a query that makes no sense.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (remote, query) = match rest.split_once('?') {
            Some((remote, query)) => (remote, Some(query)),
            None => (rest, None),
        };
        if !is_repository(remote) {
            return Ok(None);
        }
        let mut found = Self { remote: remote.to_owned(), ..Self::default() };
        if let Some(fragment) = fragment {
            let fragment = if remote.contains("://") { percent_decoded(fragment) } else { fragment.to_owned() };
            let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
            reference.clone_into(&mut found.reference);
            subdir.clone_into(&mut found.subdir);
        }
        found.take_query(query.unwrap_or_default())?;
        Ok(Some(found))
    }

    fn take_query(&mut self, query: &str) -> Result<(), String> {
        let (mut seen, mut tag, mut branch) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (percent_decoded(&key.replace('+', " ")), percent_decoded(&value.replace('+', " ")));
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            match key.as_str() {
                "tag" | "branch" if value.is_empty() => return Err(format!("query {key:?} has no value")),
                "tag" => tag = Some(in_folder(TAGS, &value)),
                "branch" => branch = Some(in_folder(BRANCHES, &value)),
                _ => self.set(&key, &value)?,
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        if let Some(full) = tag.or(branch) {
            self.set_reference(&full)?;
        }
        // A commit alone says what to fetch.
        if let (Some(checksum), true) = (&self.checksum, self.reference.is_empty()) {
            self.reference.clone_from(checksum);
        }
        Ok(())
    }

    /// Like [`Self::parse`], for a build context: `github.com/user/repository` is a repository there too.
    pub(super) fn parse_context(text: &str) -> Result<Option<Self>, String> {
        match text.strip_prefix("github.com/") {
            Some(path) => {
                let end = path.find(['?', '#']).unwrap_or(path.len());
                let (path, rest) = path.split_at(end);
                let path = path.trim_end_matches('/');
                let suffix = if path.ends_with(".git") { "" } else { ".git" };
                Self::parse(&format!("https://github.com/{path}{suffix}{rest}"))
            }
            None => Self::parse(text),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = || match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!("invalid {key} value: {value:?}")),
        };
        if value.is_empty() && !matches!(key, "keep-git-dir" | "submodules" | "fetch-by-commit") {
            return Err(format!("query {key:?} has no value"));
        }
        match key {
            "ref" => self.set_reference(value)?,
            "subdir" => {
                if !self.subdir.is_empty() && self.subdir != value {
                    return Err(format!("subdir conflicts: {:?} vs {value:?}", self.subdir));
                }
                value.clone_into(&mut self.subdir);
            }
            "checksum" | "commit" => {
                if self.checksum.as_ref().is_some_and(|known| known != value) {
                    return Err(format!("checksum conflicts with commit: {value:?}"));
                }
                self.checksum = Some(value.to_owned());
            }
            "keep-git-dir" => self.keep_git_dir = flag()?,
            "submodules" => self.submodules = flag()?,
            "mtime" => {
                self.times = match value {
                    "commit" => GitTimes::Commit,
                    "checkout" => GitTimes::Checkout,
                    _ => return Err(format!("invalid mtime value: {value:?}")),
                }
            }
            "fetch-by-commit" => self.fetch_by_commit = flag()?.unwrap_or_default(),
            _ => return Err(format!("unexpected query {key:?}")),
        }
        Ok(())
    }

    fn set_reference(&mut self, full: &str) -> Result<(), String> {
        if !self.reference.is_empty() && self.reference != full {
            return Err(format!("ref conflicts: {:?} vs {full:?}", self.reference));
        }
        full.clone_into(&mut self.reference);
        Ok(())
    }
}

/// A name in a folder of refs, which it may say itself.
fn in_folder(folder: &str, name: &str) -> String {
    if name.starts_with(folder) { name.to_owned() } else { format!("{folder}{name}") }
}

/// Resolves `%41`; what is no such pair stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |bytes: &[u8]| u8::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_repository(remote: &str) -> bool {
    match remote.split_once("://") {
        Some(("http" | "https", rest)) => rest.contains('/') && rest.ends_with(".git"),
        Some(("git" | "ssh", rest)) => !rest.is_empty(),
        Some(_) => false,
        None => is_scp_like(remote),
    }
}

/// `user@host:path`
fn is_scp_like(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    word(user, b"_-") && word(host, b"._-") && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files_and_paths() {
        for (text, remote, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", "", ""),
            ("http://h/r.git#v1", "http://h/r.git", "v1", ""),
            ("http://h/r.git#main:sub/dir", "http://h/r.git", "main", "sub/dir"),
            ("git@h.example:u/r.git#:d", "git@h.example:u/r.git", "", "d"),
            ("ssh://git@h/r", "ssh://git@h/r", "", ""),
            ("git://h/r?branch=b&subdir=s", "git://h/r", "refs/heads/b", "s"),
        ] {
            let found = GitRef::parse(text).unwrap().unwrap_or_else(|| panic!("{text} is a repository"));
            assert_eq!(
                (found.remote.as_str(), found.reference.as_str(), found.subdir.as_str()),
                (remote, reference, subdir)
            );
        }
        for text in ["", "a.git", "./a.git", "https://h/file", "https://h/r.git/x", "a@b", "ftp://h/r.git", "dir/a:b"] {
            assert_eq!(GitRef::parse(text), Ok(None), "{text}");
        }
        for bad in ["?what=1", "?ref", "?ref=", "?ref=a&ref=b", "#a?", "?ref=a&tag=b", "?subdir=a#:b", "?submodules=x"]
        {
            let text = format!("https://h/r.git{bad}");
            assert_eq!(GitRef::parse(&text).is_err(), bad != "#a?", "{text}");
        }
        for bad in [
            "?tag=a&branch=b",
            "#a?ref=b",
            "?checksum=aa&commit=bb",
            "?tag=",
            "?branch",
            "?mtime=now",
            "?mtime",
            "?fetch-by-commit=x",
            "?ref=a#b",
        ] {
            let text = format!("https://h/r.git{bad}");
            assert_eq!(GitRef::parse(&text).is_err(), bad != "#a?ref=b", "{text}");
        }
        let parse = |query: &str| GitRef::parse(&format!("https://h/r.git{query}")).unwrap().unwrap();
        assert_eq!(parse("?branch=refs/heads/b#refs/heads/b").reference, "refs/heads/b");
        assert_eq!(parse("?tag=v1&ref=refs/tags/v1").reference, "refs/tags/v1");
        assert_eq!(parse("?commit=abcd").reference, "abcd", "a commit says what to fetch");
        assert_eq!(parse("?checksum=abcd&commit=abcd").checksum.as_deref(), Some("abcd"));
        let all = parse("?submodules=0&keep-git-dir&mtime=checkout&fetch-by-commit&tag=v&subdir=s");
        assert_eq!((all.submodules, all.keep_git_dir, all.fetch_by_commit), (Some(false), Some(true), true));
        assert_eq!((all.times, all.subdir.as_str()), (GitTimes::Checkout, "s"));
        let found = GitRef::parse("https://h/r.git?ref=release%2F1&subdir=a+b").unwrap().unwrap();
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("release/1", "a b"));
    }

    #[test]
    fn contexts_know_a_shorthand() {
        for (text, remote, reference) in [
            ("github.com/u/r", "https://github.com/u/r.git", ""),
            ("github.com/u/r.git#main:d", "https://github.com/u/r.git", "main"),
            ("github.com/u/r/?ref=v1", "https://github.com/u/r.git", "v1"),
        ] {
            let found = GitRef::parse_context(text).unwrap().unwrap();
            assert_eq!((found.remote.as_str(), found.reference.as_str()), (remote, reference), "{text}");
            assert_eq!(GitRef::parse(text), Ok(None), "only for contexts");
        }
    }
}
