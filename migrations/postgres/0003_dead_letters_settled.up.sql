-- Dead letters that are none any more: replayed into the tables, or discarded. Written in the transaction that did it; the
-- key makes doing it twice impossible.
CREATE TABLE directstream.dead_letters_settled (
    letter      bigint      NOT NULL PRIMARY KEY,
    application text        NOT NULL REFERENCES directstream.applications (application),
    batch_seq   bigint      NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    stage       text        NOT NULL,
    output      text,
    outcome     text        NOT NULL CHECK (outcome IN ('replayed', 'discarded')),
    build       text        NOT NULL,
    settled_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_settled_by_partition
    ON directstream.dead_letters_settled (application, topic, partition, "offset");
