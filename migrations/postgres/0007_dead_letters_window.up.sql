-- Records that came into no window over event time.
ALTER TABLE directstream.dead_letters DROP CONSTRAINT dead_letters_stage_check;
ALTER TABLE directstream.dead_letters
    ADD CONSTRAINT dead_letters_stage_check CHECK (stage IN ('decode', 'convert', 'write', 'window'));
