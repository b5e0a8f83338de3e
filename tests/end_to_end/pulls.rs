//! Pulls that are killed at any point, and pulls of one image by several processes: what came once is not asked for again,
//! and the end is the image.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bench::Bench;
use crate::damaged_archives::Random;
use crate::damaged_pulls::Content;
use crate::peers::has;
use crate::registry::{Cable, Registry};
use crate::transfers::noise;

const LAYERS: u64 = 5;
const LAYER: usize = 1 << 20;
const KILLS: u64 = 32;

/// The blobs that a store has whole.
fn whole(store: &Path) -> BTreeSet<String> {
    let list = std::fs::read_dir(store.join("blobs/sha256")).into_iter().flatten().filter_map(Result::ok);
    list.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[test]
fn a_pull_that_is_killed_again_and_again_ends_whole() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let copies: String = (0..LAYERS).map(|n| format!("COPY l{n} /\n")).collect();
    let context = bench.context("ctx", [("Dockerfile", &format!("FROM scratch\n{copies}"))]);
    for n in 0..LAYERS {
        std::fs::write(context.join(format!("l{n}")), noise(n + 1, LAYER)).unwrap();
    }
    let name = registry.name("app:1");
    let _pushed = bench.rbuild(["build", "--push", "-t", &name]).arg(&context).run().ok();

    let store = bench.path("killed");
    // So slow that no pull ends before it is killed, and one without a brake for the later phases.
    let slow = Cable::slow(&registry, 256 << 10);
    let (mut seed, mut seen) = (1u64, registry.requests().len());
    // The registry tells of a request when it has answered it, which may be after the asking process was killed: what counts is
    // what was whole before that one began.
    let (mut there, mut just_now) = (BTreeSet::new(), BTreeSet::new());
    let mut interrupted = 0;
    for kill in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (port, most) = if kill % 4 == 3 { (registry.port(), 400) } else { (slow.port, 900) };
        let mut child = bench.rbuild_at(&store, ["pull", &format!("127.0.0.1:{port}/app:1")]).start();
        std::thread::sleep(Duration::from_millis((seed >> 33) % most));
        interrupted += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let _killed = child.wait().unwrap();
        let requests = registry.requests();
        for request in &requests[seen..] {
            let again = there.iter().any(|digest: &String| request.contains(&format!("/blobs/sha256:{digest}")));
            assert!(!again, "after {kill} kills what was whole came again: {request}");
        }
        seen = requests.len();
        there = std::mem::replace(&mut just_now, whole(&store));
    }
    // Once everything is there, pulls have nothing left to be killed in.
    assert!(interrupted >= KILLS / 4, "only {interrupted} pulls were killed");
    let _pulled = bench.rbuild_at(&store, ["pull", &name]).run().ok();
    let ran = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
    assert!(!ran.stdout.contains("damaged"), "{}", ran.stdout);
    let _saved = bench.rbuild_at(&store, ["save", "-o", "whole.tar", &name]).run().ok();
    let _loaded = bench.rbuild_at(&bench.path("other"), ["load", "-i", "whole.tar"]).run().ok();
    let left = std::fs::read_dir(store.join("tmp/ingest")).into_iter().flatten().count();
    assert_eq!(left, 0, "nothing unfinished stays behind");
}

/// Bytes that may be on the way when a process dies: in sockets, and not yet in the file.
const ON_THE_WAY: usize = 256 << 10;
/// What is smaller, everybody may look at.
const SMALL: usize = 64 << 10;

/// One answer with a blob.
#[derive(Clone, Debug)]
struct Sent {
    digest: String,
    from: usize,
    bytes: usize,
}

/// A registry that sends a megabyte a second on each connection, and knows what it sent.
struct Slow {
    name: String,
    content: Content,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// How many of these were looked at.
    seen: Cell<usize>,
}

impl Slow {
    /// One with an image of five layers that do not compress.
    fn start(bench: &Bench) -> Self {
        let copies: String = (0..LAYERS).map(|n| format!("COPY l{n} /\n")).collect();
        let context = bench.context("ctx", [("Dockerfile", &format!("FROM scratch\n{copies}"))]);
        for n in 0..LAYERS {
            std::fs::write(context.join(format!("l{n}")), noise(n + 1, LAYER)).unwrap();
        }
        let _built = bench.rbuild(["build", "-o", "type=oci,dest=layout,tar=false"]).arg(&context).run().ok();
        let content = Content::of_layout(&bench.path("layout"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/app:1", listener.local_addr().unwrap());
        let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let (served, log) = (content.clone(), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (content, log) = (served.clone(), Arc::clone(&log));
                std::thread::spawn(move || while serve(&stream, &content, &log).is_some() {});
            }
        });
        Self { name, content, sent, seen: Cell::new(0) }
    }

    /// What was sent of blobs that count, since the last call.
    fn take(&self) -> Vec<Sent> {
        let all = self.sent.lock().unwrap();
        let new = all[self.seen.replace(all.len())..].to_vec();
        new.into_iter().filter(|sent| self.content.blobs[&sent.digest].len() > SMALL).collect()
    }
}

