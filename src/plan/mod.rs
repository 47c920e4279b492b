//! What ranges are next.
