//! What makes a step the same step: four keys per vertex, all from one description.
//!
//! | kind | made of | known | used to |
//! |---|---|---|---|
//! | `Definition` | op, definition keys of inputs; what is selected of a context | before anything runs | answer without running |
//! | `Content` | op, content of what it reads: root file system, selected files | when the inputs are there | answer although inputs ran again |
//! | `Rerun` | op, snapshot of the root file system | when the inputs are there | keep the earlier of two equal results |
//! | `Step` | op | always | know durations, and that it ran before at all |
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
//! text that explains it cannot drift apart. Besides fields there are notes, which only the text has: the reference
//! of an image, the name of a parent, which variables are build arguments. Values of variables whose names say that
//! they are secret never reach the text. Keys of different kinds and versions never collide: both are hashed first.

mod describe;
mod text;

use std::fmt;

use rbuild_cache::{KeyKind, SnapshotId};
use rbuild_image::{ContentDigest, Digest};

use crate::op::{Op, RunMount, RunMountKind, Source};
pub(crate) use text::{HIDDEN, Text, unescape};

/// Hashed into every key; changes when the meaning of a description or of what a worker makes from it changes.
const VERSION: &str = "rbuild.key.v1";

/// The name of a question in digests.
fn question(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Definition => "definition",
        KeyKind::Content => "content",
        KeyKind::Rerun => "rerun",
        KeyKind::Step => "step",
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

    /// Takes a field that is a variable, `NAME=value`.
    fn variable(&mut self, name: &str, pair: &str) {
        self.field(name, pair.as_bytes());
    }

    /// Takes something that is worth knowing but changes nothing.
    fn note(&mut self, name: &str, value: &[u8]) {
        let _ = (name, value);
    }
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

/// A source with what pinning found out.
pub(crate) struct PinnedSource<'a> {
    /// The source.
    pub(crate) source: &'a Source,
    /// What identifies its content.
    pub(crate) identity: &'a Digest,
}

impl PinnedSource<'_> {
    /// The definition key.
    pub(crate) fn definition_key(&self) -> Key {
        key(KeyKind::Definition, self)
    }
}

impl Describe for PinnedSource<'_> {
    fn describe(&self, to: &mut dyn Fields) {
        self.source.describe(to);
        to.field("identity", self.identity.to_string().as_bytes());
    }
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

/// The kind of an op in one word.
pub(crate) fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Source(Source::Image(_)) => "image",
        Op::Source(Source::Context(_)) => "context",
        Op::Source(Source::Http(_)) => "http",
        Op::Source(Source::Git(_)) => "git",
        Op::Run(_) => "run",
        Op::File(_) => "file",
    }
}

#[cfg(test)]
mod tests {
    use rbuild_image::ContainerPath;

    use super::*;
    use crate::fixture::run_op;
    use crate::op::RunOp;

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
        let text = Text::of(&Described { op: &op, inputs: &[InputIdentity::Empty] });
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
