//! A folder looked at from outside: nothing is written, nothing is locked, and a job that runs is not disturbed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Range as Span, RangeInclusive},
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    chain::{self, Sealed},
    folder::{Folder, path_of},
    segments,
    state::{Batch, Entry, Letter, Range, State, offset},
};
use crate::{
    commit::{
        inspect::{ApplicationInfo, LedgerBatch, LedgerLoss, LedgerRange},
        kept_letters::{LedgerLetter, LetterContent, LetterFate},
        letters::{LetterInfo, LetterSelection, StoredLetter},
        moves::LedgerMove,
        settings::StoredPosition,
    },
    config::StoreUrl,
    error::{Error, Result},
    types::{BatchTime, OffsetRange, RangeCounts, SegmentKind, StateSegment, TopicId, TopicPartition},
};

/// A folder as it was when it was opened: batches that are committed later are not seen.
#[derive(Debug)]
pub(in crate::commit) struct CheckpointLook {
    path: PathBuf,
    application: String,
    /// `None`: the folder does not know the application.
    state: Option<State>,
    /// Ledger files that were read and found right.
    checked: BTreeSet<u64>,
}

impl CheckpointLook {
    /// Reads and checks all of the folder.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it cannot be opened, [`Corrupt`](crate::ErrorKind::Corrupt) if it is damaged.
    pub(in crate::commit) fn open(url: &StoreUrl, application: &str) -> Result<Self> {
        let (path, mut checked) = (path_of(url)?, BTreeSet::new());
        if !path.exists() {
            return Err(Error::config(format!(
                "there is no checkpoint folder: has the job run yet? path={}",
                path.display()
            )));
        }
        let state = match Folder::find(&path, application)? {
            Some(folder) => chain::load(&folder, application, &mut checked)?.map(|chain| chain.state),
            None => None,
        };
        Ok(Self { path, application: application.to_owned(), state, checked })
    }

    pub(in crate::commit) fn application(&self) -> Result<Option<ApplicationInfo>> {
        let Some(state) = &self.state else { return Ok(None) };
        Ok(Some(ApplicationInfo {
            epoch: state.epoch,
            batch_seq: state.batch_seq,
            last_batch_time: state.last_batch_time_ms.map(BatchTime::from_ms),
            owner: state.owner_id()?,
            host: state.host.clone(),
            process_id: state.process_id,
            seen_at_ms: state.seen_at_ms,
            cluster_id: state.cluster_id.clone(),
            build: state.build.clone(),
            interval_ms: state.interval_ms,
        }))
    }

    pub(in crate::commit) fn offsets(&self) -> Result<Vec<StoredPosition>> {
        let positions = self.state.iter().flat_map(|state| &state.positions);
        positions.map(super::state::Position::stored).collect()
    }

    /// The live owner, as a message names it; `None` if nobody owns the application, or who did is dead.
    pub(in crate::commit) fn live_owner(&self) -> Result<Option<String>> {
        let (Some(state), Some(folder)) = (&self.state, Folder::find(&self.path, &self.application)?) else {
            return Ok(None);
        };
        state.live_owner(&folder.owners())
    }

    /// Offsets that operators moved, in the order of their epochs.
    pub(in crate::commit) fn moves(&mut self) -> Result<Vec<LedgerMove>> {
        let mut moves = Vec::new();
        for entry in self.entries(|sealed| sealed.outliving > 0)? {
            for one in &entry.moves {
                let moved = LedgerMove {
                    batch_seq: entry.batch_seq,
                    topic_partition: TopicPartition::new(one.topic.as_str(), one.partition),
                    from_offset: one.from_offset.map(offset).transpose()?,
                    until_offset: offset(one.until_offset)?,
                    topic_id: one.topic_id.as_deref().map(TopicId::new),
                    rows_deleted: false,
                };
                moves.push((one.epoch, moved));
            }
        }
        moves.sort_by_key(|(epoch, _)| *epoch);
        Ok(moves.into_iter().map(|(_, moved)| moved).collect())
    }

    /// The entries of files that `wanted` says yes to, up to the batch that was the last one at the beginning.
    fn entries(&mut self, wanted: impl Fn(&Sealed) -> bool) -> Result<Vec<Entry>> {
        let last = self.batch_seq();
        let Some(folder) = Folder::find(&self.path, &self.application)? else { return Ok(Vec::new()) };
        // A running job puts files together while we read: what is missing then is in another one.
        let mut tries = 1;
        loop {
            let Some(chain) = chain::load(&folder, &self.application, &mut self.checked)? else {
                return Ok(Vec::new());
            };
            let files = chain.ledger.iter().filter(|sealed| wanted(sealed));
            let read: Result<Vec<Vec<Entry>>> =
                files.map(|sealed| chain::read_ledger(&folder, &self.application, sealed)).collect();
            match read {
                Err(_) if tries < chain::READS_MAX && folder.read(chain::HEAD)? != Some(chain.head) => tries += 1,
                read => {
                    let all = read?.into_iter().flatten().chain(chain.entries);
                    return Ok(all.filter(|entry| entry.batch_seq <= last).collect());
                }
            }
        }
    }

