//! Reading ranges: clients made and sized, partitions assigned and sought, and the loop that reads one range.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use super::{
    errors::{PartitionFailure, stalled},
    lane::{Lane, Progress},
    slot::{Slot, Wanted},
    stall::{Prober, Verdict},
    turns::{Start, Turns},
};
use crate::{
    clock::Clock,
    error::{Error, Result, Stage},
    kafka::{ClientError, IsolationLevel, KafkaProperties, MessageBatch, QueueLimits},
    types::{Chunk, Flow, OffsetRange, RangeCounts, Stop, TopicPartition},
};

/// The first wait for a record; each next one is twice as long, up to [`WAIT_MAX`]. Transaction markers end no wait, so it
/// is also how late a gap at the end of a range is noticed.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(10);
/// Without progress for so long, somebody is asked why.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// ... and if the brokers answer, the range must be explained within so long.
const STALL_UNEXPLAINED_MAX: Duration = Duration::from_secs(15);
/// ... and if they do not, reading goes on for so long. A broker with many partitions needs more than 40 s to come back.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Two clients are worth their threads only if each has more than this many partitions.
const PARTITIONS_PER_CLIENT_MIN: usize = 2;
/// So many partitions stay assigned that are not in the batch.
const OTHERS_MAX: usize = 64;

/// What a [`DirectReader`] needs to know.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    /// How to reach the cluster.
    pub properties: KafkaProperties,
    /// Which records are read.
    pub isolation: IsolationLevel,
    /// The budget of the whole process. Half of it bounds what is prefetched, over all partitions.
    pub memory_max_bytes: u64,
    /// How many clients, at least one; `None`: two where there are two cores and enough partitions, else one.
    pub clients: Option<usize>,
}

/// Whoever can read ranges: Kafka, or a test's memory.
pub trait ReadRanges: fmt::Debug + Send + Sync {
    /// Reads exactly one range on the calling thread, and gives its records in chunks, in offset order.
    ///
    /// # Errors
    /// [`Stop::Enough`] if `each` had enough; [`Stop::Failed`] with what `each` or reading failed with.
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop>;
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Arc<Slot>>,
    /// The number of partitions that the queues' sizes were made for.
    sized_for: usize,
}

/// Reads ranges from Kafka: assigned partitions, no consumer group, one queue per partition.
///
/// Partitions stay assigned and positioned from batch to batch, so that a range that starts where the one before ended
/// finds its records prefetched. Different partitions may be read at the same time, each on the thread that calls.
#[derive(Debug)]
pub struct DirectReader {
    pub(super) settings: ReaderSettings,
    pub(super) clock: Arc<dyn Clock>,
    slots: RwLock<Slots>,
    lanes: RwLock<HashMap<TopicPartition, Arc<Mutex<Lane>>>>,
    /// One `prepare` at a time: it holds many lanes at once.
    preparing: Mutex<()>,
    /// Locked by whoever holds its own lane; while it is locked, other lanes are only tried.
    turns: Mutex<Turns>,
    prober: Prober,
}

impl DirectReader {
    /// A reader without partitions. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a property is refused or does not exist.
    pub fn new(settings: ReaderSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        if let Some(fault) = settings.properties.faults().next() {
            return Err(Error::config(fault.to_string()).at(Stage::Start));
        }
        let prober = Prober::new(settings.properties.clone(), settings.isolation, Arc::clone(&clock));
        Ok(Self {
            settings,
            clock,
            slots: RwLock::default(),
            lanes: RwLock::default(),
            preparing: Mutex::new(()),
            turns: Mutex::default(),
            prober,
        })
    }

