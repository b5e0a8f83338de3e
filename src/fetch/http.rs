//! One file behind a URL, as a snapshot that holds it at its root: mode 0600, owned by root, with the time that the
//! server gives (the epoch where it gives none).
//!
//! A URL that was fetched before is asked for with its entity tag, first by HEAD: some servers send tags and ignore
//! them in a GET.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rbuild_cache::SnapshotId;
use rbuild_cache::snapshot::{Content, Metadata};
use rbuild_cache::view::Timestamp;
use rbuild_image::registry::{Client, WebAnswer, WebError, WebRequest, WebSink, without_credentials};
use rbuild_image::{Algorithm, ContainerPath, Digest, Hashing};

use super::{Fetching, storing};
use crate::cli::report::Failure;

/// The largest file that is fetched: a mistake rather than a file.
const LIMIT: u64 = 1 << 40;
/// Mode of the file.
const MODE: u32 = 0o600;
/// Secrets that authenticate at a host, before its name.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// A fetched file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Downloaded {
    /// SHA-256 of its bytes.
    pub(crate) digest: Digest,
    /// The time that the server gives it, in seconds since the epoch.
    pub(crate) modified: Option<i64>,
    /// Holds the file.
    pub(crate) snapshot: SnapshotId,
    /// The digest in the algorithm of the checksum, where that is another one.
    pub(crate) other: Option<Digest>,
}

impl Downloaded {
    /// What distinguishes it from other versions: content and time.
    pub(crate) fn identity(&self) -> Digest {
        let modified = self.modified.map_or_else(String::new, |seconds| seconds.to_string());
        Digest::sha256(format!("rbuild url 1\n{}\n{modified}\n", self.digest))
    }

    /// Compares with what was asked for.
    pub(crate) fn verify(&self, wanted: &Digest) -> Result<(), Failure> {
        let actual = self.other.filter(|other| other.algorithm() == wanted.algorithm()).unwrap_or(self.digest);
        if actual == *wanted {
            return Ok(());
        }
        Err(Failure::new(format!("digest mismatch {actual}: {wanted}"))
            .with_help("the file is not the one that --checksum names: check its source, then the checksum"))
    }
}

/// Fetches `url` as `filename`, or finds it unchanged. `progress` is told how many bytes came, of how many.
pub(crate) fn download(
    with: Fetching<'_>,
    url: &str,
    filename: &str,
    algorithm: Algorithm,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<Downloaded, Failure> {
    with.check_cancelled()?;
    let began = Instant::now();
    let client = with.engine.client()?;
    let authorization = authorization(with, url)?;
    let shown = without_credentials(url);
    let name = format!("url {shown} as {filename} by {}", algorithm.name());
    let memory = with.recall(&name).and_then(|(snapshot, note)| Memory::parse(snapshot, &note));
    let known: Vec<String> = memory.iter().map(|memory| memory.etag.clone()).collect();
    let request = WebRequest { url, authorization: authorization.as_deref(), known: &known, limit: LIMIT };
    if let Some(memory) = &memory
        && is_unchanged(&client, &request, &memory.etag)
    {
        return Ok(memory.file.clone());
    }
    let scratch = with.lease.scratch_name("download")?;
    let mut sink = FileSink::new(&scratch, algorithm, progress);
    let answer = client.web_get(&request, &mut sink).map_err(|error| refused(&error, &shown));
    let result = answer.and_then(|answer| match memory {
        Some(memory) if answer.status == 304 => Ok(memory.file),
        None if answer.status == 304 => Err(Failure::new(format!("cannot fetch {shown}: invalid response status 304"))),
        _ => {
            let file = keep(with, sink, &answer, filename)?;
            if let Some(etag) = &answer.etag {
                let note = Memory { etag: bare(etag).to_owned(), file: file.clone() }.note();
                with.remember(&name, &format!("[internal] load {shown}"), file.snapshot, note, began.elapsed());
            }
            Ok(file)
        }
    });
    match std::fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storing(&error)),
        _ => result,
    }
}

/// Whether the server says that a known copy is still right.
fn is_unchanged(client: &Client, request: &WebRequest<'_>, etag: &str) -> bool {
    match client.web_head(request) {
        Ok(WebAnswer { status: 304, etag: None, .. }) => true,
        Ok(WebAnswer { status: 200 | 304, etag: Some(found), .. }) => bare(&found) == bare(etag),
        Ok(_) | Err(_) => false,
    }
}

/// An entity tag without its mark of weakness.
fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

fn refused(error: &WebError, shown: &str) -> Failure {
    if error.is_cancelled() {
        return Failure::interrupted();
    }
    match error.status() {
        Some(status) => {
            Failure::new(format!("cannot fetch {shown}: invalid response status {status}")).with_help(match status {
                401 | 403 => "give credentials with --secret id=HTTP_AUTH_TOKEN_host,… or id=HTTP_AUTH_HEADER_host,…",
                404 | 410 => "the server has no such file: check the URL",
                _ => "the server refuses: check the URL, or try again later",
            })
        }
        None => {
            let failure = Failure::from_error("", error);
            Failure::new(failure.message().trim_start_matches(": "))
        }
    }
}

/// The header that a secret for the URL's host makes (BuildKit's names).
fn authorization(with: Fetching<'_>, url: &str) -> Result<Option<String>, Failure> {
    let host = host_name(url);
    match with.secret(&format!("{TOKEN_SECRET}{host}"))? {
        Some(token) => Ok(Some(format!("Bearer {token}"))),
        None => with.secret(&format!("{HEADER_SECRET}{host}")),
    }
}

