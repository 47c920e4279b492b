//! Are the dead letters what Kafka's records make of them? Each that is kept has its record's bytes, a record that the tables
//! cannot take has one, and no other record has.
//!
//! Letters come some thousands at a time, their bytes by the page. Of a record that has one, only checksums of its parts are kept:
//! memory is bounded by the number of letters of one batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use xxhash_rust::xxh3::xxh3_128;

use super::Finding;
use crate::{
    commit::{Inspector, LedgerBatch, LedgerLetter, LedgerRange, LetterContent, LetterFate},
    error::Result,
    transform::headers_json,
    types::{DeadLetter, Offset, OffsetRange, Record, TopicPartition},
};

/// Letters that are held at a time, unless one batch has more.
const HELD_MAX: u64 = 10_000;
/// Letters whose bytes are read at a time, and the bytes as long as there is more than one.
const PAGE_LETTERS: usize = 500;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// The step of which no transforming tells: the database refused the row.
const BY_DATABASE: &str = "write";

/// Where a record lies.
pub(super) type Place = (TopicPartition, Offset);

/// Records, by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<TopicPartition, BTreeSet<Offset>>);

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, topic_partition: &TopicPartition, offset: Offset) -> bool {
        self.0.get(topic_partition).is_some_and(|offsets| offsets.contains(&offset))
    }

    /// Whether the place is new.
    fn insert(&mut self, (topic_partition, offset): Place) -> bool {
        self.0.entry(topic_partition).or_default().insert(offset)
    }

    /// Without those places.
    fn without(&self, others: &BTreeSet<Place>) -> Self {
        let mut rest = self.clone();
        for (topic_partition, offset) in others {
            if let Some(offsets) = rest.0.get_mut(topic_partition) {
                offsets.remove(offset);
            }
        }
        rest.0.retain(|_, offsets| !offsets.is_empty());
        rest
    }
}

/// A record's parts, as far as checksums of 128 bits can tell them from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    key: Option<u128>,
    value: Option<u128>,
    headers: u128,
    timestamp_ms: Option<i64>,
}

impl Content {
    pub(super) fn of_record(record: &Record) -> Self {
        let headers = headers_json(record);
        Self::of(record.key(), record.value(), &headers, record.timestamp().as_ms())
    }

    fn of_letter(letter: &LetterContent) -> Self {
        // Spaces between the values are no difference.
        let parsed = serde_json::from_str::<serde_json::Value>(&letter.headers);
        let headers = parsed.map_or_else(|_| letter.headers.clone(), |headers| headers.to_string());
        Self::of(letter.key.as_deref(), letter.value.as_deref(), &headers, letter.timestamp_ms)
    }

    fn of(key: Option<&[u8]>, value: Option<&[u8]>, headers: &str, timestamp_ms: Option<i64>) -> Self {
        Self { key: key.map(xxh3_128), value: value.map(xxh3_128), headers: xxh3_128(headers.as_bytes()), timestamp_ms }
    }

    /// The parts that are not the same.
    fn differs(&self, other: &Self) -> String {
        let parts = [
            ("key", self.key == other.key),
            ("value", self.value == other.value),
            ("headers", self.headers == other.headers),
            ("timestamp", self.timestamp_ms == other.timestamp_ms),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect::<Vec<_>>().join(",")
    }
}

/// The dead letters of one page of the ledger, held some thousands at a time.
#[derive(Debug, Default)]
pub(super) struct LedgerLetters {
    /// How many each batch has.
    counts: BTreeMap<u64, u64>,
    held: BTreeMap<u64, Vec<LedgerLetter>>,
}

impl LedgerLetters {
    pub(super) async fn begin(inspector: &mut Inspector, batches: RangeInclusive<u64>) -> Result<Self> {
        Ok(Self { counts: inspector.letter_counts(batches).await?, held: BTreeMap::new() })
    }

    /// Those of one batch; batches come in their order.
    pub(super) async fn of(&mut self, inspector: &mut Inspector, batch_seq: u64) -> Result<Vec<LedgerLetter>> {
        if !self.counts.contains_key(&batch_seq) {
            return Ok(Vec::new());
        }
        if !self.held.contains_key(&batch_seq) {
            self.held = BTreeMap::new();
            for letter in inspector.letters_of(batch_seq..=self.until(batch_seq)).await? {
                self.held.entry(letter.batch_seq).or_default().push(letter);
            }
        }
        Ok(self.held.remove(&batch_seq).unwrap_or_default())
    }

