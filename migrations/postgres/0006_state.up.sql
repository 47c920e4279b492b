-- The state of update_state_by_key and map_with_state: for each partition of an operator a base, and what each batch after it
-- changed.
CREATE TABLE directstream.state (
    application text    NOT NULL REFERENCES directstream.applications (application),
    operator    integer NOT NULL,
    partition   integer NOT NULL,
    batch_seq   bigint  NOT NULL,
    kind        text    NOT NULL CHECK (kind IN ('base', 'delta')),
    keys        bigint  NOT NULL,
    -- Format version, checksum and entries.
    data        bytea   NOT NULL,
    PRIMARY KEY (application, operator, partition, batch_seq)
);
