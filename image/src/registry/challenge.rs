//! `WWW-Authenticate`: what a server wants before it answers (RFC 9110 §11.6.1).
//!
//! Pure. The header is untrusted: bounded in length and number of parameters, and anything unbalanced is an error.

/// Longer headers are refused.
const MAX_LENGTH: usize = 16 << 10;
/// More parameters are refused.
const MAX_PARAMETERS: usize = 64;

/// What a server wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password (RFC 7617).
    Basic {
        /// What the server calls the area.
        realm: String,
    },
    /// A token from a token service (distribution-spec's token authentication).
    Bearer {
        /// Address of the token service.
        realm: String,
        /// What the token service knows this registry as.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

/// A header from which no way to authenticate can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChallenge {
    /// No header at all.
    #[error("the registry wants authentication and does not say how")]
    Missing,
    /// Too long.
    #[error("the registry's WWW-Authenticate header is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Against the grammar.
    #[error("the registry's WWW-Authenticate header cannot be read: {reason}")]
    Syntax {
        /// What is wrong.
        reason: &'static str,
    },
    /// Neither Basic nor Bearer.
    #[error("the registry wants {schemes}, which is not supported (Basic and Bearer are)")]
    Unsupported {
        /// The schemes it offered, control characters removed.
        schemes: String,
    },
}

impl Challenge {
    /// Chooses from all `WWW-Authenticate` headers of an answer: Bearer before Basic.
    pub fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Result<Self, BadChallenge> {
        let mut offers = Vec::new();
        for header in headers {
            if header.len() > MAX_LENGTH {
                return Err(BadChallenge::TooLong);
            }
            Parser { rest: header }.offers(&mut offers)?;
        }
        if offers.is_empty() {
            return Err(BadChallenge::Missing);
        }
        let find = |scheme: &str| offers.iter().find(|offer| offer.scheme.eq_ignore_ascii_case(scheme));
        if let Some(offer) = find("bearer") {
            let realm = offer.parameter("realm").ok_or(BadChallenge::Syntax { reason: "Bearer without a realm" })?;
            return Ok(Self::Bearer { realm, service: offer.parameter("service"), scope: offer.parameter("scope") });
        }
        if let Some(offer) = find("basic") {
            return Ok(Self::Basic { realm: offer.parameter("realm").unwrap_or_default() });
        }
        let schemes: Vec<&str> = offers.iter().map(|offer| offer.scheme.as_str()).collect();
        Err(BadChallenge::Unsupported { schemes: schemes.join(", ").chars().take(100).collect() })
    }
}

struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Offer {
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// `challenge *( OWS "," OWS challenge )`, where a challenge's parameters are joined by commas as well.
    fn offers(&mut self, out: &mut Vec<Offer>) -> Result<(), BadChallenge> {
        let mut parameters = 0;
        loop {
            self.skip(|c| c == ',' || is_space(c));
            if self.rest.is_empty() {
                return Ok(());
            }
            let word = self.token()?;
            let spaced = self.skip(is_space);
            if self.rest.starts_with('=') {
                let offer = out.last_mut().ok_or(BadChallenge::Syntax { reason: "a parameter before any scheme" })?;
                self.rest = &self.rest[1..];
                self.skip(is_space);
                let value = if self.rest.starts_with('"') { self.quoted()? } else { self.token()? };
                offer.parameters.push((word, value));
                parameters += 1;
                if parameters > MAX_PARAMETERS {
                    return Err(BadChallenge::Syntax { reason: "too many parameters" });
                }
                self.skip(is_space);
                if !self.rest.is_empty() && !self.rest.starts_with(',') {
                    return Err(BadChallenge::Syntax { reason: "no comma between parameters" });
                }
            } else {
                out.push(Offer { scheme: word, parameters: Vec::new() });
                if spaced {
                    self.token68();
                } else if !self.rest.is_empty() && !self.rest.starts_with(',') {
                    return Err(BadChallenge::Syntax { reason: "an unexpected character" });
                }
            }
        }
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        let after = self.rest.trim_start_matches(wanted);
        let skipped = after.len() != self.rest.len();
        self.rest = after;
        skipped
    }

    fn token(&mut self) -> Result<String, BadChallenge> {
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(BadChallenge::Syntax { reason: "an unexpected character" });
        }
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(token.to_owned())
    }

    /// Skips a `token68` (`Negotiate YII…==`): what follows a scheme, is no parameter, and ends at a comma.
    fn token68(&mut self) {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-._~+/".contains(c)));
        let end = end.unwrap_or(self.rest.len());
        let padded = self.rest[end..].trim_start_matches('=');
        let after = padded.trim_start_matches(is_space);
        if end > 0 && (after.is_empty() || after.starts_with(',')) {
            self.rest = after;
        }
    }

    fn quoted(&mut self) -> Result<String, BadChallenge> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        Err(BadChallenge::Syntax { reason: "a quotation mark is not closed" })
    }
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_seen_in_the_wild() {
        let basic = |realm: &str| Challenge::Basic { realm: realm.into() };
        for (header, want) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull")),
            ),
            (
                r#"bearer realm = "https://x/t" , service=plain , error="invalid_token""#,
                bearer("https://x/t", Some("plain"), None),
            ),
            (r#"Basic realm="Registry Realm""#, basic("Registry Realm")),
            ("Basic", basic("")),
            (r#"Basic realm="a\"b,c""#, basic("a\"b,c")),
            (r#"Negotiate, Basic realm=x"#, basic("x")),
            (r#"Negotiate YIIabc==, Basic realm="x""#, basic("x")),
            (r#"Basic realm="x", Bearer realm="https://y",scope="a,b""#, bearer("https://y", None, Some("a,b"))),
        ] {
            assert_eq!(Challenge::choose([header]), Ok(want), "{header}");
        }
        assert_eq!(
            Challenge::choose([r#"Basic realm="x""#, r#"Bearer realm="https://y""#]),
            Ok(bearer("https://y", None, None)),
        );
    }

    #[test]
    fn unreadable_headers_are_errors() {
        let junk = format!("Bearer realm=\"{}", "\\\",".repeat(32000));
        let many = format!("Bearer realm=x{}", ",a=b".repeat(100));
        for header in [
            r#"Bearer realm="x"#,
            r#"Bearer realm="x" service="y""#,
            "Bearer",
            r#"realm="x""#,
            "Bearer realm=",
            "Bearer {}",
            "Digest realm=x",
            "\u{1b}[2J",
            "",
            &junk,
            &many,
        ] {
            assert!(Challenge::choose([header]).is_err(), "{header:.60}");
        }
        for (headers, words) in [
            (vec![], "the registry wants authentication and does not say how"),
            (vec![junk.as_str()], "the registry's WWW-Authenticate header is longer than 16384 bytes"),
            (vec!["Bearer realm="], "the registry's WWW-Authenticate header cannot be read: Bearer without a realm"),
            (vec!["Digest realm=x"], "the registry wants Digest, which is not supported (Basic and Bearer are)"),
        ] {
            assert_eq!(Challenge::choose(headers).unwrap_err().to_string(), words);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(header in "\\PC{0,200}") {
            drop(Challenge::choose([header.as_str()]));
        }

        #[test]
        fn any_quoted_value_is_read_back(realm in "[ -~]{1,40}", scope in "[ -~]{0,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\",scope=\"{}\"", quote(&realm), quote(&scope));
            proptest::prop_assert_eq!(Challenge::choose([header.as_str()]), Ok(bearer(&realm, None, Some(&scope))));
        }
    }
}
