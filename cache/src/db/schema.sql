-- Schema 1. Times are microseconds since the epoch; digests are text; sizes are bytes.
-- A row that refers to another one keeps it alive: what nothing refers to, and no lease holds, is garbage.

-- Verified content below blobs/. `doomed`: a collection is deciding about it; look-ups behave as if it were gone.
CREATE TABLE blobs (
    digest      TEXT    NOT NULL PRIMARY KEY,
    size        INTEGER NOT NULL CHECK (size >= 0),
    created_at  INTEGER NOT NULL,
    doomed      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- One layer's files below layers/. `path` is relative to that directory and never used twice.
CREATE TABLE layers (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    kind            TEXT    NOT NULL,           -- 'directory', later 'erofs'
    path            TEXT    NOT NULL UNIQUE,
    size            INTEGER NOT NULL CHECK (size >= 0),  -- bytes on disk
    diff_id         TEXT,                       -- digest of the layer's tar, once computed
    tar_size        INTEGER,                    -- length of that tar
    content_digest  TEXT,                       -- what the layer holds, without times; of one from outside: its diff_id
    depends_on_parent INTEGER NOT NULL DEFAULT 1, -- whether its files would differ on another parent
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX layers_by_diff_id ON layers (diff_id) WHERE diff_id IS NOT NULL;

-- Compressed forms of a layer that are at hand: as pulled, or as made for a push.
CREATE TABLE layer_blobs (
    layer       INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    blob        TEXT    NOT NULL REFERENCES blobs (digest),
    media_type  TEXT    NOT NULL,
    PRIMARY KEY (layer, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_blob ON layer_blobs (blob);

-- A layer on top of its parents.
CREATE TABLE snapshots (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    parent      INTEGER REFERENCES snapshots (id),
    layer       INTEGER NOT NULL REFERENCES layers (id),
    depth       INTEGER NOT NULL CHECK (depth >= 1),  -- number of layers, this one included
    chain_id    TEXT,                           -- of the diff_ids, once all are known
    identity    TEXT,                           -- of the content digests, once all are known
    created_at  INTEGER NOT NULL,
    doomed      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX snapshots_by_layer ON snapshots (layer);
CREATE INDEX snapshots_by_chain_id ON snapshots (chain_id) WHERE chain_id IS NOT NULL;

CREATE TABLE images (
    id          TEXT    NOT NULL PRIMARY KEY,   -- digest of the config
    platform    TEXT    NOT NULL,               -- os/arch[/variant]
    manifest    TEXT,                           -- JSON descriptor of the manifest it came with
    diff_ids    TEXT    NOT NULL,               -- JSON array, lowest first
    snapshot    INTEGER REFERENCES snapshots (id),  -- the topmost layer; null when there is none
    size        INTEGER NOT NULL,               -- bytes of all layers, unpacked
    created_at  INTEGER,                        -- as the config says
    stored_at   INTEGER NOT NULL,
    used_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_snapshot ON images (snapshot);

-- Config, manifest, index and original layer blobs of an image.
CREATE TABLE image_blobs (
    image       TEXT    NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    blob        TEXT    NOT NULL REFERENCES blobs (digest),
    role        TEXT    NOT NULL,               -- 'config', 'manifest', 'index', 'layer'
    PRIMARY KEY (image, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blobs_by_blob ON image_blobs (blob);

-- References, with a tag or a digest, in canonical form. One per platform.
CREATE TABLE tags (
    reference   TEXT    NOT NULL,
    platform    TEXT    NOT NULL,
    image       TEXT    NOT NULL REFERENCES images (id),
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (reference, platform)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_image ON tags (image);

-- What a step gave when it was done.
CREATE TABLE results (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshot        INTEGER REFERENCES snapshots (id),  -- null is the empty tree
    content_digest  TEXT,                       -- of the layer that the step made
    subject         TEXT    NOT NULL,           -- the step as people know it: RUN make
    build           TEXT,                       -- which build made it
    created_at      INTEGER NOT NULL,
    duration        INTEGER NOT NULL,           -- microseconds it took
    used_at         INTEGER NOT NULL,
    use_count       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX results_by_snapshot ON results (snapshot);
CREATE INDEX results_by_subject ON results (subject);

-- The keys that lead to a result.
CREATE TABLE keys (
    key         TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL,               -- 'definition', 'content', 'rerun' or 'step'
    result      INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE,
    description TEXT    NOT NULL                -- a note of whoever recorded it
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_result ON keys (result);

-- Keys that were evicted.
CREATE TABLE tombstones (
    key         TEXT    NOT NULL PRIMARY KEY,
    subject     TEXT    NOT NULL,
    rule        TEXT    NOT NULL,               -- which rule evicted it
    evicted_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_age ON tombstones (evicted_at);

-- What things other than a live process keep: a stopped container keeps its snapshot.
CREATE TABLE roots (
    owner       TEXT    NOT NULL,               -- 'container/ID'
    kind        TEXT    NOT NULL,               -- 'blob' or 'snapshot'
    key         TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (owner, kind, key)
) STRICT, WITHOUT ROWID;

-- Directories for RUN --mount=type=cache, below cache-mounts/HASH/INSTANCE.
CREATE TABLE cache_mounts (
    hash        TEXT    NOT NULL,               -- of id and seed
    instance    INTEGER NOT NULL,
    id          TEXT    NOT NULL,               -- as the Dockerfile says
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL,
    use_count   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hash, instance)
) STRICT, WITHOUT ROWID;

-- Digests of files in build contexts: one row per directory, see file_index.rs for the packing.
CREATE TABLE file_roots (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    path        BLOB    NOT NULL UNIQUE,
    used_at     INTEGER NOT NULL
) STRICT;
CREATE TABLE file_index (
    root        INTEGER NOT NULL REFERENCES file_roots (id) ON DELETE CASCADE,
    directory   BLOB    NOT NULL,               -- relative to the root
    entries     BLOB    NOT NULL,
    PRIMARY KEY (root, directory)
) STRICT, WITHOUT ROWID;

-- Every build. A running one whose lease is dead was aborted.
CREATE TABLE builds (
    id          TEXT    NOT NULL PRIMARY KEY,
    lease       TEXT    NOT NULL,
    status      TEXT    NOT NULL,               -- 'running', 'succeeded', 'failed', 'cancelled'
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    arguments   TEXT    NOT NULL,               -- JSON array: the command line, secrets left out
    context     TEXT    NOT NULL,
    dockerfile  TEXT    NOT NULL,
    target      TEXT,
    image       TEXT,                           -- id of what it made; the image may be gone
    error       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX builds_by_start ON builds (started_at);
CREATE TABLE build_vertices (
    build       TEXT    NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,               -- 'cached', 'done', 'failed', 'cancelled'
    key         TEXT,
    result      INTEGER,                        -- the result may be gone
    started_at  INTEGER,
    duration    INTEGER,
    detail      TEXT    NOT NULL,               -- JSON object: inputs, why it missed, error
    PRIMARY KEY (build, position)
) STRICT, WITHOUT ROWID;
