//! The state of keys, in memory: what is surely committed, and what each of the last two batches changed.
//!
//! A batch may be dropped and run again as long as it is not committed, and while it commits the next one is run. So what a batch
//! changes is kept beside the state before it, until the batch after the next begins: then nobody can take it back any more. A
//! batch that is dropped leaves nothing.
//!
//! Each partition writes a segment in every batch, in the batch's own transaction: what changed, or from time to time all of
//! it. A start takes them in again.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::Hash,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    BatchScope, Rdd,
    partitioner::{Partitioner, hasher},
    state_segment::{self, Draft, Name, encoded},
};
use crate::{
    error::{Error, Result},
    types::{Compute, Flow, SegmentKind, ShuffleStage, StateSegment, Stop, Task},
};

/// How many partitions the state of an operator has. It does not depend on the machine: what is stored is stored by partition.
pub(super) const PARTITIONS: usize = 16;
/// A partition's base is written anew when the deltas since weigh more than it, and at least so much.
const BASE_MIN_BYTES: u64 = 256 << 10;
/// What a delta weighs beside its bytes: a row of its own, for the store and for the next start.
const DELTA_OVERHEAD_BYTES: u64 = 4 << 10;
/// How often a task looks whether its batch was cancelled, in keys.
pub(super) const CANCELLED_EVERY: usize = 1024;

/// A state operator as the driver sees it.
pub trait KeepsState: Send + Sync {
    /// Runs a batch; what to store of it, a segment per partition. A batch that is run again takes the place of what was there
    /// of it and of those after it.
    ///
    /// # Errors
    /// What a task failed with.
    fn advance(&self, scope: &BatchScope) -> Result<Vec<StateSegment>>;

    /// What has to stay the same for stored state to make sense.
    fn fingerprint(&self) -> &str;

    /// How many partitions it has.
    fn partitions(&self) -> u32;

    /// Forgets its initial state: what is stored is about to come in its place.
    fn clear(&self);

    /// Takes in what is stored of one partition, in the order of batches up to `last`, the last committed one.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if a segment is missing or damaged.
    fn restore(&self, partition: u32, segments: &[StateSegment], last: u64) -> Result<()>;

    /// Whether a batch of that time, in milliseconds, has something to do after batch `last`, also without any record.
    fn is_due(&self, last: u64, batch_time_ms: i64) -> bool;

    /// How many keys have a state once batch `last` is committed.
    fn keys(&self, last: u64) -> u64;
}

/// What a key of a state operator has to be.
pub trait StateKey: Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<K: Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static> StateKey for K {}

/// What can be the state of a key.
pub trait StateValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> StateValue for S {}

/// The state of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept<S> {
    pub(super) state: S,
    /// The batch time of the last update in milliseconds, where states time out; else 0.
    pub(super) updated_ms: i64,
}

type Map<K, T> = HashMap<K, T, FixedState>;

fn new_map<K, T>() -> Map<K, T> {
    Map::with_hasher(hasher())
}

/// The partition that a key belongs to: the same on every machine and in every run.
fn partition_of(key: &impl Hash) -> usize {
    Partitioner::hash(PARTITIONS).partition(key)
}

/// What the store has of a partition, as far as it decides when a base is due.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    /// Whether there is a base that later deltas can build on.
    based: bool,
    base_bytes: u64,
    delta_bytes: u64,
}

impl Stored {
    fn with(self, segment: &StateSegment) -> Self {
        let bytes = segment.data.len() as u64;
        match segment.kind {
            SegmentKind::Base => Self { based: true, base_bytes: bytes, delta_bytes: 0 },
            SegmentKind::Delta => {
                Self { delta_bytes: self.delta_bytes.saturating_add(bytes + DELTA_OVERHEAD_BYTES), ..self }
            }
        }
    }

    /// By how much the deltas outweigh the base; 0 if they do not.
    fn overweight(self) -> u64 {
        self.delta_bytes.saturating_sub(self.base_bytes.max(BASE_MIN_BYTES))
    }
}

