//! Uploads over connections that break at any byte, to a registry that keeps what came, or the most of it: it has the
//! blob in the end, and nothing that it kept is sent again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_image::registry::{Client, ClientOptions, Pushed, RetryPolicy, Silent, UnfinishedBlob as _};
use rbuild_image::{Digest, ImageRef, MemoryBlobs};

use crate::streams::making;

/// A registry that takes uploads, and what happened to them.
#[derive(Default)]
struct State {
    session: Vec<u8>,
    /// Bytes of bodies that came.
    came: u64,
    /// Of these, those that it did not keep.
    dropped: u64,
    cuts: u32,
    blob: Option<Digest>,
    random: u64,
}

impl State {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}

fn start(seed: u64, most: u64) -> (String, Arc<Mutex<State>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let state = Arc::new(Mutex::new(State { random: seed, ..State::default() }));
    let shared = state.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), shared.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let allowance = state.lock().unwrap().below(most);
                while serve(&mut reader, &stream, &state, allowance).is_some() {}
                let _closed = stream.shutdown(Shutdown::Both);
            });
        }
    });
    (host, state)
}

/// Answers one request; `None` when the connection ends, as it does within a body of more than `allowance` bytes.
fn serve(
    reader: &mut BufReader<TcpStream>,
    mut stream: &TcpStream,
    state: &Mutex<State>,
    allowance: u64,
) -> Option<()> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<TcpStream>| {
        line.clear();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let (method, path) = first.split_once(' ')?;
    let (mut length, mut chunked, mut range) = (0, false, None);
    loop {
        let header = next(reader)?.to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", text)) => length = text.parse().ok()?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("content-range", text)) => range = text.split_once('-')?.0.parse::<usize>().ok(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = Vec::new();
    let whole = read_body(reader, (length, chunked), allowance, &mut body);
    let mut state = state.lock().unwrap();
    state.came += body.len() as u64;
    if let Some(range) = range {
        assert_eq!(range, state.session.len(), "a part that does not follow what is there");
    }
    if whole.is_none() {
        state.cuts += 1;
        // Some of it was not written yet.
        let lost = if state.below(2) == 0 { 0 } else { state.below(body.len() as u64) };
        body.truncate(body.len() - lost as usize);
        state.session.extend(&body);
        state.dropped += lost;
        return None;
    }
    state.session.extend(&body);
    let range = format!("Range: 0-{}\r\n", state.session.len().saturating_sub(1));
    let session = "Location: /v2/app/blobs/uploads/u\r\n";
    let answer = match method {
        "HEAD" => format!("HTTP/1.1 {} X\r\n", if state.blob.is_some() { 200 } else { 404 }),
        "POST" => {
            state.dropped += state.session.len() as u64;
            state.session.clear();
            format!("HTTP/1.1 202 X\r\n{session}")
        }
        "GET" => format!("HTTP/1.1 204 X\r\n{session}{range}"),
        "PATCH" => format!("HTTP/1.1 202 X\r\n{session}{range}"),
        "PUT" => {
            let digest = Digest::sha256(&state.session);
            assert!(path.contains(&digest.to_string()), "another blob: {path}");
            state.blob = Some(digest);
            "HTTP/1.1 201 X\r\n".to_owned()
        }
        _ => "HTTP/1.1 405 X\r\n".to_owned(),
    };
    stream.write_all(format!("{answer}Content-Length: 0\r\n\r\n").as_bytes()).ok()
}

fn read_body(
    reader: &mut BufReader<TcpStream>,
    (length, chunked): (u64, bool),
    mut allowance: u64,
    body: &mut Vec<u8>,
) -> Option<()> {
    let mut part = |reader: &mut BufReader<TcpStream>, length: u64| {
        let wanted = length.min(allowance);
        allowance -= wanted;
        let read = reader.take(wanted).read_to_end(body).ok()? as u64;
        (read == length).then_some(())
    };
    if !chunked {
        return part(reader, length);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = u64::from_str_radix(line.trim_end(), 16).ok()?;
        part(reader, length)?;
        line.clear();
        reader.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(());
        }
    }
}

#[test]
fn r34_uploads_survive_cuts_at_any_byte_and_send_nothing_twice() {
    let retry = RetryPolicy {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(4),
        ..RetryPolicy::default()
    };
    let mut cuts = 0;
    for seed in 1..=24_u64 {
        let size = 2_000_000 + 40_001 * seed as usize;
        let (host, state) = start(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 900_000);
        let client = Client::new(ClientOptions { retry, ..ClientOptions::default() });
        let name: ImageRef = format!("{host}/app:1").parse().unwrap();
        let blob = making(size);
        let descriptor = blob.whole().unwrap();
        if seed % 2 == 0 {
            let sent = client.push_unfinished(&name, &Digest::sha256("tar"), &blob, &Silent).unwrap();
            assert_eq!(sent, Some(descriptor.clone()), "seed {seed}");
        } else {
            let mut memory = MemoryBlobs::default();
            memory.insert(blob.bytes.clone());
            let pushed = client.push_blob(&name, &descriptor, &[], &memory, &Silent).unwrap();
            assert_eq!(pushed, Pushed::Uploaded, "seed {seed}");
        }
        let state = state.lock().unwrap();
        assert_eq!(state.blob, Some(descriptor.digest), "seed {seed}");
        assert_eq!(state.came, size as u64 + state.dropped, "seed {seed}: what was kept was sent again");
        cuts += state.cuts;
    }
    assert!(cuts > 40, "only {cuts} cuts");
}
