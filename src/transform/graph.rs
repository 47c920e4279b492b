//! The job as it is built: its operators and outputs, and what an output has to do.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{BatchScope, CommitQueue, OperatorId, history::Remembers, keyed_state::KeepsState, queue_stream::Queued};
use crate::{
    error::{Error, Result},
    kafka::KafkaOutput,
    types::{ColumnShape, DeadLetter, KafkaRecord, RecordRows, TableRows, TableSpec, TransactionCode},
};

/// The job as it is built: operators get their numbers in order of definition, outputs are kept in that order. Building
/// it does no I/O and gives the same graph every time.
#[derive(Clone, Default)]
pub struct Graph {
    inner: Arc<Mutex<Inner>>,
}

/// An operator as it was defined.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) id: OperatorId,
    pub(crate) name: &'static str,
    /// The operators that it reads.
    pub(crate) inputs: Vec<OperatorId>,
    /// Whether it gives the records of an input stream.
    pub(crate) is_input: bool,
    /// How often it gives something, in milliseconds of batch time; `None`: with each batch.
    pub(crate) slide_ms: Option<i64>,
}

#[derive(Default)]
struct Inner {
    operators: Vec<Operator>,
    /// Operators that were taken to be read by what is defined next. For show alone: a program that defines from several
    /// threads at once gets its lines drawn wrong, and nothing else.
    taken: Vec<OperatorId>,
    /// Whether the operator that is defined next gives an input's records.
    input_comes: bool,
    /// What each output reads.
    inputs_of_outputs: Vec<Vec<OperatorId>>,
    shared_operators: bool,
    /// Of each input what the program wants committed to its consumer group.
    inputs: Vec<Arc<CommitQueue>>,
    outputs: Vec<Output>,
    /// Where outputs write files: what is theirs alone.
    files: Vec<PathBuf>,
    histories: Vec<Arc<dyn Remembers>>,
    state_operators: u32,
    /// By their numbers.
    states: BTreeMap<u32, Arc<dyn KeepsState>>,
    queues: Vec<Arc<dyn Queued>>,
    /// The batch interval in milliseconds; 0 if none was told, which is taken for 1.
    interval_ms: i64,
    /// The first thing that is wrong with it.
    fault: Option<String>,
    /// Whether it runs, or never will: outputs come before.
    closed: bool,
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

impl Output {
    /// How often it has something to do, in milliseconds of batch time; `None`: with each batch.
    #[must_use]
    pub fn slide_ms(&self) -> Option<i64> {
        match self {
            Self::Transactional(output) => output.slide_ms(),
            Self::SideEffect(output) => output.slide_ms(),
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

/// How records of an output reach Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToKafka<'a> {
    /// In the batch's own transaction, which is one of Kafka's.
    Transaction,
    /// Out of a table that the batch's own transaction writes, to where this says.
    Outbox(&'a KafkaOutput),
}

/// What an output gives to the batch's transaction.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Rows, one entry per table of the output, numbered within the output.
    pub tables: Vec<TableRows>,
    /// Records for Kafka.
    pub records: Vec<KafkaRecord>,
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

    /// How its results reach Kafka; `None` if they do not.
    fn to_kafka(&self) -> Option<ToKafka<'_>> {
        None
    }

    /// How often it has something to do, in milliseconds of batch time; `None`: with each batch.
    fn slide_ms(&self) -> Option<i64> {
        None
    }

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

    /// How often it has something to do, in milliseconds of batch time; `None`: with each batch.
    fn slide_ms(&self) -> Option<i64> {
        None
    }

    /// Whether all that it reads is kept once it is computed, so that records are not needed twice.
    fn is_kept(&self) -> bool {
        false
    }

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

    pub(super) fn next_operator(&self, name: &'static str, slide_ms: Option<i64>) -> OperatorId {
        self.with(|inner| {
            let id = OperatorId(inner.operators.len() + 1);
            let mut inputs = std::mem::take(&mut inner.taken);
            inputs.dedup();
            let is_input = std::mem::take(&mut inner.input_comes);
            inner.operators.push(Operator { id, name, inputs, is_input, slide_ms });
            id
        })
    }

    /// The operator is read by what is defined next.
    pub(super) fn take(&self, id: OperatorId) {
        self.with(|inner| inner.taken.push(id));
    }

    /// What was taken is read by nothing that is defined.
    pub(super) fn untake(&self) {
        self.with(|inner| inner.taken.clear());
    }

    /// The operators, in order of definition.
    pub(crate) fn operators(&self) -> Vec<Operator> {
        self.with(|inner| inner.operators.clone())
    }

    /// What each output reads, in their order.
    pub(crate) fn inputs_of_outputs(&self) -> Vec<Vec<OperatorId>> {
        self.with(|inner| inner.inputs_of_outputs.clone())
    }

    pub(super) fn next_input(&self) -> (usize, Arc<CommitQueue>) {
        self.with(|inner| {
            // What an operation took that was refused after that is nobody's.
            (inner.taken, inner.input_comes) = (Vec::new(), true);
            let commits = Arc::new(CommitQueue::default());
            inner.inputs.push(Arc::clone(&commits));
            (inner.inputs.len() - 1, commits)
        })
    }

    /// What the program wants committed to consumer groups, input by input.
    pub(crate) fn commits(&self) -> Vec<Arc<CommitQueue>> {
        self.with(|inner| inner.inputs.clone())
    }

    pub(crate) fn note_shared_operator(&self) {
        self.with(|inner| inner.shared_operators = true);
    }

    /// A graph whose streams have a batch every so often.
    pub(crate) fn with_interval(interval: Duration) -> Self {
        let graph = Self::default();
        graph.with(|inner| inner.interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
        graph
    }

    /// The batch interval in milliseconds, at least 1.
    pub(crate) fn interval_ms(&self) -> i64 {
        self.with(|inner| inner.interval_ms.max(1))
    }

    pub(crate) fn add_history(&self, history: Arc<dyn Remembers>) {
        self.with(|inner| inner.histories.push(history));
    }

    /// What windows remember, in order of definition: a window over windows comes after those.
    pub(crate) fn histories(&self) -> Vec<Arc<dyn Remembers>> {
        self.with(|inner| inner.histories.clone())
    }

    pub(super) fn add_queue(&self, queue: Arc<dyn Queued>) {
        self.with(|inner| inner.queues.push(queue));
    }

    /// The queues that the program fills.
    pub(crate) fn queues(&self) -> Vec<Arc<dyn Queued>> {
        self.with(|inner| inner.queues.clone())
    }

    /// Whether the two are the same graph, and not only alike.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Notes what is wrong with the graph, where the operation itself cannot say it; the first one told stays.
    pub(super) fn note_fault(&self, fault: String) {
        self.with(|inner| {
            inner.fault.get_or_insert(fault);
        });
    }

    /// The streams of one operation must come as often: if they do not, the graph cannot run.
    pub(super) fn check_slides(&self, operation: &str, slides: impl IntoIterator<Item = Option<i64>>) {
        let text = |slide_ms: Option<i64>| slide_ms.map_or_else(|| "each batch".to_owned(), |ms| format!("{ms} ms"));
        let mut slides = slides.into_iter();
        let Some(first) = slides.next() else { return };
        if let Some(other) = slides.find(|other| *other != first) {
            let (slide, other) = (text(first), text(other));
            let told = "the streams of one operation must have the same slide duration";
            self.note_fault(format!("{told} operation={operation} slide={slide} other={other}"));
        }
    }

    /// Whether the graph can run.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a stream of another graph is used in it, or it has no output.
    pub fn check(&self) -> Result<()> {
        self.with(|inner| match &inner.fault {
            Some(fault) => Err(Error::config(fault)),
            None if inner.outputs.is_empty() => {
                Err(Error::config("no output operation is registered, so there is nothing to run"))
            }
            None => Ok(()),
        })
    }

    /// Adds the state operator that `make` makes of its number, which counts from 1 in order of definition.
    pub(super) fn add_state<S: KeepsState + 'static>(&self, make: impl FnOnce(u32) -> S) -> Arc<S> {
        let number = self.with(|inner| {
            inner.state_operators = inner.state_operators.saturating_add(1);
            inner.state_operators
        });
        // Without the lock: what makes it may use a stream of this graph.
        let state = Arc::new(make(number));
        self.with(|inner| inner.states.insert(number, Arc::clone(&state) as Arc<dyn KeepsState>));
        state
    }

    /// The state operators, in order of definition: state of state comes after it.
    pub(crate) fn states(&self) -> Vec<Arc<dyn KeepsState>> {
        self.with(|inner| inner.states.values().cloned().collect())
    }

    /// What stored state belongs to: the state operators in order of definition. Empty if there are none.
    pub(crate) fn fingerprint(&self) -> String {
        let states = self.states();
        let operators = (1..).zip(&states).map(|(number, state)| format!("{number} {}", state.fingerprint()));
        operators.collect::<Vec<_>>().join("; ")
    }

    /// Nothing that is added from now on is run.
    pub(crate) fn close(&self) {
        self.with(|inner| inner.closed = true);
    }

    /// Whether streams and outputs can still be added.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the context was started or stopped.
    pub(crate) fn check_open(&self) -> Result<()> {
        let text = "the context was started or stopped: streams and outputs are added before its start";
        self.with(|inner| if inner.closed { Err(Error::config(text)) } else { Ok(()) })
    }

    pub(crate) fn add_output(&self, output: Output) {
        if let Err(error) = self.check_open() {
            // It would be silently left out by whoever started meanwhile.
            tracing::error!("{error} output={output:?}");
        }
        self.with(|inner| {
            inner.outputs.push(output);
            let inputs = std::mem::take(&mut inner.taken);
            inner.inputs_of_outputs.push(inputs);
        });
    }

    /// Gives files to an output.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if another output of the job has them.
    pub(super) fn claim_files(&self, path: PathBuf) -> Result<()> {
        self.with(|inner| {
            if inner.files.contains(&path) {
                let told =
                    "two outputs of one job write folders of the same names: give one of them another prefix or suffix";
                return Err(Error::config(format!("{told} path={}", path.display())));
            }
            inner.files.push(path);
            Ok(())
        })
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
            let once = |output: &Output| match output {
                Output::Transactional(output) => output.reads_once(),
                Output::SideEffect(output) => output.is_kept(),
            };
            !inner.shared_operators && inner.outputs.iter().all(once)
        })
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|inner| {
            f.debug_struct("Graph").field("operators", &inner.operators.len()).field("outputs", &inner.outputs).finish()
        })
    }
}
