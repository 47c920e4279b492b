-- Records on their way into Kafka: written with the batch that they come from, and taken away once Kafka has acknowledged them.
CREATE TABLE directstream_outbox (
    application  TEXT    NOT NULL REFERENCES directstream_applications (application),
    batch_seq    INTEGER NOT NULL,
    -- Its number within the batch, from 0.
    record       INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    -- Null: the key decides.
    partition    INTEGER,
    key          BLOB,
    value        BLOB,
    -- A JSON array of [name, base64 or null].
    headers      TEXT    NOT NULL,
    -- Milliseconds since 1970-01-01 UTC; null: the time of sending.
    timestamp_ms INTEGER,
    -- Of key, value and headers.
    bytes        INTEGER NOT NULL,
    PRIMARY KEY (application, batch_seq, record)
);
