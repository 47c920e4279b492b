-- Records that were refused, whole. The number names one of them on the command line.
CREATE TABLE directstream_dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq   INTEGER NOT NULL,
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    stage       TEXT    NOT NULL CHECK (stage IN ('decode', 'convert', 'write')),
    reason      TEXT    NOT NULL,
    output      TEXT,
    key         BLOB,
    value       BLOB,
    -- A JSON array of [name, base64 or null].
    headers     TEXT    NOT NULL,
    timestamp   TEXT,
    refused_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX directstream_dead_letters_by_partition
    ON directstream_dead_letters (application, topic, partition, "offset");
