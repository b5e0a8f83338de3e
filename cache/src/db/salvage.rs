//! What can still be read of a damaged database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// References and the ids of the images they led to, as far as their pages are whole. What is read is a claim that
/// the caller checks.
pub(crate) fn tags(path: &Path) -> Vec<(String, String)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut tags = Vec::new();
    let read = |tags: &mut Vec<(String, String)>| -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(path, flags)?;
        let mut statement = connection.prepare("SELECT reference, image FROM tags ORDER BY reference")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            tags.push((row.get(0)?, row.get(1)?));
        }
        Ok(())
    };
    if let Err(error) = read(&mut tags) {
        tracing::debug!(path = %path.display(), %error, read = tags.len(), "names cannot be read further");
    }
    tags
}
