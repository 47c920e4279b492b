//! The user's operations.
