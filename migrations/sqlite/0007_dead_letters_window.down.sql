-- The program before knows no such step: the letters stay, their reason tells the rest.
-- SQLite changes no CHECK: the table is made anew.
CREATE TABLE directstream_dead_letters_anew (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    application  TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq    INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    stage        TEXT    NOT NULL CHECK (stage IN ('decode', 'convert', 'write')),
    reason       TEXT    NOT NULL,
    output       TEXT,
    key          BLOB,
    value        BLOB,
    -- A JSON array of [name, base64 or null].
    headers      TEXT    NOT NULL,
    timestamp    TEXT,
    refused_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    timestamp_ms INTEGER
);
INSERT INTO directstream_dead_letters_anew
    SELECT id, application, batch_seq, topic, partition, "offset", CASE stage WHEN 'window' THEN 'convert' ELSE stage END, reason, output, key, value, headers,
           timestamp, refused_at, timestamp_ms
    FROM directstream_dead_letters;
-- A number names one letter for ever, also one that is gone.
DELETE FROM sqlite_sequence WHERE name = 'directstream_dead_letters_anew';
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'directstream_dead_letters_anew', seq FROM sqlite_sequence WHERE name = 'directstream_dead_letters';
DROP TABLE directstream_dead_letters;
ALTER TABLE directstream_dead_letters_anew RENAME TO directstream_dead_letters;
CREATE INDEX directstream_dead_letters_by_partition
    ON directstream_dead_letters (application, topic, partition, "offset");
