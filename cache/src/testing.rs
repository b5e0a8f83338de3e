//! A store in a temporary directory, a clock that the test sets, and child processes made of this test binary.

pub(crate) mod members;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::db::Durability;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::PathError;
use crate::snapshot::SnapshotterChoice;
use crate::store::{OpenOptions, Store};

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl Default for TestClock {
    fn default() -> Self {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        Self(Arc::new(AtomicI64::new(start.as_microsecond())))
    }
}

impl TestClock {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).unwrap()
    }

    pub(crate) fn set_back(&self, time: Duration) {
        self.0.fetch_sub(i64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Self::now(self)
    }
}

pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) clock: TestClock,
    _home: tempfile::TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::keeping(SnapshotterChoice::Auto)
    }

    /// One that keeps new layers so.
    pub(crate) fn keeping(snapshotter: SnapshotterChoice) -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let store = open(&home.path().join("store"), &clock, snapshotter);
        Self { store, clock, _home: home }
    }

    pub(crate) fn root(&self) -> &Path {
        self.store.layout().root()
    }

    /// The same store, as another process would open it.
    pub(crate) fn reopen(&self) -> Store {
        open(self.root(), &self.clock, SnapshotterChoice::Auto)
    }

    pub(crate) fn lease(&self) -> Lease {
        self.store.lease("test").unwrap()
    }

    /// A committed snapshot with one file of `size` bytes, held by `lease`.
    pub(crate) fn snapshot(&self, lease: &Lease, parent: Option<SnapshotId>, size: usize) -> SnapshotId {
        snapshot(&self.store, lease, parent, size)
    }
}

fn open(root: &Path, clock: &TestClock, snapshotter: SnapshotterChoice) -> Store {
    let mut options = OpenOptions::new("test");
    options.clock = Arc::new(clock.clone());
    options.snapshotter = snapshotter;
    Store::open(root, options).unwrap()
}

/// Commits a directory layer the way snapshots do: private, hold the name, rename, one transaction.
pub(crate) fn snapshot(store: &Store, lease: &Lease, parent: Option<SnapshotId>, size: usize) -> SnapshotId {
    let draft = lease.scratch_name("layer").unwrap();
    std::fs::create_dir(&draft).unwrap();
    std::fs::write(draft.join("file"), vec![7; size]).unwrap();
    let path = format!("{}-{}", lease.info().id, draft.file_name().unwrap().to_str().unwrap());
    lease.hold(Hold::Layer(path.clone())).unwrap();
    std::fs::rename(&draft, store.layout().layer(&path)).unwrap();
    store
        .db()
        .write(Durability::Lazy, |tx| {
            let layer = LayerId::from_row(tx.insert(
                "INSERT INTO layers (kind, path, size, created_at) VALUES ('directory', ?1, ?2, 0)",
                (&path, i64::try_from(size).unwrap()),
            )?);
            let depth: i64 = match parent {
                Some(parent) => tx.one("SELECT depth + 1 FROM snapshots WHERE id = ?1", [parent], |row| row.get(0))?,
                None => 1,
            };
            let id = SnapshotId::from_row(tx.insert(
                "INSERT INTO snapshots (parent, layer, depth, created_at) VALUES (?1, ?2, ?3, 0)",
                (parent, layer, depth),
            )?);
            lease.hold(Hold::Snapshot(id))?;
            Ok::<_, TestFailure>(id)
        })
        .unwrap()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TestFailure {
    #[error(transparent)]
    Db(#[from] crate::db::DbError),
    #[error(transparent)]
    File(#[from] PathError),
}

/// A process made of this test binary; killed on drop.
pub(crate) struct TestChild {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl TestChild {
    /// Runs `tests::child::entry` in a process of its own, which gets `arguments` by [`child_arguments`].
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["tests::child::entry", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        // Further filters match no test, so the harness lets them pass.
        command.args(arguments.iter().map(|argument| format!("child:{argument}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until the child says `word`; other lines are the harness's.
    pub(crate) fn expect(&mut self, word: &str) {
        let wanted = format!("child says {word}");
        let found = self.lines.any(|line| line.unwrap().ends_with(&wanted));
        assert!(found, "the child ended without saying {word:?}");
    }

    /// Waits for its end; the first thing that it said.
    pub(crate) fn said(&mut self) -> Option<String> {
        self.release();
        let mut said = None;
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("child says ") {
                said.get_or_insert_with(|| rest.to_owned());
            }
        }
        self.child.wait().unwrap();
        said
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it go on; it waits for that in [`child_waits`].
    pub(crate) fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end; whether it ended well.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.release();
        self.lines.by_ref().for_each(|line| drop(line.unwrap()));
        self.child.wait().unwrap().success()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for TestChild {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What [`TestChild::start`] passed; empty when somebody runs ignored tests by hand.
pub(crate) fn child_arguments() -> Vec<String> {
    std::env::args().filter_map(|argument| argument.strip_prefix("child:").map(str::to_owned)).collect()
}

/// In a child: tells the parent.
pub(crate) fn child_says(word: &str) {
    // Not println, which the harness may capture.
    writeln!(std::io::stdout().lock(), "child says {word}").unwrap();
}

/// In a child: waits for [`TestChild::release`].
pub(crate) fn child_waits() {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).unwrap();
}
