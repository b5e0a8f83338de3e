//! Which remotes and refs are handed to git at all. Everything here comes from a Dockerfile or a command line and ends
//! up in arguments and configuration of another program, so what could be taken for something else is refused.

/// The transports that may be used. `file` and `ext` read the host's files and run its programs.
pub(super) const PROTOCOLS: [&str; 4] = ["https", "http", "ssh", "git"];

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    /// It would be read as an option.
    #[error("begins with a dash")]
    Dash,
    /// It has characters that no such name has.
    #[error("has characters that are not allowed there")]
    Characters,
    /// It is no URL of a transport that is used.
    #[error("is not an https, http, ssh or git URL")]
    Protocol,
    /// It names no host.
    #[error("names no host")]
    Host,
    /// It is no name of a branch, tag or commit.
    #[error("is not a valid ref name")]
    Ref,
}

/// A checked remote, taken apart as far as that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote<'a> {
    /// What git gets.
    pub(super) url: &'a str,
    /// `https`, `http`, `ssh` or `git`.
    pub(super) protocol: &'static str,
    /// Host, with the port where there is one.
    pub(super) host: &'a str,
}

impl<'a> Remote<'a> {
    pub(super) fn parse(url: &'a str) -> Result<Self, BadName> {
        if url.starts_with('-') {
            return Err(BadName::Dash);
        }
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(BadName::Characters);
        }
        let (protocol, authority, path) = match url.split_once("://") {
            Some((scheme, rest)) => {
                let known = PROTOCOLS.into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
                let end = rest.find('/').unwrap_or(rest.len());
                (known.ok_or(BadName::Protocol)?, &rest[..end], rest[end..].trim_start_matches('/'))
            }
            None => {
                let (authority, path) = url.split_once(':').ok_or(BadName::Protocol)?;
                if authority.contains('/') || !authority.contains('@') || path.starts_with(':') {
                    return Err(BadName::Protocol);
                }
                ("ssh", authority, path)
            }
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if host.is_empty() || host.starts_with(':') {
            return Err(BadName::Host);
        }
        if user.starts_with('-') || host.starts_with('-') || path.starts_with('-') {
            return Err(BadName::Dash);
        }
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
            return Err(BadName::Characters);
        }
        Ok(Self { url, protocol, host })
    }

    /// Whether credentials that are sent to it can be read on the way.
    pub(super) fn is_clear_text(&self) -> bool {
        let bare = match self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => self.host.split(':').next().unwrap_or_default(),
        };
        let loopback = bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.protocol != "https" && self.protocol != "ssh" && !loopback
    }

    /// For which URLs a token may be used: this one, or the whole of GitHub, whose submodules lie side by side.
    pub(super) fn token_scope(&self) -> &'a str {
        let known = ["https://github.com/", "https://www.github.com/"];
        known
            .into_iter()
            .find(|prefix| self.url.starts_with(prefix))
            .map_or(self.url, |prefix| &self.url[..prefix.len()])
    }
}

/// Checks a branch, tag or commit by the rules of git-check-ref-format(1); empty is the default branch.
pub(super) fn check_reference(name: &str) -> Result<(), BadName> {
    if name.starts_with('-') {
        return Err(BadName::Dash);
    }
    if name.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte)) {
        return Err(BadName::Characters);
    }
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let bad = name == "@"
        || name.contains("..")
        || name.contains("@{")
        || name.ends_with('.')
        || (!name.is_empty() && name.split('/').any(bad_part));
    if bad { Err(BadName::Ref) } else { Ok(()) }
}

