//! The job as it is built: its operators and outputs, and what an output has to do.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{BatchScope, OperatorId};
use crate::{
    error::Result,
    types::{ColumnShape, DeadLetter, RecordRows, TableRows, TableSpec, TransactionCode},
};

/// The job as it is built: operators get their numbers in order of definition, outputs are kept in that order. Building
/// it does no I/O and gives the same graph every time.
#[derive(Clone, Default)]
pub struct Graph {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    operators: usize,
    shared_operators: bool,
    inputs: usize,
    outputs: Vec<Output>,
}

/// An output operation of the job.
pub enum Output {
    /// Commits with the batch: rows, dead letters, the user's SQL.
    Transactional(Arc<dyn TransactionalOutput>),
    /// Runs before the commit, at least once.
    SideEffect(Arc<dyn SideEffect>),
}

impl Clone for Output {
    fn clone(&self) -> Self {
        match self {
            Self::Transactional(output) => Self::Transactional(Arc::clone(output)),
            Self::SideEffect(output) => Self::SideEffect(Arc::clone(output)),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transactional(output) => output.name(),
            Self::SideEffect(output) => output.name(),
        })
    }
}

/// What an output gives to the batch's transaction.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Rows, one entry per table of the output, numbered within the output.
    pub tables: Vec<TableRows>,
    /// In an isolating batch, instead of the rows: the records they come from.
    pub isolating: Option<Box<dyn RecordRows>>,
    /// Refused records.
    pub dead_letters: Vec<DeadLetter>,
    /// The user's SQL.
    pub user_code: Vec<Arc<dyn TransactionCode>>,
}

/// An output that commits with the batch.
pub trait TransactionalOutput: Send + Sync {
    /// Its name in logs and events.
    fn name(&self) -> &str;

    /// The tables it writes.
    fn tables(&self) -> &[TableSpec];

    /// Whether it reads each partition once and to its end.
    fn reads_once(&self) -> bool;

    /// Whether its rows come from single records and a refused one may be left out: then it gives its
    /// [records](Prepared::isolating) instead of rows when a batch [is isolating](BatchScope::is_isolating).
    fn isolates(&self) -> bool {
        false
    }

    /// Computes what it will write, as bytes; nothing is written here. `tables` holds the columns of each of its
    /// tables as the database has them.
    ///
    /// # Errors
    /// What a task failed with, or the record that could not be taken.
    fn prepare(&self, scope: &BatchScope, tables: &[Vec<ColumnShape>]) -> Result<Prepared>;
}

/// An output whose effect is not in the batch's transaction.
pub trait SideEffect: Send + Sync {
    /// Its name in logs and events.
    fn name(&self) -> &str;

    /// Runs it.
    ///
    /// # Errors
    /// What the user's code or a task failed with.
    fn run(&self, scope: &BatchScope) -> Result<()>;
}

impl Graph {
    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn next_operator(&self) -> OperatorId {
        self.with(|inner| {
            inner.operators += 1;
            OperatorId(inner.operators)
        })
    }

    pub(crate) fn next_input(&self) -> usize {
        self.with(|inner| {
            inner.inputs += 1;
            inner.inputs - 1
        })
    }

    pub(crate) fn note_shared_operator(&self) {
        self.with(|inner| inner.shared_operators = true);
    }

    pub(crate) fn add_output(&self, output: Output) {
        self.with(|inner| inner.outputs.push(output));
    }

    /// The outputs, in order of definition.
    #[must_use]
    pub fn outputs(&self) -> Vec<Output> {
        self.with(|inner| inner.outputs.clone())
    }

    /// Whether each partition is read exactly once and to its end. If so, its records stream through; else the chunks of
    /// a batch are kept until it is done, so that Kafka is read once all the same.
    #[must_use]
    pub fn reads_once(&self) -> bool {
        self.with(|inner| {
            let once = |output: &Output| matches!(output, Output::Transactional(output) if output.reads_once());
            !inner.shared_operators && inner.outputs.len() == 1 && inner.outputs.iter().all(once)
        })
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|inner| {
            f.debug_struct("Graph").field("operators", &inner.operators).field("outputs", &inner.outputs).finish()
        })
    }
}
