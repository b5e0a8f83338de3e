-- Schema 8. Indexes over several layers of a chain that are kept as tars, below merged/. All of it is derived: what is missing
-- is made again.
CREATE TABLE merged (
    snapshot    INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,  -- with the topmost of the layers
    layers      INTEGER NOT NULL CHECK (layers >= 2),                          -- how many they are
    path        TEXT    NOT NULL UNIQUE,                                       -- says what it was made of
    size        INTEGER NOT NULL CHECK (size >= 0),                            -- bytes on disk
    digest      TEXT    NOT NULL,
    PRIMARY KEY (snapshot, layers)
) STRICT, WITHOUT ROWID;