    /// Before a batch is read: assigns every partition of `ranges` that is not, and seeks in those that do not stand at the
    /// start of their range. `leader_epochs` gives the epoch that a partition's start was read under, with which the broker
    /// notices that its log was truncated since.
    ///
    /// Partitions with an empty range are assigned too: records that come later are then fetched at once. Where the memory
    /// budget has no room for all partitions, those are left out, and the others are assigned by turns, as they are read.
    /// A partition that cannot be placed is left to [`read`](ReadRanges::read), which tries again and says why.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if no client can be made; [`Internal`](crate::ErrorKind::Internal) if the
    /// client refuses the assignment.
    pub fn prepare(
        &self,
        ranges: &[OffsetRange],
        leader_epochs: &dyn Fn(&TopicPartition) -> Option<i32>,
    ) -> Result<()> {
        let _one = lock(&self.preparing);
        self.forget_others(ranges);
        self.size_clients(ranges)?;
        let (turns, first) = Turns::begin(ranges, leader_epochs, self.room());
        let lanes: Vec<_> = first.iter().map(|start| self.lane(&start.topic_partition)).collect();
        self.make_room(ranges, &first);
        *lock(&self.turns) = turns;
        let mut guards: Vec<_> = lanes.iter().map(|lane| lock(lane)).collect();
        let mut wanted: Vec<_> = guards
            .iter_mut()
            .zip(&first)
            .map(|(lane, start)| Wanted { lane, offset: start.offset, leader_epoch: start.leader_epoch })
            .filter(|wanted| wanted.lane.next != Some(wanted.offset))
            .collect();
        self.place(&mut wanted)
    }

    /// How many partitions may be assigned at once.
    fn room(&self) -> usize {
        let room = self.settings.memory_max_bytes / 2 / QueueLimits::SHARE_MIN_BYTES;
        usize::try_from(room).unwrap_or(usize::MAX).max(1)
    }

    /// Gives up partitions until there is room for `first`: those with an empty range before those whose turn comes later.
    fn make_room(&self, ranges: &[OffsetRange], first: &[Start]) {
        let lanes: Vec<_> = read_lock(&self.lanes).values().cloned().collect();
        if lanes.len() <= self.room() {
            return;
        }
        let first: HashSet<_> = first.iter().map(|start| &start.topic_partition).collect();
        let busy: HashSet<_> =
            ranges.iter().filter(|range| !range.is_empty()).map(|range| &range.topic_partition).collect();
        let mut others: Vec<_> = lanes
            .iter()
            .filter_map(|lane| lane.try_lock().ok())
            .filter(|lane| lane.queue.is_some() && !first.contains(&lane.topic_partition))
            .collect();
        others.sort_by_key(|lane| !busy.contains(&lane.topic_partition));
        let kept = self.room().saturating_sub(first.len());
        Lane::give_up_all(others.iter_mut().skip(kept).map(|lane| &mut **lane));
    }