/// Whether a name is a whole commit id, of either object format.
pub(super) fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_of_known_transports() {
        for (url, protocol, host) in [
            ("https://h.example/r.git", "https", "h.example"),
            ("HTTP://u:p@h:8080/r.git", "http", "h:8080"),
            ("ssh://git@h:22/r", "ssh", "h:22"),
            ("git://[::1]:9418/r", "git", "[::1]:9418"),
            ("git@h.example:u/r.git", "ssh", "h.example"),
        ] {
            let found = Remote::parse(url).unwrap();
            assert_eq!((found.protocol, found.host), (protocol, host), "{url}");
        }
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        for (url, want) in [
            ("--upload-pack=touch /tmp/x", BadName::Dash),
            ("-oProxyCommand=x@h:r", BadName::Dash),
            ("ssh://-oProxyCommand=touch/x", BadName::Dash),
            ("ssh://git@-oProxyCommand=x/r", BadName::Dash),
            ("ssh://-u@h/r", BadName::Dash),
            ("git@-h:r", BadName::Dash),
            ("git@h:-r", BadName::Dash),
            ("https://h/-r.git", BadName::Dash),
            ("https://h;x/r.git", BadName::Characters),
            ("https://h/r\n.git", BadName::Characters),
            ("https://h/ r.git", BadName::Characters),
            ("file:///etc", BadName::Protocol),
            ("ext::sh -c x", BadName::Characters),
            ("ext::sh", BadName::Protocol),
            ("fd::17@h:r", BadName::Protocol),
            ("/srv/repo.git", BadName::Protocol),
            ("../repo.git", BadName::Protocol),
            ("https:///r.git", BadName::Host),
            ("https://u@/r.git", BadName::Host),
            ("", BadName::Protocol),
        ] {
            assert_eq!(Remote::parse(url).unwrap_err(), want, "{url:?}");
        }
        for (why, words) in [
            (BadName::Dash, "begins with a dash"),
            (BadName::Characters, "has characters that are not allowed there"),
            (BadName::Protocol, "is not an https, http, ssh or git URL"),
            (BadName::Host, "names no host"),
            (BadName::Ref, "is not a valid ref name"),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }

    #[test]
    fn references_are_names_and_nothing_else() {
        for good in ["", "main", "v1.0", "refs/heads/a/b", "feature/x-1", "HEAD", "release@1"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        for (bad, want) in [
            ("--upload-pack=x", BadName::Dash),
            ("-", BadName::Dash),
            ("a b", BadName::Characters),
            ("a:b", BadName::Characters),
            ("a^{}", BadName::Characters),
            ("a~1", BadName::Characters),
            ("refs/*", BadName::Characters),
            ("a\nb", BadName::Characters),
            ("a..b", BadName::Ref),
            ("@{-1}", BadName::Ref),
            ("/a", BadName::Ref),
            ("a//b", BadName::Ref),
            ("a/", BadName::Ref),
            (".a", BadName::Ref),
            ("a/.b", BadName::Ref),
            ("a.lock", BadName::Ref),
            ("a.lock/b", BadName::Ref),
            ("a.", BadName::Ref),
        ] {
            assert_eq!(check_reference(bad), Err(want), "{bad:?}");
        }
    }

    #[test]
    fn commits_are_whole() {
        assert!(is_commit(&"a1".repeat(20)) && is_commit(&"0f".repeat(32)));
        assert!(!is_commit(&"A1".repeat(20)) && !is_commit("a1b2c3") && !is_commit(&"g".repeat(40)));
    }

    #[test]
    fn tokens_stay_where_they_belong() {
        let remote = |url| Remote::parse(url).unwrap();
        assert_eq!(remote("https://github.com/u/r.git").token_scope(), "https://github.com/");
        assert_eq!(remote("https://github.com.example/u/r.git").token_scope(), "https://github.com.example/u/r.git");
        for (url, clear) in [
            ("http://h/r.git", true),
            ("git://h/r", true),
            ("http://127.0.0.1:80/r.git", false),
            ("http://[::1]/r.git", false),
            ("https://h/r.git", false),
            ("git@h:r", false),
        ] {
            assert_eq!(remote(url).is_clear_text(), clear, "{url}");
        }
    }
}
