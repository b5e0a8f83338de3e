//! What makes a step the same step: five keys per vertex, all from one description.
//!
//! | kind | made of | known | used to |
//! |---|---|---|---|
//! | `Definition` | op, definition keys of inputs; what is selected of a context | before anything runs | answer without running |
//! | `Content` | op, content of what it reads: root file system, selected files | when the inputs are there | answer although inputs ran again |
//! | `Rerun` | op, snapshot of the root file system | when the inputs are there | keep the earlier of two equal results |
//! | `Step` | op | always | know durations, and that it ran before at all |
//! | `Place` | stage, line and kind of instruction | always | find what to compare with when asked why it missed |
//!
//! | enters the description of | what | does not |
//! |---|---|---|
//! | image | digest, platform | reference |
//! | URL | URL, file name, checksum, identity found when pinned (content, time) | credentials |
//! | git | remote, commit, directory, whether `.git` is kept, submodules, times | branch or tag once pinned, how it is fetched, credentials |
//! | context | nothing; its readers hold the digest of what they select | path, ignored files, times |
//! | `RUN` | argv, env, cwd, user, mounts (kind, target, source, id, sharing, mode, owner), network, security, platform, extra hosts, size of `/dev/shm`, ulimits | secret values, content of cache mounts, proxy variables, host name |
//! | `COPY`, `ADD`, `WORKDIR` | every action: source and destination, owner, mode, excludes, parents, unpacking, fixed times; bytes of here-documents | times of files |
//! | any | | display name, origin, cache use, order of parallel steps, time |
//!
//! A [`Describe`] value names its fields once; one writer hashes them, another prints them, so that a key and the
//! text that explains it cannot drift apart. Keys of different kinds and versions never collide: both are hashed first.

use std::fmt;

use rbuild_cache::{KeyKind, SnapshotId};
use rbuild_image::registry::without_credentials;
use rbuild_image::{ContentDigest, Digest};

use crate::op::{
    CopyAction, FileAction, FileOp, GitSource, GitTimes, HttpSource, ImageSource, MakeDirAction, Op, RunMount,
    RunMountKind, RunOp, Source, WriteAction,
};
use crate::vertex::Origin;

/// Hashed into every key; changes when the meaning of a description or of what a worker makes from it changes.
const VERSION: &str = "rbuild.key.v1";

/// The name of a question in digests.
fn question(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Definition => "definition",
        KeyKind::Content => "content",
        KeyKind::Rerun => "rerun",
        KeyKind::Step => "step",
        KeyKind::Place => "place",
    }
}

/// A key under which a result is recorded and looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Which question it answers.
    pub kind: KeyKind,
    /// The answer's name.
    pub digest: Digest,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", question(self.kind), self.digest)
    }
}

/// Something that can say what it is made of.
pub(crate) trait Describe {
    /// Writes every field that matters, in a fixed order, list elements by their number.
    fn describe(&self, to: &mut dyn Fields);
}

/// Takes the fields of a description.
pub(crate) trait Fields {
    /// Takes one field; names are dotted paths.
    fn field(&mut self, name: &str, value: &[u8]);
}

/// What identifies one input of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputIdentity {
    /// The empty tree.
    Empty,
    /// The input's definition key.
    Definition(Digest),
    /// Content: of a root file system, or of what is selected.
    Content(ContentDigest),
}

/// An op with what identifies its inputs.
pub(crate) struct Described<'a> {
    /// The op.
    pub(crate) op: &'a Op,
    /// Its inputs, by position.
    pub(crate) inputs: &'a [InputIdentity],
}

impl Described<'_> {
    /// The key for looking up before inputs are there.
    pub(crate) fn definition_key(&self) -> Key {
        key(KeyKind::Definition, self)
    }

    /// The key for looking up once inputs are there.
    pub(crate) fn content_key(&self) -> Key {
        key(KeyKind::Content, self)
    }

    /// The description for people: a line for each field.
    pub(crate) fn text(&self) -> String {
        let mut text = Text(String::new());
        self.describe(&mut text);
        text.0
    }
}

