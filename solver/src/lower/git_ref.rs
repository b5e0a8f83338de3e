//! Which texts name a git repository, and what in it (BuildKit's `dfgitutil.ParseGitRef`):
//! `https://host/repo.git#branch:dir`, `git@host:repo.git?tag=v1&subdir=x`, `ssh://…`, `git://…`.

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
}

impl GitRef {
    /// `None` when `text` names no repository, an error when it does with a query that makes no sense.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
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
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            reference.clone_into(&mut found.reference);
            subdir.clone_into(&mut found.subdir);
        }
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            found.set(pair)?;
        }
        Ok(Some(found))
    }

    fn set(&mut self, pair: &str) -> Result<(), String> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let flag = || match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!("invalid {key} value: {value:?}")),
        };
        match key {
            "ref" | "branch" | "tag" => {
                let full = match key {
                    "branch" => format!("refs/heads/{value}"),
                    "tag" => format!("refs/tags/{value}"),
                    _ => value.to_owned(),
                };
                if !self.reference.is_empty() && self.reference != full {
                    return Err("ref conflicts".to_owned());
                }
                self.reference = full;
            }
            "subdir" => {
                if !self.subdir.is_empty() && self.subdir != value {
                    return Err("subdir conflicts".to_owned());
                }
                value.clone_into(&mut self.subdir);
            }
            "checksum" | "commit" => self.checksum = Some(value.to_owned()),
            "keep-git-dir" => self.keep_git_dir = flag()?,
            "submodules" => self.submodules = flag()?,
            _ => return Err(format!("unexpected query {key:?}")),
        }
        Ok(())
    }
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
        assert!(GitRef::parse("https://h/r.git?what=1").is_err());
    }
}
