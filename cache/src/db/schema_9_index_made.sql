-- Schema 9. In which boot of the machine an index was made whose bytes were not synced, and what belongs to it; null once
-- it was found whole in a later one.
ALTER TABLE layers ADD COLUMN index_boot TEXT;
ALTER TABLE layers ADD COLUMN side_digest TEXT;
-- What the root directory is given, of which the tar of a layer that was made here says nothing: JSON.
ALTER TABLE layers ADD COLUMN index_root TEXT;
