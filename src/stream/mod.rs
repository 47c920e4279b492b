//! The driver: the only place that knows all five stages.
