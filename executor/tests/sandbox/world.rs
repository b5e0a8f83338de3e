//! An image on disk, a spawner, and a short way to run something.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rbuild_executor::{
    Access, AppArmor, Confinement, DEFAULT_CAPABILITIES, Durability, Exceptions, ExitStatus, Ids, Init, KernelPaths,
    Lower, Mount, NetworkMode, Process, ProcessSpec, Resources, Rootfs, SandboxSpec, Seccomp, SpawnError, Spawner,
    Stdio, StdioFd,
};
use rbuild_image::ContainerPath;

/// A name and what it checks.
pub(crate) type Test = (&'static str, fn(&World));

const BUSYBOX: &str = "/bin/busybox";

/// What these tests need and this machine lacks.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    (!Path::new(BUSYBOX).exists()).then(|| format!("they need a static {BUSYBOX} (package busybox-static)"))
}

/// A three-layer image and a spawner.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) spawner: Spawner,
}

/// The changes of one sandbox.
pub(crate) struct Upper {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) lowers: Vec<Lower>,
}

/// How a sandbox ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub(crate) fn next_id() -> String {
    format!("test-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layer = |name: &str| directory.path().join(name);
        for dir in ["bottom/bin", "bottom/etc", "bottom/tmp", "bottom/proc", "middle/etc", "middle/data", "top/srv"] {
            fs::create_dir_all(layer(dir)).unwrap();
        }
        fs::set_permissions(layer("bottom/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy(BUSYBOX, layer("bottom/bin/busybox")).unwrap();
        let applets = [
            "sh", "true", "false", "cat", "ls", "id", "grep", "sleep", "mount", "umount", "mkdir", "rm", "touch",
            "kill", "hostname", "stat", "readlink", "echo", "pwd", "env", "dd", "ps", "tty", "wc", "mknod", "ip",
            "find", "seq", "chmod", "head", "yes", "sort", "test", "setsid", "tr", "awk", "usleep", "ln", "mv",
            "chown", "mkfifo", "stty", "unshare",
        ];
        for applet in applets {
            symlink("busybox", layer("bottom/bin").join(applet)).unwrap();
        }
        fs::write(layer("bottom/etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
            .unwrap();
        fs::write(layer("middle/etc/group"), "root:x:0:\nstaff:x:50:app\n").unwrap();
        fs::write(layer("middle/data/file"), "lower\n").unwrap();
        let spawner = Spawner::start().unwrap();
        Self { directory, spawner }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The image's layers, top first.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        ["top", "middle", "bottom"].map(|name| self.path(name)).to_vec()
    }

    /// A fresh place for changes on top of the image.
    pub(crate) fn upper(&self) -> Upper {
        self.upper_on(self.layers())
    }

    pub(crate) fn upper_on(&self, lowers: Vec<PathBuf>) -> Upper {
        let lowers = lowers.into_iter().map(Lower::Directory).collect();
        let base = self.path(&next_id());
        let made = Upper { upper: base.join("upper"), work: base.join("work"), lowers };
        fs::create_dir_all(&made.upper).unwrap();
        fs::create_dir_all(&made.work).unwrap();
        made
    }

    /// Runs a shell script in a fresh sandbox.
    pub(crate) fn sh(&self, script: &str) -> Output {
        self.run(&self.upper().spec(&["sh", "-c", script]))
    }

    /// Runs a sandbox to its end.
    pub(crate) fn run(&self, spec: &SandboxSpec) -> Output {
        self.try_run(spec).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Runs a sandbox to its end, if it starts.
    pub(crate) fn try_run(&self, spec: &SandboxSpec) -> Result<Output, SpawnError> {
        let (mut process, mut output) = self.start(spec)?;
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { status: process.wait().unwrap(), text })
    }

    /// Starts a sandbox, standard output and error in one pipe.
    pub(crate) fn start(&self, spec: &SandboxSpec) -> Result<(Process, File), SpawnError> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdio =
            Stdio { stdin: StdioFd::Null, stdout: StdioFd::Fd(write.try_clone().unwrap()), stderr: StdioFd::Fd(write) };
        Ok((self.spawner.spawn(spec, stdio)?, File::from(read)))
    }
}

impl Upper {
    pub(crate) fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay { lowers: self.lowers.clone(), upper: self.upper.clone(), work: self.work.clone() }
    }

    /// The specification of a RUN-like sandbox.
    pub(crate) fn spec(&self, argv: &[&str]) -> SandboxSpec {
        SandboxSpec {
            id: next_id(),
            rootfs: self.rootfs(),
            durability: Durability::AtCommit,
            root_access: Access::ReadWrite,
            mounts: Vec::new(),
            process: ProcessSpec {
                argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec!["PATH=/usr/bin:/bin".to_owned()],
                cwd: ContainerPath::root(),
                user: Ids { uid: 0, gid: 0, groups: vec![0] },
                rlimits: Vec::new(),
                terminal: false,
            },
            hostname: "buildkitsandbox".to_owned(),
            network: NetworkMode::None,
            confinement: Confinement {
                capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
                no_new_privileges: false,
                seccomp: Seccomp::Default,
                apparmor: AppArmor::HostDefault,
                kernel_paths: KernelPaths::Masked,
            },
            resources: Resources::default(),
            shm_size: 64 << 20,
            init: Init::Reaper,
            exceptions: Exceptions::default(),
        }
    }

    /// Everything in the upper directory, sorted, with modes.
    pub(crate) fn census(&self) -> Vec<String> {
        let mut all = Vec::new();
        walk(&self.upper, &self.upper, &mut all);
        all.sort();
        all
    }
}

fn walk(base: &Path, dir: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let path = entry.path();
        let name = path.strip_prefix(base).unwrap().display();
        all.push(format!("{name} {:o}", metadata.permissions().mode()));
        if metadata.is_dir() {
            walk(base, &path, all);
        }
    }
}

/// A mount of the kind that `RUN --mount` makes.
pub(crate) fn mount(target: &str, source: rbuild_executor::MountSource, access: Access) -> Mount {
    Mount { target: ContainerPath::new(target), source, access, mount_point: rbuild_executor::MountPoint::Removed }
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
