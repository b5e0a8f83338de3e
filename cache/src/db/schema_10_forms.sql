-- Schema 10. What a layer becomes when it is compressed, by the name of the way there: known without doing it again.
-- The bytes themselves are not kept.
CREATE TABLE layer_forms (
    layer       INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    algorithm   TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    size        INTEGER NOT NULL CHECK (size >= 0),
    PRIMARY KEY (layer, algorithm)
) STRICT, WITHOUT ROWID;
