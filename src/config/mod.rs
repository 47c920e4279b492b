//! Settings: plain data from the job file, the environment and flags.
