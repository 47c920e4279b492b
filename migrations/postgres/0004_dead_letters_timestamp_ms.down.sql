ALTER TABLE directstream.dead_letters DROP COLUMN timestamp_ms;
