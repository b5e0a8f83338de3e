//! Into a Docker daemon (`--load`), as `docker load` does it. Layers that the daemon
//! has already are left out of what is sent; a daemon that does not take that gets everything.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};

use rbuild_image::archive::{Export, write_docker_tar_without};
use rbuild_image::{BlobSource, DiffId, Digest, ImageRef, Platform};
use serde::Deserialize;

use super::bundle::Bundle;
use super::docker_host::{DockerHost, Wire};
use crate::cli::report::{Failure, printable};
use crate::config::Settings;

/// The most bytes of an answer that is held in memory.
const MAX_ANSWER: u64 = 64 << 20;
/// Images whose layers are looked at.
const MAX_IMAGES: usize = 200;

/// A Docker daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    host: DockerHost,
}

impl Daemon {
    /// The daemon that the environment or Docker's client configuration names, else the usual one.
    pub(super) fn find(settings: &Settings) -> Result<Self, Failure> {
        let daemon = Self { host: DockerHost::find(settings)? };
        daemon.host.connect().map_err(|error| {
            Failure::new(format!("no Docker daemon answers at {}: {error}", daemon.host.name())).with_help(
                "without --load the image goes into rbuild's own store; -o type=docker,dest=FILE writes an archive",
            )
        })?;
        Ok(daemon)
    }

    /// Loads an image under names. `diff_ids` are its layers, lowest first.
    pub(super) fn load(
        &self,
        bundle: &Bundle<'_>,
        diff_ids: &[DiffId],
        names: &[ImageRef],
        platform: &Platform,
    ) -> Result<Loaded, Failure> {
        let layers: Vec<Digest> = bundle
            .staged
            .first()
            .into_iter()
            .flat_map(|staged| &staged.document.layers)
            .map(|layer| layer.digest)
            .collect();
        let known = self.known_layers(diff_ids).min(layers.len());
        // A blob that stands for several layers goes if any of them has to.
        let needed: BTreeSet<Digest> = layers[known..].iter().copied().collect();
        let without: BTreeSet<Digest> =
            layers[..known].iter().copied().filter(|digest| !needed.contains(digest)).collect();
        let images = [Export { root: bundle.root.0.clone(), names: names.to_vec() }];
        let send = |without: &BTreeSet<Digest>| self.send(&images, platform, bundle, without);
        if !without.is_empty() {
            match send(&without) {
                Ok(()) => return Ok(Loaded { sent: layers.len() - known, there: known }),
                Err(failure) => tracing::debug!(error = failure.message(), "the daemon wants all layers"),
            }
        }
        send(&BTreeSet::new())?;
        Ok(Loaded { sent: layers.len(), there: 0 })
    }

    /// How many of the lowest layers are in one image that the daemon has.
    fn known_layers(&self, diff_ids: &[DiffId]) -> usize {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "Id")]
            id: String,
        }
        #[derive(Deserialize)]
        struct Image {
            #[serde(rename = "RootFS")]
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(rename = "Layers", default)]
            layers: Vec<String>,
        }
        let wanted: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
        let images: Vec<Listed> = self.get("/images/json?all=1").unwrap_or_default();
        let mut most = 0;
        for listed in images.iter().take(MAX_IMAGES) {
            if most == wanted.len() {
                break;
            }
            let Some(image) = self.get::<Image>(&format!("/images/{}/json", listed.id)) else { continue };
            let same = image.rootfs.layers.iter().zip(&wanted).take_while(|(have, want)| have == want).count();
            most = most.max(same);
        }
        most
    }

    /// A document of the daemon's, where it has it.
    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let mut stream = self.host.connect().ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").ok()?;
        stream.flush().ok()?;
        let (status, body) = answer(stream).ok()?;
        (status == 200).then(|| serde_json::from_slice(&body).ok()).flatten()
    }

    fn send(
        &self,
        images: &[Export],
        platform: &Platform,
        blobs: &dyn BlobSource,
        without: &BTreeSet<Digest>,
    ) -> Result<(), Failure> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| Failure::from_error("cannot load the image into Docker", error);
        let mut stream = self.host.connect().map_err(|error| failed(&error))?;
        write!(
            stream,
            "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        .map_err(|error| failed(&error))?;
        let chunks = io::BufWriter::with_capacity(256 << 10, Chunked(&mut *stream));
        let written = write_docker_tar_without(chunks, images, platform, blobs, without)
            .map_err(|error| failed(&error))
            .and_then(|mut chunks| Ok(chunks.flush()?));
        let written = written.and_then(|()| {
            stream.write_all(b"0\r\n\r\n")?;
            Ok(stream.flush()?)
        });
        // A daemon that refuses stops reading: what it says counts for more than the broken pipe.
        let (status, body) = match answer(stream) {
            Ok(answer) => answer,
            Err(error) => return Err(written.err().unwrap_or_else(|| failed(&error))),
        };
        let text = String::from_utf8_lossy(&body);
        if let Some(message) = refusal(status, &text) {
            return Err(Failure::new(format!("Docker did not take the image: {}", printable(&message))));
        }
        written
    }
}

/// What was sent to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Layers that went.
    pub(super) sent: usize,
    /// Layers that it had.
    pub(super) there: usize,
}

/// What a daemon says against an image: by its status, or in the stream of its answer.
fn refusal(status: u16, body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    let lines = body.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let said = lines.filter_map(|line| line.error.or(line.message)).next();
    match (status, said) {
        (200, said) => said,
        (status, said) => Some(said.unwrap_or_else(|| format!("status {status}"))),
    }
}

/// Writes each buffer as one chunk (RFC 9112, section 7.1).
struct Chunked<'a>(&'a mut dyn Wire);

impl Write for Chunked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        write!(self.0, "{:x}\r\n", bytes.len())?;
        self.0.write_all(bytes)?;
        self.0.write_all(b"\r\n")?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads an answer whose connection is closed behind it.
fn answer(stream: impl Read) -> io::Result<(u16, Vec<u8>)> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let mut reader = BufReader::new(stream.take(MAX_ANSWER));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(odd)?;
    let mut chunked = false;
    let mut length = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(odd());
        }
        let header = line.trim().to_ascii_lowercase();
        match header.split_once(':') {
            None if header.is_empty() => break,
            Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
            Some(("content-length", value)) => length = value.trim().parse::<u64>().ok(),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        reader.take(length.unwrap_or(MAX_ANSWER)).read_to_end(&mut body)?;
        return Ok((status, body));
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).map_err(|_| odd())?;
        if size == 0 {
            return Ok((status, body));
        }
        if (&mut reader).take(size).read_to_end(&mut body)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.read_line(&mut line)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_kinds_are_read() {
        let plain = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}rest";
        assert_eq!(answer(plain.as_bytes()).unwrap(), (404, b"{}".to_vec()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(answer(chunked.as_bytes()).unwrap(), (200, b"abcde".to_vec()));
        for bad in [
            "",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ] {
            assert!(answer(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_is_found_in_the_stream() {
        assert_eq!(refusal(200, "{\"stream\":\"Loaded image: x\\n\"}\r\n"), None);
        assert_eq!(
            refusal(200, "{\"stream\":\"\"}\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\n").as_deref(),
            Some("no")
        );
        assert_eq!(refusal(500, "{\"message\":\"broken\"}").as_deref(), Some("broken"));
        assert_eq!(refusal(500, "").as_deref(), Some("status 500"));
    }
}
