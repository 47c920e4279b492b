//! The store in Kafka itself: results in topics, offsets in a consumer group, both in one transaction of Kafka.
//!
//! The row that a database locks is here the transactional id, which is the application's name: of all its producers only the one
//! that took it over last can commit. Epoch, batch number and owner lie beside the offsets (`held`), and move with them. There are
//! no tables, no ledger and no state.
//!
//! **A session** takes the transactional id over (`init_transactions`) and then reads the group's offsets, waiting for those that
//! a transaction still holds (`require_stable`). From then on nobody but this session can change them without fencing it first,
//! so what it read is what is stored. They are read again at the start of each batch all the same: an operator's tools ask
//! nobody.
//!
//! **When something fails** between the start of a transaction and the answer to its commit, the session is put away, and a new one
//! takes the transactional id over. For what the broker had of the transaction:
//!
//! * nothing, or records, or records and offsets, but no request to end it: the take-over aborts it. The offsets are the old
//!   ones, the batch number as well: not committed;
//! * the request to commit, on its way: it comes before the take-over, and is one of the cases below; or after it, and is refused,
//!   for its producer epoch is an old one;
//! * the decision to commit, and its answer was lost: the take-over waits until the markers are written. The stable read waits
//!   for those of the group's offsets. The batch number is the new one: committed;
//! * the decision to commit, and the broker died: the decision is in the transaction log, and whoever leads that next carries it
//!   out. As above;
//! * the transaction ran into `transaction.timeout.ms` and was aborted by the broker, under a higher producer epoch: as the first case.
//!
//! After the death of the process the next one does the same at its start, and goes on from the offsets that it reads.
//!
//! **Two processes** of one application: the one that starts last has it, as with every transactional id, for nobody can tell whether
//! the other one lives. The other one learns of it at its next commit, which is refused, or from the row that it reads once a second,
//! and ends. Should it try to settle a doubt between the two steps of the new one's take-over, it may win once more; the new one then
//! fails in its second step, and ends. At no time can both commit.

mod held;
mod session;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    held::{Held, Row},
    session::Session,
};
use super::{
    identity,
    protocol::{Grounds, Judged, Look, Mark, Ownership, Session as OwnerSession, Term},
    settings::{StoreSettings, StoredPosition, TableShape},
    store::{Blockable, Kept, Store},
    waiting::{on_a_thread, with_session},
};
use crate::{
    clock::Clock,
    error::{Error, Result},
    kafka::KafkaProperties,
    types::{BatchCommit, BatchTime},
};

/// How often all positions are written again, also those that do not move: the broker forgets an offset that was not committed for
/// `offsets.retention.minutes`, a week by default.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);

/// Consumer group and topics as a [`Store`].
pub(super) struct KafkaStore {
    settings: StoreSettings,
    properties: KafkaProperties,
    group: String,
    clock: Arc<dyn Clock>,
    session: Option<Session>,
    /// What the open transaction will make of what is held.
    draft: Option<Draft>,
    /// The row of a take-over that found no offset to lie beside.
    unwritten: Option<Row>,
    /// When all positions were last written, in monotonic time.
    refreshed: Duration,
    owner: String,
}

struct Draft {
    held: Held,
    /// Whether all positions are written.
    whole: bool,
}

/// What a batch or a job wants of Kafka that only a database has.
fn no_tables() -> Error {
    Error::config(
        "a kafka: store keeps offsets beside what save_to_kafka writes, and nothing else: tables, SQL, state and dead letters need a \
         postgres: or sqlite: store",
    )
}

impl KafkaStore {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the settings have tables or want to stand by.
    pub(super) fn new(settings: &StoreSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        if !settings.tables.is_empty() {
            return Err(no_tables());
        }
        if settings.ownership == Ownership::Standby {
            return Err(Error::config(
                "a process cannot stand by with a kafka: store: nobody can tell whether the owner lives, so the process that \
                 starts last has the application",
            ));
        }
        let properties = settings.kafka.clone();
        let properties = properties.ok_or_else(|| Error::internal("a kafka: store without a cluster"))?;
        let group = settings.url.kafka_group().filter(|group| !group.is_empty());
        Ok(Self {
            group: group.unwrap_or(&settings.application).to_owned(),
            settings: settings.clone(),
            properties,
            clock,
            session: None,
            draft: None,
            unwritten: None,
            refreshed: Duration::ZERO,
            owner: String::from("host=? process_id=?"),
        })
    }

