-- One row per application: who owns it, and how far it has come.
CREATE TABLE directstream.applications (
    application       text        NOT NULL PRIMARY KEY,
    epoch             bigint      NOT NULL DEFAULT 0,
    owner             uuid,
    batch_seq         bigint      NOT NULL DEFAULT 0,
    -- While user code runs in a batch's transaction: that batch. The ledger row comes last, so a COMMIT by user code fails.
    open_seq          bigint,
    last_batch_time   timestamptz,
    host              text,
    process_id        bigint,
    backend_pid       integer,
    backend_start     timestamptz,
    seen_at           timestamptz,
    system_identifier bigint,
    timeline          bigint,
    cluster_id        text,
    fingerprint       text,
    zero_time         timestamptz,
    interval_ms       bigint,
    build             text,
    created_at        timestamptz NOT NULL DEFAULT now()
);

-- Who took an application over, when, and on what grounds.
CREATE TABLE directstream.takeovers (
    application text        NOT NULL REFERENCES directstream.applications (application),
    epoch       bigint      NOT NULL,
    owner       uuid        NOT NULL,
    host        text        NOT NULL,
    process_id  bigint      NOT NULL,
    grounds     text        NOT NULL,
    taken_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (application, epoch)
);

-- The committed position of each partition: the next offset to read.
CREATE TABLE directstream.offsets (
    application  text    NOT NULL REFERENCES directstream.applications (application),
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    until_offset bigint  NOT NULL CHECK (until_offset >= 0),
    topic_id     text,
    leader_epoch integer,
    PRIMARY KEY (application, topic, partition)
) WITH (fillfactor = 50); -- a new version of each row a batch: most find room on their page

-- The ledger: every committed batch.
CREATE TABLE directstream.batches (
    application           text        NOT NULL REFERENCES directstream.applications (application),
    batch_seq             bigint      NOT NULL,
    batch_time            timestamptz NOT NULL,
    epoch                 bigint      NOT NULL,
    records               bigint      NOT NULL,
    gaps                  bigint      NOT NULL,
    bytes                 bigint      NOT NULL,
    rows                  bigint      NOT NULL,
    dead_letters          bigint      NOT NULL,
    lost_ranges           bigint      NOT NULL,
    processing_started_at timestamptz NOT NULL,
    committed_at          timestamptz NOT NULL,
    build                 text        NOT NULL,
    PRIMARY KEY (application, batch_seq)
);
ALTER TABLE directstream.applications
    ADD CONSTRAINT applications_open_seq_fkey FOREIGN KEY (application, open_seq)
    REFERENCES directstream.batches (application, batch_seq) DEFERRABLE INITIALLY DEFERRED;

-- The ranges of each batch that are not empty.
CREATE TABLE directstream.batch_ranges (
    application  text    NOT NULL,
    batch_seq    bigint  NOT NULL,
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    from_offset  bigint  NOT NULL,
    until_offset bigint  NOT NULL CHECK (until_offset > from_offset),
    records      bigint  NOT NULL,
    gaps         bigint  NOT NULL,
    bytes        bigint  NOT NULL,
    -- xxh3 over offset, key, value and headers of the records, in offset order.
    checksum     bigint  NOT NULL,
    topic_id     text,
    leader_epoch integer,
    PRIMARY KEY (application, batch_seq, topic, partition),
    FOREIGN KEY (application, batch_seq) REFERENCES directstream.batches (application, batch_seq) ON DELETE CASCADE
);

-- Offsets that Kafka no longer had and that were skipped.
CREATE TABLE directstream.lost_ranges (
    id           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application  text    NOT NULL REFERENCES directstream.applications (application),
    batch_seq    bigint  NOT NULL,
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    from_offset  bigint  NOT NULL,
    -- NULL: it is not known how much was lost.
    until_offset bigint,
    reason       text    NOT NULL CHECK (reason IN ('retention', 'topic_recreated', 'truncated')),
    topic_id     text
);
CREATE INDEX lost_ranges_by_partition ON directstream.lost_ranges (application, topic, partition, from_offset);