    /// Gives up partitions that are no longer read, once there are many of them: an answer that is missing for one batch
    /// must not cost what is prefetched.
    fn forget_others(&self, ranges: &[OffsetRange]) {
        if read_lock(&self.lanes).len() <= ranges.len() + OTHERS_MAX {
            return;
        }
        let read: HashSet<_> = ranges.iter().map(|range| &range.topic_partition).collect();
        let mut others = Vec::new();
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).retain(|topic_partition, lane| {
            let keep = read.contains(topic_partition);
            if !keep {
                others.push(Arc::clone(lane));
            }
            keep
        });
        let mut guards: Vec<_> = others.iter().map(|lane| lock(lane)).collect();
        Lane::give_up_all(guards.iter_mut().map(|lane| &mut **lane));
    }

    /// Places a lane that does not stand where its range begins, and with it those whose turn has come.
    fn place_to_read(&self, lane: &mut Lane, from: i64) -> Result<()> {
        // Held until all are placed: whoever comes meanwhile finds its turn has come, or no more room than there is.
        let mut turns = lock(&self.turns);
        if !turns.are_taken() || lane.queue.is_some() {
            let leader_epoch = turns.withdraw(&lane.topic_partition).and_then(|start| start.leader_epoch);
            drop(turns);
            return self.place(&mut [Wanted { lane, offset: from, leader_epoch }]);
        }
        let names = turns.take_done();
        let done: Vec<_> = names.iter().map(|topic_partition| self.lane(topic_partition)).collect();
        let mut given_up = Vec::new();
        for (topic_partition, lane) in names.into_iter().zip(&done) {
            match lane.try_lock() {
                Ok(lane) if lane.queue.is_some() => given_up.push(lane),
                Ok(_) => {}
                // Its reader has not let go of it yet, or reads it once more: it makes room another time.
                Err(_) => turns.read(&topic_partition),
            }
        }
        Lane::give_up_all(given_up.iter_mut().map(|lane| &mut **lane));
        drop(given_up);
        // Counted and not reckoned: who went over the room before is taken off it now. Our own lane is locked, and counted.
        let room_left = self.room().saturating_sub(self.assigned_now());
        let (leader_epoch, next) = turns.next(&lane.topic_partition, room_left);
        let lanes: Vec<_> = next.iter().map(|start| self.lane(&start.topic_partition)).collect();
        let mut guards = Vec::new();
        for (lane, start) in lanes.iter().zip(&next) {
            match lane.try_lock() {
                Ok(lane) => guards.push((lane, start)),
                // Its reader waits for us to place it: it comes with the epoch of its own start.
                Err(_) => turns.wait_again(start.clone()),
            }
        }
        let mut wanted = vec![Wanted { lane, offset: from, leader_epoch }];
        let others = guards.iter_mut().map(|(lane, Start { offset, leader_epoch, .. })| Wanted {
            lane,
            offset: *offset,
            leader_epoch: *leader_epoch,
        });
        wanted.extend(others.filter(|wanted| wanted.lane.next != Some(wanted.offset)));
        self.place(&mut wanted)
    }

    /// The latest error of each class that concerns a client as a whole, seen since `since` (monotonic time), the most
    /// telling first.
    #[must_use]
    pub fn client_errors(&self, since: Duration) -> Vec<ClientError> {
        let slots = read_lock(&self.slots);
        let mut errors: Vec<_> = slots
            .slots
            .iter()
            .flat_map(|slot| {
                slot.drain_events(self.clock.monotonic());
                slot.errors_since(since)
            })
            .collect();
        errors.sort_by_key(|error| error.class);
        errors.dedup_by_key(|error| error.class);
        errors
    }

    /// How many partitions are assigned, and may prefetch. Waits while partitions change turns: those that go and those that
    /// come would both be counted.
    #[must_use]
    pub fn assigned(&self) -> usize {
        let _turns = lock(&self.turns);
        self.assigned_now()
    }

    /// The same, for whoever holds the turns. A locked lane is assigned, or will be at once.
    fn assigned_now(&self) -> usize {
        let lanes = read_lock(&self.lanes);
        lanes.values().filter(|lane| lane.try_lock().map_or(true, |lane| lane.queue.is_some())).count()
    }

    /// About how many bytes are prefetched. Partitions that are being read at the moment are left out.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        let lanes = read_lock(&self.lanes);
        lanes.values().filter_map(|lane| lane.try_lock().ok()).map(|lane| lane.queued_bytes()).sum()
    }

    fn lane(&self, topic_partition: &TopicPartition) -> Arc<Mutex<Lane>> {
        let known = read_lock(&self.lanes).get(topic_partition).cloned();
        known.unwrap_or_else(|| {
            let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Mutex::new(Lane::new(topic_partition.clone())));
            Arc::clone(lanes.entry(topic_partition.clone()).or_insert_with(new))
        })
    }

    /// Makes the clients, and makes them anew when there are more partitions than their queues were sized for.
    ///
    /// Locks go lanes first, then slots, as in `read`.
    fn size_clients(&self, ranges: &[OffsetRange]) -> Result<()> {
        let lanes: Vec<_> = read_lock(&self.lanes).values().cloned().collect();
        let partitions = lanes.len().max(ranges.len()).clamp(1, self.room());
        let enough = |slots: &Slots| !slots.slots.is_empty() && partitions <= slots.sized_for;
        if enough(&read_lock(&self.slots)) {
            return Ok(());
        }
        let sized_for = partitions.next_power_of_two().min(self.room());
        let limits = self.limits(sized_for);
        let count = self.settings.clients.unwrap_or_else(|| clients_for(partitions)).max(1);
        let new = (0..count).map(|_| Ok(Arc::new(Slot::new(&self.settings, limits)?)));
        let new = new.collect::<Result<Vec<_>>>()?;
        let mut guards: Vec<_> = lanes.iter().map(|lane| lock(lane)).collect();
        // The old clients end with their last queue and chunk.
        for lane in &mut guards {
            lane.queue = None;
            lane.next = None;
            lane.own = None;
        }
        *self.slots.write().unwrap_or_else(PoisonError::into_inner) = Slots { slots: new, sized_for };
        Ok(())
    }

    fn limits(&self, partitions: usize) -> QueueLimits {
        QueueLimits::for_budget(self.settings.memory_max_bytes / 2, partitions)
    }

    /// The client of a partition, always the same one: neighbours of a topic lie on different clients.
    fn slot_of(&self, lane: &Lane) -> Option<Arc<Slot>> {
        if lane.own.is_some() {
            return lane.own.clone();
        }
        let slots = read_lock(&self.slots);
        let topic = xxhash_rust::xxh3::xxh3_64(lane.topic_partition.topic.as_bytes());
        let number = topic.wrapping_add(u64::from(lane.topic_partition.partition.cast_unsigned()));
        let count = u64::try_from(slots.slots.len()).ok().filter(|&count| count > 0)?;
        slots.slots.get(usize::try_from(number % count).ok()?).cloned()
    }

    /// Assigns and seeks, so that each lane stands at its offset; a lane that cannot be placed stays without `next`.
    fn place(&self, lanes: &mut [Wanted<'_>]) -> Result<()> {
        let mut by_client: HashMap<usize, (Arc<Slot>, Vec<usize>)> = HashMap::new();
        for (index, wanted) in lanes.iter_mut().enumerate() {
            wanted.lane.next = None;
            let Some(slot) = self.slot_of(wanted.lane) else { continue };
            by_client.entry(Arc::as_ptr(&slot).addr()).or_insert_with(|| (slot, Vec::new())).1.push(index);
        }
        for (slot, mut indexes) in by_client.into_values() {
            // A partition that was lost with its topic, or stopped by an error, is found so by the first seek only.
            for _ in 0..2 {
                indexes = slot.place(lanes, indexes)?;
            }
            for index in indexes {
                // Seen after a topic was deleted and made again: the client never starts the partition. A new one does.
                tracing::debug!(partition = %lanes[index].lane.topic_partition, "a client of its own for the partition");
                let own = Arc::new(Slot::new(&self.settings, self.limits(1))?);
                lanes[index].lane.give_up();
                lanes[index].lane.own = Some(Arc::clone(&own));
                own.place(lanes, vec![index])?;
            }
        }
        Ok(())
    }

    /// The last look before a range counts as complete: nothing of this partition may lie on the main queue.
    fn nothing_astray(&self, lane: &mut Lane, range: &OffsetRange) -> Result<()> {
        let Some(slot) = self.slot_of(lane) else { return Ok(()) };
        slot.drain_events(self.clock.monotonic());
        let stray = slot.take_stray(&lane.topic_partition);
        stray.map_or(Ok(()), |offset| {
            lane.stopped = true;
            Err(Error::unavailable(format!("records came on the wrong queue offset={offset}"))
                .at(Stage::Read)
                .in_range(range.clone()))
        })
    }

    fn read_lane(&self, lane: &mut Lane, reading: &mut Reading<'_>) -> Result<(), Stop> {
        let (range, until) = (reading.range, reading.range.until_offset.get());
        let mut out = Vec::new();
        lane.frontier.begin(until, &mut out);
        reading.give(lane, &mut out)?;
        let mut wait = Duration::ZERO;
        let mut moved_at = self.clock.monotonic();
        let mut asked_at = moved_at;
        while !lane.frontier.covers(until) {
            if (reading.cancelled)() {
                return Err(Stop::Failed(cancelled(range)));
            }
            let progress = lane.step(until, wait, &mut out);
            reading.give(lane, &mut out)?;
            match progress.map_err(|failure| Stop::Failed(self.failed(failure, range)))? {
                Progress::Done => break,
                Progress::Open { moved: true } => {
                    wait = Duration::ZERO;
                    moved_at = self.clock.monotonic();
                    asked_at = moved_at;
                }
                Progress::Open { moved: false } => {
                    wait = (wait * 2).clamp(WAIT_MIN, WAIT_MAX);
                    let now = self.clock.monotonic();
                    if now.saturating_sub(asked_at) >= STALL_AFTER {
                        self.unstall(lane, range, now.saturating_sub(moved_at)).map_err(Stop::Failed)?;
                        asked_at = self.clock.monotonic();
                    }
                }
            }
        }
        self.nothing_astray(lane, range).map_err(Stop::Failed)
    }

    /// Nothing has come for a while: finds out whether that is the brokers' fault, or whether nothing can come.
    fn unstall(&self, lane: &mut Lane, range: &OffsetRange, waited: Duration) -> Result<()> {
        let from = lane.frontier.get();
        let verdict = self.prober.ask(range, from);
        let until = range.until_offset.get();
        tracing::debug!(%range, from, ?verdict, waited_ms = waited.as_millis(), "no progress");
        let next = match verdict {
            Verdict::Empty => until,
            Verdict::Data => {
                lane.stopped = true;
                from
            }
            Verdict::Failed(error) => return Err(error),
            Verdict::NoAnswer if waited < STALL_MAX => return Ok(()),
            Verdict::Unexplained if waited < STALL_UNEXPLAINED_MAX => return Ok(()),
            Verdict::NoAnswer | Verdict::Unexplained => {
                lane.stopped = true;
                let cause = self.client_errors(self.clock.monotonic().saturating_sub(waited));
                let cause = cause.first().map(ToString::to_string);
                return Err(stalled(range, waited.as_millis(), cause, &self.settings.properties));
            }
        };
        self.place(&mut [Wanted { lane, offset: next, leader_epoch: None }])?;
        // While a range is read, `next` is unset: see `Lane::next`.
        match lane.next.take() {
            Some(_) => Ok(()),
            None => Err(unplaced(lane, range)),
        }
    }

    fn failed(&self, failure: PartitionFailure, range: &OffsetRange) -> Error {
        failure.into_error(range, self.settings.isolation, self.prober.lookup().as_deref())
    }
}

