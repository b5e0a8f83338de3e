//! The fields of every op, named once: what enters a key, and what is told of it.

use std::fmt;

use rbuild_image::Digest;
use rbuild_image::registry::without_credentials;

use super::{Describe, Fields, op_name};
use crate::op::{
    CopyAction, FileAction, FileOp, GitSource, GitTimes, HttpSource, ImageSource, MakeDirAction, Op, RunMount,
    RunMountKind, RunOp, Source, WriteAction,
};

fn text(to: &mut dyn Fields, name: &str, value: impl AsRef<[u8]>) {
    to.field(name, value.as_ref());
}

fn shown(to: &mut dyn Fields, name: &str, value: impl fmt::Display) {
    to.field(name, value.to_string().as_bytes());
}

/// An absent value and an empty one are different fields.
fn optional(to: &mut dyn Fields, name: &str, value: Option<&(impl fmt::Display + ?Sized)>) {
    if let Some(value) = value {
        shown(to, name, value);
    }
}

fn list(to: &mut dyn Fields, name: &str, values: &[String]) {
    for (at, value) in values.iter().enumerate() {
        text(to, &format!("{name}.{at}"), value);
    }
}

/// Bytes that may be large stand in the description by their digest.
fn blob(to: &mut dyn Fields, name: &str, value: &[u8]) {
    shown(to, name, Digest::sha256(value));
}

impl Describe for Op {
    fn describe(&self, to: &mut dyn Fields) {
        text(to, "op", op_name(self));
        match self {
            Self::Source(source) => source.describe(to),
            Self::Run(run) => run.describe(to),
            Self::File(file) => file.describe(to),
        }
    }
}

impl Describe for Source {
    fn describe(&self, to: &mut dyn Fields) {
        match self {
            Self::Image(image) => {
                let ImageSource { reference, digest, platform } = &**image;
                to.note("image.reference", reference.to_string().as_bytes());
                shown(to, "image.digest", digest);
                shown(to, "image.platform", platform);
            }
            Self::Context(context) => text(to, "context", &context.name),
            Self::Http(HttpSource { url, checksum, filename }) => {
                text(to, "http.url", without_credentials(url));
                optional(to, "http.checksum", checksum.as_ref());
                text(to, "http.filename", filename);
            }
            Self::Git(GitSource {
                remote,
                reference,
                subdir,
                keep_git_dir,
                submodules,
                checksum,
                commit,
                times,
                fetch_by_commit: _,
            }) => {
                text(to, "git.remote", without_credentials(remote));
                match commit {
                    Some(commit) => text(to, "git.commit", commit),
                    None => text(to, "git.reference", reference),
                }
                text(to, "git.subdir", subdir);
                shown(to, "git.keep_git_dir", keep_git_dir);
                shown(to, "git.submodules", submodules);
                optional(to, "git.checksum", checksum.as_ref());
                if *times == GitTimes::Checkout {
                    text(to, "git.times", "checkout");
                }
            }
        }
    }
}

impl Describe for RunOp {
    fn describe(&self, to: &mut dyn Fields) {
        let Self {
            argv,
            env,
            arguments,
            proxy_env: _,
            cwd,
            user,
            mounts,
            network,
            security,
            platform,
            hostname: _,
            extra_hosts,
            shm_size,
            ulimits,
        } = self;
        list(to, "argv", argv);
        for (at, pair) in env.iter().enumerate() {
            to.variable(&format!("env.{at}"), pair);
        }
        for name in arguments {
            to.note("argument", name.as_bytes());
        }
        text(to, "cwd", cwd.as_bytes());
        text(to, "user", user);
        for (at, mount) in mounts.iter().enumerate() {
            describe_mount(mount, &format!("mount.{at}"), to);
        }
        shown(to, "network", format_args!("{network:?}"));
        shown(to, "security", format_args!("{security:?}"));
        shown(to, "platform", platform);
        for (at, (host, address)) in extra_hosts.iter().enumerate() {
            shown(to, &format!("host.{at}"), format_args!("{host} {address}"));
        }
        shown(to, "shm_size", shm_size);
        for (name, soft, hard) in ulimits {
            shown(to, &format!("ulimit.{name}"), format_args!("{soft}:{hard}"));
        }
    }
}

