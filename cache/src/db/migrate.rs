//! Makes a new database and brings an older one up to date.
//!
//! A new database is built under a private name and renamed when it is whole, so `meta.db` is never half made: one
//! that is empty or lacks its tables is damaged, and is never taken for a new one. Each migration is one transaction
//! that ends by setting `user_version`.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::DbError;
use crate::failpoint;
use crate::path_error::{AtPath, PathError};

/// `application_id` of our databases: "RBLD".
const APPLICATION_ID: i32 = 0x5242_4c44;

/// Entry N makes schema N + 1 out of schema N.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2_tombstones.sql"),
    include_str!("schema_3_builds.sql"),
    include_str!("schema_4_collections.sql"),
    include_str!("schema_5_descriptions.sql"),
    include_str!("schema_6_usage.sql"),
    include_str!("schema_7_index.sql"),
    include_str!("schema_8_merged.sql"),
    include_str!("schema_9_index_made.sql"),
    include_str!("schema_10_forms.sql"),
    include_str!("schema_11_equal_tars.sql"),
    include_str!("schema_12_kept_forms.sql"),
];

/// The schema that this program writes.
pub(crate) const SCHEMA: i32 = MIGRATIONS.len() as i32;

/// Why a database cannot be made or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It was written by a newer rbuild.
    #[error("{} has schema {found}, but this rbuild knows schemas up to {SCHEMA}: use a newer rbuild", path.display())]
    Newer {
        /// The database.
        path: std::path::PathBuf,
        /// Its schema.
        found: i32,
    },
    /// A file with that name exists and is something else.
    #[error("{} is not a store database (application id {found:#x})", path.display())]
    Foreign {
        /// The database.
        path: std::path::PathBuf,
        /// The number that tells SQLite files apart.
        found: i32,
    },
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Makes the database at `path`, whole or not at all. The caller holds the store's initialisation lock.
pub(crate) fn create(path: &Path) -> Result<(), MigrateError> {
    let temporary = path.with_extension("db.new");
    remove_stale(&temporary)?;
    {
        let mut connection = Connection::open(&temporary).map_err(|error| DbError::new(&temporary, error))?;
        upgrade(&mut connection, &temporary, 0)?;
        // Persistent in the file. Where shared memory does not work SQLite stays with the rollback journal, which
        // needs nothing but locks; readers and writers then exclude each other.
        connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
            .map_err(|error| DbError::new(&temporary, error))?;
    }
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).at("sync", path);
    failpoint::hit("db-create-sync").at("sync", &temporary)?;
    sync(&temporary)?;
    failpoint::hit("db-create-rename").and_then(|()| fs::rename(&temporary, path)).at("rename", &temporary)?;
    let parent = path.parent().expect("a database has a directory");
    failpoint::hit("db-create-sync-directory").at("sync", parent)?;
    sync(parent)?;
    Ok(failpoint::hit("db-created").at("create", path)?)
}

/// Checks the schema of an open database and migrates an older one.
pub(crate) fn check(connection: &mut Connection, path: &Path) -> Result<(), MigrateError> {
    let failed = |error| DbError::new(path, error);
    let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found == SCHEMA {
        return Ok(());
    }
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    match found {
        _ if application != APPLICATION_ID && found != 0 => {
            Err(MigrateError::Foreign { path: path.to_owned(), found: application })
        }
        newer if newer > SCHEMA => Err(MigrateError::Newer { path: path.to_owned(), found: newer }),
        older if older > 0 => upgrade(connection, path, older),
        _ => Err(DbError::Damaged { path: path.to_owned(), detail: "it is empty".to_owned() }.into()),
    }
}

fn upgrade(connection: &mut Connection, path: &Path, from: i32) -> Result<(), MigrateError> {
    let failed = |error| DbError::new(path, error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have been faster.
    let found: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    for migration in &MIGRATIONS[found.max(from) as usize..] {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    transaction.pragma_update(None, "user_version", SCHEMA).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(())
}

fn remove_stale(temporary: &Path) -> Result<(), PathError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = temporary.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at("remove", Path::new(&name));
            }
            _ => {}
        }
    }
    Ok(())
}
