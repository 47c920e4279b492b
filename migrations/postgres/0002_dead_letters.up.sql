-- Records that were refused, whole. The number names one of them on the command line.
CREATE TABLE directstream.dead_letters (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application text        NOT NULL REFERENCES directstream.applications (application),
    batch_seq   bigint      NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    stage       text        NOT NULL CHECK (stage IN ('decode', 'convert', 'write')),
    reason      text        NOT NULL,
    output      text,
    key         bytea,
    value       bytea,
    -- A JSON array of [name, base64 or null].
    headers     json        NOT NULL,
    timestamp   timestamptz,
    refused_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_by_partition ON directstream.dead_letters (application, topic, partition, "offset");
