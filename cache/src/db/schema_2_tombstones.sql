-- Schema 2: a tombstone also says what was lost, and of which kind its key was.
ALTER TABLE tombstones ADD COLUMN kind TEXT NOT NULL DEFAULT 'definition';
ALTER TABLE tombstones ADD COLUMN size INTEGER NOT NULL DEFAULT 0;      -- bytes of the layer
ALTER TABLE tombstones ADD COLUMN duration INTEGER NOT NULL DEFAULT 0;  -- microseconds that a hit saved
ALTER TABLE tombstones ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
