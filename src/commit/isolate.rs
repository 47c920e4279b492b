//! Isolating mode: a batch that the database refused is written again in slices of records, halved down to the one record
//! that is refused. That one becomes a dead letter, in the same transaction, and has a row in no table.
//!
//! Only what a row holds is a reason to halve. Any other failure (a lost connection, a deadlock, a full disk) ends the
//! attempt, and the batch is tried again as a whole: a good record never becomes a dead letter because a server was ill.

use async_trait::async_trait;

use crate::{
    error::{Error, Result},
    types::{DeadLetter, Isolated, RecordRows, TableRows},
};

/// Records in a slice. More gain nothing: a slice costs three statements beside its rows.
const SLICE_RECORDS_MAX: usize = 1_024;
/// Bytes of the records in a slice, as long as it has more than one: their rows are made while they are written, and are all
/// that isolating holds beside the records themselves.
const SLICE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Dead letters are written when so many wait, or so many bytes of them.
const LETTERS_MAX: usize = 1_000;
const LETTER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where slices are written.
#[async_trait]
pub(super) trait Slices: Send {
    /// Writes the rows of a slice into all tables, and checks every constraint on them: all of it, or nothing.
    async fn write(&mut self, tables: &[TableRows]) -> Result<Attempt>;

    /// Writes dead letters.
    async fn dead_letters(&mut self, letters: &[DeadLetter]) -> Result<()>;
}

/// What became of a slice.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Its rows are written.
    Written,
    /// Nothing is written, because of what its rows hold; why, and which table refused them where that is known.
    Refused(Error, Option<String>),
}

/// Writes all records that can be written, in merge order, and the others as dead letters.
///
/// The size of a slice is halved when one is refused, and doubled when one is written. So one bad record among many costs
/// some twenty slices, and a batch of bad records one slice a record.
///
/// # Errors
/// What a slice failed with that has nothing to do with what its rows hold.
pub(super) async fn write_isolated(records: &dyn RecordRows, slices: &mut dyn Slices) -> Result<Isolated> {
    let mut isolated = Isolated::default();
    let mut waiting = Letters::default();
    let (mut next, mut size) = (0, SLICE_RECORDS_MAX);
    while next < records.len() {
        let end = slice_end(records, next, size);
        match attempt(records, next, end, slices).await? {
            Ok(rows) => {
                isolated.rows += rows;
                size = ((end - next) * 2).min(SLICE_RECORDS_MAX);
                next = end;
            }
            Err((error, output)) if end - next == 1 => {
                let letter = records.dead_letter(next, error.chain(), output);
                isolated.dead_letters += 1;
                waiting.add(letter, records.bytes(next));
                waiting.write(slices, false).await?;
                (next, size) = (next + 1, 1);
            }
            Err(_refused) => size = (end - next) / 2,
        }
    }
    waiting.write(slices, true).await?;
    Ok(isolated)
}

/// [`write_isolated`] for records that are dead letters already: those that are refused are handed back, not written.
///
/// # Errors
/// As [`write_isolated`].
pub(super) async fn write_handing_letters_back(
    records: &dyn RecordRows,
    slices: &mut dyn Slices,
) -> Result<(Isolated, Vec<DeadLetter>)> {
    let mut handing = HandingBack { slices, letters: Vec::new() };
    let isolated = write_isolated(records, &mut handing).await?;
    Ok((isolated, handing.letters))
}

struct HandingBack<'s> {
    slices: &'s mut dyn Slices,
    letters: Vec<DeadLetter>,
}

#[async_trait]
impl Slices for HandingBack<'_> {
    async fn write(&mut self, tables: &[TableRows]) -> Result<Attempt> {
        self.slices.write(tables).await
    }

    async fn dead_letters(&mut self, letters: &[DeadLetter]) -> Result<()> {
        self.letters.extend_from_slice(letters);
        Ok(())
    }
}

fn slice_end(records: &dyn RecordRows, from: usize, size: usize) -> usize {
    let most = records.len().min(from + size);
    let mut bytes = records.bytes(from);
    let mut end = from + 1;
    while end < most {
        bytes += records.bytes(end);
        if bytes > SLICE_BYTES_MAX {
            break;
        }
        end += 1;
    }
    end
}

type Refused = (Error, Option<String>);

/// One slice: how many rows it had, or why it is refused.
async fn attempt(
    records: &dyn RecordRows,
    from: usize,
    end: usize,
    slices: &mut dyn Slices,
) -> Result<Result<u64, Refused>> {
    let tables = match records.rows(from..end) {
        Ok(tables) => tables,
        Err(error) if error.is_about_rows() => return Ok(Err((error, None))),
        Err(error) => return Err(error),
    };
    let rows = tables.iter().flat_map(|table| &table.chunks).map(|chunk| chunk.rows).sum();
    Ok(match slices.write(&tables).await? {
        Attempt::Written => Ok(rows),
        Attempt::Refused(error, output) => Err((error, output)),
    })
}

/// Dead letters that wait to be written.
#[derive(Default)]
struct Letters {
    letters: Vec<DeadLetter>,
    bytes: usize,
}

impl Letters {
    fn add(&mut self, letter: DeadLetter, bytes: usize) {
        self.letters.push(letter);
        self.bytes += bytes;
    }

