DROP TABLE directstream.dead_letters_settled;
