DROP TABLE directstream_dead_letters;