impl ReadRanges for DirectReader {
    /// A range that starts where the last one of its partition ended goes on there; any other start is sought first, as in
    /// a second read of the same range. If `each` stops early the rest of the range is not lost: the next read of the
    /// partition seeks.
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        let mut reading = Reading { range, cancelled, each, counts: RangeCounts::default() };
        if range.is_empty() {
            return Ok(reading.counts);
        }
        if read_lock(&self.slots).slots.is_empty() {
            let _one = lock(&self.preparing);
            self.size_clients(std::slice::from_ref(range)).map_err(Stop::Failed)?;
        }
        let lane = self.lane(&range.topic_partition);
        let lane = &mut *lock(&lane);
        let from = range.from_offset.get();
        if lane.next != Some(from) {
            self.place_to_read(lane, from).map_err(Stop::Failed)?;
        }
        if lane.next.take().is_none() {
            return Err(Stop::Failed(unplaced(lane, range)));
        }
        self.read_lane(lane, &mut reading)?;
        lane.next = Some(range.until_offset.get());
        lock(&self.turns).read(&lane.topic_partition);
        if lane.frontier.dropped() > 0 {
            tracing::debug!(%range, records = lane.frontier.dropped(), "the client delivered records twice");
        }
        let mut counts = reading.counts;
        counts.gaps = range.count().saturating_sub(counts.records);
        Ok(counts)
    }
}

