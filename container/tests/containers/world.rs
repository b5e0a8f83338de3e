//! A store with one image, and a short way to run a container: by a monitor, which is this program again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rbuild_cache::snapshot::{Content, Metadata};
use rbuild_cache::{Lease, OpenOptions, SnapshotId, Store, SystemClock};
use rbuild_container::{
    Arrival, AttachRequest, Bond, Caller, CallerStreams, Console, ContainerRecord, Containers, CreateError, DetachKeys,
    Followed, HostFiles, HostResolver, ImageOrigin, Lifetime, LinkError, MonitorLink, NetworkChoice, NetworkRequest,
    NewContainer, RunRequest, SignalInbox, StartError, StartFailure, Supervision, terminal_size,
};
use rbuild_executor::{Capabilities, Spawner, begin_session};
use rbuild_image::{ContainerPath, Digest, RuntimeConfig};

/// A name and what it checks.
pub(crate) type Test = (&'static str, fn(&World));

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 30] = [
    "sh", "true", "false", "cat", "ls", "id", "grep", "sleep", "mount", "mkdir", "rm", "touch", "kill", "hostname",
    "stat", "readlink", "echo", "pwd", "env", "dd", "ps", "tty", "wc", "stty", "find", "seq", "head", "yes", "printf",
    "trap",
];

/// What these tests need and this machine lacks.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    (!Path::new(BUSYBOX).exists()).then(|| format!("they need a static {BUSYBOX} (package busybox-static)"))
}

/// See the module.
pub(crate) struct World {
    home: tempfile::TempDir,
    pub(crate) containers: Containers,
    pub(crate) store: Store,
    pub(crate) image: RuntimeConfig,
    snapshot: SnapshotId,
    /// Keeps the image.
    _lease: Lease,
    inbox: Mutex<SignalInbox>,
    /// Identifiers of all containers.
    made: Mutex<Vec<String>>,
}

/// How a container ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("image").unwrap();
        let snapshot = make_image(&store, &lease);
        let image = RuntimeConfig {
            cmd: Some(vec!["sh".into(), "-c".into(), "echo from the image".into()]),
            env: vec!["PATH=/bin".into(), "FROM=image".into()],
            working_dir: "/made/deep".into(),
            volumes: [("/data".to_owned(), Default::default())].into(),
            ..RuntimeConfig::default()
        };
        let containers = Containers::new(store.clone(), Arc::new(SystemClock));
        let inbox = Mutex::new(SignalInbox::open().unwrap());
        let world = Self { home, containers, store, image, snapshot, _lease: lease, inbox, made: Mutex::default() };
        // What stays by intention is there from the first container on.
        assert_eq!(world.sh("true").code, 0);
        world
    }

    /// Whether a directory of control groups is that of a container.
    pub(crate) fn is_group(&self, path: &Path) -> bool {
        let made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        made.iter().any(|id| path.ends_with(id))
    }

    pub(crate) fn store_root(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// A directory of the host, empty.
    pub(crate) fn host_directory(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// `run --rm --network none` of a shell script.
    pub(crate) fn sh(&self, script: &str) -> Output {
        self.run(&request(&["sh", "-c", script])).unwrap()
    }

    /// `run` with nothing to read.
    pub(crate) fn run(&self, request: &RunRequest) -> Result<Output, String> {
        self.run_with_input(request, b"")
    }

    /// `run` with something to read.
    pub(crate) fn run_with_input(&self, request: &RunRequest, input: &[u8]) -> Result<Output, String> {
        let lease = self.store.lease("run").unwrap();
        let record = self.create(request, &lease).map_err(|error| chain(&error))?;
        self.start(&record, input).map_err(|error| chain(&error))
    }

    pub(crate) fn create(&self, request: &RunRequest, lease: &Lease) -> Result<ContainerRecord, CreateError> {
        let new = NewContainer {
            image: ImageOrigin { name: "busybox".into(), id: Digest::sha256("config") },
            config: &self.image,
            snapshot: Some(self.snapshot),
            request,
            host: &HostFiles {
                hosts: Some(b"127.0.0.1 localhost\n".to_vec()),
                resolver: HostResolver { conf: "nameserver 192.0.2.1\n".into(), upstream: None },
            },
            bounding_capabilities: Capabilities::caller_bounding(),
        };
        let record = self.containers.create(&new, lease)?;
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(record.id.to_string());
        Ok(record)
    }

    pub(crate) fn start(&self, record: &ContainerRecord, input: &[u8]) -> Result<Output, LinkError> {
        let (stdin, mut typed) = pipe();
        let (mut out, stdout) = pipe();
        let (mut err, stderr) = pipe();
        let input = input.to_vec();
        // Written from a thread: the container may not read it all.
        let typing = std::thread::spawn(move || drop(typed.write_all(&input)));
        let read = |mut from: File| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let (out, err) = (read(take(&mut out)), read(take(&mut err)));
        let streams = CallerStreams { input: OwnedFd::from(stdin), output: stdout.into(), error: stderr.into() };
        let outcome = self.start_on(record, streams);
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        typing.join().unwrap();
        let (code, lost_output) = outcome?;
        assert_eq!(lost_output, None);
        Ok(Output { code, out, err })
    }

    /// The exit code, and why part of the output was lost.
    pub(crate) fn start_on(
        &self,
        record: &ContainerRecord,
        streams: CallerStreams,
    ) -> Result<(u8, Option<String>), LinkError> {
        let mut inbox = self.inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (link, theirs) = MonitorLink::pair()?;
        let request = AttachRequest {
            input: record.config.console.interactive,
            output: true,
            error: true,
            bond: Bond::Bound,
            window: terminal_size(&streams.output),
        };
        link.attach(request, Some(&streams))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("--monitor").arg(self.store_root()).arg(record.id.as_str()).stdin(theirs);
        let mut monitor = command.spawn().unwrap();
        let follow = |inbox: &mut SignalInbox| {
            let session = link.running(Some(inbox), &mut |_| {})?;
            let caller = Caller {
                streams,
                signals: Some(inbox),
                keys: DetachKeys::default(),
                arrival: Arrival::First,
                resized: &mut |_| (),
            };
            session.follow(caller, request.input)
        };
        let followed = follow(&mut inbox);
        monitor.wait().unwrap();
        match followed? {
            Followed::Ended { code, lost_output } => Ok((code, lost_output)),
            Followed::Detached => panic!("nobody typed the keys for that"),
        }
    }
}

/// Is the monitor of a container.
pub(crate) fn monitor(root: &Path, id: &str) {
    let first = begin_session().unwrap();
    let store = Store::open(root, OpenOptions::new("monitor")).unwrap();
    let lease = store.lease("container").unwrap();
    let (spawner, mut signals) = (Spawner::start().unwrap(), SignalInbox::open().unwrap());
    let explain = |error: &StartError| StartFailure { message: chain(error), help: None, code: error.exit().code() };
    let with = Supervision { spawner: &spawner, signals: &mut signals, first, explain: &explain };
    let containers = Containers::new(store, Arc::new(SystemClock));
    drop(containers.supervise(&id.parse().unwrap(), with, &lease).unwrap().announce());
}

fn take(file: &mut File) -> File {
    file.try_clone().unwrap()
}

/// `run --rm --network none` of a command.
pub(crate) fn request(command: &[&str]) -> RunRequest {
    RunRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        lifetime: Lifetime::Process,
        network: NetworkRequest::of(&NetworkChoice::None),
        ..RunRequest::default()
    }
}

