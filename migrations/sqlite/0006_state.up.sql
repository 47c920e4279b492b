-- The state of update_state_by_key and map_with_state: for each partition of an operator a base, and what each batch after it
-- changed.
CREATE TABLE directstream_state (
    application TEXT    NOT NULL REFERENCES directstream_applications (application),
    operator    INTEGER NOT NULL,
    partition   INTEGER NOT NULL,
    batch_seq   INTEGER NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('base', 'delta')),
    keys        INTEGER NOT NULL,
    -- Format version, checksum and entries.
    data        BLOB    NOT NULL,
    PRIMARY KEY (application, operator, partition, batch_seq)
);
