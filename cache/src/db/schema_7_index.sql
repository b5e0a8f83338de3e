-- Schema 7. What the index of a layer that is kept as its tar must be.
ALTER TABLE layers ADD COLUMN index_digest TEXT;
