//! Help with a `RUN` step that ended badly: a table of rules, the surest evidence first; the first that knows something
//! answers.
//!
//! Words are looked for in the last lines only: what a tool complained about in the middle of a long log and got over
//! is no evidence.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use rbuild_solver::{RunMountKind, RunNetwork, RunOp};

use super::program::{Files, locate, no_such_command, wrong_with};
use crate::cli::report::printable;
use crate::cli::table::size;

/// What is said when nothing is known.
pub(crate) const SEE_OUTPUT: &str =
    "the command says above what went wrong; with --target the stage before it can be built and looked into";

/// Bytes of output that are kept as evidence.
const TAIL: usize = 16 * 1024;
/// Lines that are looked at.
const LINES: usize = 30;
/// Lines at the end in which weaker words count.
const LAST: usize = 6;
/// Less room than this on a disk is none.
const NO_ROOM: u64 = 16 * 1024 * 1024;

/// A step that failed, and all that is known of it.
pub(crate) struct FailedStep<'a> {
    /// What it was.
    pub(crate) op: &'a RunOp,
    /// Its root file system, before it ran.
    pub(crate) files: &'a dyn Files,
    /// The end of what it said, secrets masked.
    pub(crate) said: &'a str,
    /// Its exit code, as a shell has it.
    pub(crate) code: i32,
    /// Whether it ran as root.
    pub(crate) as_root: bool,
    /// Processes that the kernel killed for lack of memory.
    pub(crate) oom_kills: u64,
    /// The memory that it was allowed.
    pub(crate) memory_limit: Option<u64>,
    /// The disk that its files are on.
    pub(crate) disk: &'a dyn Fn() -> Option<Space>,
}

/// Room on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// The directory that was asked about.
    pub(crate) path: PathBuf,
    /// Bytes that are free.
    pub(crate) free: u64,
    /// Files that can still be made; `None` where the file system does not count them.
    pub(crate) free_files: Option<u64>,
}

impl Space {
    /// Asks the kernel.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let space = rustix::fs::statvfs(path).ok()?;
        let free_files = (space.f_files > 0).then_some(space.f_favail);
        Some(Self { path: path.to_owned(), free: space.f_bavail.saturating_mul(space.f_frsize), free_files })
    }
}

/// The end of what a step said, both streams as they came.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    /// Takes more of it.
    pub(crate) fn take(&mut self, data: &[u8]) {
        self.0.extend(data.iter().skip(data.len().saturating_sub(TAIL)));
        let over = self.0.len().saturating_sub(TAIL);
        self.0.drain(..over);
    }

    /// As text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.0.make_contiguous()).into_owned()
    }
}

/// A rule: help, where there is its evidence.
type Rule = fn(&FailedStep<'_>) -> Option<String>;

const RULES: [Rule; 14] = [
    memory,
    disk,
    secret_not_given,
    foreign_program,
    not_found,
    not_executable,
    packages,
    certificates,
    names,
    unreachable_network,
    read_only,
    port_taken,
    permission,
    illegal_instruction,
];

/// What to do about a step that failed.
pub(crate) fn of_step(step: &FailedStep<'_>) -> Option<String> {
    RULES.iter().find_map(|rule| rule(step))
}

impl<'a> FailedStep<'a> {
    fn lines(&self, most: usize) -> impl Iterator<Item = &'a str> {
        self.said.lines().rev().map(str::trim_end).filter(|line| !line.is_empty()).take(most)
    }

    /// The last line with one of these words.
    fn line_with(&self, most: usize, words: &[&str]) -> Option<&'a str> {
        self.lines(most).find(|line| words.iter().any(|word| line.contains(word)))
    }

    /// The command, in shell form or not.
    fn command(&self) -> String {
        let heredocs = self.op.mounts.iter().filter_map(|mount| match &mount.kind {
            RunMountKind::Inline { content, .. } => Some(content.as_str()),
            _ => None,
        });
        self.op.argv.iter().map(String::as_str).chain(heredocs).collect::<Vec<_>>().join(" ")
    }

    fn examined(&self, word: &str) -> Option<String> {
        let (path, found) = locate(word, self.op, self.files)?;
        wrong_with(&path, &found, self.op, self.files)
    }
}

