//! Blobs that are sent while they are being made.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_image::registry::{Cancel, Cause, Client, Silent, TransferSink, TransferState, UnfinishedBlob};
use rbuild_image::{Descriptor, Digest, MediaType};

use crate::memory::noise;
use crate::scripted::{methods, name, options, upload_server};
use crate::server::Answer;

/// A blob whose bytes come in small pieces, and stop coming after `most`.
pub(crate) struct Making {
    pub(crate) bytes: Vec<u8>,
    most: usize,
}

struct Pieces<'a> {
    rest: &'a [u8],
    /// Bytes that will not come.
    lost: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && self.lost {
            return Err(io::Error::other("the compressor failed"));
        }
        let amount = self.rest.len().min(buffer.len()).min(10_001);
        buffer[..amount].copy_from_slice(&self.rest[..amount]);
        self.rest = &self.rest[amount..];
        Ok(amount)
    }
}

impl UnfinishedBlob for Making {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let there = self.most.min(self.bytes.len());
        Ok(Box::new(Pieces { rest: &self.bytes[from as usize..there], lost: there < self.bytes.len() }))
    }

    fn grown(&self, least: u64) -> io::Result<u64> {
        Ok(least.min(self.bytes.len() as u64))
    }

    fn whole(&self) -> io::Result<Descriptor> {
        Ok(Descriptor::of(MediaType::OciLayerGzip, &self.bytes))
    }
}

pub(crate) fn making(size: usize) -> Making {
    Making { bytes: noise("making", size), most: usize::MAX }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(Digest, TransferState)>>);

impl TransferSink for Seen {
    fn transfer(&self, digest: &Digest, state: TransferState) {
        self.0.lock().unwrap().push((*digest, state));
    }
}

#[test]
fn a_blob_whose_digest_is_not_known_yet_leaves_in_one_stream() {
    for size in [0, 1, 500_000] {
        let server = upload_server(|_, _| None);
        let (blob, named, seen) = (making(size), Digest::sha256("tar"), Seen::default());
        let sent = Client::new(options()).push_unfinished(&name(&server), &named, &blob, &seen).unwrap().unwrap();
        assert_eq!(sent, blob.whole().unwrap());
        assert_eq!(methods(&server), "POST PATCH PUT");
        let patch = &server.requests()[1];
        assert!(patch.body == blob.bytes);
        assert_eq!((patch.header("transfer-encoding"), patch.header("content-length")), (Some("chunked"), None));
        assert!(server.requests()[2].path.contains(&format!("digest={}", sent.digest)));
        let (last, done) = (seen.0.lock().unwrap().pop().unwrap(), size as u64);
        assert_eq!(last, (sent.digest, TransferState::Done));
        assert!(seen.0.lock().unwrap().contains(&(named, TransferState::Moving { current: done, total: done })));
    }
}

#[test]
fn r34_a_stream_that_is_not_taken_is_given_up_and_the_whole_blob_goes() {
    type Spoiled = fn(&crate::server::Request) -> Option<Answer>;
    let faults: [(&str, Spoiled); 3] = [
        ("no chunks here", |request| request.header("transfer-encoding").map(|_| Answer::new(411))),
        ("another digest", |request| {
            let other = Digest::sha256("other").to_string();
            (request.method == "PUT" && request.path.contains("u0"))
                .then(|| Answer::new(201).with("Docker-Content-Digest", other))
        }),
        ("it was spoilt", |request| (request.method == "PUT" && request.path.contains("u0")).then(|| Answer::new(400))),
    ];
    for (what, spoil) in faults {
        let server = upload_server(move |request, _| spoil(request));
        let (client, blob) = (Client::new(options()), making(300_000));
        let named = Digest::sha256("tar");
        let sent = client.push_unfinished(&name(&server), &named, &blob, &Silent).unwrap();
        assert_eq!(sent, None, "{what}");
        assert!(methods(&server).ends_with("DELETE"), "{what}: {}", methods(&server));
        // As who streams does then.
        let mut memory = rbuild_image::MemoryBlobs::default();
        memory.insert(blob.bytes.clone());
        client.push_blob(&name(&server), &blob.whole().unwrap(), &[], &memory, &Silent).unwrap();
        assert!(methods(&server).ends_with("HEAD POST PUT"), "{what}: {}", methods(&server));
    }
}

/// The requests of a stream whose first PATCH is answered like this, and their `Content-Range`s.
fn interrupted(size: usize, spoil: impl Fn(&mut Vec<u8>, &[u8]) -> Answer + Send + Sync + 'static) -> String {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, uploads| {
        if request.method != "PATCH" || !first.swap(false, Ordering::SeqCst) {
            return None;
        }
        let mut uploads = uploads.lock().unwrap();
        Some(spoil(uploads.sessions[0].as_mut().unwrap(), &request.body))
    });
    let (client, blob) = (Client::new(options()), making(size));
    let sent = client.push_unfinished(&name(&server), &Digest::sha256("tar"), &blob, &Silent).unwrap();
    assert_eq!(sent, Some(blob.whole().unwrap()));
    let line = |request: &crate::server::Request| match request.header("content-range") {
        Some(range) => format!("{} {range}", request.method),
        None => request.method.clone(),
    };
    server.requests().iter().map(line).collect::<Vec<_>>().join(", ")
}