/// What one batch changed; `None`: removed.
struct Overlay<K, S> {
    batch_seq: u64,
    changed: Map<K, Option<Kept<S>>>,
    /// With it:
    keys: usize,
    stored: Stored,
}

struct Partition<K, S> {
    base: Map<K, Kept<S>>,
    stored: Stored,
    /// The oldest first.
    overlays: VecDeque<Overlay<K, S>>,
    /// Keys of `base` by a time at or before their last update: each is looked at again when that time is up.
    by_time: BTreeMap<i64, HashSet<K, FixedState>>,
}

/// A partition after some batch.
pub(super) struct View<'p, K, S> {
    partition: &'p Partition<K, S>,
    last: u64,
}

impl<K: StateKey, S: StateValue> View<'_, K, S> {
    /// The newest first.
    fn overlays(&self) -> impl Iterator<Item = &Overlay<K, S>> {
        self.partition.overlays.iter().rev().filter(|overlay| overlay.batch_seq <= self.last)
    }

    pub(super) fn get(&self, key: &K) -> Option<&Kept<S>> {
        match self.overlays().find_map(|overlay| overlay.changed.get(key)) {
            Some(changed) => changed.as_ref(),
            None => self.partition.base.get(key),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Kept<S>)> {
        let base = self.partition.base.iter();
        let base = base.filter(|(key, _)| !self.overlays().any(|overlay| overlay.changed.contains_key(*key)));
        let changed = self.overlays().enumerate().flat_map(move |(newer, overlay)| {
            let newest = move |key: &K| !self.overlays().take(newer).any(|other| other.changed.contains_key(key));
            let kept = overlay.changed.iter().filter_map(|(key, kept)| Some((key, kept.as_ref()?)));
            kept.filter(move |(key, _)| newest(key))
        });
        base.chain(changed)
    }

    pub(super) fn len(&self) -> usize {
        self.overlays().next().map_or(self.partition.base.len(), |overlay| overlay.keys)
    }

    fn stored(&self) -> Stored {
        self.overlays().next().map_or(self.partition.stored, |overlay| overlay.stored)
    }

    /// Whether nothing of it is stored yet: there is initial state at most.
    pub(super) fn is_new(&self) -> bool {
        !self.stored().based
    }
}

/// What a batch changes in a partition.
pub(super) struct Changes<K, S> {
    changed: Map<K, Option<Kept<S>>>,
    keys: usize,
    draft: Draft,
    buffers: (Vec<u8>, Vec<u8>),
}

impl<K: StateKey, S: StateValue> Changes<K, S> {
    fn new(keys: usize) -> Self {
        Self { changed: new_map(), keys, draft: Draft::new(), buffers: (Vec::new(), Vec::new()) }
    }

    /// What became of a key, told once per batch. Nothing is noted where its encoded state stays as it was.
    pub(super) fn set(&mut self, key: &K, old: Option<&Kept<S>>, new: Option<Kept<S>>) -> Result<()> {
        match (old, &new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) => {
                let (was, is) = &mut self.buffers;
                (was.clear(), is.clear());
                *was = encoded(old, std::mem::take(was))?;
                *is = encoded(new, std::mem::take(is))?;
                if was == is {
                    return Ok(());
                }
            }
            (None, Some(_)) => self.keys += 1,
            (Some(_), None) => self.keys -= 1,
        }
        self.draft.add(key, new.as_ref())?;
        self.changed.insert(key.clone(), new);
        Ok(())
    }
}

impl<K: StateKey, S: StateValue> Partition<K, S> {
    fn new() -> Self {
        Self { base: new_map(), stored: Stored::default(), overlays: VecDeque::new(), by_time: BTreeMap::new() }
    }

    fn put(&mut self, key: K, kept: Kept<S>, timed: bool) {
        let time = kept.updated_ms;
        if !timed {
            self.base.insert(key, kept);
            return;
        }
        let before = self.base.insert(key.clone(), kept);
        // One that was known stays where it is until its time is up, but never at a time after its update.
        if before.is_none_or(|before| before.updated_ms > time) {
            self.file(time, key);
        }
    }

