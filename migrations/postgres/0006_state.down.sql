DROP TABLE directstream.state;