    /// Works with the brokers, on a thread that may wait. A panic of that thread is one of this task; the session is gone then.
    async fn on_session<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        with_session(&mut self.session, work).await
    }

    /// What is held, once no transaction has a part in it. The row of a take-over that could not be written yet stands in for one
    /// that is not there.
    async fn stable(&mut self) -> Result<Held> {
        let mut held = self.on_session(|session| session.read(true)).await?;
        match &held.row {
            Some(_) => self.unwritten = None,
            None => held.row.clone_from(&self.unwritten),
        }
        Ok(held)
    }

    /// Makes this session's producer the only one that can commit; what is held from then on.
    async fn fence(&mut self) -> Result<Held> {
        self.on_session(|session| session.take_over()).await?;
        self.stable().await
    }

    /// Writes the row beside all positions, in a transaction of its own.
    async fn write_row(&mut self, held: Held, row: Row) -> Result<()> {
        if held.positions.is_empty() {
            self.unwritten = Some(row);
            return Ok(());
        }
        self.on_session(move |session| {
            let positions: Vec<_> = held.positions.into_values().collect();
            session.begin()?;
            session.send_offsets(&positions, &row)?;
            session.commit()
        })
        .await?;
        self.refreshed = self.clock.monotonic();
        Ok(())
    }

    fn draft(&self) -> Result<&Draft> {
        self.draft.as_ref().ok_or_else(no_transaction)
    }

    fn is_refresh_due(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.refreshed) >= REFRESH_EVERY
    }

    /// Adds moved positions to the transaction, with the row as it will be.
    async fn put(&mut self, moved: Vec<StoredPosition>, change: impl FnOnce(&mut Row)) -> Result<()> {
        let due = self.is_refresh_due();
        let Draft { held: draft, whole } = self.draft.as_mut().ok_or_else(no_transaction)?;
        draft.put(&moved);
        if draft.positions.is_empty() {
            return Err(Error::config(
                "a kafka: store needs a topic that is read: the batch number lies beside its offsets",
            ));
        }
        // Where nothing moves, the row still has to be written.
        *whole = due || moved.is_empty() || moved.len() == draft.positions.len();
        let row = draft.row.as_mut().ok_or_else(|| Error::internal("a commit without an application"))?;
        row.positions = draft.positions.len() as u64;
        change(row);
        let row = row.clone();
        let positions = if *whole { draft.positions.values().cloned().collect() } else { moved };
        self.on_session(move |session| session.send_offsets(&positions, &row)).await
    }
}

fn no_transaction() -> Error {
    Error::internal("no transaction is open")
}

fn term_of(row: &Row) -> Term {
    Term { epoch: row.epoch, batch_seq: row.batch_seq }
}

#[async_trait]
impl Store for KafkaStore {
    async fn connect(&mut self) -> Result<Option<Mark>> {
        let (properties, application) = (self.properties.clone(), self.settings.application.clone());
        let group = self.group.clone();
        self.session = Some(on_a_thread(move || Session::open(&properties, &application, group)).await??);
        Ok(None)
    }

    async fn disconnect(&mut self) {
        self.draft = None;
        // What its producer still has to send is thrown away with it, which takes a moment.
        if let Some(session) = self.session.take() {
            let _ = on_a_thread(move || drop(session)).await;
        }
    }

    async fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn tables(&self) -> Vec<TableShape> {
        Vec::new()
    }