    fn file(&mut self, time: i64, key: K) {
        self.by_time.entry(time).or_insert_with(|| HashSet::with_hasher(hasher())).insert(key);
    }

    /// Batch `batch_seq` begins: what was run of it and after it is no more, and what is older than the batch before stays.
    fn begin(&mut self, batch_seq: u64, timed: bool) {
        while self.overlays.back().is_some_and(|overlay| overlay.batch_seq >= batch_seq) {
            self.overlays.pop_back();
        }
        while self.overlays.front().is_some_and(|overlay| overlay.batch_seq + 1 < batch_seq) {
            let Some(overlay) = self.overlays.pop_front() else { return };
            self.stored = overlay.stored;
            for (key, kept) in overlay.changed {
                match kept {
                    Some(kept) => self.put(key, kept, timed),
                    None => drop(self.base.remove(&key)),
                }
            }
        }
    }

    /// The keys that were last updated before that time, as they are after batch `last`.
    fn idle(&mut self, last: u64, before_ms: i64) -> Vec<K> {
        let mut idle: Vec<K> = Vec::new();
        let mut later = Vec::new();
        for (time, keys) in self.by_time.range_mut(..before_ms) {
            keys.retain(|key| match self.base.get(key) {
                Some(kept) if kept.updated_ms == *time => {
                    idle.push(key.clone());
                    true
                }
                Some(kept) => {
                    later.push((kept.updated_ms, key.clone()));
                    false
                }
                None => false,
            });
        }
        for (time, key) in later {
            if time < before_ms {
                idle.push(key.clone());
            }
            self.file(time, key);
        }
        while self.by_time.first_key_value().is_some_and(|(_, keys)| keys.is_empty()) {
            self.by_time.pop_first();
        }
        let view = View { partition: self, last };
        let of_base = |key: &K| !view.overlays().any(|overlay| overlay.changed.contains_key(key));
        idle.retain(of_base);
        let changed = view.overlays().flat_map(|overlay| overlay.changed.keys());
        let changed: HashSet<&K> = changed.collect();
        let is_idle = |key: &&K| view.get(key).is_some_and(|kept| kept.updated_ms < before_ms);
        idle.extend(changed.into_iter().filter(is_idle).cloned());
        idle
    }
}

/// The state of one operator.
pub(super) struct KeyedState<K, S> {
    operator: u32,
    fingerprint: String,
    /// A state that was not updated for longer is idle.
    timeout_ms: Option<i64>,
    partitions: Vec<RwLock<Partition<K, S>>>,
}

impl<K: StateKey, S: StateValue> KeyedState<K, S> {
    pub(super) fn new(operator: u32, fingerprint: String, timeout_ms: Option<i64>) -> Self {
        let partitions = (0..PARTITIONS).map(|_| RwLock::new(Partition::new())).collect();
        Self { operator, fingerprint, timeout_ms, partitions }
    }

    /// State that is there before the first batch. Restored state takes its place.
    pub(super) fn initially(self, initial: impl IntoIterator<Item = (K, Kept<S>)>) -> Self {
        for (key, kept) in initial {
            self.write(partition_of(&key)).put(key, kept, self.timeout_ms.is_some());
        }
        self
    }

