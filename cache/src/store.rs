//! The store as a whole: opening, and the way to its parts.
//!
//! Opening does no work that the answer does not need: it checks who owns the directory, reads the format file, opens
//! the database, and reaps dead invocations when there are any. It scans nothing.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use crate::clock::{Clock, SystemClock};
use crate::db::{self, Db, DbError, MigrateError};
use crate::failpoint;
use crate::gc::Growth;
use crate::layout::{FORMAT, Layout};
use crate::lease::{self, Lease, LeaseInfo, Reap};
use crate::lock::{Holder, LockError, LockGuard, LockMode, LockName, Locks, OnWait};
use crate::path_error::{AtPath, PathError};
use crate::reserve;
use crate::snapshot::{SnapshotterChoice, Snapshotting, Unsettled};

/// File systems whose locks and shared memory reach other hosts or nobody: `statfs` magic and name.
const NETWORK: &[(u64, &str)] =
    &[(0x6969, "NFS"), (0x517b, "SMB"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2"), (0x5346_414f, "AFS")];

/// What to do when there is no store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Make one.
    IfMissing,
    /// Fail.
    Never,
}

/// How to open a store.
#[derive(Clone)]
pub struct OpenOptions {
    /// What to do when there is none.
    pub creation: Creation,
    /// What this process is doing, for those who wait for it: `build -t app .`.
    pub command: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Takes down what dead invocations left outside the store.
    pub reaper: Option<Arc<dyn Reap>>,
    /// How new layers are kept.
    pub snapshotter: SnapshotterChoice,
}

impl OpenOptions {
    /// Opens for `command`, making the store if there is none.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            creation: Creation::IfMissing,
            command: command.into(),
            clock: Arc::new(SystemClock),
            reaper: None,
            snapshotter: SnapshotterChoice::Auto,
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("creation", &self.creation)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no store at {}", root.display())]
    Missing {
        /// Where it was expected.
        root: PathBuf,
    },
    /// The directory has other things in it.
    #[error("{} is neither empty nor a store: choose another directory", root.display())]
    Foreign {
        /// The directory.
        root: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("the store {} belongs to user {owner}, but this is user {user}: choose another one with --root", root.display())]
    Owner {
        /// The directory.
        root: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others may enter it.
    #[error("the store {} is open to other users (mode {mode:04o}): its set-user-id files must not be reachable; run chmod 700 on it", root.display())]
    Exposed {
        /// The directory.
        root: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A newer rbuild made it.
    #[error("the store {} has format {found}, but this rbuild knows formats up to {FORMAT}: use a newer rbuild", root.display())]
    Newer {
        /// The directory.
        root: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The format file makes no sense.
    #[error("{} does not name a store format: it is damaged, or something else wrote it", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
    },
    /// Locks and shared memory do not work there.
    #[error("{} is on {kind}, where locks and shared memory do not hold: put the store on a local disk", root.display())]
    Network {
        /// The directory.
        root: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// The database is gone, its content is not.
    #[error("{} is missing, though the store has content; `rbuild cache verify --rebuild` saves the images", path.display())]
    DatabaseLost {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] MigrateError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

impl From<DbError> for OpenError {
    fn from(error: DbError) -> Self {
        Self::Database(error.into())
    }
}

/// Everything that lasts. Cheap to clone; shared by threads, and by processes through the file system.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    db: Db,
    locks: Locks,
    command: String,
    clock: Arc<dyn Clock>,
    /// Who keeps the ceiling while this process adds to the store.
    growth: RwLock<Option<Arc<Growth>>>,
    snapshotting: Snapshotting,
    unsettled: Unsettled,
}

impl Store {
    /// Opens the store in the directory `root`.
    pub fn open(root: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        let layout = Layout::new(root.to_owned());
        if !is_ready(&layout)? {
            if options.creation == Creation::Never && !layout.format().exists() {
                return Err(OpenError::Missing { root: root.to_owned() });
            }
            initialise(&layout)?;
        }
        let db = Db::open(&layout.database())?;
        lease::sweep(&layout, options.reaper.as_deref())?;
        let locks = Locks::new(layout.locks(), options.command.clone());
        let OpenOptions { command, clock, snapshotter, .. } = options;
        let snapshotting = Snapshotting::new(snapshotter);
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                db,
                locks,
                command,
                clock,
                growth: RwLock::default(),
                snapshotting,
                unsettled: Unsettled::default(),
            }),
        })
    }

    /// Path names.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Begins a lease: what this invocation makes or reads stays until it is dropped.
    pub fn lease(&self, purpose: &str) -> Result<Lease, PathError> {
        Lease::begin(self.layout(), purpose, &self.inner.command, self.now())
    }

    /// All live leases, oldest first.
    pub fn leases(&self) -> Result<Vec<LeaseInfo>, PathError> {
        lease::list(self.layout())
    }

    /// Takes a lock, waiting for whoever has it.
    pub fn lock(&self, name: &LockName, mode: LockMode, on_wait: OnWait<'_>) -> Result<LockGuard, LockError> {
        self.inner.locks.lock(name, mode, &|| self.now(), on_wait)
    }

    /// Takes a lock if it is free.
    pub fn try_lock(&self, name: &LockName, mode: LockMode) -> Result<Option<LockGuard>, PathError> {
        self.inner.locks.try_lock(name, mode, self.now())
    }

    /// Who holds a lock, as far as that can be read.
    pub fn holder(&self, name: &LockName) -> Option<Holder> {
        self.inner.locks.holder(name)
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    pub(crate) fn locks(&self) -> &Locks {
        &self.inner.locks
    }

    pub(crate) fn snapshotting(&self) -> &Snapshotting {
        &self.inner.snapshotting
    }

    pub(crate) fn unsettled(&self) -> &Unsettled {
        &self.inner.unsettled
    }

    pub(crate) fn growth(&self) -> Option<Arc<Growth>> {
        self.inner.growth.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_growth(&self, growth: Option<Arc<Growth>>) {
        *self.inner.growth.write().unwrap_or_else(PoisonError::into_inner) = growth;
    }

    /// The time, as the clock says that the store was opened with.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.layout().root()).finish_non_exhaustive()
    }
}

/// Whether `root` holds a whole store of ours that this program can use.
fn is_ready(layout: &Layout) -> Result<bool, OpenError> {
    let root = layout.root();
    let metadata = match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.at("inspect", root)?,
    };
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(OpenError::Owner { root: root.to_owned(), owner, user });
    }
    let path = layout.format();
    let text = match fs::read_to_string(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        other => other.at("read", &path)?,
    };
    let version = text.strip_prefix("rbuild-store ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match version {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => return Err(OpenError::Newer { root: root.to_owned(), found }),
        _ => return Err(OpenError::BadFormat { path }),
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(OpenError::Exposed { root: root.to_owned(), mode });
    }
    let kind = rustix::fs::statfs(root).at("inspect the file system of", root)?.f_type as u64 & 0xffff_ffff;
    if let Some((_, kind)) = NETWORK.iter().find(|(magic, _)| *magic == kind) {
        return Err(OpenError::Network { root: root.to_owned(), kind });
    }
    Ok(layout.database().try_exists().at("inspect", &layout.database())?)
}

