//! A web server on loopback: files with entity tags and dates, accidents on request, repositories over git's protocol.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// `Last-Modified` of every file: 2020-01-01.
const DATE: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

/// A running server.
#[derive(Debug)]
pub(crate) struct WebServer {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    address: String,
    log: Mutex<Vec<String>>,
    broken: Mutex<BTreeMap<String, u32>>,
    ended: AtomicBool,
}

impl WebServer {
    /// Serves the files below `root`. Those below `broken/` break off in the middle, twice; those below `private/` want
    /// the token `s3cret`; those below `moved/` are one directory higher.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            address: address.clone(),
            log: Mutex::default(),
            broken: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.ended.load(Ordering::SeqCst) {
                    return;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.answer(stream.unwrap()));
            }
        });
        Self { url: format!("http://{address}"), shared }
    }

    /// The requests since the last call, as `METHOD path range`.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.log.lock().unwrap())
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.shared.address));
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let range = headers.get("range").cloned().unwrap_or_default();
        self.log.lock().unwrap().push(format!("{method} {target} {range}").trim().to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let reply = match path {
            _ if path.contains(".git/") => self.git(&method, path, query, &headers, &body),
            _ => self.file(&method, path, &headers),
        };
        // The client may have gone.
        drop((&stream).write_all(&reply));
    }

    fn file(&self, method: &str, path: &str, headers: &BTreeMap<String, String>) -> Vec<u8> {
        let empty = |status: &str, more: &str| {
            format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
        };
        if let Some(rest) = path.strip_prefix("/moved/") {
            return empty("302 Found", &format!("Location: /{rest}\r\n"));
        }
        if path.starts_with("/private/") && headers.get("authorization").is_none_or(|value| value != "Bearer s3cret") {
            return empty("401 Unauthorized", "");
        }
        let Ok(content) = std::fs::read(self.root.join(&path[1..])) else { return empty("404 Not Found", "") };
        let tag = format!("\"{}-{}\"", content.len(), content.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        if headers.get("if-none-match") == Some(&tag) {
            return empty("304 Not Modified", &format!("ETag: {tag}\r\n"));
        }
        let from = headers.get("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: Option<usize> = from.filter(|_| headers.get("if-range") == Some(&tag));
        let part = &content[from.unwrap_or(0)..];
        let status = match from {
            Some(from) => {
                format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", content.len() - 1, content.len())
            }
            None => "200 OK".to_owned(),
        };
        let mut reply = format!(
            "HTTP/1.1 {status}\r\nETag: {tag}\r\nLast-Modified: {DATE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            part.len()
        )
        .into_bytes();
        if method == "HEAD" {
            return reply;
        }
        let mut broken = self.broken.lock().unwrap();
        let times = broken.entry(path.to_owned()).or_default();
        let breaks = path.starts_with("/broken/") && *times < 2;
        *times += 1;
        reply.extend_from_slice(if breaks { &part[..part.len() / 2] } else { part });
        reply
    }

    fn git(&self, method: &str, path: &str, query: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Vec<u8> {
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", method)
            .env("CONTENT_TYPE", header("content-type"))
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git http-backend");
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap().stdout;
        let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(output.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&output[..end]);
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let head: String = head
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("Status:"))
            .fold(String::new(), |head, line| head + line + "\r\n");
        let length = output.len() - end;
        let mut reply =
            format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes();
        reply.extend_from_slice(&output[end..]);
        reply
    }
}
