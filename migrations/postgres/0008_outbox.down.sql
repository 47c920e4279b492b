DROP TABLE directstream.outbox;