fn serve(mut stream: &TcpStream, content: &Content, log: &Mutex<Vec<Sent>>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range =
        headers.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let item = path.rsplit('/').next()?;
    let digest = if item == "1" { content.root.clone() } else { item.to_owned() };
    let Some(bytes) = content.blobs.get(&digest) else {
        let status = if path == "/v2/" { 200 } else { 404 };
        return write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let from = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok()).unwrap_or(0);
    let (all, rest) = (bytes.len(), &bytes[from.min(bytes.len())..]);
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", if from > 0 { 206 } else { 200 }, rest.len());
    if from > 0 {
        head.push_str(&format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1));
    }
    if path.contains("/manifests/") {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        head.push_str(&format!("Content-Type: {}\r\n", document["mediaType"].as_str().unwrap()));
        head.push_str(&format!("Docker-Content-Digest: {digest}\r\n"));
    }
    write!(stream, "{head}\r\n").ok()?;
    if first.starts_with("HEAD") {
        return Some(());
    }
    let entry = {
        let mut log = log.lock().unwrap();
        log.push(Sent { digest, from, bytes: 0 });
        log.len() - 1
    };
    for piece in rest.chunks(16 << 10) {
        stream.write_all(piece).ok()?;
        log.lock().unwrap()[entry].bytes += piece.len();
        std::thread::sleep(Duration::from_millis(if rest.len() > SMALL { 15 } else { 0 }));
    }
    Some(())
}

/// How far each blob was known to be when it was asked for again: it goes on from there.
#[track_caller]
fn assert_goes_on(sent: &[Sent], what: &str) -> usize {
    let mut went_on = 0;
    for (position, one) in sent.iter().enumerate() {
        let before = sent[..position].iter().filter(|earlier| earlier.digest == one.digest);
        let had = before.map(|earlier| earlier.from + earlier.bytes).max().unwrap_or(0);
        assert!(
            one.from + ON_THE_WAY >= had,
            "{what}: {} bytes were there, and {} is asked for:\n{sent:#?}",
            had,
            one.from
        );
        went_on += usize::from(one.from > 0);
    }
    went_on
}

#[test]
fn a_killed_pull_asks_for_nothing_that_came_whatever_layers_become() {
    for kind in ["auto", "directory"] {
        let Some(bench) = Bench::new() else { return };
        let registry = Slow::start(&bench);
        let store = bench.path("killed");
        let mut random = Random::new(21);
        let (mut interrupted, mut log) = (0, Vec::new());
        let pull = || bench.rbuild_at(&store, ["pull", "-q", &registry.name]).env("RBUILD_SNAPSHOTTER", kind);
        for _ in 0..16 {
            let mut child = pull().start();
            std::thread::sleep(Duration::from_millis(random.below(400) as u64));
            interrupted += usize::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            let _killed = child.wait().unwrap();
            log.extend(registry.take());
        }
        let _pulled = pull().run().ok();
        log.extend(registry.take());
        let went_on = assert_goes_on(&log, kind);
        assert!(interrupted > 3 && went_on > 3, "{kind}: {interrupted} pulls were killed, {went_on} blobs went on");
        let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
        let left = std::fs::read_dir(store.join("tmp/ingest")).into_iter().flatten().count();
        assert_eq!(left, 0, "{kind}: nothing unfinished stays behind");
        let _again = pull().run().ok();
        assert!(registry.take().is_empty(), "{kind}: it is there");
    }
}

#[test]
fn processes_that_pull_one_image_share_what_comes_also_when_one_dies() {
    let Some(bench) = Bench::new() else { return };
    let registry = Slow::start(&bench);
    let mut random = Random::new(22);
    for turn in 0..6 {
        let kind = ["auto", "directory"][turn % 2];
        let store = bench.path(format!("shared{turn}"));
        let start = || bench.rbuild_at(&store, ["pull", "-q", &registry.name]).env("RBUILD_SNAPSHOTTER", kind).start();
        let mut pulls = [start(), start(), start()];
        if turn > 1 {
            std::thread::sleep(Duration::from_millis(200 + random.below(900) as u64));
            let victim = random.below(pulls.len());
            pulls[victim].kill().unwrap();
            pulls.swap(0, victim);
        }
        for (position, pull) in pulls.into_iter().enumerate() {
            let out = pull.wait_with_output().unwrap();
            let killed = turn > 1 && position == 0;
            assert!(killed || out.status.success(), "turn {turn}: {}", String::from_utf8_lossy(&out.stderr));
        }
        let sent = registry.take();
        assert_goes_on(&sent, &format!("turn {turn}"));
        let asked = sent.len();
        let most = LAYERS as usize + if turn > 1 { LAYERS as usize } else { 0 };
        assert!((LAYERS as usize..=most).contains(&asked), "turn {turn}: {asked} answers: {sent:#?}");
        let total: usize = sent.iter().map(|sent| sent.bytes).sum();
        let size: usize = registry.content.blobs.values().map(Vec::len).filter(|size| *size > SMALL).sum();
        let slack = (asked - LAYERS as usize) * ON_THE_WAY;
        assert!((size..=size + slack).contains(&total), "turn {turn}: {total} bytes of {size}");
        let _sound = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
        std::fs::remove_dir_all(&store).unwrap();
    }
}
