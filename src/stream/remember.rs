//! What windows remember of batches that are committed: read from Kafka again at start, by the ledger's ranges.

use std::{collections::BTreeMap, sync::Arc};

use super::{batch::Workshop, context::Parts, work::on_own_thread};
use crate::{
    commit::{Inspector, LedgerBatch, Recovered},
    error::{Error, ErrorKind, Result, Stage},
    failpoint,
    read::ReadRanges,
    transform::BatchScope,
    types::{BatchInfo, OffsetRange, Task, TopicId},
};

/// Batches of the ledger that are read at a time.
const LEDGER_PAGE: u32 = 100;

impl Workshop {
    /// Lets windows see the batches that they would remember had this process run them. `topic_ids` are those of now: what a batch
    /// read of another topic of the same name is nowhere any more.
    ///
    /// # Errors
    /// [`OffsetsLost`](ErrorKind::OffsetsLost) or [`Corrupt`](ErrorKind::Corrupt) if Kafka no longer has their records, or has
    /// others: the windows cannot be told exactly. With `on_data_loss = "skip"` what is there is taken, and a warning says so.
    pub(super) async fn remember_past(
        self: &Arc<Self>,
        parts: &Parts,
        recovered: &Recovered,
        topic_ids: BTreeMap<Arc<str>, TopicId>,
    ) -> Result<()> {
        let Some(last) = recovered.last_batch_time.filter(|_| !self.histories.is_empty()) else { return Ok(()) };
        if failpoint::mutant("windows_begin_empty") {
            return Ok(());
        }
        let after = last.as_ms().saturating_sub(self.looks_back_ms());
        let mut inspector = Inspector::open(&parts.store.url, &parts.application).await?;
        let mut next = inspector.first_batch_after(after).await?;
        let mut remembered = 0;
        let topic_ids = Arc::new(topic_ids);
        while let Some(first) = next {
            let page = inspector.batches_from(first, LEDGER_PAGE).await?;
            next = page.last().map(|batch| batch.batch_seq + 1);
            remembered += page.len();
            for batch in page {
                let (workshop, topic_ids) = (Arc::clone(self), Arc::clone(&topic_ids));
                on_own_thread(move || workshop.remember_batch(&batch, &topic_ids)).await??;
                parts.reporter.progress();
            }
        }
        tracing::info!(batches = remembered, "windows remember the batches before this start");
        Ok(())
    }

    fn remember_batch(&self, batch: &LedgerBatch, topic_ids: &BTreeMap<Arc<str>, TopicId>) -> Result<()> {
        let ranges: Arc<[OffsetRange]> = batch.ranges.iter().map(|range| range.range.clone()).collect();
        self.sources.prepare(&ranges, &|_| None).map_err(|error| error.at(Stage::Read))?;
        let inputs = self.inputs(&(Arc::clone(&self.sources) as Arc<dyn ReadRanges>), &ranges);
        let task = Task::new(BatchInfo { batch_seq: batch.batch_seq, batch_time: batch.batch_time, ranges });
        let scope = BatchScope::on_grid(task.clone(), Arc::clone(&self.runner), inputs.for_scope(), self.zero_time_ms);
        let told = |error: Error| {
            let text = format!(
                "a window cannot be told exactly: a past batch cannot be read again batch_seq={}",
                batch.batch_seq
            );
            Error::new(error.kind(), text).caused_by(error)
        };
        let of_another_topic = batch.ranges.iter().filter(|then| !then.range.is_empty()).find(|then| {
            let now = topic_ids.get(&then.range.topic_partition.topic);
            now.zip(then.topic_id.as_ref()).is_some_and(|(now, then)| now != then)
        });
        let remembered = match of_another_topic {
            None => self.remember(&scope),
            Some(then) => {
                let text = "its topic is not the topic of that name any more";
                Err(Error::new(ErrorKind::OffsetsLost, text).in_range(then.range.clone()))
            }
        };
        match remembered {
            Err(error)
                if error.kind() == ErrorKind::OffsetsLost && self.sources.skips_losses(error.topic_partition()) =>
            {
                tracing::warn!("{}", told(error).chain());
                return Ok(());
            }
            remembered => remembered.map_err(told)?,
        }
        inputs.complete(&*self.runner, &task).map_err(told)?;
        let counts = inputs.counts();
        for then in &batch.ranges {
            let now = counts.get(&then.range.topic_partition).copied().unwrap_or_default();
            if (now.records, now.checksum) != (then.counts.records, then.counts.checksum) {
                let text = format!(
                    "Kafka's records are not those of the ledger records={} now={}",
                    then.counts.records, now.records
                );
                let error = told(Error::corrupt(text).in_range(then.range.clone()));
                if !self.sources.skips_losses(Some(&then.range.topic_partition)) {
                    return Err(error);
                }
                tracing::warn!("{}", error.chain());
            }
        }
        Ok(())
    }
}
