//! The metadata database: SQLite, write-ahead log, many processes at once.
//!
//! - A write is one short `BEGIN IMMEDIATE` transaction; waiting for other processes is bounded (30 s).
//! - `synchronous=NORMAL` keeps the order of transactions but may lose the newest ones on power loss. So it serves
//!   whatever can be redone ([`Durability::Lazy`]). What is acknowledged to people, and what precedes the deletion of
//!   files, commits with a synced log ([`Durability::Synced`]); that also makes every earlier transaction durable.
//! - Files are durable before the transaction that names them, see `content` and `snapshot`.
//! - The log is not folded back at close: a short command would pay two syncs for nothing. A commit folds it back when
//!   it has grown to 256 pages; the first process to open the database reads it whole, so it is kept short.

mod column;
mod migrate;
pub(crate) mod salvage;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::failpoint;

pub(crate) use column::{Json, Micros, Text};
pub use migrate::MigrateError;
#[cfg(test)]
pub(crate) use migrate::SCHEMA;
pub(crate) use migrate::create;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row};

/// How long to wait for other processes' transactions.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
/// Longest pause between two attempts; short, since transactions are.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Connections for reading at the same time as something else, kept for reuse.
const SPARE_CONNECTIONS: usize = 4;

/// What the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Another process kept it locked.
    #[error("{} has been locked by another process for {} s", path.display(), BUSY_LIMIT.as_secs())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// There is no room.
    #[error("no space left on the device of {}", path.display())]
    NoSpace {
        /// The database.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{} is damaged: {detail}; `rbuild cache verify --rebuild` saves the images", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Anything else.
    #[error("{}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
}

impl DbError {
    pub(crate) fn new(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DiskFull) => Self::NoSpace { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, detail: source.to_string() }
            }
            _ => Self::Sqlite { path, source },
        }
    }
}

impl From<DbError> for std::io::Error {
    fn from(error: DbError) -> Self {
        let kind = match error {
            DbError::NoSpace { .. } => std::io::ErrorKind::StorageFull,
            DbError::Damaged { .. } => std::io::ErrorKind::InvalidData,
            DbError::Busy { .. } => std::io::ErrorKind::TimedOut,
            DbError::Sqlite { .. } => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What a transaction outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The death of the process; a power cut may lose it, in order. For what can be redone.
    Lazy,
    /// A power cut, from the moment of the commit.
    Synced,
}

/// The database, shared by all threads of this process.
#[derive(Debug)]
pub(crate) struct Db {
    path: PathBuf,
    main: Mutex<Connection>,
    spare: Mutex<Vec<Connection>>,
}

impl Db {
    /// Opens an existing database, migrating an older one.
    pub(crate) fn open(path: &Path) -> Result<Self, MigrateError> {
        let mut main = connect(path).map_err(|error| DbError::new(path, error))?;
        migrate::check(&mut main, path)?;
        Ok(Self { path: path.to_owned(), main: Mutex::new(main), spare: Mutex::default() })
    }

    /// Reads one consistent state. Does not wait for this process's writers.
    pub(crate) fn read<T, E: From<DbError>>(&self, body: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        match self.main.try_lock() {
            Ok(connection) => self.read_on(&connection, body),
            Err(TryLockError::Poisoned(poisoned)) => self.read_on(&poisoned.into_inner(), body),
            Err(TryLockError::WouldBlock) => {
                let kept = locked(&self.spare).pop();
                let connection = match kept {
                    Some(connection) => connection,
                    None => connect(&self.path).map_err(|error| DbError::new(&self.path, error))?,
                };
                let result = self.read_on(&connection, body);
                let mut spare = locked(&self.spare);
                if spare.len() < SPARE_CONNECTIONS {
                    spare.push(connection);
                }
                result
            }
        }
    }

    /// Runs one writing transaction; it commits when `body` succeeds, and leaves no trace otherwise. `body` must be
    /// short, and must not call the database other than through its argument.
    pub(crate) fn write<T, E: From<DbError>>(
        &self,
        durability: Durability,
        body: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let connection = locked(&self.main);
        let failed = |error| DbError::new(&self.path, error);
        if durability == Durability::Synced {
            connection.execute_batch("PRAGMA synchronous=FULL").map_err(failed)?;
        }
        let result = (|| {
            let transaction = Transaction::begin(&connection, "BEGIN IMMEDIATE").map_err(failed)?;
            let value = body(&Tx { connection: &connection, path: &self.path })?;
            failpoint::hit("db-commit").map_err(|error| injected(&self.path, &error))?;
            transaction.commit().map_err(failed)?;
            failpoint::hit("db-committed").map_err(|error| injected(&self.path, &error))?;
            Ok(value)
        })();
        if durability == Durability::Synced {
            connection.execute_batch("PRAGMA synchronous=NORMAL").map_err(failed)?;
        }
        result
    }

    fn read_on<T, E: From<DbError>>(
        &self,
        connection: &Connection,
        body: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = Transaction::begin(connection, "BEGIN").map_err(|error| DbError::new(&self.path, error))?;
        let value = body(&Tx { connection, path: &self.path })?;
        transaction.commit().map_err(|error| DbError::new(&self.path, error))?;
        Ok(value)
    }
}

/// A transaction that is rolled back unless it commits. The crate's own compiles its three statements every time.
struct Transaction<'c> {
    connection: &'c Connection,
}

impl<'c> Transaction<'c> {
    fn begin(connection: &'c Connection, how: &str) -> rusqlite::Result<Self> {
        connection.prepare_cached(how)?.execute(())?;
        Ok(Self { connection })
    }

