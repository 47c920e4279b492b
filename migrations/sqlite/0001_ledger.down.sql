DROP TABLE directstream_lost_ranges;
DROP TABLE directstream_batch_ranges;
DROP TABLE directstream_offsets;
DROP TABLE directstream_takeovers;
DROP TABLE directstream_batches;
DROP TABLE directstream_applications;
