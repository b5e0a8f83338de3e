//! Addresses that servers send us: `Location` headers, token realms, layer URLs. They are untrusted: only `http` and
//! `https`, never with a user name inside, and compared by origin before anything secret follows them.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// Scheme, host and port: who a secret may be sent to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// Host in lower case, without brackets.
    pub(super) host: String,
    /// Port, the scheme's own if none is written.
    pub(super) port: u16,
}

impl Origin {
    /// The origin of an absolute address.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Some(Self { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// Whether this host can only be our own machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The host, with its port where it is not the scheme's own: how settings name it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Whether a host name (without port and brackets) can only be our own machine: 127.0.0.0/8, ::1, localhost.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address that we do not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLocation {
    /// Neither `http` nor `https`.
    #[error("{0:?} is not an http or https address")]
    Scheme(String),
    /// Not an address at all.
    #[error("{0:?} is not a valid address")]
    Syntax(String),
    /// A user name or password in the address.
    #[error("the address names a user, which is not followed")]
    UserInfo,
    /// From TLS to plain HTTP.
    #[error("{0:?} leads from https to plain http")]
    Downgrade(String),
    /// No address where one was needed.
    #[error("the answer names no address to go on with")]
    Missing,
    /// More hops than allowed.
    #[error("more than {0} redirects")]
    TooMany(u32),
}

/// Finds where `location`, absolute or relative, leads from `base` (RFC 3986 §5.2), and refuses what must not be
/// followed.
pub(super) fn follow(base: &Uri, location: &str) -> Result<Uri, BadLocation> {
    let text = location.trim();
    // What follows the question mark may be a signature that is as good as a password.
    let shown = || text.split('?').next().unwrap_or_default().chars().take(200).collect::<String>();
    let syntax = || BadLocation::Syntax(shown());
    if text.is_empty() {
        return Err(BadLocation::Missing);
    }
    let text = text.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().ok_or_else(syntax)?;
    let authority = base.authority().ok_or_else(syntax)?.as_str();
    let absolute = if let Some((before, _)) = text.split_once("://").filter(|(before, _)| is_scheme(before)) {
        if !before.eq_ignore_ascii_case("http") && !before.eq_ignore_ascii_case("https") {
            return Err(BadLocation::Scheme(shown()));
        }
        text.to_owned()
    } else if let Some(rest) = text.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if text.split_once(':').is_some_and(|(before, _)| is_scheme(before) && !before.contains('/')) {
        return Err(BadLocation::Scheme(shown()));
    } else {
        let path = if text.starts_with('/') {
            text.to_owned()
        } else if text.starts_with('?') {
            format!("{}{text}", base.path())
        } else {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{text}")
        };
        format!("{scheme}://{authority}{path}")
    };
    let uri: Uri = absolute.parse().map_err(|_| syntax())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(BadLocation::UserInfo);
    }
    let target = Origin::of(&uri).ok_or_else(syntax)?;
    if target.host.is_empty() {
        return Err(syntax());
    }
    if scheme == "https" && !target.tls {
        return Err(BadLocation::Downgrade(shown()));
    }
    Ok(uri)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Adds `name=value` to an address; the value is escaped.
pub(super) fn with_query(uri: &Uri, pairs: &[(&str, &str)]) -> Result<Uri, BadLocation> {
    let mut text = uri.to_string();
    for (name, value) in pairs {
        let joint = match text.find('?') {
            None => "?",
            Some(_) if text.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        text.push_str(joint);
        text.push_str(name);
        text.push('=');
        text.push_str(&escape_query(value));
    }
    text.parse().map_err(|_| BadLocation::Syntax(uri.path().chars().take(200).collect()))
}

/// Escapes everything but unreserved characters (RFC 3986 §2.3), and `:` `/` `,`, which registries expect as they are.
pub(super) fn escape_query(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_where_they_came_from() {
        let base: Uri = "http://r.example:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, want) in [
            ("http://other/x?y", "http://other/x?y"),
            ("https://other/x", "https://other/x"),
            ("//other:1/x", "http://other:1/x"),
            ("/v2/a/blobs/uploads/u1?_state=a%2Fb", "http://r.example:5000/v2/a/blobs/uploads/u1?_state=a%2Fb"),
            ("u1", "http://r.example:5000/v2/a/blobs/uploads/u1"),
            ("?y=2", "http://r.example:5000/v2/a/blobs/uploads/?y=2"),
            ("/x#fragment", "http://r.example:5000/x"),
        ] {
            assert_eq!(follow(&base, location).unwrap().to_string(), want, "{location}");
        }
    }

    #[test]
    fn what_must_not_be_followed_is_refused() {
        let base: Uri = "https://r.example/v2/".parse().unwrap();
        for (location, want) in [
            ("file:///etc/passwd", BadLocation::Scheme("file:///etc/passwd".into())),
            ("javascript:alert(1)", BadLocation::Scheme("javascript:alert(1)".into())),
            ("ftp://x/y", BadLocation::Scheme("ftp://x/y".into())),
            ("http://r.example/x?signature=s3cret", BadLocation::Downgrade("http://r.example/x".into())),
            ("https://u:p@r.example/x", BadLocation::UserInfo),
            ("https://x y/", BadLocation::Syntax("https://x y/".into())),
            ("", BadLocation::Missing),
        ] {
            assert_eq!(follow(&base, location).unwrap_err(), want, "{location}");
        }
        for (error, words) in [
            (BadLocation::Scheme("ftp://x/y".into()), r#""ftp://x/y" is not an http or https address"#),
            (BadLocation::Syntax("https://x y/".into()), r#""https://x y/" is not a valid address"#),
            (BadLocation::UserInfo, "the address names a user, which is not followed"),
            (
                BadLocation::Downgrade("http://r.example/x".into()),
                r#""http://r.example/x" leads from https to plain http"#,
            ),
            (BadLocation::Missing, "the answer names no address to go on with"),
            (BadLocation::TooMany(5), "more than 5 redirects"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }

    #[test]
    fn origins_tell_hosts_apart() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://R.example/x"), origin("https://r.example:443/y"));
        assert_ne!(origin("http://127.0.0.1:1/"), origin("http://127.0.0.1:2/"));
        assert_ne!(origin("http://r.example/"), origin("https://r.example/"));
        assert_eq!(origin("https://[::1]:5000/").to_string(), "https://[::1]:5000");
        for (host, loopback) in [
            ("localhost", true),
            ("127.3.2.1", true),
            ("::1", true),
            ("a.localhost", true),
            ("128.0.0.1", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }

    #[test]
    fn query_values_are_escaped() {
        let uri: Uri = "http://r/u?_state=x".parse().unwrap();
        let out = with_query(&uri, &[("digest", "sha256:ab"), ("account", "a&b=c d")]).unwrap();
        assert_eq!(out.to_string(), "http://r/u?_state=x&digest=sha256:ab&account=a%26b%3Dc%20d");
        assert_eq!(with_query(&"http://r/u".parse().unwrap(), &[("a", "b")]).unwrap().to_string(), "http://r/u?a=b");
    }

    proptest::proptest! {
        #[test]
        fn any_location_is_followed_or_refused_and_never_downgraded(location in "\\PC{0,60}") {
            let base: Uri = "https://r.example/v2/a/".parse().unwrap();
            if let Ok(uri) = follow(&base, &location) {
                proptest::prop_assert_eq!(uri.scheme_str(), Some("https"));
            }
        }
    }
}
