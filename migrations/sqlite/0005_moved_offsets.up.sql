-- Offsets that an operator moved, a row per partition, written in the transaction that moved them. The ledger's chain goes on
-- from there.
CREATE TABLE directstream_moved_offsets (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    application  TEXT    NOT NULL REFERENCES directstream_applications (application),
    -- The last batch that was committed before.
    batch_seq    INTEGER NOT NULL,
    -- The epoch that the move began: no batch of an older one commits after it.
    epoch        INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    -- NULL: the partition had no offset yet.
    from_offset  INTEGER,
    until_offset INTEGER NOT NULL CHECK (until_offset >= 0),
    topic_id     TEXT,
    -- The words of the command line, such as --to-earliest.
    scenario     TEXT    NOT NULL,
    -- Rows of the output tables that went with it; NULL: rows were left as they are.
    rows_deleted INTEGER,
    host         TEXT    NOT NULL,
    process_id   INTEGER NOT NULL,
    build        TEXT    NOT NULL,
    moved_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX directstream_moved_offsets_by_batch ON directstream_moved_offsets (application, batch_seq);
