//! A small HTTP server whose answers a test writes: one function from request to answer, one thread per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where a `Range: bytes=N-` begins.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What goes back.
pub(crate) enum Answer {
    /// Status, headers, body.
    Full(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Like `Full` with a body of which only so many bytes are sent, then silence.
    Stall(u16, Vec<u8>, usize),
    /// A body of which only so many bytes are sent; then the connection ends.
    Cut(u16, Vec<u8>, usize),
    /// The connection is closed without a word.
    Close,
    /// Silence.
    Silence,
    /// A proxy's "200", after which the connection is another server's.
    Tunnel,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self::Full(status, Vec::new(), Vec::new())
    }

    pub(crate) fn body(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Full(status, Vec::new(), body.into())
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Full(_, headers, _) = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A running server; its threads end with the test process.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read_request(&mut reader) {
                        log.lock().unwrap().push(request.clone());
                        if !write_answer(&stream, &request, answer(&request)) {
                            return;
                        }
                    }
                });
            }
        });
        Self { host, seen }
    }

    /// All requests so far, as "METHOD path".
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = read_chunks(reader)?;
    }
    Some(Request { method, path, headers, body })
}

fn read_chunks(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Some(body);
        }
    }
}

/// Sends an answer; false when the connection ends with it.
fn write_answer(mut stream: &TcpStream, request: &Request, answer: Answer) -> bool {
    let (status, headers, body, sent) = match answer {
        Answer::Close => {
            let _closed = stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
        Answer::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            return false;
        }
        Answer::Tunnel => return stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok(),
        Answer::Full(status, headers, body) => {
            let all = body.len();
            (status, headers, body, all)
        }
        Answer::Stall(status, body, sent) => (status, Vec::new(), body, sent),
        Answer::Cut(status, body, sent) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            let _sent = stream.write_all(&[head.as_bytes(), &body[..sent]].concat());
            let _closed = stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
    };
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(&body[..sent]);
    }
    if stream.write_all(&bytes).is_err() {
        return false;
    }
    if sent < body.len() {
        std::thread::sleep(Duration::from_secs(60));
        return false;
    }
    true
}
