//! Reading once before it counts, one partition at a time: who dies of it has named the partition.
//!
//! The client library aborts the process on a record batch that fails its checksum (see `kafka/ffi/last_words.rs`), also on
//! one that is only prefetched. The process that is started next dies of it again, before its first commit, and so on for
//! ever. So a process that follows such a one first reads what its first batch will, and what is prefetched meanwhile.

use std::{ops::ControlFlow, sync::Arc};

use super::reader::{DirectReader, ReadRanges, ReaderSettings};
use crate::{
    error::{Error, ErrorKind, Result, Stage},
    kafka::{LastWords, QueueLimits},
    types::{Chunk, Flow, Offset, OffsetRange, Stop},
};

/// What to read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// What the first batch reads.
    pub range: OffsetRange,
    /// The latest offset: up to it, more is prefetched.
    pub latest: Offset,
}

impl DirectReader {
    /// Reads each range, and what is prefetched beyond, alone and with little memory; nothing is kept of it. If the client
    /// library aborts the process meanwhile, stderr has one line with the partition and the offsets, and the exit code is that
    /// of [`ErrorKind::Corrupt`].
    ///
    /// If a partition cannot be read for another reason all is left to the batch, which says why.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if no client can be made; [`Corrupt`](ErrorKind::Corrupt) if a damaged record batch is
    /// found and the client library tells instead of aborting.
    pub fn rehearse(&self, rehearsed: &[Rehearsed], cancelled: &dyn Fn() -> bool) -> Result<()> {
        let prefetched = QueueLimits::for_budget(self.settings.memory_max_bytes / 2, rehearsed.len());
        let beyond = (prefetched.queued_kbytes * 1024).saturating_add(prefetched.fetch_bytes);
        let last_words = LastWords::new(ErrorKind::Corrupt.exit_code());
        for rehearsed in rehearsed.iter().filter(|rehearsed| !rehearsed.range.is_empty()) {
            match self.rehearse_one(rehearsed, beyond, &last_words, cancelled) {
                Err(Stop::Failed(error)) if [ErrorKind::Corrupt, ErrorKind::Config].contains(&error.kind()) => {
                    return Err(error);
                }
                // The others would fail in the same way, each after its own patience.
                Err(Stop::Failed(error)) => {
                    tracing::debug!("the batch is not read beforehand: {}", error.chain());
                    return Ok(());
                }
                Ok(()) | Err(Stop::Enough) => {}
            }
        }
        Ok(())
    }

    /// With a client of its own, which is gone before the next one comes: nothing else is fetched while its words are said.
    fn rehearse_one(
        &self,
        Rehearsed { range, latest }: &Rehearsed,
        mut beyond: u64,
        last_words: &LastWords,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let whole = OffsetRange { until_offset: *latest, ..range.clone() };
        last_words.say(&damaged(&whole).chain());
        // The smallest queue there is: the client is never far ahead of what is said.
        let settings = ReaderSettings { memory_max_bytes: 0, clients: Some(1), ..self.settings.clone() };
        let reader = Self::new(settings, Arc::clone(&self.clock)).map_err(Stop::Failed)?;
        let mut each = |chunk: Arc<Chunk>| -> Flow {
            let Some(last) = chunk.records().last() else { return ControlFlow::Continue(()) };
            let next = last.offset().next();
            if next > range.until_offset {
                beyond = beyond.saturating_sub(chunk.bytes());
            }
            if beyond == 0 || next >= *latest {
                return ControlFlow::Break(Stop::Enough);
            }
            last_words.say(&damaged(&OffsetRange { from_offset: next, ..whole.clone() }).chain());
            ControlFlow::Continue(())
        };
        reader.read(&whole, cancelled, &mut each).map(|_counts| ())
    }
}

fn damaged(range: &OffsetRange) -> Error {
    let text = "a record batch in Kafka fails its checksum, at or soon after the first of these offsets: look at the partition's \
                log on its leader with kafka-dump-log --deep-iteration, and restore it from a replica or delete the records up to \
                its end";
    Error::corrupt(text).at(Stage::Read).in_range(range.clone())
}
