DROP TABLE directstream.dead_letters;