fn describe_mount(mount: &RunMount, prefix: &str, to: &mut dyn Fields) {
    let mut put = |name: &str, value: &dyn fmt::Display| shown(to, &format!("{prefix}.{name}"), value);
    if let Some(target) = &mount.target {
        put("target", target);
    }
    let input = |put: &mut dyn FnMut(&str, &dyn fmt::Display), input: &Option<usize>| {
        if let Some(input) = input {
            put("input", input);
        }
    };
    match &mount.kind {
        RunMountKind::Bind { input: from, source, writable } => {
            put("type", &"bind");
            input(&mut put, from);
            put("source", source);
            put("writable", writable);
        }
        RunMountKind::Cache { id, sharing, input: from, source, writable, mode, uid, gid } => {
            put("type", &"cache");
            put("id", id);
            put("sharing", &format_args!("{sharing:?}"));
            input(&mut put, from);
            put("source", source);
            put("writable", writable);
            put("owner", &format_args!("{uid}:{gid} {mode:04o}"));
        }
        RunMountKind::Tmpfs { size } => {
            put("type", &"tmpfs");
            put("size", &size.unwrap_or_default());
        }
        RunMountKind::Secret { id, env, required, mode, uid, gid } => {
            put("type", &"secret");
            put("id", id);
            if let Some(env) = env {
                put("env", env);
            }
            put("required", required);
            put("owner", &format_args!("{uid}:{gid} {mode:04o}"));
        }
        RunMountKind::Ssh { id, required, mode, uid, gid } => {
            put("type", &"ssh");
            put("id", id);
            put("required", required);
            put("owner", &format_args!("{uid}:{gid} {mode:04o}"));
        }
        RunMountKind::Inline { content, mode } => {
            put("type", &"inline");
            put("content", &Digest::sha256(content));
            put("mode", &format_args!("{mode:04o}"));
        }
    }
}

impl Describe for FileOp {
    fn describe(&self, to: &mut dyn Fields) {
        shown(to, "linking", format_args!("{:?}", self.linking));
        for (at, action) in self.actions.iter().enumerate() {
            let prefix = format!("action.{at}");
            match action {
                FileAction::Copy(copy) => describe_copy(copy, &prefix, to),
                FileAction::Write(write) => describe_write(write, &prefix, to),
                FileAction::MakeDir(MakeDirAction { path, owner, mode }) => {
                    text(to, &format!("{prefix}.mkdir"), path.as_bytes());
                    optional(to, &format!("{prefix}.owner"), owner.as_ref());
                    shown(to, &format!("{prefix}.mode"), format_args!("{mode:04o}"));
                }
            }
        }
    }
}

fn describe_copy(action: &CopyAction, prefix: &str, to: &mut dyn Fields) {
    let CopyAction {
        input,
        source,
        dest,
        chown,
        chmod,
        exclude,
        parents,
        unpack,
        required,
        mtime,
        default_mode,
        contents,
    } = action;
    optional(to, &format!("{prefix}.input"), input.as_ref());
    text(to, &format!("{prefix}.source"), source);
    text(to, &format!("{prefix}.dest"), dest);
    optional(to, &format!("{prefix}.chown"), chown.as_ref());
    optional(to, &format!("{prefix}.chmod"), chmod.as_ref());
    list(to, &format!("{prefix}.exclude"), exclude);
    shown(to, &format!("{prefix}.parents"), parents);
    shown(to, &format!("{prefix}.unpack"), format_args!("{unpack:?}"));
    shown(to, &format!("{prefix}.required"), required);
    optional(to, &format!("{prefix}.mtime"), mtime.as_ref());
    if let Some(mode) = default_mode {
        shown(to, &format!("{prefix}.default_mode"), format_args!("{mode:04o}"));
    }
    shown(to, &format!("{prefix}.contents"), contents);
}

fn describe_write(action: &WriteAction, prefix: &str, to: &mut dyn Fields) {
    let WriteAction { name, dest, content, chown, chmod } = action;
    text(to, &format!("{prefix}.write"), name);
    text(to, &format!("{prefix}.dest"), dest);
    blob(to, &format!("{prefix}.content"), content);
    optional(to, &format!("{prefix}.chown"), chown.as_ref());
    optional(to, &format!("{prefix}.chmod"), chmod.as_ref());
}