    fn read(&self, partition: usize) -> RwLockReadGuard<'_, Partition<K, S>> {
        self.partitions[partition].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, partition: usize) -> RwLockWriteGuard<'_, Partition<K, S>> {
        self.partitions[partition].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pairs of a batch by the partition of their key; in each a list per task that found them.
    fn scattered<V: Send + 'static>(rdd: &Rdd<(K, V)>) -> Result<Vec<Vec<Vec<(K, V)>>>> {
        let lists = || (0..PARTITIONS).map(|_| Vec::new()).collect::<Vec<_>>();
        let tasks = rdd.run(
            |_| lists(),
            |lists, (key, value)| {
                lists[partition_of(&key)].push((key, value));
                ControlFlow::Continue(())
            },
        )?;
        let mut partitions: Vec<Vec<Vec<(K, V)>>> = (0..PARTITIONS).map(|_| Vec::new()).collect();
        for lists in tasks {
            partitions.iter_mut().zip(lists).for_each(|(partition, list)| partition.push(list));
        }
        Ok(partitions)
    }

    /// Runs a batch. `work` gets a partition as it is after the batch before, the batch's pairs of it, and its keys that are
    /// idle, and says what changes; what it gives comes back by partition. Without `pairs` the operator has no turn.
    pub(super) fn advance<V: Send + 'static, O: Default + Send>(
        &self,
        scope: &BatchScope,
        pairs: Option<&Rdd<(K, V)>>,
        work: impl Fn(&View<'_, K, S>, &mut Changes<K, S>, Vec<Vec<(K, V)>>, Vec<K>) -> Result<O> + Sync,
    ) -> Result<(Vec<O>, Vec<StateSegment>)> {
        let (batch_seq, now) = (scope.batch().batch_seq, scope.batch().batch_time.as_ms());
        let last = batch_seq.saturating_sub(1);
        let pairs = pairs.map(Self::scattered).transpose()?;
        let due = pairs.is_some();
        let pairs = pairs.unwrap_or_else(|| (0..PARTITIONS).map(|_| Vec::new()).collect());
        let pairs: Vec<_> = pairs.into_iter().map(|lists| Mutex::new(Some(lists))).collect();
        let taken = |partition: usize| pairs[partition].lock().unwrap_or_else(PoisonError::into_inner).take();
        let timed = self.timeout_ms.is_some();
        scope.runner().run(PARTITIONS, &|partition| {
            self.write(partition).begin(batch_seq, timed);
            Ok(())
        })?;
        let heaviest = self.heaviest(last);
        let done: Vec<Mutex<Option<(O, StateSegment)>>> = (0..PARTITIONS).map(|_| Mutex::new(None)).collect();
        scope.runner().run(PARTITIONS, &|partition| {
            let mut guard = self.write(partition);
            let idle = match self.timeout_ms {
                Some(timeout_ms) if due => guard.idle(last, now.saturating_sub(timeout_ms)),
                _ => Vec::new(),
            };
            let view = View { partition: &*guard, last };
            let mut changes = Changes::new(view.len());
            let out = match taken(partition) {
                Some(lists) if due => work(&view, &mut changes, lists, idle)?,
                _ => O::default(),
            };
            let base = view.is_new() || heaviest == Some(partition);
            let segment = self.segment(partition, batch_seq, &view, &mut changes, base)?;
            let (stored, keys) = (view.stored().with(&segment), changes.keys);
            guard.overlays.push_back(Overlay { batch_seq, changed: changes.changed, keys, stored });
            *done[partition].lock().unwrap_or_else(PoisonError::into_inner) = Some((out, segment));
            Ok(())
        })?;
        let done = done.into_iter().map(|done| done.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(done.flatten().unzip())
    }

    /// The partition whose deltas outweigh its base most. One at a time, so that no batch pays for all.
    fn heaviest(&self, last: u64) -> Option<usize> {
        let weight = |partition: usize| View { partition: &self.read(partition), last }.stored().overweight();
        let heavy = (0..PARTITIONS).map(|partition| (weight(partition), partition)).filter(|(weight, _)| *weight > 0);
        heavy.max().map(|(_, partition)| partition)
    }

    fn segment(
        &self,
        partition: usize,
        batch_seq: u64,
        view: &View<'_, K, S>,
        changes: &mut Changes<K, S>,
        base: bool,
    ) -> Result<StateSegment> {
        let name = Name { operator: self.operator, partition: number(partition), batch_seq };
        let delta = std::mem::replace(&mut changes.draft, Draft::new());
        if !base {
            return Ok(delta.sealed(name, SegmentKind::Delta));
        }
        let mut whole = Draft::new();
        for (key, kept) in view.iter().filter(|(key, _)| !changes.changed.contains_key(*key)) {
            whole.add(key, Some(kept))?;
        }
        for (key, kept) in &changes.changed {
            if kept.is_some() {
                whole.add(key, kept.as_ref())?;
            }
        }
        Ok(whole.sealed(name, SegmentKind::Base))
    }

    /// All keys with their states as they are after the scope's batch: read when an action asks for them.
    pub(super) fn all(self: &Arc<Self>, scope: &BatchScope) -> Rdd<(K, S)> {
        let all = AllState { state: Arc::clone(self), batch_seq: scope.batch().batch_seq };
        Rdd::new(Arc::new(all), scope.clone())
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn keys(&self, last: u64) -> u64 {
        (0..PARTITIONS).map(|partition| View { partition: &self.read(partition), last }.len() as u64).sum()
    }

    /// Whether a key is idle in a batch of that time after batch `last`.
    pub(super) fn has_idle(&self, last: u64, batch_time_ms: i64) -> bool {
        let Some(timeout_ms) = self.timeout_ms else { return false };
        let before_ms = batch_time_ms.saturating_sub(timeout_ms);
        (0..PARTITIONS).any(|partition| !self.write(partition).idle(last, before_ms).is_empty())
    }

    pub(super) fn restore(&self, partition: u32, segments: &[StateSegment], last: u64) -> Result<()> {
        state_segment::check_chain(self.operator, partition, segments, last)?;
        let mine = usize::try_from(partition).unwrap_or(usize::MAX);
        if mine >= PARTITIONS {
            return Err(state_segment::damaged(self.operator, partition, "there is no such partition"));
        }
        let (mut stored, mut restored) = (Stored::default(), new_map::<K, Kept<S>>());
        for segment in segments {
            state_segment::read(segment, |key, kept| {
                match kept {
                    Some(kept) => restored.insert(key, kept),
                    None => restored.remove(&key),
                };
            })?;
            stored = stored.with(segment);
        }
        let timed = self.timeout_ms.is_some();
        let (own, strays): (Vec<_>, Vec<_>) = restored.into_iter().partition(|(key, _)| partition_of(key) == mine);
        // Keys whose hash is another one now, as with another version of it: all partitions are written anew.
        let moved = !strays.is_empty();
        {
            let mut guard = self.write(mine);
            guard.stored = Stored { based: guard.stored.based && !moved, ..stored };
            own.into_iter().for_each(|(key, kept)| guard.put(key, kept, timed));
        }
        for (key, kept) in strays {
            self.write(partition_of(&key)).put(key, kept, timed);
        }
        if moved {
            (0..PARTITIONS).for_each(|partition| self.write(partition).stored.based = false);
        }
        Ok(())
    }

    /// Forgets initial state: what is stored comes in its place.
    pub(super) fn clear(&self) {
        for partition in 0..PARTITIONS {
            let mut guard = self.write(partition);
            *guard = Partition::new();
            guard.stored.based = true;
        }
    }
}

fn number(partition: usize) -> u32 {
    u32::try_from(partition).unwrap_or(u32::MAX)
}

/// Why a task of a cancelled batch ends.
pub(super) fn cancelled() -> Error {
    Error::unavailable("the batch was cancelled")
}

/// All keys with their states after one batch.
struct AllState<K, S> {
    state: Arc<KeyedState<K, S>>,
    batch_seq: u64,
}

impl<K: StateKey, S: StateValue> Compute<(K, S)> for AllState<K, S> {
    fn partitions(&self) -> usize {
        PARTITIONS
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut((K, S)) -> Flow) -> Flow {
        let guard = self.state.read(partition);
        if guard.overlays.back().is_none_or(|overlay| overlay.batch_seq != self.batch_seq) {
            let text =
                "the state of a batch can be read as long as the batch is in hand: collect what is needed longer";
            return ControlFlow::Break(Stop::Failed(Error::transform(text)));
        }
        let view = View { partition: &*guard, last: self.batch_seq };
        view.iter().try_for_each(|(key, kept)| each((key.clone(), kept.state.clone())))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

/// The name of a type without the modules it lies in: those may be moved without a change of what is stored.
pub(super) fn short_type_name<T: ?Sized>() -> String {
    let full = std::any::type_name::<T>();
    let mut short = String::with_capacity(full.len());
    for part in full.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}