    /// The last batch whose letters are held together with those of batch `from`.
    fn until(&self, from: u64) -> u64 {
        let (mut until, mut letters) = (from, 0);
        for (batch_seq, count) in self.counts.range(from..) {
            letters += count;
            if letters > HELD_MAX {
                break;
            }
            until = *batch_seq;
        }
        until
    }
}

/// The dead letters of one batch, as they are compared.
#[derive(Debug, Default)]
pub(super) struct BatchLetters {
    batch_seq: u64,
    /// Those whose records Kafka may still have and of which no table has a row.
    without_rows: Vec<LedgerLetter>,
    left_out: Places,
    /// All records that have one.
    known: Places,
    /// Whose records went with their ranges.
    pub(super) gone: u64,
    /// Whose bytes are Kafka's, or are not.
    pub(super) compared: u64,
    pub(super) findings: Vec<Finding>,
    /// How many more there are than the ledger can know of, less those that are missing.
    surplus: i64,
}

impl BatchLetters {
    /// Sorts the letters of a batch, which come in the order of their places: `there` are the ranges that Kafka still has.
    pub(super) fn sort(batch: &LedgerBatch, there: &[LedgerRange], letters: Vec<LedgerLetter>) -> Self {
        let mut sorted = Self { batch_seq: batch.batch_seq, ..Self::default() };
        for letter in letters {
            let holds = |range: &LedgerRange| holds(&range.range, &letter);
            if !batch.ranges.iter().any(holds) {
                sorted.unexpected("a dead letter lies outside the ranges of its batch", &place(&letter));
            } else if !sorted.known.insert(place(&letter)) {
                sorted.unexpected("a record has two dead letters", &place(&letter));
            } else if !there.iter().any(holds) {
                sorted.gone += 1;
            } else if letter.fate != LetterFate::Replayed {
                sorted.left_out.insert(place(&letter));
                sorted.without_rows.push(letter);
            }
        }
        sorted
    }

    /// The records that have no row.
    pub(super) fn left_out(&self) -> &Places {
        &self.left_out
    }

    /// Compares them with the records that reading the ranges again found at their places. `changed` are partitions of which it
    /// found other records than at first. Gives the letters that may belong to no record that was refused.
    pub(super) async fn compare(
        &mut self,
        inspector: &mut Inspector,
        found: &BTreeMap<Place, Content>,
        changed: &BTreeSet<TopicPartition>,
    ) -> Result<Vec<Doubtful>> {
        let mut there: BTreeMap<i64, (LedgerLetter, u64)> = BTreeMap::new();
        for letter in std::mem::take(&mut self.without_rows) {
            let place = place(&letter);
            match (&letter.fate, found.contains_key(&place)) {
                (LetterFate::Kept { bytes, .. }, true) => drop(there.insert(letter.id, (letter.clone(), *bytes))),
                (_, true) => {}
                // Compacted since.
                (_, false) if changed.contains(&place.0) => self.gone += 1,
                (_, false) => self.unexpected("a dead letter is of an offset that has no record", &place),
            }
        }
        let mut doubtful = Vec::new();
        for page in pages(there.values().map(|(letter, bytes)| (letter.id, *bytes))) {
            for content in inspector.letter_contents(&page).await? {
                let Some((letter, _)) = there.get(&content.id) else { continue };
                self.compared += 1;
                let place = place(letter);
                let differs = found.get(&place).map(|record| record.differs(&Content::of_letter(&content)));
                let Some(differs) = differs.filter(|differs| !differs.is_empty()) else { continue };
                match &letter.fate {
                    LetterFate::Kept { stage, .. } if stage != BY_DATABASE => {
                        doubtful.push(Doubtful { place, differs });
                    }
                    _ => self.altered(&place, &differs),
                }
            }
        }
        Ok(doubtful)
    }

    /// What is left out once the doubtful ones are not.
    pub(super) fn left_out_for_sure(&self, doubtful: &[Doubtful]) -> Places {
        self.left_out.without(&doubtful.iter().map(|letter| letter.place.clone()).collect())
    }

    /// Judges the doubtful ones by the records that the job refuses now: another's bytes beside a record that the tables take are
    /// no letter of that record.
    pub(super) fn judge(&mut self, doubtful: Vec<Doubtful>, refused: &[DeadLetter]) {
        let refused: BTreeSet<Place> = refused.iter().map(refused_place).collect();
        for letter in doubtful {
            if refused.contains(&letter.place) {
                self.altered(&letter.place, &letter.differs);
            } else {
                self.unexpected("a dead letter is of a record that the tables take", &letter.place);
            }
        }
    }

