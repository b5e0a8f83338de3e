-- Schema 12. The bytes of a form may lie among the blobs, until room is needed: since when they were not used. Null where
-- they are not kept. The blob may be gone all the same: it is only a copy of what can be made again.
ALTER TABLE layer_forms ADD COLUMN kept_at INTEGER;
CREATE INDEX layer_forms_kept ON layer_forms (digest) WHERE kept_at IS NOT NULL;