fn memory(step: &FailedStep<'_>) -> Option<String> {
    if step.oom_kills == 0 {
        return None;
    }
    Some(match step.memory_limit {
        Some(limit) => format!("the kernel killed it at its limit of {}: give it more with --memory", size(limit)),
        None => {
            "the kernel killed it because memory ran out: run fewer steps at once (--jobs 1) or fewer compilers in it, \
                 or give the machine more memory"
                .to_owned()
        }
    })
}

fn disk(step: &FailedStep<'_>) -> Option<String> {
    step.line_with(LINES, &["No space left on device", "ENOSPC", "no space left on device", "Disk quota exceeded"])?;
    let Space { path, free, free_files } = (step.disk)()?;
    let path = path.display();
    if free_files.is_some_and(|files| files < 1000) {
        return Some(format!("the file system of {path} has room for no more files: `rbuild cache prune` frees some"));
    }
    if free < NO_ROOM {
        return Some(format!(
            "the disk of {path} is full ({} free): `rbuild cache prune` frees what builds left",
            size(free)
        ));
    }
    let tmpfs = step.op.mounts.iter().find(|mount| matches!(mount.kind, RunMountKind::Tmpfs { .. }));
    Some(match tmpfs.and_then(|mount| mount.target.as_ref()) {
        Some(target) => format!(
            "the disk has {} free, so it is the tmpfs at {target} that is full: give its mount a larger size=, or none",
            size(free)
        ),
        None => {
            format!("the disk has {} free now: it was full for a moment, or /dev/shm is full (--shm-size)", size(free))
        }
    })
}

/// A secret that the step may do without, and did not.
fn secret_not_given(step: &FailedStep<'_>) -> Option<String> {
    let line =
        step.line_with(LAST, &["No such file or directory", "no such file or directory", "FileNotFound", "ENOENT"])?;
    step.op.mounts.iter().find_map(|mount| {
        let RunMountKind::Secret { id, required: false, .. } = &mount.kind else { return None };
        let target = mount.target.as_ref()?.to_string();
        line.contains(&target).then(|| {
            format!(
                "{target} is there when the secret {} is given: --secret id={id},src=FILE, or id={id},env=VARIABLE",
                printable(id)
            )
        })
    })
}

/// The name of which a shell, or `env`, says that there is no such program.
fn named_as_missing(line: &str) -> Option<String> {
    let quoted = |text: &str| text.trim().trim_matches(['\'', '"', '`', '‘', '’', ':']).to_owned();
    let ends = [
        ": command not found",
        ": inaccessible or not found",
        ": not found",
        ": cannot execute: required file not found",
    ];
    if let Some(before) = ends.iter().find_map(|end| line.strip_suffix(end)) {
        return before.rsplit(": ").next().map(quoted);
    }
    if let Some((before, _)) = line.split_once(": bad interpreter") {
        // `/bin/bash: ./x.sh: /bin/sh^M: bad interpreter`: the script is what can be mended.
        return before.rsplit(": ").nth(1).map(quoted);
    }
    let rest = line.strip_prefix("env: ").or_else(|| line.strip_prefix("/usr/bin/env: "))?;
    let rest = rest.strip_prefix("can't execute ").unwrap_or(rest);
    rest.strip_suffix(": No such file or directory").map(quoted)
}

