-- Offsets that an operator moved, a row per partition, written in the transaction that moved them. The ledger's chain goes on
-- from there.
CREATE TABLE directstream.moved_offsets (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application  text        NOT NULL REFERENCES directstream.applications (application),
    -- The last batch that was committed before.
    batch_seq    bigint      NOT NULL,
    -- The epoch that the move began: no batch of an older one commits after it.
    epoch        bigint      NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    -- NULL: the partition had no offset yet.
    from_offset  bigint,
    until_offset bigint      NOT NULL CHECK (until_offset >= 0),
    topic_id     text,
    -- The words of the command line, such as --to-earliest.
    scenario     text        NOT NULL,
    -- Rows of the output tables that went with it; NULL: rows were left as they are.
    rows_deleted bigint,
    host         text        NOT NULL,
    process_id   bigint      NOT NULL,
    build        text        NOT NULL,
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX moved_offsets_by_batch ON directstream.moved_offsets (application, batch_seq);