/// Takes the lock under which a store is made; freed on drop.
pub(crate) fn lock_root(root: &Path) -> Result<File, PathError> {
    let directory = File::open(root).at("open", root)?;
    directory.lock().at("lock", root)?;
    Ok(directory)
}

/// Makes a store, or completes one whose maker was killed. The format file comes first and says that the directory is
/// ours, the database comes last and says that it is whole.
fn initialise(layout: &Layout) -> Result<(), OpenError> {
    let root = layout.root();
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).at("create", parent)?;
    }
    match DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", root)?,
        _ => {}
    }
    let directory = lock_root(root)?;
    if !layout.format().exists() {
        let temporary = layout.format().with_extension("new");
        for entry in fs::read_dir(root).at("list", root)? {
            let path = entry.at("list", root)?.path();
            // The root of a new file system has a directory for what fsck finds.
            if path != temporary && path.file_name() != Some("lost+found".as_ref()) {
                return Err(OpenError::Foreign { root: root.to_owned() });
            }
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).at("change the mode of", root)?;
        let mut file = File::create(&temporary).at("create", &temporary)?;
        file.write_all(format!("rbuild-store {FORMAT}\n").as_bytes()).at("write", &temporary)?;
        failpoint::hit("init-sync").and_then(|()| file.sync_all()).at("sync", &temporary)?;
        failpoint::hit("init-rename")
            .and_then(|()| fs::rename(&temporary, layout.format()))
            .at("rename", &temporary)?;
        failpoint::hit("init-sync-directory").and_then(|()| directory.sync_all()).at("sync", root)?;
        failpoint::hit("init-named").at("make a store in", root)?;
    }
    if is_ready(layout)? {
        return Ok(());
    }
    for path in layout.directories() {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", &path)?,
            _ => {}
        }
    }
    for path in [layout.blobs(rbuild_image::Algorithm::Sha256), layout.layers()] {
        if fs::read_dir(&path).at("list", &path)?.next().is_some() {
            return Err(OpenError::DatabaseLost { path: layout.database() });
        }
    }
    reserve::restore(layout);
    db::create(&layout.database())?;
    Ok(())
}
