//! What the next batch reads, and what batches before it taught.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    driver::{BATCH_SHARE, Driver},
    sources::AllAnswers,
};
use crate::{
    error::{Result, Stage},
    plan::{BatchSpeed, Limits, Plan, Position, RateController, Rates, Review, Tracked, plan_batch},
    report::{InputInfo, PartitionPosition},
    types::{BatchInfo, LostRange, OffsetRange, TopicPartition},
};

/// What a record costs beside its bytes: as rows that wait for the commit, and as messages that are kept.
const STREAMED_RECORD_BYTES: u64 = 64;
const KEPT_RECORD_BYTES: u64 = 512;
impl Driver {
    pub(super) fn plan(&mut self, answers: &AllAnswers) -> Result<(Plan, Vec<LostRange>)> {
        let tracked: Vec<Tracked> =
            self.places.iter().map(|(topic_partition, place)| place.tracked(topic_partition)).collect();
        let Review { positions, joined, mut lost_ranges, problems } = self.sources.review(&tracked, answers)?;
        for topic_partition in joined {
            tracing::info!(topic = %topic_partition.topic, partition = topic_partition.partition, "a partition joins");
        }
        for position in &positions {
            let known = self.sources.of(&position.topic_partition).and_then(|source| source.bytes_per_offset());
            if let Some(bytes) = known {
                self.record_size.set(&position.topic_partition, bytes);
            }
        }
        let rates = Rates {
            max_rate_per_partition: self.stream.max_rate_per_partition.map(float),
            min_rate_per_partition: self.stream.min_rate_per_partition,
            total_rate: self.total_rate(),
            max_rate_of: self.max_rates(&positions),
        };
        let limits = Limits {
            batch_interval: self.stream.batch_interval,
            rates: &rates,
            memory_bytes: Some(self.stream.memory_max / BATCH_SHARE),
            record_size: &self.record_size,
            stop_at: self.stop_at.as_ref(),
        };
        let plan = plan_batch(&positions, &answers.latest(), &limits);
        // A loss is committed together with the move over it, or not yet.
        let moves =
            |lost: &LostRange| plan.ranges.iter().any(|p| p.range.topic_partition == lost.topic_partition && p.moves());
        lost_ranges.retain(moves);
        let now = self.clock.monotonic();
        self.silence.note(problems.iter().chain(&plan.problems), now);
        self.reporter.kafka_silent(self.silence.longest(now).map_or(Duration::ZERO, |(_, lasted)| lasted));
        let silent = self.silence.check(now, self.stream.unavailable_max);
        silent.map_err(|error| self.sources.why_silent(error).at(Stage::Plan))?;
        for planned in plan.ranges.iter().filter(|planned| planned.expected_topic_id == planned.topic_id) {
            // The end of a topic that was created again says nothing about how far the one before it reached.
            if let Some(place) = self.places.get_mut(&planned.range.topic_partition) {
                place.latest = Some(planned.latest);
            }
        }
        Ok((plan, lost_ranges))
    }

    /// The limit that backpressure sets for the next batch, in records a second.
    pub(super) fn total_rate(&self) -> Option<f64> {
        self.rate_controller.as_ref().and_then(RateController::rate).map(float)
    }

    /// A committed batch tells how fast the job is.
    pub(super) fn learn(&mut self, speed: &BatchSpeed) {
        let Some(controller) = &mut self.rate_controller else { return };
        if let Some(records_per_second) = controller.on_batch_completed(speed) {
            let BatchSpeed { records, processing_delay, scheduling_delay, .. } = speed;
            tracing::debug!(records_per_second, records, ?processing_delay, ?scheduling_delay, "the rate limit is set");
            self.reporter.rate_limit(self.total_rate());
        }
    }

    pub(super) fn report_positions(&self, answers: &AllAnswers) {
        let going_on = self.places.iter().filter(|(known, place)| !answers.is_over(known, place.committed));
        let positions = going_on.map(|(topic_partition, place)| PartitionPosition {
            topic_partition: topic_partition.clone(),
            committed: place.committed,
            latest: place.latest,
            earliest: answers.earliest(topic_partition),
        });
        self.reporter.positions(positions.collect());
    }

    /// The next plan knows the size of records better.
    pub(super) fn observe(&mut self, topic_partition: &TopicPartition, records: u64, bytes: u64) {
        let overhead = if self.workshop.keep_chunks { KEPT_RECORD_BYTES } else { STREAMED_RECORD_BYTES };
        self.record_size.observe(topic_partition, records, bytes + records * overhead);
    }

    /// The rates of streams that have their own.
    fn max_rates(&self, positions: &[Position]) -> HashMap<TopicPartition, f64> {
        let own = |known: &TopicPartition| self.sources.of(known)?.max_rate_per_partition().map(float);
        let rates = positions.iter().filter_map(|position| {
            let topic_partition = &position.topic_partition;
            Some((topic_partition.clone(), own(topic_partition)?))
        });
        rates.collect()
    }

    /// What each stream gives to a batch.
    pub(super) fn inputs(&self, ranges: &Arc<[OffsetRange]>) -> Vec<InputInfo> {
        let of = |(stream_id, ranges)| InputInfo { stream_id, ranges, records: None };
        self.sources.split(ranges).into_iter().enumerate().map(of).collect()
    }

    /// Has committed to consumer groups what the program asked for, as far as the store has it.
    pub(super) fn commit_to_groups(&self) {
        let stored = |known: &TopicPartition, offset| {
            self.places.get(known).is_some_and(|place| place.committed.is_some_and(|committed| offset <= committed))
        };
        for (number, queue) in self.workshop.commits.iter().enumerate() {
            self.sources.commit_to_group(number, queue.take(stored));
        }
    }

    /// Sources that keep a log of their own need no record of a batch once it is committed, and no window would have to see
    /// it again after a restart.
    pub(super) fn retire(&mut self, batch: BatchInfo) {
        let looked_back_on = self.workshop.looks_back_ms();
        let after = batch.batch_time.as_ms().saturating_sub(looked_back_on);
        self.retired.push_back(batch);
        while let Some(oldest) = self.retired.pop_front_if(|batch| batch.batch_time.as_ms() <= after) {
            self.sources.forget(&oldest.ranges);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate above 2^53 a second is no limit anyway")]
fn float(rate: u64) -> f64 {
    rate as f64
}