    /// Each record that is refused now has one.
    pub(super) fn expect(&mut self, refused: &[DeadLetter]) {
        let missing = refused.iter().map(refused_place).filter(|(tp, offset)| !self.known.contains(tp, *offset));
        for place in missing.collect::<Vec<_>>() {
            self.surplus -= 1;
            self.add("missing", "a record that the tables cannot take has no dead letter", &place, "");
        }
    }

    /// How many the ledger should know of, of `all` that there are: what is told by its place is not told again by the number.
    pub(super) fn of_ledger(&self, all: u64) -> u64 {
        all.saturating_add_signed(-self.surplus)
    }

    fn unexpected(&mut self, what: &str, place: &Place) {
        self.surplus += 1;
        self.add("unexpected", what, place, "");
    }

    fn altered(&mut self, place: &Place, differs: &str) {
        self.add("altered", "a dead letter is not what its record is", place, &format!(" differs={differs}"));
    }

    fn add(&mut self, kind: &'static str, what: &str, (tp, offset): &Place, more: &str) {
        let batch = self.batch_seq;
        let what = format!("{what} batch={batch} topic={} partition={} offset={offset}{more}", tp.topic, tp.partition);
        self.findings.push(Finding { kind, what });
    }
}

/// A letter with other bytes than its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubtful {
    place: Place,
    differs: String,
}

/// Letters of batches that the ledger does not have yet.
pub(super) async fn after(inspector: &mut Inspector, last: u64) -> Result<Vec<Finding>> {
    let mut findings = BatchLetters::default();
    let later = last.saturating_add(1)..=u64::MAX;
    if !inspector.letter_counts(later.clone()).await?.is_empty() {
        for letter in inspector.letters_of(later).await? {
            findings.batch_seq = letter.batch_seq;
            findings.unexpected("a dead letter is of a batch that was not committed", &place(&letter));
        }
    }
    Ok(findings.findings)
}

fn holds(range: &OffsetRange, letter: &LedgerLetter) -> bool {
    range.topic_partition == letter.topic_partition
        && range.from_offset <= letter.offset
        && letter.offset < range.until_offset
}

fn place(letter: &LedgerLetter) -> Place {
    (letter.topic_partition.clone(), letter.offset)
}

fn refused_place(letter: &DeadLetter) -> Place {
    (letter.topic_partition.clone(), letter.offset)
}