#[test]
fn r34_an_interrupted_stream_goes_on_where_the_registry_is() {
    let parts = interrupted(9_000_000, |session, body| {
        session.extend(&body[..1_000_000]);
        Answer::Close
    });
    // What was made by then goes in parts, and the end follows.
    assert_eq!(parts, "POST, PATCH, GET, PATCH 1000000-4194303, PATCH 4194304-8388607, PATCH 8388608-8999999, PUT");
    let too_busy = interrupted(3_000_000, |session, body| {
        session.extend(&body[..2_000_000]);
        Answer::new(503).with("Retry-After", "0")
    });
    assert_eq!(too_busy, "POST, PATCH, GET, PATCH 2000000-2999999, PUT");
    let lost = interrupted(3_000_000, |session, body| {
        session.extend(&body[..1_000_000]);
        Answer::new(202).with("Location", "/v2/app/blobs/uploads/u0?state=b").with("Range", "0-999999")
    });
    assert_eq!(lost, "POST, PATCH, PATCH 1000000-2999999, PUT", "who says 202 says how much it has");
    let nothing_arrived = interrupted(3_000_000, |_, _| Answer::Close);
    assert_eq!(nothing_arrived, "POST, PATCH, GET, POST, PATCH 0-2999999, PUT", "one byte or none");
}

#[test]
fn r34_a_registry_that_forgets_what_broke_off_gets_it_again() {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, uploads| {
        if request.method == "PATCH" && first.swap(false, Ordering::SeqCst) {
            uploads.lock().unwrap().sessions[0] = None;
            return Some(Answer::Close);
        }
        None
    });
    let blob = making(2_000_000);
    let sent = Client::new(options()).push_unfinished(&name(&server), &Digest::sha256("tar"), &blob, &Silent).unwrap();
    assert_eq!(sent, Some(blob.whole().unwrap()));
    assert_eq!(methods(&server), "POST PATCH GET POST PATCH PUT");
}

#[test]
fn parts_are_as_long_as_the_registry_wants_them() {
    let first = AtomicBool::new(true);
    let server = upload_server(move |request, uploads| {
        if request.method == "POST" {
            let mut uploads = uploads.lock().unwrap();
            let Answer::Full(status, headers, body) = uploads.serve(request) else { unreachable!() };
            return Some(Answer::Full(status, headers, body).with("OCI-Chunk-Min-Length", "6000000"));
        }
        if request.method == "PATCH" && first.swap(false, Ordering::SeqCst) {
            uploads.lock().unwrap().sessions[0].as_mut().unwrap().extend(&request.body[..2]);
            return Some(Answer::Close);
        }
        None
    });
    let blob = making(13_000_000);
    Client::new(options()).push_unfinished(&name(&server), &Digest::sha256("tar"), &blob, &Silent).unwrap().unwrap();
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|request| request.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["2-5999999", "6000000-11999999", "12000000-12999999"]);
}

#[test]
fn what_is_not_made_to_its_end_is_not_ended() {
    let server = upload_server(|_, _| None);
    let blob = Making { most: 100_000, ..making(300_000) };
    let sent = Client::new(options()).push_unfinished(&name(&server), &Digest::sha256("tar"), &blob, &Silent).unwrap();
    assert_eq!(sent, None);
    assert!(!methods(&server).contains("PUT"), "{}", methods(&server));
}

#[test]
fn who_may_not_push_is_told_before_a_byte_is_sent() {
    let server = upload_server(|request, _| (request.method == "POST").then(|| Answer::body(403, "no")));
    let error = Client::new(options())
        .push_unfinished(&name(&server), &Digest::sha256("tar"), &making(10), &Silent)
        .unwrap_err();
    assert!(matches!(*error.cause, Cause::Status { status: 403, .. }), "{error:?}");
    assert_eq!(methods(&server), "POST");
}

#[test]
fn r35_a_stream_ends_soon_after_cancellation() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let server = upload_server(|request, _| {
        if request.method == "PATCH" {
            STOP.store(true, Ordering::Relaxed);
            return Some(Answer::Silence);
        }
        None
    });
    let client = Client::new(options()).with_cancel(Cancel::when(|| STOP.load(Ordering::Relaxed)));
    let error = client.push_unfinished(&name(&server), &Digest::sha256("tar"), &making(100_000), &Silent).unwrap_err();
    assert!(error.is_cancelled(), "{error:?}");
}