/// One range being read.
struct Reading<'a> {
    range: &'a OffsetRange,
    cancelled: &'a dyn Fn() -> bool,
    each: &'a mut dyn FnMut(Arc<Chunk>) -> Flow,
    counts: RangeCounts,
}

impl Reading<'_> {
    fn give(&mut self, lane: &mut Lane, out: &mut Vec<MessageBatch>) -> Result<(), Stop> {
        for batch in out.drain(..) {
            lane.count(&batch, self.range.until_offset.get(), &mut self.counts);
            if let Flow::Break(stop) = (self.each)(Arc::new(Chunk::Kafka(batch))) {
                return Err(stop);
            }
        }
        Ok(())
    }
}

fn read_lock<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left of a lane has no `next`, so it is placed anew.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clients_for(partitions: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores >= 2 && partitions > PARTITIONS_PER_CLIENT_MIN { 2 } else { 1 }
}

fn unplaced(lane: &Lane, range: &OffsetRange) -> Error {
    let code = lane.refused.map_or_else(String::new, |code| format!(" code={code}"));
    Error::unavailable(format!("cannot start reading the partition{code}")).at(Stage::Read).in_range(range.clone())
}

fn cancelled(range: &OffsetRange) -> Error {
    Error::unavailable("reading was cancelled").at(Stage::Read).in_range(range.clone())
}
