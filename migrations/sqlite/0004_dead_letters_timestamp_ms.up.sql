-- Kafka's own number, also where it is no time on any calendar: without it a replay would take the record for one that has no
-- timestamp.
ALTER TABLE directstream_dead_letters ADD COLUMN timestamp_ms INTEGER;
