//! Which commit of which repository a context is a checkout of, as the files in `.git` say: no program is run. What
//! cannot be read is left out.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Configuration and references are read up to these sizes.
const LARGEST_CONFIG: u64 = 256 * 1024;
const LARGEST_PACK: u64 = 8 << 20;

/// A checkout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// URL of `origin`, or of the only remote.
    pub(crate) remote: Option<String>,
    /// The commit.
    pub(crate) revision: Option<String>,
}

/// What the nearest `.git` above or in `directory` says.
pub(crate) fn checkout(directory: &Path) -> Option<Checkout> {
    let found = directory.ancestors().map(|dir| dir.join(".git")).find(|git| git.exists())?;
    let git = if found.is_dir() {
        found
    } else {
        // A worktree or a submodule: the file names the directory.
        let text = read(&found, 4096)?;
        let named = PathBuf::from(text.strip_prefix("gitdir:")?.trim());
        if named.is_absolute() { named } else { found.parent()?.join(named) }
    };
    // What worktrees share is elsewhere.
    let shared = match read(&git.join("commondir"), 4096) {
        Some(text) => git.join(text.trim()),
        None => git.clone(),
    };
    let remote = read(&shared.join("config"), LARGEST_CONFIG).and_then(|config| remote(&config));
    Some(Checkout { remote, revision: revision(&git, &shared) })
}

fn revision(git: &Path, shared: &Path) -> Option<String> {
    let head = read(&git.join("HEAD"), 4096)?;
    let Some(name) = head.trim().strip_prefix("ref:").map(str::trim) else { return commit(head.trim()) };
    if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
        return None;
    }
    let loose = [git, shared].into_iter().find_map(|dir| read(&dir.join(name), 4096));
    if let Some(found) = loose.and_then(|text| commit(text.trim())) {
        return Some(found);
    }
    let packed = read(&shared.join("packed-refs"), LARGEST_PACK)?;
    packed.lines().find_map(|line| line.split_once(' ').filter(|(_, of)| *of == name).and_then(|(id, _)| commit(id)))
}

fn commit(text: &str) -> Option<String> {
    let fine = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fine.then(|| text.to_owned())
}

/// The URL of `origin`, or of the only remote.
fn remote(config: &str) -> Option<String> {
    let mut remotes: Vec<(String, String)> = Vec::new();
    let mut section = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            let name = line.strip_prefix("[remote \"").and_then(|rest| rest.strip_suffix("\"]"));
            section = name.map(str::to_owned);
        } else if let (Some(name), Some((key, value))) = (&section, line.split_once('='))
            && key.trim() == "url"
        {
            remotes.push((name.clone(), value.trim().to_owned()));
        }
    }
    let origin = remotes.iter().find(|(name, _)| name == "origin");
    origin.or(remotes.first().filter(|_| remotes.len() == 1)).map(|(_, url)| url.clone())
}

fn read(path: &Path, most: u64) -> Option<String> {
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_checkout_tells_its_commit_and_remote() {
        let home = tempfile::tempdir().unwrap();
        let git = home.path().join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::create_dir_all(home.path().join("sub/dir")).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("config"), "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://x/y.git\n")
            .unwrap();
        let remote = Some("https://x/y.git".to_owned());
        let sub = home.path().join("sub/dir");
        assert_eq!(checkout(&sub), Some(Checkout { remote: remote.clone(), revision: None }));
        fs::write(git.join("packed-refs"), format!("# pack-refs\n{COMMIT} refs/heads/main\n")).unwrap();
        assert_eq!(checkout(&sub).unwrap().revision.as_deref(), Some(COMMIT));
        let loose = COMMIT.replace('0', "f");
        fs::write(git.join("refs/heads/main"), format!("{loose}\n")).unwrap();
        assert_eq!(checkout(&sub).unwrap().revision, Some(loose));
        fs::write(git.join("HEAD"), "ref: refs/../../../etc/passwd\n").unwrap();
        assert_eq!(checkout(&sub), Some(Checkout { remote, revision: None }));
        fs::write(git.join("HEAD"), format!("{COMMIT}\n")).unwrap();
        assert_eq!(checkout(&sub).unwrap().revision.as_deref(), Some(COMMIT));
    }

    #[test]
    fn a_worktree_shares_references() {
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join("main/.git/worktrees/w");
        fs::create_dir_all(&own).unwrap();
        let tree = home.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        fs::write(own.join("commondir"), "../..\n").unwrap();
        fs::write(own.join("HEAD"), "ref: refs/heads/w\n").unwrap();
        fs::write(home.path().join("main/.git/packed-refs"), format!("{COMMIT} refs/heads/w\n")).unwrap();
        assert_eq!(checkout(&tree).unwrap().revision.as_deref(), Some(COMMIT));
    }
}
