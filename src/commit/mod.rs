//! Results and offsets into the store, atomically: the last stage that decides anything.
//!
//! [`Committer`] owns one connection to the user's database. Each batch's rows, dead letters, ledger entry and offsets
//! commit in one transaction or not at all (I1), offsets by compare-and-swap on what is stored (I2, I3, I4). A lost
//! answer is settled by reading the store under the application's lock, never by guessing. Another process that takes the
//! application over fences this one: it ends (I5, I7). The invariants are listed in `docs/invariants.md`.
//!
//! * [`protocol`]: what to do next, as a pure function;
//! * `shell`: does it, one command after the other;
//! * `committer`: the task that the shell runs on, and the driver's handle to it;
//! * `statements`: what user code's SQL may not say; `user_code`: how long it may take;
//! * `store`: what a store has to do; `postgres`, `sqlite`, `checkpoint` and `kafka` do it;
//! * `isolate`: which records of a refused batch the database does not take;
//! * `migrate` and `schema`: the store's own tables; `inspect`: reading them from outside; `kept_letters`: dead letters beside
//!   the ledger; `letters`: dead letters listed, replayed, discarded from outside;
//! * `moves`: offsets moved from outside;
//! * `outbox`: records for Kafka out of a database;
//! * `state`: the stored state of state operators, for a start;
//! * `comparison`: the output tables beside what the records make of them;
//! * `counts`: how often the store failed and was connected to again;
//! * `waiting`: work that waits, on a thread that may;
//! * `settings`: what goes in and comes out; `identity`, `outputs`, `ledger`: what the stores check and write alike;
//! * `owner_file`: how an owner is known to be alive where the store is a file or a folder.

mod checkpoint;
mod committer;
mod comparison;
mod counts;
mod identity;
mod inspect;
mod isolate;
mod kafka;
mod kept_letters;
mod ledger;
mod letters;
mod link;
mod migrate;
mod moves;
mod outbox;
mod outputs;
mod owner_file;
mod postgres;
pub mod protocol;
mod schema;
mod settings;
mod shell;
mod sqlite;
mod state;
mod statements;
mod store;
mod user_code;
mod waiting;

pub use committer::Committer;
pub use comparison::{Comparison, RowDamage, RowDifference};
pub use counts::StoreCounts;
pub use inspect::{ApplicationInfo, Inspector, LedgerBatch, LedgerLoss, LedgerRange};
pub use kept_letters::{LedgerLetter, LetterContent, LetterFate};
pub use letters::{LetterInfo, LetterRows, LetterSelection, Letters, Replayed, StoredLetter};
pub use moves::{LedgerMove, MoveRequest, Moved, OffsetMove, OffsetMover, TracedTable};
pub use outbox::OutboxState;
pub use protocol::Ownership;
pub use schema::{MigrationStatus, migrate_down, migrate_up, migration_status};
pub use settings::{Commit, CommitOutcome, Recovered, StoreHealth, StoreSettings, StoredPosition, TableShape};

pub use crate::config::{Migrate, StoreKind, StoreUrl};
use schema::schema_of;