    /// What state operator `operator` stored of each of these partitions, in the order of batches.
    pub(in crate::commit) fn segments(
        &mut self,
        operator: u32,
        partitions: Span<u32>,
    ) -> Result<Vec<Vec<StateSegment>>> {
        let mut found: Vec<Vec<StateSegment>> = partitions.clone().map(|_| Vec::new()).collect();
        let (last, folder) = (self.batch_seq(), Folder::find(&self.path, &self.application)?);
        let Some(folder) = folder else { return Ok(found) };
        let Some(chain) = chain::load(&folder, &self.application, &mut self.checked)? else { return Ok(found) };
        for sealed in chain.segments.iter().filter(|sealed| sealed.batch_seq <= last) {
            for segment in segments::read(&folder, &self.application, sealed)? {
                if segment.operator == operator && partitions.contains(&segment.partition) {
                    let index = usize::try_from(segment.partition - partitions.start).unwrap_or(usize::MAX);
                    if let Some(of) = found.get_mut(index) {
                        // Older ones of it are there for other partitions' sake.
                        if segment.kind == SegmentKind::Base {
                            of.clear();
                        }
                        of.push(segment);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The last batch when it was opened.
    fn batch_seq(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.batch_seq)
    }

    /// Ledger rows with numbers from `first` up to `last`, the oldest first.
    fn batches_between(&mut self, first: u64, last: u64) -> Result<Vec<LedgerBatch>> {
        let entries = self.entries(|sealed| sealed.first_batch <= last && sealed.last_batch >= first)?;
        let there = entries.into_iter().filter(|entry| (first..=last).contains(&entry.batch_seq));
        let row = |entry: Entry| entry.batch.as_ref().map(|batch| ledger_batch(&entry, batch));
        let mut batches = there.filter_map(row).collect::<Result<Vec<_>>>()?;
        batches.sort_by_key(|batch| batch.batch_seq);
        Ok(batches)
    }

    pub(in crate::commit) fn batches(&mut self, last: u32) -> Result<Vec<LedgerBatch>> {
        let newest = self.batch_seq();
        self.batches_between((newest + 1).saturating_sub(last.into()).max(1), newest)
    }

    pub(in crate::commit) fn batches_from(&mut self, first: u64, limit: u32) -> Result<Vec<LedgerBatch>> {
        let (wanted, newest) = (u64::from(limit), self.batch_seq());
        let last = first.saturating_add(wanted.saturating_sub(1));
        let page = self.batches_between(first, last)?;
        if page.len() as u64 == wanted || last >= newest {
            return Ok(page);
        }
        // The ledger begins later than that.
        let oldest = self.entries(|sealed| sealed.last_batch >= first)?;
        let oldest = oldest.iter().filter(|entry| entry.batch.is_some() && entry.batch_seq >= first);
        let Some(oldest) = oldest.map(|entry| entry.batch_seq).min() else { return Ok(Vec::new()) };
        self.batches_between(oldest, oldest.saturating_add(wanted.saturating_sub(1)))
    }

    pub(in crate::commit) fn lost_ranges(&mut self) -> Result<Vec<LedgerLoss>> {
        let mut losses = Vec::new();
        for entry in self.entries(|sealed| sealed.outliving > 0)? {
            for lost in &entry.lost_ranges {
                losses.push(LedgerLoss {
                    batch_seq: entry.batch_seq,
                    topic_partition: TopicPartition::new(lost.topic.as_str(), lost.partition),
                    from_offset: offset(lost.from_offset)?,
                    until_offset: lost.until_offset.map(offset).transpose()?,
                });
            }
        }
        losses.sort_by_key(|loss| loss.batch_seq);
        Ok(losses)
    }

    pub(in crate::commit) fn letters_of(&mut self, batches: RangeInclusive<u64>) -> Result<Vec<LedgerLetter>> {
        let letters = self.letters(&LetterSelection::default())?.into_iter();
        let letter = |letter: StoredLetter| {
            let bytes = letter.info.key_bytes.unwrap_or(0) + letter.info.value_bytes.unwrap_or(0);
            LedgerLetter {
                batch_seq: letter.info.batch_seq,
                topic_partition: letter.info.topic_partition,
                offset: letter.info.offset,
                id: letter.info.id,
                fate: LetterFate::Kept { stage: letter.info.stage, bytes: bytes + letter.headers.len() as u64 },
            }
        };
        Ok(letters.map(letter).filter(|letter| batches.contains(&letter.batch_seq)).collect())
    }

    pub(in crate::commit) fn letter_contents(&mut self, ids: &[i64]) -> Result<Vec<LetterContent>> {
        let letters = self.letters(&LetterSelection::default())?.into_iter();
        let content = |StoredLetter { info, key, value, headers, timestamp_ms }| LetterContent {
            id: info.id,
            key,
            value,
            headers,
            timestamp_ms,
        };
        Ok(letters.filter(|letter| ids.contains(&letter.info.id)).map(content).collect())
    }

    /// The selected dead letters in the order of topic, partition and offset.
    pub(in crate::commit) fn letters(&mut self, selection: &LetterSelection) -> Result<Vec<StoredLetter>> {
        let LetterSelection { topic, partition, offset, since_ms } = selection;
        let selected = |letter: &Letter| {
            topic.as_ref().is_none_or(|topic| *topic == letter.topic)
                && partition.is_none_or(|partition| partition == letter.partition)
                && offset.is_none_or(|offset| offset == letter.offset)
                && since_ms.is_none_or(|since| letter.refused_at_ms >= since)
        };
        let mut places = BTreeMap::new();
        for entry in self.entries(|sealed| sealed.outliving > 0)? {
            for (index, letter) in entry.dead_letters.iter().enumerate().filter(|(_, letter)| selected(letter)) {
                let place = (letter.topic.clone(), letter.partition, letter.offset, entry.batch_seq, index);
                places.insert(place, (entry.batch_seq, letter.clone()));
            }
        }
        // Numbered as they are listed: nothing else here has a number for a letter.
        let numbered = places.into_values().zip(1..);
        numbered.map(|((batch_seq, letter), id)| stored_letter(id, batch_seq, letter)).collect()
    }
}

fn stored_letter(id: i64, batch_seq: u64, letter: Letter) -> Result<StoredLetter> {
    let bytes = |text: &Option<String>| {
        let decode = |text: &String| {
            BASE64_STANDARD.decode(text).map_err(|_| Error::corrupt("a dead letter's bytes cannot be read"))
        };
        text.as_ref().map(decode).transpose()
    };
    let (key, value) = (bytes(&letter.key)?, bytes(&letter.value)?);
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| bytes.len() as u64);
    let info = LetterInfo {
        id,
        batch_seq,
        topic_partition: TopicPartition::new(letter.topic, letter.partition),
        offset: offset(letter.offset)?,
        stage: letter.stage,
        reason: letter.reason,
        output: letter.output,
        key_bytes: length(&key),
        value_bytes: length(&value),
        refused_at_ms: letter.refused_at_ms,
    };
    Ok(StoredLetter { info, key, value, headers: letter.headers, timestamp_ms: letter.timestamp_ms })
}

fn ledger_batch(entry: &Entry, batch: &Batch) -> Result<LedgerBatch> {
    let mut ranges = batch.ranges.iter().map(ledger_range).collect::<Result<Vec<_>>>()?;
    ranges.sort_by(|a, b| a.range.cmp(&b.range));
    Ok(LedgerBatch {
        batch_seq: entry.batch_seq,
        batch_time: BatchTime::from_ms(batch.batch_time_ms),
        epoch: batch.epoch,
        records: batch.records,
        gaps: batch.gaps,
        bytes: batch.bytes,
        rows: 0,
        dead_letters: entry.dead_letters.len() as u64,
        lost_ranges: entry.lost_ranges.len() as u64,
        processing_started_ms: batch.processing_started_ms,
        committed_at_ms: batch.committed_at_ms,
        build: batch.build.clone(),
        ranges,
    })
}

fn ledger_range(range: &Range) -> Result<LedgerRange> {
    let topic_partition = TopicPartition::new(range.topic.as_str(), range.partition);
    Ok(LedgerRange {
        range: OffsetRange::new(topic_partition, offset(range.from_offset)?, offset(range.until_offset)?),
        topic_id: range.topic_id.as_deref().map(TopicId::new),
        counts: RangeCounts {
            records: range.records,
            gaps: range.gaps,
            bytes: range.bytes,
            checksum: range.checksum,
            leader_epoch: range.leader_epoch,
            record_epoch: None,
        },
    })
}
