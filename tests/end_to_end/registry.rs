//! Registries on loopback: Debian's docker-registry with its log, and a cable to it that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bench::{Bench, Call};
use crate::peers::has;

/// A registry that ends with the test.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    port: u16,
    dir: PathBuf,
}

/// How a registry lets people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Plain HTTP, for everybody.
    Open,
    /// TLS with a certificate of a test authority (`ca.crt` in its directory), and the user `u` with `pass:word`.
    Guarded,
}

/// A registry behind [`Door::Guarded`], beside a bench that has busybox.
pub(crate) struct Guarded {
    // It is to end before the bench looks for what is left.
    pub(crate) registry: Registry,
    pub(crate) bench: Bench,
    /// Its address.
    pub(crate) host: String,
    /// The certificate that makes it trusted.
    pub(crate) ca: String,
}

impl Guarded {
    /// None where it cannot be had.
    pub(crate) fn new() -> Option<Self> {
        let bench = Bench::with_busybox()?;
        if !has("docker-registry") || !has("openssl") || !has("htpasswd") {
            return None;
        }
        let registry = Registry::start_with(&bench.path("registry"), Door::Guarded);
        let host = format!("127.0.0.1:{}", registry.port());
        let ca = bench.path("registry/ca.crt").display().to_string();
        Some(Self { registry, bench, host, ca })
    }

    /// A call in a store, with a Docker configuration of the bench's own.
    pub(crate) fn rbuild_at(&self, store: &Path, args: &[&str]) -> Call {
        let docker = self.bench.path("docker").display().to_string();
        self.bench.rbuild_at(store, args).env("DOCKER_CONFIG", &docker)
    }

    /// The same in the bench's store, where the registry is trusted.
    pub(crate) fn rbuild(&self, args: &[&str]) -> Call {
        self.rbuild_at(&self.bench.store(), args).env("SSL_CERT_FILE", &self.ca)
    }
}

impl Registry {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, Door::Open)
    }

    pub(crate) fn start_with(dir: &Path, door: Door) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::create_dir_all(dir).unwrap();
        let config = dir.join("config.yml");
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.display()
        );
        if door == Door::Guarded {
            make_certificate(dir);
            let users = Command::new("htpasswd").args(["-Bbn", "u", "pass:word"]).output().unwrap();
            std::fs::write(dir.join("users"), users.stdout).unwrap();
            let dir = dir.display();
            text = text.replace(
                "http: {",
                &format!("auth: {{htpasswd: {{realm: test, path: {dir}/users}}}}\nhttp: {{tls: {{certificate: {dir}/server.crt, key: {dir}/server.key}}, "),
            );
        }
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.join("access.log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, port, dir: dir.to_owned() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A name in this registry.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// The requests so far, as `METHOD PATH`.
    pub(crate) fn requests(&self) -> Vec<String> {
        // A line is written some time after the answer.
        let read = || std::fs::read_to_string(self.dir.join("access.log")).unwrap();
        let mut log = read();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(200));
            let before = std::mem::replace(&mut log, read());
            if before == log {
                break;
            }
        }
        let request = |line: &str| {
            let line = line.split('"').nth(1)?;
            let mut words = line.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?))
        };
        log.lines().filter_map(request).collect()
    }

    /// The files that hold the bytes of blobs.
    pub(crate) fn blobs(&self) -> Vec<PathBuf> {
        fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, found);
                } else if path.ends_with("data") {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.dir.join("data/docker/registry/v2/blobs"), &mut found);
        found
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate for loopback by an authority of the test's own.
pub(crate) fn make_certificate(dir: &Path) {
    let script = r#"
        set -e; cd "$0"
        new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        openssl req -x509 $new -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:true
        openssl req $new -subj /CN=server -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' > ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt"#;
    let out = Command::new("sh").args(["-c", script]).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A cable to a registry: after so many bytes from there it is cut, and nobody gets through any more.
#[derive(Debug)]
pub(crate) struct Cable {
    pub(crate) port: u16,
}

impl Cable {
    pub(crate) fn to(registry: &Registry, bytes: u64) -> Self {
        Self::carrying(registry, bytes, Duration::ZERO)
    }

    /// One that carries so many bytes a second from there, on each connection.
    pub(crate) fn slow(registry: &Registry, bytes_per_second: u64) -> Self {
        let pieces = (bytes_per_second / PIECE as u64).max(1);
        Self::carrying(registry, u64::MAX, Duration::from_secs(1) / u32::try_from(pieces).unwrap())
    }

    fn carrying(registry: &Registry, bytes: u64, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, far) = (Arc::new(AtomicU64::new(bytes)), registry.port);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let left = Arc::clone(&left);
                let Ok(near) = near else { return };
                if left.load(Ordering::SeqCst) == 0 {
                    return;
                }
                std::thread::spawn(move || {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", far)) else { return };
                    let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to, &AtomicU64::new(u64::MAX), Duration::ZERO));
                    carry(far, near, &left, pause);
                });
            }
        });
        Self { port }
    }
}

/// Bytes that are carried at once.
const PIECE: usize = 4096;

fn carry(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64, pause: Duration) {
    let mut buffer = [0; PIECE];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(pause);
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(n as u64)));
        let may = usize::try_from(before.unwrap_or(0)).unwrap_or(usize::MAX).min(n);
        if to.write_all(&buffer[..may]).is_err() || may < n {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
