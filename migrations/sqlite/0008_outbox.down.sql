DROP TABLE directstream_outbox;