/// Numbers of letters, in pages that are not too large.
fn pages(letters: impl Iterator<Item = (i64, u64)>) -> Vec<Vec<i64>> {
    let mut pages: Vec<Vec<i64>> = Vec::new();
    let mut room = 0;
    for (id, bytes) in letters {
        match pages.last_mut() {
            Some(page) if page.len() < PAGE_LETTERS && bytes <= room => {
                page.push(id);
                room -= bytes;
            }
            _ => {
                pages.push(vec![id]);
                room = PAGE_BYTES.saturating_sub(bytes);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BatchTime, DeadLetterStage, RangeCounts};

    fn at(offset: i64) -> Place {
        (TopicPartition::new("t", 0), Offset::clamped(offset))
    }

    fn letter(offset: i64, fate: LetterFate) -> LedgerLetter {
        let (topic_partition, place) = at(offset);
        LedgerLetter { batch_seq: 3, topic_partition, offset: place, id: offset, fate }
    }

    fn kept(offset: i64) -> LedgerLetter {
        letter(offset, LetterFate::Kept { stage: "decode".to_owned(), bytes: 1 })
    }

    fn batch() -> LedgerBatch {
        let range = |from, until| LedgerRange {
            range: OffsetRange::new(TopicPartition::new("t", 0), Offset::clamped(from), Offset::clamped(until)),
            topic_id: None,
            counts: RangeCounts::default(),
        };
        LedgerBatch {
            batch_seq: 3,
            batch_time: BatchTime::from_ms(0),
            epoch: 1,
            records: 10,
            gaps: 0,
            bytes: 0,
            rows: 0,
            dead_letters: 0,
            lost_ranges: 0,
            processing_started_ms: 0,
            committed_at_ms: 0,
            build: String::new(),
            ranges: vec![range(10, 20)],
        }
    }

    fn refused(offset: i64) -> DeadLetter {
        let (topic_partition, place) = at(offset);
        DeadLetter {
            topic_partition,
            offset: place,
            stage: DeadLetterStage::Decode,
            reason: String::new(),
            output: None,
            key: None,
            value: None,
            headers: "[]".to_owned(),
            timestamp_ms: None,
        }
    }

    fn kinds(letters: &BatchLetters) -> Vec<&'static str> {
        letters.findings.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn letters_are_sorted_by_what_there_is_to_compare() {
        let batch = batch();
        let letters =
            || vec![kept(12), kept(12), letter(13, LetterFate::Discarded), letter(14, LetterFate::Replayed), kept(20)];
        let mut sorted = BatchLetters::sort(&batch, &batch.ranges, letters());
        assert_eq!(kinds(&sorted), ["unexpected", "unexpected"]);
        assert!(sorted.findings[0].what.contains("two dead letters batch=3 topic=t partition=0 offset=12"));
        assert!(sorted.findings[1].what.contains("outside the ranges of its batch batch=3"));
        let (tp, _) = at(0);
        let out: Vec<i64> = (10..21).filter(|n| sorted.left_out().contains(&tp, Offset::clamped(*n))).collect();
        assert_eq!((out, sorted.gone, sorted.of_ledger(5)), (vec![12, 13], 0, 3));
        sorted.expect(&[refused(12), refused(14), refused(17)]);
        assert_eq!((kinds(&sorted)[2], sorted.of_ledger(5)), ("missing", 4));
        let gone = BatchLetters::sort(&batch, &[], letters());
        assert_eq!((gone.gone, gone.left_out().is_empty(), gone.of_ledger(5)), (3, true, 3));
    }

    #[test]
    fn another_s_bytes_are_an_altered_letter_only_where_the_record_is_refused() {
        let batch = batch();
        let mut sorted = BatchLetters::sort(&batch, &batch.ranges, vec![kept(12), kept(15)]);
        let doubtful = |offset| Doubtful { place: at(offset), differs: "value".to_owned() };
        assert!(sorted.left_out_for_sure(&[doubtful(12), doubtful(15)]).is_empty());
        sorted.judge(vec![doubtful(12), doubtful(15)], &[refused(12)]);
        assert_eq!(kinds(&sorted), ["altered", "unexpected"]);
        assert!(sorted.findings[0].what.ends_with("offset=12 differs=value"), "{:?}", sorted.findings);
    }

    #[test]
    fn each_part_of_a_record_is_compared_and_null_is_not_empty() {
        let content = |key, value, headers: &str, timestamp_ms| Content::of(key, value, headers, timestamp_ms);
        let record = content(None, Some(b"v".as_slice()), "[]", Some(1));
        assert_eq!(record.differs(&record.clone()), "");
        assert_eq!(record.differs(&content(Some(b"".as_slice()), Some(b"w".as_slice()), "[]", Some(1))), "key,value");
        assert_eq!(record.differs(&content(None, Some(b"v".as_slice()), "[[]]", None)), "headers,timestamp");
        let letter = |headers: &str| LetterContent {
            id: 1,
            key: None,
            value: Some(b"v".to_vec()),
            headers: headers.to_owned(),
            timestamp_ms: Some(1),
        };
        assert_eq!(record.differs(&Content::of_letter(&letter("[ ]"))), "");
        assert_eq!(record.differs(&Content::of_letter(&letter("no JSON"))), "headers");
    }

    #[test]
    fn pages_end_before_they_are_too_large() {
        let lengths =
            |letters: &[(i64, u64)]| -> Vec<usize> { pages(letters.iter().copied()).iter().map(Vec::len).collect() };
        assert_eq!(lengths(&[(1, PAGE_BYTES / 2), (2, PAGE_BYTES / 2), (3, 1)]), [2, 1]);
        assert_eq!(lengths(&[(1, PAGE_BYTES * 2), (2, 1), (3, 1)]), [1, 2]);
        assert_eq!(lengths(&vec![(1, 0); PAGE_LETTERS + 1]), [PAGE_LETTERS, 1]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn letters_of_several_batches_are_held_together_while_they_are_few() {
        let counts = [(1, 10), (3, HELD_MAX - 10), (4, 1), (9, HELD_MAX * 2)].into();
        let letters = LedgerLetters { counts, held: BTreeMap::new() };
        assert_eq!([1, 3, 4, 9].map(|from| letters.until(from)), [3, 4, 4, 9]);
    }
}
