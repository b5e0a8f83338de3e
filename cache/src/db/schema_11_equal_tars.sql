-- Schema 11. Layers whose tars are equal have one file, by a hard link in each one's directory; see snapshot/equal.rs.
ALTER TABLE layers ADD COLUMN tar_file TEXT;      -- path of the layer that the file was written for, where that is another one
ALTER TABLE layers ADD COLUMN tar_bytes INTEGER;  -- its bytes on disk, a part of `size`; null where nobody else has it
CREATE INDEX layers_by_tar ON layers (coalesce(tar_file, path)) WHERE tar_bytes IS NOT NULL;
-- Bytes on disk by layer, each counted once: a tar that several have is the first one's.
CREATE VIEW layer_bytes (layer, bytes) AS
    SELECT id, size - CASE WHEN tar_bytes IS NOT NULL AND EXISTS (
        SELECT 1 FROM layers o WHERE o.tar_bytes IS NOT NULL AND o.id < l.id
            AND coalesce(o.tar_file, o.path) = coalesce(l.tar_file, l.path)) THEN tar_bytes ELSE 0 END
    FROM layers l;
