ALTER TABLE directstream_dead_letters DROP COLUMN timestamp_ms;
