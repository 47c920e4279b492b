//! Exactly the records of the planned ranges.
