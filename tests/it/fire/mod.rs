//! Under fire: named faults in the middle of the work, zombies, a promoted standby, and storms of faults of the program, its
//! connections and its servers. The program ends or goes on; a clean run finishes alone; the tables, or files, equal what Kafka's own
//! console consumer gives.

mod budget;
mod damaged;
mod event_time;
mod field;
mod files;
mod healthy;
mod inputs;
mod kafka_to_kafka;
mod outbox;
mod promotion;
mod restarts;
mod saved_files;
mod state;
mod storm;
mod sweep;
mod windows;
mod zombies;
