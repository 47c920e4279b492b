//! One folder of files per batch: `PREFIX-TIME` or `PREFIX-TIME.SUFFIX`, with exactly the committed batches in them.
//!
//! They are written before the commit, so a batch that is never committed may leave a folder, and the batch that comes in its place
//! may have another time: the folder would stay, and its records be there twice. It is removed, and provably no other one, because
//! batches have numbers without holes and side effects of batch n begin only once batch n - 1 is committed. So when batch n writes,
//! of all the folders exactly those of number n are not committed.
//!
//! - **Every batch looks, also one between two slides**, which writes nothing: what it finds of its own number goes.
//! - **Once per owner.** After that there can only be what this process itself left of the same number: looked for where a batch is
//!   run again.
//! - **A file that is locked** while folders are removed or put in their place holds the epoch of the last owner. A process that was
//!   taken for dead, and goes on, finds a later one there and ends. What it put in its place before that is of the number that the
//!   next owner's first batch has, and is removed by it.
//! - **A folder of a number that was not given yet** shows a store that went back, or a folder that was copied: nothing is
//!   removed, and the stream ends.
//!
//! Times are strictly increasing, so folders that are not committed have later ones than all that are: the look goes from the
//! last one back, up to the first that is committed.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    BatchScope, DStream, Output, SideEffect,
    part_files::{
        Marker, PartEncoder, Place, Written, failed, flush_folder, make_folder, names, remove, remove_unfinished,
        unfinished,
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{BatchTime, Term},
};

/// Where the folders of an output are, and what they are called.
#[derive(Debug, Clone)]
struct Series {
    parent: PathBuf,
    prefix: String,
    /// With its dot, or empty.
    suffix: String,
}

/// What the locked file holds: whose folders these are.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    application: String,
    zero_time_ms: i64,
    epoch: u64,
}

/// The right to remove folders and to put them in their place, until it is dropped.
#[derive(Debug)]
struct Owned<'s> {
    series: &'s Series,
    _lock: File,
}

impl Series {
    fn new(prefix: &str, suffix: &str) -> Result<Self> {
        let Place { parent, name: prefix } = Place::of(prefix)?;
        if suffix.contains('/') {
            return Err(Error::config(format!("a suffix cannot name another folder suffix={suffix:?}")));
        }
        let suffix = if suffix.is_empty() { String::new() } else { format!(".{suffix}") };
        Ok(Self { parent, prefix, suffix })
    }

    /// The name for a time, or for what stands for one. Spark: `rddToFileName`.
    fn name(&self, time: impl std::fmt::Display) -> String {
        format!("{}-{time}{}", self.prefix, self.suffix)
    }

    fn place(&self, name: String) -> Place {
        Place { parent: self.parent.clone(), name }
    }

    /// The file that is locked.
    fn owner_path(&self) -> PathBuf {
        self.parent.join(format!(".{}.owner", self.name("TIME")))
    }

    /// The time in the name of one of its folders.
    fn time_of(&self, name: &str) -> Option<BatchTime> {
        let time = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(&self.suffix)?;
        let known = time.parse().ok().map(BatchTime::from_ms);
        known.filter(|known| self.name(known.as_ms()) == name)
    }

