//! What a registry has: the tags of a repository, and its repositories, over as many pages as they come in
//! (distribution-spec, "Content discovery").

use serde::Deserialize;
use ureq::http::{Method, Uri, header};

use super::client::Client;
use super::error::{Action, Cause, RegistryError, Target, escaped};
use super::exchange::{Call, Reply};
use super::location::{self, Origin};
use super::token::Scopes;
use crate::reference::ImageRef;

/// Names asked for at once.
const PAGE: usize = 1000;
/// More pages are not followed.
const MAX_PAGES: usize = 1000;
/// The most bytes of one page.
const MAX_PAGE_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
struct Page {
    #[serde(default, alias = "repositories")]
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository, sorted.
    pub fn tags(&self, name: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let target =
            Target { registry: name.registry().to_owned(), repository: name.repository().to_owned(), item: None };
        let path = format!("{}/tags/list?n={PAGE}", name.repository());
        self.list(name.registry(), target, &path, &Scopes::pull(name.repository()))
    }

    /// The repositories of a registry, sorted. Many registries tell nobody.
    pub fn repositories(&self, registry: &str) -> Result<Vec<String>, RegistryError> {
        let target = Target { registry: registry.to_owned(), repository: String::new(), item: None };
        self.list(registry, target, &format!("_catalog?n={PAGE}"), &Scopes::catalog())
    }

    fn list(&self, registry: &str, target: Target, path: &str, scopes: &Scopes) -> Result<Vec<String>, RegistryError> {
        let endpoint = self.registry_endpoint(registry);
        self.tried(Action::List, target, self.retry_policy(), |_| {
            let mut names = Vec::new();
            let mut reply = self.request(&endpoint, path, scopes, &|uri| Call::new(Method::GET, uri))?;
            for _ in 0..MAX_PAGES {
                let next = next_page(&reply)?;
                names.extend(read_page(reply)?);
                let Some(next) = next else {
                    names.sort();
                    names.dedup();
                    return Ok(names);
                };
                reply = self.authorized(&endpoint, scopes, &Call::new(Method::GET, next))?;
            }
            Err(Cause::Listing("it has no end"))
        })
    }
}

fn read_page(reply: Reply) -> Result<Vec<String>, Cause> {
    if reply.status != 200 {
        return Err(reply.into_error());
    }
    let bytes = reply.into_bytes(MAX_PAGE_BYTES)?;
    let page: Page = serde_json::from_slice(&bytes).map_err(|_| Cause::Listing("it is not a list of names"))?;
    let names = page.tags.unwrap_or_default();
    // Names end on terminals; what is no name is shown as what it is.
    Ok(names.into_iter().map(|name| escaped(name.as_bytes())).collect())
}

/// Where the list goes on, by `Link: </v2/…>; rel="next"` (RFC 8288). Only the same server is asked.
fn next_page(reply: &Reply) -> Result<Option<Uri>, Cause> {
    let Some(target) = reply.text(header::LINK).and_then(next_link) else { return Ok(None) };
    let next = location::follow(&reply.uri, target)?;
    if Origin::of(&next) != Origin::of(&reply.uri) {
        return Err(Cause::Listing("it goes on at another server"));
    }
    if next == reply.uri {
        return Err(Cause::Listing("it has no end"));
    }
    Ok(Some(next))
}

/// The target of the `next` link.
fn next_link(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let is_next = after[..end].split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if is_next {
            return Some(target);
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_links() {
        for (text, want) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("</x>;rel=next", Some("/x")),
            (r#"</p>; rel="prev", </n>; REL=Next; title="x""#, Some("/n")),
            (r#"</p>; rel="prev""#, None),
            ("</x>", None),
            ("</x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(text), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_link_is_read_or_ignored(text in "\\PC{0,80}") {
            let _ = next_link(&text);
        }
    }
}
