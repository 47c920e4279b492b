-- Records on their way into Kafka: written with the batch that they come from, and taken away once Kafka has acknowledged them.
CREATE TABLE directstream.outbox (
    application  text    NOT NULL REFERENCES directstream.applications (application),
    batch_seq    bigint  NOT NULL,
    -- Its number within the batch, from 0.
    record       bigint  NOT NULL,
    topic        text    NOT NULL,
    -- Null: the key decides.
    partition    integer,
    key          bytea,
    value        bytea,
    -- A JSON array of [name, base64 or null].
    headers      text    NOT NULL,
    -- Milliseconds since 1970-01-01 UTC; null: the time of sending.
    timestamp_ms bigint,
    -- Of key, value and headers.
    bytes        bigint  NOT NULL,
    PRIMARY KEY (application, batch_seq, record)
);