/// The same with an open input.
pub(crate) fn interactive(command: &[&str]) -> RunRequest {
    RunRequest { console: Console { interactive: true, terminal: false }, input_once: true, ..request(command) }
}

/// The same, kept after its process.
pub(crate) fn kept(command: &[&str]) -> RunRequest {
    RunRequest { lifetime: Lifetime::Kept, ..request(command) }
}

/// The two ends of a pipe: to read, to write.
pub(crate) fn pipe() -> (File, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

fn make_image(store: &Store, lease: &Lease) -> SnapshotId {
    let active = store.snapshots().prepare(None, lease).unwrap();
    let mut writer = active.writer().unwrap();
    let at = |path: &str| ContainerPath::new(path);
    let meta = |mode| Metadata { mode, ..Metadata::default() };
    for directory in ["/bin", "/etc", "/proc", "/sys", "/dev", "/data/sub", "/root"] {
        writer.make_directories(&at(directory), &meta(0o755)).unwrap();
    }
    writer.make_directories(&at("/tmp"), &meta(0o1777)).unwrap();
    writer.file(&at("/bin/busybox"), &meta(0o755), Content::Bytes(&fs::read(BUSYBOX).unwrap())).unwrap();
    for applet in APPLETS {
        writer.symlink(&at("/bin").join(applet), b"busybox", &meta(0o777)).unwrap();
    }
    let passwd = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    writer.file(&at("/etc/passwd"), &meta(0o644), Content::Bytes(passwd)).unwrap();
    writer.file(&at("/etc/group"), &meta(0o644), Content::Bytes(b"root:x:0:\nstaff:x:50:app\nadm:x:4:\n")).unwrap();
    writer.file(&at("/data/seed"), &meta(0o640), Content::Bytes(b"from the image")).unwrap();
    writer.file(&at("/not-executable"), &meta(0o644), Content::Bytes(b"text")).unwrap();
    writer.finish().unwrap();
    drop(writer);
    active.commit(lease).unwrap().id()
}