    /// Makes sure that no later owner has begun, and keeps others out meanwhile.
    fn own(&self, term: &Term) -> Result<Owned<'_>> {
        make_folder(&self.parent)?;
        let path = self.owner_path();
        let cannot = |error| failed("cannot lock the folders of an output", &path, error);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            // It passes: whoever has it is about to end, or to be told that it was taken over.
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(Error::unavailable(format!(
                    "another process is at the folders of this output path={path}"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(cannot)?;
        let me =
            Owner { application: term.application.to_string(), zero_time_ms: term.zero_time_ms, epoch: term.epoch };
        let shown = path.display();
        // Empty: it was made just now, or by a process that died right then.
        if !text.is_empty() {
            let known: Owner = serde_json::from_slice(&text).map_err(|error| {
                Error::corrupt(format!("the file that says whose folders these are is damaged path={shown}"))
                    .caused_by(error)
            })?;
            if (&known.application, known.zero_time_ms) != (&me.application, me.zero_time_ms) {
                return Err(Error::config(format!(
                    "the folders belong to another application, or to this one before its store was made anew: move them \
                     and this file away, or choose another prefix path={shown} application={:?}",
                    known.application
                )));
            }
            if known.epoch > me.epoch {
                return Err(Error::fenced(format!(
                    "a later owner of the application has written here, or the store was put back path={shown} \
                     epoch={} last={}",
                    me.epoch, known.epoch
                )));
            }
            if known == me {
                return Ok(Owned { series: self, _lock: file });
            }
        }
        let text = serde_json::to_vec(&me).map_err(|error| {
            Error::internal("the owner of an output's folders cannot be written down").caused_by(error)
        })?;
        // In one piece, and never shorter than what was there: epochs only grow.
        file.rewind().and_then(|()| file.write_all(&text)).and_then(|()| file.sync_all()).map_err(cannot)?;
        Ok(Owned { series: self, _lock: file })
    }
}

impl Owned<'_> {
    /// Removes what attempts at batch `batch_seq` left, and what processes left unfinished that died.
    fn tidy(&self, term: &Term, batch_seq: u64) -> Result<()> {
        let series = self.series;
        let (mut folders, mut removed) = (Vec::new(), false);
        for name in names(&series.parent)? {
            if let Some(time) = series.time_of(&name) {
                folders.push((time, name));
            } else if unfinished(&name).is_some_and(|of| series.time_of(of).is_some()) {
                remove_unfinished(&series.parent.join(name))?;
            }
        }
        folders.sort();
        for (_, name) in folders.into_iter().rev() {
            let place = series.place(name);
            match Marker::read(&place.path())?.filter(|marker| marker.is_of(term)) {
                // Another program's, or put there by hand.
                None => {}
                Some(marker) if marker.batch_seq < batch_seq => break,
                Some(marker) if marker.batch_seq > batch_seq => {
                    return Err(Error::corrupt(format!(
                        "a folder is of a batch that the store does not know yet: was the store put back, or the folder \
                         copied? move away what is newer than the store path={} batch_seq={} next={batch_seq}",
                        place.path().display(),
                        marker.batch_seq
                    )));
                }
                Some(_) if failpoint::mutant("orphans_stay") => {}
                Some(_) => {
                    tracing::info!(path = %place.path().display(), batch_seq, "the folder of an uncommitted batch is removed");
                    remove(&place)?;
                    removed = true;
                }
            }
        }
        if removed { flush_folder(&series.parent) } else { Ok(()) }
    }
}

/// The output: each batch of `stream` as a folder.
struct SaveAsFiles<T, E> {
    name: &'static str,
    stream: DStream<T>,
    series: Series,
    /// The epoch and the number of the batch that ran last.
    ran: Mutex<Option<(u64, u64)>>,
    encoder: PhantomData<fn() -> E>,
}

impl<T: Send + 'static, E: PartEncoder<T> + 'static> SideEffect for SaveAsFiles<T, E> {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, scope: &BatchScope) -> Result<()> {
        let batch_seq = scope.batch().batch_seq;
        let term = scope.task().term().ok_or_else(|| Error::internal("an output runs outside of any stream"))?;
        let owned = self.series.own(term)?;
        let before = self.ran.lock().unwrap_or_else(PoisonError::into_inner).replace((term.epoch, batch_seq));
        // Right after the batch before it: nothing can have been left of this one since.
        if before.is_none_or(|(epoch, seq)| (epoch, seq.saturating_add(1)) != (term.epoch, batch_seq)) {
            owned.tidy(term, batch_seq)?;
        }
        drop(owned);
        if !self.stream.is_due(scope) {
            return Ok(());
        }
        let place = self.series.place(self.series.name(scope.batch().batch_time.as_ms()));
        let written = Written::write::<T, E>(&self.stream.rdd(scope)?, &place);
        // Writing may have taken long: somebody else may be the owner by now, and have removed what was unfinished.
        let owned = self.series.own(term);
        match (written, owned) {
            (_, Err(error)) if error.kind() == ErrorKind::Fenced => Err(error),
            (Ok(written), owned) => {
                let _owned = owned?;
                written.put(&place)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Adds the output that writes each batch of `stream` as a folder.
pub(super) fn save_as_files<T: Send + 'static, E: PartEncoder<T> + 'static>(
    stream: &DStream<T>,
    name: &'static str,
    prefix: &str,
    suffix: &str,
) -> Result<()> {
    let series = Series::new(prefix, suffix)?;
    stream.graph().claim_files(series.owner_path())?;
    let (stream, ran) = (stream.used(), Mutex::new(None));
    let graph = stream.graph().clone();
    graph.add_output(Output::SideEffect(Arc::new(SaveAsFiles::<T, E> {
        name,
        stream,
        series,
        ran,
        encoder: PhantomData,
    })));
    Ok(())
}
