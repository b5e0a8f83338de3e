//! One test's surroundings: a store, a work directory, a cleared environment, and the program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::census::Census;

/// A test's surroundings. Dropping it removes the store and checks that nothing is left on the host.
#[derive(Debug)]
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    census: Census,
}

/// What a run of the program gave.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ran {
    /// Exit code; a signal is 128 and its number.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// From what a finished process gave.
    pub(crate) fn new(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the program ended with this code.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless standard error has this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        self
    }
}

impl Bench {
    /// Makes one, or `None` where the tests cannot run (no root), after saying so.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("RBUILD_TEST_ROOT_REQUIRED").is_none(), "these tests need root");
            eprintln!("SKIPPED: end-to-end tests start containers and need root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("rbuild-e2e-").tempdir().expect("a temporary directory");
        let census = Census::take(dir.path());
        Some(Self { dir, census })
    }

    /// A bench whose store has `busybox:latest`, imported from Debian's static busybox.
    pub(crate) fn with_busybox() -> Option<Self> {
        let bench = Self::new()?;
        let tar = bench.busybox_tar();
        let ran = bench.rbuild(["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]"]).arg(&tar).arg("busybox");
        let _ran = ran.run().ok();
        Some(bench)
    }

    /// A root file system with Debian's static busybox, as a tar.
    pub(crate) fn busybox_tar(&self) -> PathBuf {
        let binary = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let binary = binary.expect("busybox-static is installed (./dev test does it)");
        let root = self.path("busybox-root");
        for dir in ["bin", "etc", "tmp", "root", "home/app"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy(binary, root.join("bin/busybox")).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let applets = "[ ash awk basename cat chgrp chmod chown cp cut date dd df du echo env expr false find grep head hostname id ip kill \
                       ln ls md5sum mkdir mkfifo mknod mount mv nc nproc od printf ps pwd readlink rm rmdir sed seq setsid sh sha256sum \
                       sleep sort stat stty su sync tail tar tee test timeout touch tr true tty umask umount uname uniq uptime vi wc wget which whoami xargs yes";
        for applet in applets.split_whitespace() {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nstaff:x:50:app\napp:x:1000:\n").unwrap();
        let tar = self.path("busybox.tar");
        let done = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("--owner=0")
            .arg("--group=0")
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(done.unwrap().success());
        tar
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Makes a context directory from names and contents; gives its path.
    pub(crate) fn context<const N: usize>(&self, name: &str, files: [(&str, &str); N]) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, content) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    /// The program with this bench's store.
    pub(crate) fn rbuild<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(&self, args: I) -> Call {
        self.rbuild_at(&self.store(), args)
    }

    /// The program with another store.
    pub(crate) fn rbuild_at<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(
        &self,
        store: &Path,
        args: I,
    ) -> Call {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        let keep: BTreeMap<_, _> =
            std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "RUST_BACKTRACE").collect();
        command
            .env_clear()
            .envs(keep)
            .env("HOME", self.path("home"))
            .env("RBUILD_NETWORK_LINGER", "1s")
            .current_dir(self.dir.path());
        command.arg("--root").arg(store).args(args).stdin(Stdio::null());
        Call { command, input: None }
    }

    /// The program with this bench's store, started by another one.
    pub(crate) fn through<const N: usize, const M: usize>(&self, by: [&str; N], args: [&str; M]) -> Call {
        let [program, before @ ..] = by.as_slice() else { panic!("some program is named") };
        let mut call = self.rbuild(args);
        let mut command = Command::new(program);
        command.args(before).arg(call.command.get_program()).args(call.command.get_args()).stdin(Stdio::null());
        command.env_clear().envs(call.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.dir.path());
        call.command = command;
        call
    }

    /// Builds a context under a name.
    pub(crate) fn build(&self, tag: &str, context: &Path) -> Ran {
        self.rbuild(["build", "--progress=plain", "-t", tag]).arg(context).run()
    }

    /// Runs a shell script in an image; gives its output.
    #[track_caller]
    pub(crate) fn shell(&self, image: &str, script: &str) -> String {
        self.rbuild(["run", "--rm", "--network=none", image, "sh", "-c", script]).run().ok().stdout
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.census.check();
        }
    }
}

/// A call of the program that is being put together.
#[derive(Debug)]
#[must_use]
pub(crate) struct Call {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Call {
    /// One more argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What standard input holds.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Starts it without waiting.
    pub(crate) fn start(mut self) -> std::process::Child {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rbuild starts")
    }

    /// Starts it without waiting; what it reads can be written.
    pub(crate) fn start_typing(mut self) -> std::process::Child {
        self.command.stdin(Stdio::piped());
        self.start()
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Ran {
        if self.input.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rbuild starts");
        let writer = self.input.take().map(|bytes| {
            let mut stdin = child.stdin.take().expect("piped");
            std::thread::spawn(move || drop(stdin.write_all(&bytes)))
        });
        let output = child.wait_with_output().expect("rbuild ends");
        if let Some(writer) = writer {
            writer.join().expect("the writer ends");
        }
        Ran::new(output)
    }
}
