DROP TABLE directstream_state;