    async fn look(&mut self) -> Result<Look> {
        // Also while a transaction is open: that of a process that is dead would be waited for until it times out.
        let held = self.on_session(|session| session.read(false)).await?;
        let row = held.row.unwrap_or_default();
        self.owner = format!("host={} process_id={}", row.host, row.process_id);
        Ok(Look {
            judged: Judged { epoch: row.epoch, owner: row.owner_id()?, seen_at: None },
            // Nobody can tell, and whoever takes the transactional id over last has it.
            session: OwnerSession::Gone,
            stale: false,
            hasty_takeovers: 0,
        })
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    async fn take_over(&mut self, judged: Judged, _grounds: Grounds) -> Result<Blockable<Option<Term>>> {
        let held = self.fence().await?;
        let old = held.row.clone().unwrap_or_default();
        if (old.epoch, old.owner_id()?) != (judged.epoch, judged.owner) && !old.is_owned(self.settings.owner) {
            return Ok(Blockable::Done(None));
        }
        let first = old.epoch == 0;
        let row = Row {
            epoch: old.epoch + 1,
            owner: Some(self.settings.owner.to_string()),
            host: identity::host(),
            process_id: identity::process_id(),
            zero_time_ms: if first { self.settings.zero_time_ms } else { old.zero_time_ms },
            interval_ms: identity::interval_ms(&self.settings),
            positions: held.positions.len() as u64,
            ..old
        };
        let term = term_of(&row);
        self.write_row(held, row).await?;
        Ok(Blockable::Done(Some(term)))
    }

    async fn settle(&mut self) -> Result<Blockable<Option<Term>>> {
        // First without fencing anybody: whoever has the application now is not to be disturbed by one who has lost it.
        let seen = self.on_session(|session| session.read(false)).await?;
        let row = seen.row.as_ref().or(self.unwritten.as_ref());
        if !row.is_some_and(|row| row.is_owned(self.settings.owner)) {
            return Ok(Blockable::Done(None));
        }
        // The producer epoch that it raises is what fences; the row's stays.
        let held = self.fence().await?;
        let row = held.row.filter(|row| row.is_owned(self.settings.owner));
        Ok(Blockable::Done(row.as_ref().map(term_of)))
    }

    async fn beat(&mut self, term: Term) -> Result<bool> {
        let held = self.stable().await?;
        let me = self.settings.owner;
        let Some(row) = held.row.clone().filter(|row| row.is_owned(me) && row.epoch == term.epoch) else {
            return Ok(false);
        };
        if self.is_refresh_due() {
            self.write_row(held, row).await?;
        }
        Ok(true)
    }

    async fn release(&mut self, term: Term) -> Result<()> {
        let held = self.stable().await?;
        let me = self.settings.owner;
        if let Some(row) = held.row.clone().filter(|row| row.is_owned(me) && row.epoch == term.epoch) {
            self.write_row(held, Row { owner: None, ..row }).await?;
        }
        Ok(())
    }

    async fn kept(&mut self) -> Result<Kept> {
        let held = self.stable().await?;
        let row = held.row.unwrap_or_default();
        Ok(Kept {
            last_batch_time: row.batch_time_ms.map(BatchTime::from_ms),
            last_batch_epoch: row.batch_epoch,
            zero_time_ms: row.zero_time_ms,
            positions: held.positions.into_values().collect(),
        })
    }

    async fn begin(&mut self) -> Result<()> {
        let held = self.stable().await?;
        self.on_session(|session| session.begin()).await?;
        self.draft = Some(Draft { held, whole: false });
        Ok(())
    }

    async fn lock(&mut self, term: Term) -> Result<bool> {
        let Draft { held, .. } = self.draft()?;
        // What really locks is the transactional id. This is for whoever lost it, or whose row an operator wrote over.
        Ok(held.row.as_ref().is_some_and(|row| row.is_owned(self.settings.owner) && term_of(row) == term))
    }

    async fn write(&mut self, batch: &mut BatchCommit) -> Result<()> {
        let rows = batch.tables.iter().any(|table| !table.chunks.is_empty());
        let kept = !batch.user_code.is_empty() || !batch.state.is_empty() || !batch.dead_letters.is_empty();
        if rows || kept || batch.isolating.is_some() {
            return Err(no_tables());
        }
        for lost in &batch.lost_ranges {
            // There is no table to keep it in.
            tracing::warn!(
                topic = %lost.topic_partition.topic,
                partition = lost.topic_partition.partition,
                from_offset = lost.from_offset.get(),
                until_offset = lost.until_offset.map(i64::from),
                reason = %lost.reason,
                "a lost range is skipped"
            );
        }
        // The batch may have to be written again: it gets its records back.
        let records = std::mem::take(&mut batch.records);
        let sent = self.on_session(move |session| {
            let sent = session.send(&records);
            Ok((records, sent))
        });
        let (records, sent) = sent.await?;
        batch.records = records;
        sent
    }

    async fn move_offsets(&mut self, batch: &BatchCommit) -> Result<bool> {
        Ok(self.draft()?.held.moved(&batch.ranges).is_some())
    }

    async fn advance(&mut self, term: Term, batch: &BatchCommit) -> Result<bool> {
        let moved =
            self.draft()?.held.moved(&batch.ranges).ok_or_else(|| Error::internal("the offsets were not compared"))?;
        let (batch_seq, batch_time_ms) = (batch.batch_seq, batch.batch_time.as_ms());
        self.put(moved, |row| {
            row.batch_seq = batch_seq;
            row.batch_time_ms = Some(batch_time_ms);
            row.batch_epoch = Some(term.epoch);
        })
        .await?;
        Ok(true)
    }

    async fn first_positions(&mut self, positions: &[StoredPosition]) -> Result<bool> {
        let Some(first) = self.draft()?.held.first(positions) else { return Ok(false) };
        self.put(first, |_| {}).await?;
        Ok(true)
    }

    async fn commit(&mut self) -> Result<()> {
        let draft = self.draft.take().ok_or_else(no_transaction)?;
        self.on_session(|session| session.commit()).await?;
        if draft.whole {
            self.refreshed = self.clock.monotonic();
        }
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        self.draft = None;
        self.on_session(|session| session.abort()).await
    }
}
