//! Against a registry that misbehaves on request (the attack kit's `evil_registry.py`): for each of its faults the
//! outcome that its table expects, within the time and the number of requests that it grants, no secret to a foreign
//! host, none before a challenge, and nothing but verified blobs in the store.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_image::credentials::{Credentials, Fixed, Secret};
use rbuild_image::pull::pull;
use rbuild_image::push::{PushRequest, push};
use rbuild_image::registry::{Client, ClientOptions, RegistryError, RetryPolicy, Silent, Timeouts};
use rbuild_image::{Digest, ImageRef, MediaType, Platform};

use crate::memory::{MemoryStore, TestImage};

/// One line of the kit's table.
#[derive(Clone, Debug)]
struct Fault {
    name: String,
    expected: String,
    seconds: u64,
    requests: usize,
}

/// The kit, beside the repository.
fn kit() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attacks/evil_registry.py");
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no ../shared/attacks/evil_registry.py beside the repository");
    None
}

fn table(kit: &Path) -> Vec<Fault> {
    let out = Command::new("python3").arg(kit).arg("--list").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let faults: Vec<Fault> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Fault {
                name: words[0].into(),
                expected: words[1].into(),
                seconds: words[2].trim_end_matches('s').parse().unwrap(),
                requests: words[3].parse().unwrap(),
            }
        })
        .collect();
    assert!(faults.len() >= 49, "{} faults", faults.len());
    faults
}

struct Evil {
    child: Child,
    registry: String,
}

impl Evil {
    fn start(kit: &Path) -> Self {
        let mut child = Command::new("python3").arg(kit).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, registry: ready["registry"].as_str().unwrap().to_owned() }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let mut response = ureq::get(format!("http://{}/{path}", self.registry)).call().unwrap();
        response.body_mut().read_to_vec().unwrap()
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn attempt(kit: &Path, fault: &Fault, edit: &(dyn Fn(&mut ClientOptions) + Sync)) -> (String, Vec<String>) {
    let evil = Evil::start(kit);
    let pushes = fault.name.starts_with("push-");
    let mut name: ImageRef =
        format!("{}/{}/{}:latest", evil.registry, if pushes { "push" } else { "fault" }, fault.name).parse().unwrap();
    if fault.name == "manifest-corrupt" {
        let mut manifest = evil.get("v2/fault/manifest-corrupt/manifests/latest");
        assert_eq!(manifest.pop(), Some(b' '));
        name = name.with_digest(Digest::sha256(manifest));
    }
    evil.get("_reset");
    let credentials = Credentials::Password { username: "u".into(), password: Secret::new("hunter2-canary") };
    let mut options = ClientOptions {
        credentials: Arc::new(Fixed { registry: evil.registry.clone(), credentials }),
        ..ClientOptions::default()
    };
    edit(&mut options);
    let client = Client::new(options);
    let store = MemoryStore::default();
    let start = Instant::now();
    let result: Result<(), RegistryError> = if pushes {
        let image = TestImage::new(&fault.name, &[60_000, 3 << 20]);
        let media_type = MediaType::OciManifest;
        let request = PushRequest {
            name: &name,
            tags: &[],
            media_type: &media_type,
            bytes: &image.manifest,
            mount_from: &[],
            there: &BTreeSet::new(),
        };
        push(&client, &request, &image.store, &Silent).map(drop)
    } else {
        pull(&client, &name, &Platform::host(), &store, &Silent).map(drop)
    };
    let took = start.elapsed();
    let log: Vec<serde_json::Value> = serde_json::from_slice(&evil.get("_log")).unwrap();
    let log: Vec<_> = log.iter().filter(|entry| !entry["path"].as_str().unwrap().starts_with("/_")).collect();

    let mut problems = Vec::new();
    let outcome = if result.is_ok() { "ok" } else { "fail" };
    if fault.expected != "either" && fault.expected != outcome {
        problems.push(format!("{outcome} instead of {}", fault.expected));
    }
    if took > Duration::from_secs(fault.seconds) {
        problems.push(format!("took {took:?}"));
    }
    if log.len() > fault.requests {
        problems.push(format!("{} requests", log.len()));
    }
    if log.iter().any(|entry| entry["where"] == "other" && entry["secret"] == true) {
        problems.push("credentials sent to another host".to_owned());
    }
    if log.first().is_some_and(|entry| entry["secret"] == true) {
        problems.push("credentials before a challenge".to_owned());
    }
    for digest in store.digests() {
        if Digest::sha256(store.get(&digest).unwrap()) != digest {
            problems.push(format!("{digest} is kept and wrong"));
        }
    }
    let text = match &result {
        Ok(()) => String::new(),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            text
        }
    };
    if text.chars().any(char::is_control) || text.len() > 2000 {
        problems.push("raw or endless text in the error".to_owned());
    }
    if text.contains("hunter2") {
        problems.push("the password is in the error".to_owned());
    }
    if result.is_err() && !text.contains(&fault.name) {
        problems.push("the error does not name the repository".to_owned());
    }
    let ranges = log.iter().filter(|entry| !entry["range"].is_null()).count();
    let seconds = took.as_secs_f32();
    (
        format!("{:<24} {outcome:<5} {seconds:5.1}s {:3} requests {ranges} ranges  {text}", fault.name, log.len()),
        problems,
    )
}

fn run_all(faults: &[Fault], kit: &Path, edit: &(dyn Fn(&mut ClientOptions) + Sync)) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (line, problems) = attempt(kit, fault, edit);
                    println!("{line}");
                    if !problems.is_empty() {
                        failures.lock().unwrap().push(format!("{}: {}", fault.name, problems.join(", ")));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// All faults, with shorter waits than by default so that the ones that wait do not hold up everybody.
#[test]
fn r30_to_r36_every_fault_ends_as_it_must() {
    let Some(kit) = kit() else { return };
    let mut faults = table(&kit);
    // The ones that take longest begin first.
    faults.sort_by_key(|fault| std::cmp::Reverse(fault.seconds));
    run_all(&faults, &kit, &|options| {
        options.timeouts = Timeouts {
            headers: Duration::from_secs(3),
            idle: Duration::from_secs(2),
            low_speed_window: Duration::from_secs(3),
            ..Timeouts::default()
        };
        let patience = Duration::from_secs(4);
        options.retry = RetryPolicy { first_pause: Duration::from_millis(50), patience, ..RetryPolicy::default() };
    });
}

/// The same with the waits that users have.
#[test]
#[ignore = "takes over a minute, most of it waiting"]
fn r32_every_fault_ends_as_it_must_with_default_timeouts() {
    let Some(kit) = kit() else { return };
    let mut faults = table(&kit);
    faults.sort_by_key(|fault| std::cmp::Reverse(fault.seconds));
    run_all(&faults, &kit, &|_| {});
}