impl Describe for Described<'_> {
    fn describe(&self, to: &mut dyn Fields) {
        self.op.describe(to);
        for (at, input) in self.inputs.iter().enumerate() {
            let value = match input {
                InputIdentity::Empty => "empty".to_owned(),
                InputIdentity::Definition(digest) => format!("definition {digest}"),
                InputIdentity::Content(digest) => format!("content {digest}"),
            };
            to.field(&format!("input.{at}"), value.as_bytes());
        }
    }
}

/// The definition key of a source whose content is fixed: the source, and what pinning found out.
pub(crate) fn source_key(source: &Source, identity: &Digest) -> Key {
    struct Pinned<'a>(&'a Source, &'a Digest);
    impl Describe for Pinned<'_> {
        fn describe(&self, to: &mut dyn Fields) {
            self.0.describe(to);
            to.field("identity", self.1.to_string().as_bytes());
        }
    }
    key(KeyKind::Definition, &Pinned(source, identity))
}

/// The key of an op whatever it is applied to.
pub(crate) fn step_key(op: &Op) -> Key {
    key(KeyKind::Step, op)
}

/// The key of an op on a certain snapshot of this store.
pub(crate) fn rerun_key(op: &Op, parent: Option<SnapshotId>) -> Key {
    struct Rerun<'a>(&'a Op, Option<SnapshotId>);
    impl Describe for Rerun<'_> {
        fn describe(&self, to: &mut dyn Fields) {
            self.0.describe(to);
            to.field("parent", self.1.map(|id| id.to_string()).unwrap_or_default().as_bytes());
        }
    }
    key(KeyKind::Rerun, &Rerun(op, parent))
}

/// The key of a place in a Dockerfile.
pub(crate) fn place_key(op: &Op, origin: &Origin) -> Key {
    struct Place<'a>(&'a Op, &'a Origin);
    impl Describe for Place<'_> {
        fn describe(&self, to: &mut dyn Fields) {
            to.field("op", op_name(self.0).as_bytes());
            to.field("stage", self.1.stage.as_bytes());
            to.field("line", self.1.line.to_string().as_bytes());
        }
    }
    key(KeyKind::Place, &Place(op, origin))
}

/// How one input counts in a content key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputRole {
    /// Its whole root file system counts.
    Rootfs,
    /// Only what is selected of it counts.
    Selection,
}

/// How input number `input` of an op counts. What a new cache mount starts from counts as a whole.
pub(crate) fn input_role(op: &Op, input: usize) -> InputRole {
    let seeds = |mount: &RunMount| matches!(mount.kind, RunMountKind::Cache { input: Some(at), .. } if at == input);
    match op {
        _ if input == 0 => InputRole::Rootfs,
        Op::Run(run) if run.mounts.iter().any(seeds) => InputRole::Rootfs,
        _ => InputRole::Selection,
    }
}

fn key(kind: KeyKind, what: &dyn Describe) -> Key {
    let mut writer = Hashed(Vec::with_capacity(512));
    writer.field(VERSION, question(kind).as_bytes());
    what.describe(&mut writer);
    Key { kind, digest: Digest::sha256(&writer.0) }
}

/// Fields with the lengths of names and values before them, so that no two descriptions share their bytes.
struct Hashed(Vec<u8>);

impl Fields for Hashed {
    fn field(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.0.extend_from_slice(part);
        }
    }
}

/// A line for each field; values that are not plain text are escaped.
struct Text(String);

impl Fields for Text {
    fn field(&mut self, name: &str, value: &[u8]) {
        let value = String::from_utf8_lossy(value);
        self.0.push_str(name);
        self.0.push_str(": ");
        self.0.extend(value.chars().flat_map(|c| {
            let escaped = c.is_control() || c == '\\';
            escaped.then(|| c.escape_default()).into_iter().flatten().chain((!escaped).then_some(c))
        }));
        self.0.push('\n');
    }
}

fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Source(Source::Image(_)) => "image",
        Op::Source(Source::Context(_)) => "context",
        Op::Source(Source::Http(_)) => "http",
        Op::Source(Source::Git(_)) => "git",
        Op::Run(_) => "run",
        Op::File(_) => "file",
    }
}

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
                let ImageSource { reference: _, digest, platform } = &**image;
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
        list(to, "env", env);
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

#[cfg(test)]
mod tests {
    use rbuild_image::ContainerPath;

    use super::*;
    use crate::fixture::run_op;

    fn definition(op: &Op) -> Digest {
        Described { op, inputs: &[InputIdentity::Empty] }.definition_key().digest
    }

    #[test]
    fn what_counts_for_a_run_and_what_does_not() {
        let base = run_op("make");
        let changed = |change: &dyn Fn(&mut RunOp)| {
            let mut op = base.clone();
            change(&mut op);
            definition(&Op::Run(Box::new(op)))
        };
        let same = definition(&Op::Run(Box::new(base.clone())));
        type Change = (&'static str, fn(&mut RunOp));
        let counts: [Change; 7] = [
            ("argv", |op| op.argv.push("x".to_owned())),
            ("argv split", |op| op.argv = vec!["/bin/sh".into(), "-c make".into()]),
            ("env", |op| op.env.push("A=1".to_owned())),
            ("cwd", |op| op.cwd = ContainerPath::new("/src")),
            ("user", |op| op.user = "app".to_owned()),
            ("shm", |op| op.shm_size += 1),
            ("hosts", |op| op.extra_hosts.push(("a".into(), "1.2.3.4".into()))),
        ];
        for (what, change) in counts {
            assert_ne!(changed(&change), same, "{what} counts");
        }
        assert_eq!(changed(&|op| op.proxy_env.push("http_proxy=p".to_owned())), same);
        assert_eq!(changed(&|op| op.hostname = "other".to_owned()), same);
    }

    #[test]
    fn kinds_and_inputs_separate_keys() {
        let op = Op::Run(Box::new(run_op("make")));
        let empty = Described { op: &op, inputs: &[InputIdentity::Empty] };
        let digest = Digest::sha256("x");
        let definition = Described { op: &op, inputs: &[InputIdentity::Definition(digest)] };
        let content = Described { op: &op, inputs: &[InputIdentity::Content(ContentDigest::new(digest))] };
        let mut keys = vec![
            empty.definition_key().digest,
            empty.content_key().digest,
            definition.definition_key().digest,
            content.definition_key().digest,
            content.content_key().digest,
            step_key(&op).digest,
            rerun_key(&op, None).digest,
            rerun_key(&op, Some(SnapshotId::from_row(1))).digest,
        ];
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 8);
    }

    #[test]
    fn the_text_names_every_field() {
        let mut op = run_op("make \\\n all");
        op.mounts.push(RunMount {
            target: Some(ContainerPath::new("/cache")),
            kind: RunMountKind::Secret { id: "key".into(), env: None, required: true, mode: 0o400, uid: 0, gid: 0 },
        });
        let op = Op::Run(Box::new(op));
        let text = Described { op: &op, inputs: &[InputIdentity::Empty] }.text();
        insta::assert_snapshot!(text, @r"
        op: run
        argv.0: /bin/sh
        argv.1: -c
        argv.2: make \\\n all
        env.0: PATH=/bin
        cwd: /
        user: 
        mount.0.target: /cache
        mount.0.type: secret
        mount.0.id: key
        mount.0.required: true
        mount.0.owner: 0:0 0400
        network: Default
        security: Sandbox
        platform: linux/amd64
        shm_size: 67108864
        input.0: empty
        ");
    }

    #[test]
    fn a_key_is_pinned_so_that_caches_survive_new_versions() {
        let op = Op::Run(Box::new(run_op("make")));
        insta::assert_snapshot!(Described { op: &op, inputs: &[InputIdentity::Empty] }.definition_key(), @"definition sha256:844e6856362d222cd5355153120b9e7baa949050bf7f74a54ac2282531fe2707");
    }
}
