DROP TABLE directstream.moved_offsets;