    fn commit(self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute(()).map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Some errors have rolled it back already.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "cannot roll a transaction back");
        }
    }
}

/// A failure that a test asked for, as SQLite would have told it.
fn injected(path: &Path, error: &std::io::Error) -> DbError {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let code = if full { rusqlite::ffi::SQLITE_FULL } else { rusqlite::ffi::SQLITE_IOERR };
    let detail = Some(format!("cannot commit: {error}"));
    DbError::new(path, rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), detail))
}

/// A transaction's face: prepared statements are cached, errors name the database.
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl Tx<'_> {
    /// Runs a statement; how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, DbError> {
        let run = || self.connection.prepare_cached(sql)?.execute(params);
        run().map_err(|error| self.failed(error))
    }

    /// Runs an insertion; the new row's id.
    pub(crate) fn insert(&self, sql: &str, params: impl Params) -> Result<i64, DbError> {
        self.execute(sql, params)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// The first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, DbError> {
        let run = || self.connection.prepare_cached(sql)?.query_row(params, read).optional();
        run().map_err(|error| self.failed(error))
    }

    /// The only row of a query that always has one.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let run = || self.connection.prepare_cached(sql)?.query_row(params, read);
        run().map_err(|error| self.failed(error))
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbError> {
        let run = || self.connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<_>>();
        run().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> DbError {
        DbError::new(self.path, error)
    }
}

/// A transaction that panicked was rolled back by its guard, so what a poisoned lock protects is sound.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // No SQLITE_OPEN_CREATE: an absent database is not an empty one. No internal mutex: ours is outside.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(pause))?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Without it a statement that has a partial index to choose is compiled anew for every value that is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384;
         PRAGMA wal_autocheckpoint=256",
    )?;
    Ok(connection)
}

/// Waits for another process. SQLite's own schedule ends at 100 ms pauses, which starves a waiter among many writers.
fn pause(attempts: i32) -> bool {
    let pause = (Duration::from_micros(200) * (attempts.clamp(0, 100) as u32 + 1)).min(BUSY_PAUSE);
    std::thread::sleep(pause);
    (attempts as u128) * BUSY_PAUSE.as_millis() < BUSY_LIMIT.as_millis()
}
