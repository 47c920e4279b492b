-- Dead letters that are none any more: replayed into the tables, or discarded. Written in the transaction that did it; the
-- key makes doing it twice impossible.
CREATE TABLE directstream_dead_letters_settled (
    letter      INTEGER NOT NULL PRIMARY KEY,
    application TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq   INTEGER NOT NULL,
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    stage       TEXT    NOT NULL,
    output      TEXT,
    outcome     TEXT    NOT NULL CHECK (outcome IN ('replayed', 'discarded')),
    build       TEXT    NOT NULL,
    settled_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX directstream_dead_letters_settled_by_partition
    ON directstream_dead_letters_settled (application, topic, partition, "offset");
