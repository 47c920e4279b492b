//! Metrics, lag, logs and events: copies for others to look at.
