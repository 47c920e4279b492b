//! What only PostgreSQL can do to us.