/// The host of a URL, without port.
fn host_name(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    }
}

/// Makes a snapshot of what the sink took.
fn keep(with: Fetching<'_>, sink: FileSink<'_>, answer: &WebAnswer, filename: &str) -> Result<Downloaded, Failure> {
    let (path, digest, other) = sink.finish().map_err(|error| storing(&error))?;
    let active = with.store.snapshots().prepare(None, with.lease)?;
    let mut writer = active.writer()?;
    let mtime = Some(Timestamp { seconds: answer.modified.unwrap_or(0), nanoseconds: 0 });
    let metadata = Metadata { mode: MODE, mtime, ..Metadata::default() };
    let open = Box::new(move || Ok(File::open(path)?.into()));
    writer.file(&ContainerPath::root().join(filename), &metadata, Content::File(open))?;
    let root = Metadata { mode: 0o755, mtime, ..Metadata::default() };
    writer.set_directory_metadata(&ContainerPath::root(), &root)?;
    writer.finish()?;
    drop(writer);
    let snapshot = active.commit(with.lease)?.id();
    Ok(Downloaded { digest, modified: answer.modified, snapshot, other })
}

/// What is remembered of a URL.
struct Memory {
    etag: String,
    file: Downloaded,
}

impl Memory {
    fn note(&self) -> String {
        let modified = self.file.modified.map_or_else(String::new, |seconds| seconds.to_string());
        let other = self.file.other.map_or_else(String::new, |digest| digest.to_string());
        format!("etag: {}\ndigest: {}\nmodified: {modified}\nother: {other}\n", self.etag, self.file.digest)
    }

    fn parse(snapshot: SnapshotId, note: &str) -> Option<Self> {
        let mut lines = note.lines();
        let etag = lines.next()?.strip_prefix("etag: ")?.to_owned();
        let digest = lines.next()?.strip_prefix("digest: ")?.parse().ok()?;
        let modified = match lines.next()?.strip_prefix("modified: ")? {
            "" => None,
            seconds => Some(seconds.parse().ok()?),
        };
        let other = match lines.next()?.strip_prefix("other: ")? {
            "" => None,
            digest => Some(digest.parse().ok()?),
        };
        Some(Self { etag, file: Downloaded { digest, modified, snapshot, other } })
    }
}

/// Writes a body to a file and digests it on the way.
struct FileSink<'a> {
    path: PathBuf,
    algorithm: Algorithm,
    progress: &'a dyn Fn(u64, Option<u64>),
    file: Option<Hashing<File>>,
    other: Hashing<io::Sink>,
    taken: u64,
    total: Option<u64>,
}

impl<'a> FileSink<'a> {
    fn new(path: &Path, algorithm: Algorithm, progress: &'a dyn Fn(u64, Option<u64>)) -> Self {
        let other = Hashing::with_algorithm(io::sink(), algorithm);
        Self { path: path.to_owned(), algorithm, progress, file: None, other, taken: 0, total: None }
    }

    fn finish(self) -> io::Result<(PathBuf, Digest, Option<Digest>)> {
        let file = self.file.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (_, digest, _) = file.finish();
        let other = (self.algorithm != Algorithm::Sha256).then(|| self.other.finish().1);
        Ok((self.path, digest, other))
    }
}

impl WebSink for FileSink<'_> {
    fn begin(&mut self, total: Option<u64>) -> io::Result<()> {
        self.file = Some(Hashing::new(File::create(&self.path)?));
        self.other = Hashing::with_algorithm(io::sink(), self.algorithm);
        (self.taken, self.total) = (0, total);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
        file.write_all(bytes)?;
        if self.algorithm != Algorithm::Sha256 {
            self.other.write_all(bytes)?;
        }
        self.taken += bytes.len() as u64;
        (self.progress)(self.taken, self.total);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        for (url, want) in [
            ("https://h.example:8443/x", "h.example"),
            ("http://u:p@h/x@y", "h"),
            ("http://[::1]:80/", "::1"),
            ("http://h?x", "h"),
        ] {
            assert_eq!(host_name(url), want, "{url}");
        }
    }

    #[test]
    fn memories_survive_being_written() {
        let file = Downloaded {
            digest: Digest::sha256("x"),
            modified: Some(-5),
            snapshot: "7".parse().unwrap(),
            other: Some(Digest::compute(Algorithm::Sha512, "x")),
        };
        for file in [file.clone(), Downloaded { modified: None, other: None, ..file }] {
            let note = Memory { etag: "\"a: b\"".to_owned(), file: file.clone() }.note();
            let back = Memory::parse(file.snapshot, &note).unwrap();
            assert_eq!((back.etag.as_str(), back.file), ("\"a: b\"", file));
        }
        assert!(Memory::parse("7".parse().unwrap(), "").is_none());
    }

    #[test]
    fn a_checksum_of_either_algorithm_is_verified() {
        let other = Some(Digest::compute(Algorithm::Sha512, "x"));
        let file = Downloaded { digest: Digest::sha256("x"), modified: None, snapshot: "7".parse().unwrap(), other };
        assert!(file.verify(&Digest::sha256("x")).is_ok());
        assert!(file.verify(&Digest::compute(Algorithm::Sha512, "x")).is_ok());
        for wrong in [Digest::sha256("y"), Digest::compute(Algorithm::Sha512, "y")] {
            assert!(file.verify(&wrong).unwrap_err().message().starts_with("digest mismatch "));
        }
    }
}
