//! The integration tests: one binary, so that all tests share one Kafka and one PostgreSQL.
