-- What definition keys were made of. Outlives results and their keys: a later miss is compared with it. Bounded by
-- number, see descriptions.rs.
CREATE TABLE descriptions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    definition  TEXT    NOT NULL UNIQUE,        -- the key
    step        TEXT    NOT NULL,               -- the key of the op alone
    project     TEXT    NOT NULL,               -- where the Dockerfile is
    stage       TEXT    NOT NULL,
    line        INTEGER NOT NULL,
    op          TEXT    NOT NULL,               -- 'run', 'file', 'http' or 'git'
    subject     TEXT    NOT NULL,               -- the step as people know it
    build       TEXT,
    recorded_at INTEGER NOT NULL,
    text        TEXT    NOT NULL,               -- a line for each field
    reads       TEXT    NOT NULL DEFAULT '[]'   -- JSON: [input, digest of what was selected of it]
) STRICT;
CREATE INDEX descriptions_by_place ON descriptions (project, op, stage, id);
CREATE INDEX descriptions_by_op ON descriptions (op, step, id);

-- Which files a digest of a selection stands for, packed as listing.rs says. Bounded by bytes.
CREATE TABLE listings (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    selection   TEXT    NOT NULL UNIQUE,
    size        INTEGER NOT NULL,               -- bytes of `files`
    files       BLOB    NOT NULL
) STRICT;

-- Places were keys before.
DELETE FROM keys WHERE kind = 'place';
