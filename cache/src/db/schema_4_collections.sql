-- Schema 4: when collections ran, and what they gave.
CREATE TABLE collections (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    ran_at      INTEGER NOT NULL,
    evicted     INTEGER NOT NULL,               -- records
    freed       INTEGER NOT NULL                -- bytes
) STRICT;
-- Bytes of a cache mount when a collection last measured it.
ALTER TABLE cache_mounts ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
