//! `search`: Docker Hub is asked through its search API; another registry has at most a catalogue and tags.

use rbuild_image::ImageRef;
use rbuild_image::registry::{Client, WebRequest, WebSink};
use serde::Deserialize;

use crate::cli::report::Failure;
use crate::engine::Engine;

/// Where Docker Hub answers.
const HUB: &str = "https://index.docker.io";
/// The most bytes of an answer.
const MOST_BYTES: u64 = 8 << 20;
/// The most results that Docker Hub gives at once.
const PAGE: usize = 100;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// On Docker Hub.
    Hub(Vec<HubImage>),
    /// In another registry.
    Registry(Vec<FoundRepository>),
}

/// An image on Docker Hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HubImage {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether Docker looks after it.
    #[serde(default)]
    pub is_official: bool,
    /// Whether Docker Hub built it.
    #[serde(default)]
    pub is_automated: bool,
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRepository {
    /// With the registry's host.
    pub name: String,
    /// Its tags; none where the registry tells nobody.
    pub tags: Vec<String>,
}

/// `--filter` of `search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubFilter {
    /// Only those that Docker looks after, or only others.
    Official(bool),
    /// Only those that Docker Hub built, or only others.
    Automated(bool),
    /// At least so many stars.
    Stars(u64),
}

impl HubFilter {
    /// Parses `KEY=VALUE`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid filter {text:?}: a filter is KEY=VALUE")))?;
        let wrong = || Failure::new(format!("invalid filter '{key}=[{value}]'"));
        let flag = || match value {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(wrong()),
        };
        match key {
            "is-official" => Ok(Self::Official(flag()?)),
            "is-automated" => Ok(Self::Automated(flag()?)),
            "stars" => value.parse().map(Self::Stars).map_err(|_| wrong()),
            _ => Err(Failure::new(format!("invalid filter '{key}'"))),
        }
    }

    fn takes(self, image: &HubImage) -> bool {
        match self {
            Self::Official(wanted) => image.is_official == wanted,
            Self::Automated(wanted) => image.is_automated == wanted,
            Self::Stars(least) => image.stars >= least,
        }
    }
}

/// Looks for images.
pub fn search(engine: &Engine, term: &str, limit: usize, filters: &[HubFilter]) -> Result<Found, Failure> {
    let client = engine.client()?;
    let host = term.split_once('/').map(|(host, _)| host);
    match host.filter(|host| host.contains(['.', ':']) || *host == "localhost") {
        Some(host) if !matches!(host, "docker.io" | "index.docker.io") => {
            if !filters.is_empty() {
                return Err(Failure::usage(
                    format!("--filter is for Docker Hub: {host} knows nothing of stars"),
                    "search without it",
                ));
            }
            in_registry(&client, host, &term[host.len() + 1..], limit).map(Found::Registry)
        }
        Some(host) => on_hub(&client, HUB, &term[host.len() + 1..], limit, filters).map(Found::Hub),
        None => on_hub(&client, HUB, term, limit, filters).map(Found::Hub),
    }
}

fn on_hub(
    client: &Client,
    hub: &str,
    term: &str,
    limit: usize,
    filters: &[HubFilter],
) -> Result<Vec<HubImage>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        results: Option<Vec<HubImage>>,
    }
    // Filters leave fewer than were asked for: Docker Hub gives as many as it does at once.
    let count = if filters.is_empty() { limit } else { PAGE };
    let url = format!("{hub}/v1/search?q={}&n={count}", encoded(term));
    let mut sink = Memory(Vec::new());
    let request = WebRequest { url: &url, authorization: None, known: &[], limit: MOST_BYTES };
    client.web_get(&request, &mut sink).map_err(|error| Failure::from_error("cannot search Docker Hub", &error))?;
    let answer: Answer = serde_json::from_slice(&sink.0)
        .map_err(|error| Failure::from_error(&format!("{hub} gave no search results"), &error))?;
    let mut found = answer.results.unwrap_or_default();
    found.retain(|image| filters.iter().all(|filter| filter.takes(image)));
    found.sort_by_key(|image| std::cmp::Reverse(image.stars));
    found.truncate(limit);
    Ok(found)
}

/// Repositories whose names have `term` in them; where there is no catalogue, the repository of that name.
fn in_registry(client: &Client, host: &str, term: &str, limit: usize) -> Result<Vec<FoundRepository>, Failure> {
    let failed =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(&format!("cannot search {host}"), error);
    let tags = |repository: &str| -> Result<Option<Vec<String>>, Failure> {
        let name = format!("{host}/{repository}").parse::<ImageRef>();
        Ok(name.ok().and_then(|name| client.tags(&name).ok()))
    };
    let names = match client.repositories(host) {
        Ok(names) => names,
        Err(error) => {
            return match (term, tags(term)?) {
                ("", _) | (_, None) => Err(failed(&error)),
                (_, Some(tags)) => Ok(vec![FoundRepository { name: format!("{host}/{term}"), tags }]),
            };
        }
    };
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| name.contains(term)).take(limit) {
        let tags = tags(&name)?.unwrap_or_default();
        found.push(FoundRepository { name: format!("{host}/{name}"), tags });
    }
    Ok(found)
}

/// Text as part of a URL.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

struct Memory(Vec<u8>);

impl WebSink for Memory {
    fn begin(&mut self, _: Option<u64>) -> std::io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_image::registry::ClientOptions;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// A server that gives one answer, and then what it was asked for.
    fn server(status: &'static str, body: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let asked = lines.next().unwrap();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
            asked
        });
        (address, thread)
    }

    const ANSWER: &str = r#"{"num_results":3,"query":"web server","results":[
        {"name":"me/web","description":"mine","star_count":2,"is_official":false,"is_automated":true},
        {"name":"nginx","description":"Official build","star_count":20000,"is_official":true,"is_automated":false},
        {"name":"old","description":"","star_count":0,"is_official":false}]}"#;

    #[test]
    fn docker_hub_is_asked_as_docker_asks() {
        let client = Client::new(ClientOptions::default());
        let (address, asked) = server("200 OK", ANSWER);
        let found = on_hub(&client, &address, "web server", 2, &[]).unwrap();
        assert_eq!(asked.join().unwrap(), "GET /v1/search?q=web%20server&n=2 HTTP/1.1");
        assert_eq!(found.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["nginx", "me/web"]);
        assert!(found[0].is_official && found[1].is_automated);

        let (address, asked) = server("200 OK", ANSWER);
        let filters = [HubFilter::parse("stars=1").unwrap(), HubFilter::parse("is-official=false").unwrap()];
        let found = on_hub(&client, &address, "web", 25, &filters).unwrap();
        assert_eq!(found.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["me/web"]);
        assert!(asked.join().unwrap().contains("n=100"));
    }

    #[test]
    fn a_refusal_or_nonsense_is_said() {
        let client = Client::new(ClientOptions::default());
        for (status, body) in [("403 Forbidden", "no"), ("200 OK", "<html>")] {
            let (address, asked) = server(status, body);
            assert!(on_hub(&client, &address, "x", 25, &[]).is_err(), "{status}");
            asked.join().unwrap();
        }
        for wrong in ["stars", "stars=many", "is-official=perhaps", "nope=1"] {
            assert!(HubFilter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
