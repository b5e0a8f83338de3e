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
struct Making {
    bytes: Vec<u8>,
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
    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        let there = self.most.min(self.bytes.len());
        Ok(Box::new(Pieces { rest: &self.bytes[..there], lost: there < self.bytes.len() }))
    }

    fn whole(&self) -> io::Result<Descriptor> {
        Ok(Descriptor::of(MediaType::OciLayerGzip, &self.bytes))
    }
}

fn making(size: usize) -> Making {
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
    let faults: [(&str, Spoiled); 5] = [
        ("no chunks here", |request| request.header("transfer-encoding").map(|_| Answer::new(411))),
        ("cut", |request| request.header("transfer-encoding").map(|_| Answer::Close)),
        ("some bytes were lost", |request| {
            let moved = Answer::new(202).with("Location", "u0?state=b").with("Range", "0-17");
            request.header("transfer-encoding").map(|_| moved)
        }),
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
