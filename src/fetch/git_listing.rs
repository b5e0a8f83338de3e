//! What a remote has under which names: the output of git-ls-remote(1), and the choice a name makes in it.

/// One line that ls-remote gave, chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    /// The ref's full name.
    pub(super) name: &'a str,
    /// What it leads to.
    pub(super) commit: &'a str,
    /// The commit behind an annotated tag.
    pub(super) peeled: Option<&'a str>,
}

impl<'a> Listed<'a> {
    /// A full name first, then branches, then tags. An empty name is where `HEAD` leads.
    pub(super) fn choose(listed: &'a str, wanted: &str) -> Option<Self> {
        let lines = || listed.lines().filter_map(|line| line.split_once('\t'));
        let find = |name: &str| lines().find(|(_, found)| *found == name);
        if wanted.is_empty() {
            let (target, _) = lines().find(|(target, name)| target.starts_with("ref: ") && *name == "HEAD")?;
            let (commit, _) = lines().find(|(commit, name)| !commit.starts_with("ref: ") && *name == "HEAD")?;
            return Some(Self { name: target.strip_prefix("ref: ")?, commit, peeled: None });
        }
        let below = |folder: &str| format!("{folder}{}", wanted.strip_prefix(folder).unwrap_or(wanted));
        let full = find(&below("refs/")).or_else(|| find(&below("refs/heads/")));
        let (commit, name) = full.or_else(|| find(&below("refs/tags/")))?;
        let peeled = find(&format!("{name}^{{}}")).map(|(commit, _)| commit);
        Some(Self { name, commit, peeled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn names_are_looked_up_as_git_does() {
        let listed = format!(
            "{A}\trefs/heads/v1\n{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n{B}\trefs/tags/v2\n{A}\trefs/tags/v2^{{}}\n\
             {B}\trefs/heads/x/v3\n{A}\trefs/pull/1/head\n"
        );
        for (wanted, want) in [
            ("v1", Some(("refs/heads/v1", A, None))),
            ("refs/tags/v1", Some(("refs/tags/v1", B, Some(A)))),
            ("tags/v1", Some(("refs/tags/v1", B, Some(A)))),
            ("v2", Some(("refs/tags/v2", B, Some(A)))),
            ("heads/v1", Some(("refs/heads/v1", A, None))),
            ("pull/1/head", Some(("refs/pull/1/head", A, None))),
            ("v3", None),
            ("v", None),
        ] {
            let found = Listed::choose(&listed, wanted).map(|found| (found.name, found.commit, found.peeled));
            assert_eq!(found, want, "{wanted}");
        }
        let head = format!("ref: refs/heads/main\tHEAD\n{A}\tHEAD\n");
        assert_eq!(Listed::choose(&head, "").unwrap(), Listed { name: "refs/heads/main", commit: A, peeled: None });
        assert_eq!(Listed::choose("", ""), None);
    }
}
