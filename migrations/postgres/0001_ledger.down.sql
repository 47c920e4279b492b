DROP TABLE directstream.lost_ranges;
DROP TABLE directstream.batch_ranges;
DROP TABLE directstream.offsets;
DROP TABLE directstream.takeovers;
ALTER TABLE directstream.applications DROP CONSTRAINT applications_open_seq_fkey;
DROP TABLE directstream.batches;
DROP TABLE directstream.applications;
