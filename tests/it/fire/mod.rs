//! Under fire: named faults in the middle of the work, and zombies. The program ends or goes on; a clean run finishes alone; the
//! tables equal what Kafka's own console consumer gives.

mod budget;
mod field;
mod healthy;
mod sweep;
mod zombies;
