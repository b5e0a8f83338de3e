-- Builds remember what they were asked for and how large their journal is.
ALTER TABLE builds ADD COLUMN detail TEXT NOT NULL DEFAULT '{}';  -- JSON object: what the build was asked for
ALTER TABLE builds ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0;  -- size of its files below logs/
