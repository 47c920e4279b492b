-- One row per application: who owns it, and how far it has come.
CREATE TABLE directstream_applications (
    application     TEXT    NOT NULL PRIMARY KEY,
    epoch           INTEGER NOT NULL DEFAULT 0,
    owner           TEXT,
    batch_seq       INTEGER NOT NULL DEFAULT 0,
    -- While user code runs in a batch's transaction: that batch. The ledger row comes last, so a COMMIT by user code fails.
    open_seq        INTEGER,
    last_batch_time TEXT,
    host            TEXT,
    process_id      INTEGER,
    seen_at         TEXT,
    cluster_id      TEXT,
    fingerprint     TEXT,
    zero_time       TEXT,
    interval_ms     INTEGER,
    build           TEXT,
    created_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    FOREIGN KEY (application, open_seq) REFERENCES directstream_batches (application, batch_seq)
        DEFERRABLE INITIALLY DEFERRED
);

-- Who took an application over, when, and on what grounds.
CREATE TABLE directstream_takeovers (
    application TEXT    NOT NULL REFERENCES directstream_applications (application),
    epoch       INTEGER NOT NULL,
    owner       TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    process_id  INTEGER NOT NULL,
    grounds     TEXT    NOT NULL,
    taken_at    TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (application, epoch)
) WITHOUT ROWID;

-- The committed position of each partition: the next offset to read.
CREATE TABLE directstream_offsets (
    application  TEXT    NOT NULL REFERENCES directstream_applications (application),
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    until_offset INTEGER NOT NULL CHECK (until_offset >= 0),
    topic_id     TEXT,
    leader_epoch INTEGER,
    PRIMARY KEY (application, topic, partition)
) WITHOUT ROWID;

-- The ledger: every committed batch.
CREATE TABLE directstream_batches (
    application           TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq             INTEGER NOT NULL,
    batch_time            TEXT    NOT NULL,
    epoch                 INTEGER NOT NULL,
    records               INTEGER NOT NULL,
    gaps                  INTEGER NOT NULL,
    bytes                 INTEGER NOT NULL,
    rows                  INTEGER NOT NULL,
    dead_letters          INTEGER NOT NULL,
    lost_ranges           INTEGER NOT NULL,
    processing_started_at TEXT    NOT NULL,
    committed_at          TEXT    NOT NULL,
    build                 TEXT    NOT NULL,
    PRIMARY KEY (application, batch_seq)
) WITHOUT ROWID;

-- The ranges of each batch that are not empty.
CREATE TABLE directstream_batch_ranges (
    application  TEXT    NOT NULL,
    batch_seq    INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    from_offset  INTEGER NOT NULL,
    until_offset INTEGER NOT NULL CHECK (until_offset > from_offset),
    records      INTEGER NOT NULL,
    gaps         INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- xxh3 over offset, key, value and headers of the records, in offset order.
    checksum     INTEGER NOT NULL,
    topic_id     TEXT,
    leader_epoch INTEGER,
    PRIMARY KEY (application, batch_seq, topic, partition),
    FOREIGN KEY (application, batch_seq) REFERENCES directstream_batches (application, batch_seq) ON DELETE CASCADE
) WITHOUT ROWID;

-- Offsets that Kafka no longer had and that were skipped.
CREATE TABLE directstream_lost_ranges (
    id           INTEGER PRIMARY KEY,
    application  TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq    INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    from_offset  INTEGER NOT NULL,
    -- NULL: it is not known how much was lost.
    until_offset INTEGER,
    reason       TEXT    NOT NULL CHECK (reason IN ('retention', 'topic_recreated', 'truncated')),
    topic_id     TEXT
);
CREATE INDEX directstream_lost_ranges_by_partition
    ON directstream_lost_ranges (application, topic, partition, from_offset);
