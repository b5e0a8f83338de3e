//! How long builds are remembered: newest first, within a number of builds and a number of bytes of their files.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::{BuildId, Builds, HistoryError};
use crate::db::{Durability, Text};
use crate::lease::is_live;
use crate::path_error::{AtPath, PathError};

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// At most this many builds.
    pub builds: usize,
    /// At most this many bytes of their files below `logs/`.
    pub bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { builds: 1000, bytes: 512 << 20 }
    }
}

impl Builds<'_> {
    /// Forgets a build, and removes its files.
    pub fn remove(&self, id: &BuildId) -> Result<bool, HistoryError> {
        let sql = "DELETE FROM builds WHERE id = ?1";
        let known = self.store.db().write(Durability::Lazy, |tx| tx.execute(sql, [id.as_str()]))? > 0;
        self.remove_files(id)?;
        Ok(known)
    }

    /// Forgets the oldest builds until the rest is within the limits; how many. Running ones stay. The newest build
    /// stays whatever its size.
    pub fn trim(&self, limits: HistoryLimits) -> Result<usize, HistoryError> {
        if !self.is_over(limits)? {
            return Ok(0);
        }
        let sql = "SELECT id, lease, finished_at IS NULL, log_bytes FROM builds ORDER BY started_at DESC, id";
        let rows = self.store.db().read(|tx| {
            tx.all(sql, (), |row| {
                let Text(id): Text<BuildId> = row.get(0)?;
                Ok((id, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, u64>(3)?))
            })
        })?;
        // A little more room is made than is asked for, so that not every build pays for this.
        let (most, largest) = (limits.builds - limits.builds / 10, limits.bytes - limits.bytes / 10);
        let (mut count, mut bytes, mut removed) = (0, 0_u64, 0);
        for (id, lease, open, size) in rows {
            (count, bytes) = (count + 1, bytes.saturating_add(size));
            let kept = count <= most && bytes <= largest;
            if kept || count == 1 || (open && is_live(self.store.layout(), &lease)?) {
                continue;
            }
            self.remove(&id)?;
            removed += 1;
        }
        if removed > 0 {
            self.remove_strays()?;
        }
        Ok(removed)
    }

    /// Removes directories of builds that nobody remembers. A build has its row before its directory.
    fn remove_strays(&self) -> Result<(), HistoryError> {
        let root = self.store.layout().logs();
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&root).at("list", &root)? {
            let entry = entry.at("list", &root)?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<BuildId>().ok()));
        }
        let ids = |row: &rusqlite::Row<'_>| row.get::<_, Text<BuildId>>(0).map(|Text(id)| id);
        let known = self.store.db().read(|tx| tx.all("SELECT id FROM builds", (), ids))?;
        for id in known {
            found.remove(&id);
        }
        for id in found {
            self.remove_files(&id)?;
        }
        Ok(())
    }

    fn remove_files(&self, id: &BuildId) -> Result<(), PathError> {
        let path = self.store.layout().build_files(id.as_str());
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }
}