    async fn write(&mut self, slices: &mut dyn Slices, all: bool) -> Result<()> {
        if all || self.letters.len() >= LETTERS_MAX || self.bytes >= LETTER_BYTES_MAX {
            slices.dead_letters(&self.letters).await?;
            *self = Self::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::types::{DeadLetterStage, EncodedRows, Offset, TopicPartition};

    /// Records that are numbers; a row of one is the number itself.
    #[derive(Debug)]
    struct Numbers {
        numbers: Vec<u32>,
        bytes: usize,
    }

    impl RecordRows for Numbers {
        fn len(&self) -> usize {
            self.numbers.len()
        }

        fn bytes(&self, _record: usize) -> usize {
            self.bytes
        }

        fn rows(&self, records: Range<usize>) -> Result<Vec<TableRows>> {
            let numbers = &self.numbers[records];
            let bytes = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
            Ok(vec![TableRows { table: 0, chunks: vec![EncodedRows { rows: numbers.len() as u64, bytes }] }])
        }

        fn dead_letter(&self, record: usize, reason: String, output: Option<String>) -> DeadLetter {
            DeadLetter {
                topic_partition: TopicPartition::new("t", 0),
                offset: Offset::new(i64::try_from(record).unwrap()).unwrap(),
                stage: DeadLetterStage::Write,
                reason,
                output,
                key: None,
                value: None,
                headers: "[]".to_owned(),
                timestamp_ms: None,
            }
        }
    }

    /// A table of unique numbers that takes none of the `bad` ones, and fails altogether at `ill`.
    #[derive(Default)]
    struct Unique {
        bad: Vec<u32>,
        ill: Option<u32>,
        table: Vec<u32>,
        letters: Vec<i64>,
        attempts: usize,
        largest: usize,
    }

    #[async_trait]
    impl Slices for Unique {
        async fn write(&mut self, tables: &[TableRows]) -> Result<Attempt> {
            self.attempts += 1;
            let before = self.table.len();
            let bytes = &tables[0].chunks[0].bytes;
            self.largest = self.largest.max(bytes.len() / 4);
            for number in bytes.as_chunks::<4>().0 {
                let number = u32::from_be_bytes(*number);
                if self.ill == Some(number) {
                    return Err(Error::unavailable("the server is ill"));
                }
                if self.bad.contains(&number) || self.table.contains(&number) {
                    self.table.truncate(before);
                    return Ok(Attempt::Refused(Error::transform("refused"), Some("unique".to_owned())));
                }
                self.table.push(number);
            }
            Ok(Attempt::Written)
        }

        async fn dead_letters(&mut self, letters: &[DeadLetter]) -> Result<()> {
            self.letters.extend(letters.iter().map(|letter| letter.offset.get()));
            Ok(())
        }
    }

    fn isolated(numbers: Vec<u32>, bytes: usize, store: &mut Unique) -> Result<Isolated> {
        let records = Numbers { numbers, bytes };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(write_isolated(&records, store))
    }

    proptest! {
        #[test]
        fn exactly_the_refused_records_become_dead_letters_and_the_first_of_two_equals_stays(
            numbers in prop::collection::vec(0_u32..3_000, 0..3_000),
            bad in prop::collection::vec(0_u32..3_000, 0..30),
        ) {
            let (mut rows, mut letters) = (Vec::new(), Vec::new());
            for (record, number) in numbers.iter().enumerate() {
                if bad.contains(number) || rows.contains(number) {
                    letters.push(i64::try_from(record).unwrap());
                } else {
                    rows.push(*number);
                }
            }
            let mut store = Unique { bad, ..Unique::default() };
            let done = isolated(numbers, 10, &mut store).unwrap();
            prop_assert_eq!((done.rows, done.dead_letters), (rows.len() as u64, letters.len() as u64));
            prop_assert_eq!(&store.table, &rows);
            prop_assert_eq!(&store.letters, &letters);
        }
    }

    #[test]
    fn one_bad_record_costs_few_slices_and_many_one_each() {
        let mut store = Unique { bad: vec![7_000], ..Unique::default() };
        isolated((0..10_000).collect(), 10, &mut store).unwrap();
        assert_eq!((store.letters.as_slice(), store.table.len()), ([7_000].as_slice(), 9_999));
        assert!(store.attempts < 40, "{}", store.attempts);
        let mut store = Unique { bad: (0..2_000).collect(), ..Unique::default() };
        isolated((0..2_000).collect(), 10, &mut store).unwrap();
        assert!(store.letters.len() == 2_000 && store.attempts < 2_020, "{}", store.attempts);
    }

    #[test]
    fn a_slice_is_bounded_by_records_and_by_bytes() {
        let mut store = Unique::default();
        isolated((0..5_000).collect(), 10, &mut store).unwrap();
        assert_eq!(store.largest, SLICE_RECORDS_MAX);
        let mut store = Unique::default();
        isolated((0..100).collect(), SLICE_BYTES_MAX / 3, &mut store).unwrap();
        assert_eq!(store.largest, 3);
        let mut store = Unique::default();
        isolated((0..3).collect(), SLICE_BYTES_MAX * 2, &mut store).unwrap();
        assert_eq!((store.largest, store.table.len()), (1, 3));
    }

    #[test]
    fn an_ill_server_makes_no_dead_letter() {
        let mut store = Unique { ill: Some(50), ..Unique::default() };
        let error = isolated((0..100).collect(), 10, &mut store).unwrap_err();
        assert!(error.kind().is_retryable() && store.letters.is_empty(), "{error:?}");
    }
}