fn not_found(step: &FailedStep<'_>) -> Option<String> {
    if !matches!(step.code, 126 | 127) {
        return None;
    }
    let name = step.lines(LAST).find_map(named_as_missing);
    let Some(name) = name.filter(|name| !name.is_empty() && !name.contains(char::is_whitespace)) else {
        return (step.code == 127).then(|| {
            "127 means that a command was not found: install it first, or check its spelling and PATH".to_owned()
        });
    };
    if let Some(wrong) = step.examined(&name) {
        return Some(wrong);
    }
    if name.contains("\\r") || name.contains('\r') {
        return Some(
            "a script has Windows line ends: save it with LF line ends (in git: `*.sh text eol=lf` in .gitattributes)"
                .to_owned(),
        );
    }
    let name = printable(&name);
    if !name.contains('/') {
        return Some(no_such_command(&name, step.op, step.files));
    }
    // A command may change directory or make the file itself: only what stands in the way of both is known.
    (name.starts_with('/') && !step.files.has(&name)).then(|| {
        format!("the image has no {name} before this step: COPY it there first, and see that .dockerignore does not exclude it")
    })
}

fn not_executable(step: &FailedStep<'_>) -> Option<String> {
    if step.code != 126 {
        return None;
    }
    // `/bin/sh: /x.sh: Permission denied`, dash: `/bin/sh: 1: /x.sh: Permission denied`.
    let line = step.line_with(LAST, &["ermission denied", "xec format error", "annot execute"]);
    let words = line.map(|line| line.split(": ").map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    let examined = words.iter().rev().filter(|word| word.contains('/')).find_map(|word| step.examined(word));
    Some(
        examined
            .unwrap_or_else(|| "126 means that a file is not executable: check its mode and architecture".to_owned()),
    )
}

/// The program that the step starts, where it is for another machine: shells try to read such a file as a script.
fn foreign_program(step: &FailedStep<'_>) -> Option<String> {
    let shell_form = step.op.argv.len() == 3 && step.op.argv[1] == "-c";
    let first = if shell_form { step.op.argv[2].split_whitespace().next()? } else { step.op.argv.first()? };
    step.examined(first).filter(|wrong| wrong.contains("is a program for"))
}

fn packages(step: &FailedStep<'_>) -> Option<String> {
    let command = step.command();
    if let Some(line) = step.line_with(LINES, &["E: Unable to locate package", "has no installation candidate"]) {
        if step.line_with(LINES, UNRESOLVED).is_some() {
            return names(step);
        }
        let package = line.rsplit(' ').next().unwrap_or_default();
        return Some(if command.contains("apt-get update") || command.contains("apt update") {
            format!(
                "the distribution of this image has no package {:?}: check its name and the image's release",
                printable(package)
            )
        } else {
            "the image has no package lists: write `apt-get update && apt-get install …` in one RUN".to_owned()
        });
    }
    let fetched = step.line_with(LINES, &["E: Failed to fetch", "E: Unable to fetch some archives"]);
    if fetched.is_some() && step.line_with(LINES, &["404  Not Found", "404 Not Found"]).is_some() {
        return Some(if command.contains("update") {
            "the mirror no longer has what its lists name: build again, or take a newer base image".to_owned()
        } else {
            "the package lists are older than the mirror: write `apt-get update && apt-get install …` in one RUN"
                .to_owned()
        });
    }
    if step.line_with(LINES, &["unable to select packages", "(no such package)"]).is_some() {
        return Some(if command.contains("--no-cache") || command.contains("apk update") || command.contains(" -U") {
            "Alpine has no package of that name in this release: look it up at pkgs.alpinelinux.org".to_owned()
        } else {
            "the image has no package index: `apk add --no-cache …` fetches one".to_owned()
        });
    }
    None
}

const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

fn certificates(step: &FailedStep<'_>) -> Option<String> {
    let words = [
        "certificate verify failed",
        "CERTIFICATE_VERIFY_FAILED",
        "SSL certificate problem",
        "unable to get local issuer certificate",
        "certificate signed by unknown authority",
        "self-signed certificate",
        "self signed certificate",
        "server certificate verification failed",
        "error setting certificate verify locations",
    ];
    let line = step.line_with(LINES, &words)?;
    if line.contains("expired") || line.contains("not yet valid") {
        return Some("the server's certificate has expired, or this machine's clock is wrong".to_owned());
    }
    Some(if BUNDLES.iter().any(|bundle| step.files.has(bundle)) {
        "the image does not know who signed that certificate (a proxy's authority?): COPY its certificate to \
         /usr/local/share/ca-certificates/ and RUN update-ca-certificates before"
            .to_owned()
    } else {
        "the image has no certificates of authorities: install its package ca-certificates in an earlier step"
            .to_owned()
    })
}

const UNRESOLVED: &[&str] = &[
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve",
    "Couldn't resolve host",
    "bad address '",
    "Name or service not known",
    "no such host",
    "Name does not resolve",
    "getaddrinfo ENOTFOUND",
    "getaddrinfo EAI_AGAIN",
    "unable to resolve host address",
    "nodename nor servname provided",
    "Try again (EAI_AGAIN)",
    "failed to lookup address information",
    "DNS lookup failed",
];

fn names(step: &FailedStep<'_>) -> Option<String> {
    step.line_with(LINES, UNRESOLVED)?;
    Some(without_network(step).unwrap_or_else(|| {
        "the step could not look up a host: is its name right? `rbuild doctor` examines name resolution; --network=host \
         uses this machine's own"
            .to_owned()
    }))
}

fn without_network(step: &FailedStep<'_>) -> Option<String> {
    (step.op.network == RunNetwork::None)
        .then(|| "this step has no network (--network=none): leave that out, or fetch in an earlier step".to_owned())
}

fn unreachable_network(step: &FailedStep<'_>) -> Option<String> {
    let words =
        ["Network is unreachable", "Network unreachable", "No route to host", "network is unreachable", "ENETUNREACH"];
    step.line_with(LINES, &words)?;
    Some(without_network(step).unwrap_or_else(|| {
        "the step's network leads nowhere: `rbuild doctor` examines it; is a proxy needed (--build-arg HTTPS_PROXY=…)?"
            .to_owned()
    }))
}

fn read_only(step: &FailedStep<'_>) -> Option<String> {
    let line = step.line_with(LAST, &["Read-only file system", "EROFS", "read-only file system"])?;
    let beneath = |target: &str| line.contains(&format!("{}/", target.trim_end_matches('/'))) || line.contains(target);
    for mount in &step.op.mounts {
        let Some(target) = mount.target.as_ref().map(ToString::to_string).filter(|target| beneath(target)) else {
            continue;
        };
        match &mount.kind {
            RunMountKind::Bind { writable: false, .. } => {
                return Some(format!(
                    "{target} is a bind mount, which is read-only: add `rw` to it (what is written there is thrown away), \
                     or write elsewhere"
                ));
            }
            RunMountKind::Cache { writable: false, .. } => {
                return Some(format!("the cache at {target} is mounted read-only: leave `readonly` out"));
            }
            _ => {}
        }
    }
    let kernel = ["/proc", "/sys"].into_iter().find(|path| line.contains(&format!("{path}/")))?;
    Some(format!(
        "{kernel} is the kernel's and read-only in steps: `RUN --security=insecure`, allowed with --allow, may write there"
    ))
}

fn port_taken(step: &FailedStep<'_>) -> Option<String> {
    step.line_with(LAST, &["Address already in use", "EADDRINUSE", "address already in use"])?;
    (step.op.network == RunNetwork::Host).then(|| {
        "the step has this machine's network, where something listens at that port: `ss -ltnp` says what".to_owned()
    })
}

fn permission(step: &FailedStep<'_>) -> Option<String> {
    if step.as_root {
        return None;
    }
    let words = ["ermission denied", "peration not permitted", "EACCES", "are you root?", "requires superuser"];
    step.line_with(LAST, &words)?;
    Some(format!(
        "this step runs as USER {}: do what needs root before that USER line, or give the files to it (COPY --chown={}, \
         RUN chown)",
        printable(&step.op.user),
        printable(&step.op.user)
    ))
}

fn illegal_instruction(step: &FailedStep<'_>) -> Option<String> {
    const SIGILL: i32 = 4;
    (step.code == 128 + SIGILL).then(|| {
        "a program uses instructions that this processor does not have: it was built for a newer one (-march=native?), or \
         for another platform"
            .to_owned()
    })
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
