//! A receiver's life: started, started again after it failed, and stopped.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::log::Log;
use crate::{
    error::{Error, Result},
    report::Reporter,
    transform::panic_text,
};

/// The pause before a receiver is started again, as Spark's `spark.streaming.receiverRestartDelay`; each next one is twice as
/// long, up to the longest, until something was stored.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Takes records from somewhere and stores them. Spark: `Receiver`.
///
/// What [`store`](ReceiverSupervisor::store) returned `Ok` for lies on the disk and is processed exactly once from then on, also
/// if the process is killed. What was on its way then is lost, unless the sender sends it again. So a receiver that acknowledges
/// to its sender only after `store` loses nothing: what Spark calls a reliable receiver. Where an acknowledgement is lost on
/// its way, a sender that sends again makes the record twice; on the sender's side it is at least once.
///
/// ```
/// use std::{io::{BufRead, BufReader, Write}, net::TcpStream};
/// use directstream::{Error, Result, stream::{Receiver, ReceiverSupervisor}};
///
/// /// Lines of a connection, each acknowledged.
/// #[derive(Debug)]
/// struct Acknowledging(&'static str);
///
/// impl Receiver for Acknowledging {
///     fn name(&self) -> &str {
///         "orders"
///     }
///
///     fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
///         let failed = |error| Error::unavailable("the connection failed").caused_by(error);
///         let mut sender = TcpStream::connect(self.0).map_err(failed)?;
///         for line in BufReader::new(sender.try_clone().map_err(failed)?).lines() {
///             supervisor.store(&[line.map_err(failed)?])?;
///             sender.write_all(b"ok\n").map_err(failed)?;
///         }
///         Err(Error::unavailable("the connection was closed"))
///     }
///
///     fn on_stop(&self) {}
/// }
/// ```
pub trait Receiver: fmt::Debug + Send + Sync + 'static {
    /// Its name, under which its log and its offsets are kept: up to 100 letters, digits, dots, `-` and `_`. By another name it is
    /// another receiver.
    fn name(&self) -> &str;

    /// Receives. It has a thread of its own and may run until it is stopped, or start threads and return. Spark: `onStart`, which
    /// may not block.
    ///
    /// # Errors
    /// What ended it: it is stopped, and started again after a pause. A panic counts as one.
    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()>;

    /// Ends what `on_start` began: called once after each start, from another thread, perhaps while `on_start` still runs. From
    /// then on the supervisor of that start [is stopped](ReceiverSupervisor::is_stopped), which is all that a receiver
    /// needs that looks at it every now and then. Spark: `onStop`.
    fn on_stop(&self);
}

/// What a receiver stores with. It belongs to one start of the receiver. Cheap to clone. Spark: the methods `store`, `restart`
/// and `isStopped` of `Receiver`.
#[derive(Debug, Clone)]
pub struct ReceiverSupervisor {
    supervision: Arc<Supervision>,
    start: u64,
}

impl ReceiverSupervisor {
    /// Stores a block of records, all or none. When it returns `Ok` they are on the disk. It waits where the log has no
    /// room for them. Each call is one flush of the disk: a receiver that stores many records at a time is faster by far.
    /// Spark: `store` of an `ArrayBuffer`.
    ///
    /// ```
    /// # fn example(supervisor: &directstream::stream::ReceiverSupervisor) -> directstream::Result<()> {
    /// supervisor.store(&["one record", "and another"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the receiver was stopped or the disk is full: nothing of them is stored. The
    /// same where the disk fails in its flush, and then the stream ends: whether they are there is only known at its next start.
    /// [`Transform`](crate::ErrorKind::Transform) if the block has more than 64 MiB.
    pub fn store(&self, records: &[impl AsRef<[u8]>]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.supervision.log.store(records, || !self.is_stopped())?;
        self.supervision.state().stored_by = self.start;
        Ok(())
    }

    /// Has the receiver stopped, and started again after a pause. Returns at once. Spark: `restart`.
    pub fn restart(&self, message: &str) {
        self.supervision.ended(self.start, message.to_owned());
    }

    /// Whether this start is over: nothing more can be stored. Spark: `isStopped`.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let state = self.supervision.state();
        state.running != Some(self.start)
    }
}

/// Who runs, and what is asked for.
#[derive(Debug)]
pub(super) struct Supervision {
    log: Arc<Log>,
    state: Mutex<State>,
    changed: Condvar,
    /// Whom it is told, and as what.
    reports: OnceLock<Reports>,
}

#[derive(Debug)]
struct Reports {
    stream_id: usize,
    name: String,
    reporter: Reporter,
}

#[derive(Debug, Default)]
struct State {
    starts: u64,
    /// The start that may store.
    running: Option<u64>,
    /// The last start that stored something.
    stored_by: u64,
    /// Why the running one is to be started again.
    restart: Option<String>,
    stop: bool,
}

impl Supervision {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log, state: Mutex::default(), changed: Condvar::new(), reports: OnceLock::new() }
    }

    /// From now on it is told what becomes of the receiver.
    pub(super) fn reports_to(&self, stream_id: usize, name: &str, reporter: &Reporter) {
        let reports = Reports { stream_id, name: name.to_owned(), reporter: reporter.clone() };
        // A context starts once.
        let _ = self.reports.set(reports);
    }

    fn report(&self, tell: impl FnOnce(&Reporter, usize, &str)) {
        if let Some(Reports { stream_id, name, reporter }) = self.reports.get() {
            tell(reporter, *stream_id, name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the receiver, again and again, on a thread of its own, until it is stopped.
    pub(super) fn run(self: &Arc<Self>, receiver: Arc<dyn Receiver>) -> Result<JoinHandle<()>> {
        let this = Arc::clone(self);
        let thread = thread::Builder::new().name(format!("receiver {}", receiver.name()));
        let spawned = thread.spawn(move || this.supervise(&receiver));
        spawned.map_err(|error| Error::internal("a receiver's thread cannot be started").caused_by(error))
    }

    /// Nothing more is stored from now on, and the receiver is told.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        (state.stop, state.running) = (true, None);
        drop(state);
        self.changed.notify_all();
    }

    fn supervise(self: &Arc<Self>, receiver: &Arc<dyn Receiver>) {
        let mut pause = RESTART_PAUSE;
        while let Some(start) = self.begin() {
            self.report(Reporter::receiver_started);
            let running = self.start(receiver, start);
            let why = self.end_of(start);
            receiver.on_stop();
            // A receiver that does not end holds its next start up, and nothing else.
            if let Ok(running) = running {
                let _ = running.join();
            }
            let Some(why) = why else { break };
            self.report(|reporter, stream_id, name| reporter.receiver_error(stream_id, name, &why));
            let state = self.state();
            if state.stored_by == start {
                pause = RESTART_PAUSE;
            }
            tracing::warn!(receiver = receiver.name(), ?pause, "the receiver is started again: {why}");
            let waited = self.changed.wait_timeout_while(state, pause, |state| !state.stop);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
        self.report(Reporter::receiver_stopped);
    }

    /// The number of the next start; `None`: it is stopped.
    fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        if state.stop {
            return None;
        }
        state.starts += 1;
        (state.running, state.restart) = (Some(state.starts), None);
        state.running
    }

    fn start(self: &Arc<Self>, receiver: &Arc<dyn Receiver>, start: u64) -> std::io::Result<JoinHandle<()>> {
        let (this, receiver) = (Arc::clone(self), Arc::clone(receiver));
        let thread = thread::Builder::new().name(format!("receiving {}", receiver.name()));
        let spawned = thread.spawn(move || {
            let supervisor = ReceiverSupervisor { supervision: Arc::clone(&this), start };
            match catch_unwind(AssertUnwindSafe(|| receiver.on_start(supervisor))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => this.ended(start, error.chain()),
                Err(panic) => this.ended(start, format!("it panicked: {}", panic_text(&*panic))),
            }
        });
        if let Err(error) = &spawned {
            self.ended(start, format!("its thread cannot be started: {error}"));
        }
        spawned
    }

    /// A start is over.
    fn ended(&self, start: u64, why: String) {
        let mut state = self.state();
        if state.running == Some(start) {
            (state.running, state.restart) = (None, Some(why));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until this start is over, and tells why it is to be started again; `None`: it is stopped.
    fn end_of(&self, start: u64) -> Option<String> {
        let state = self.state();
        let waited = self.changed.wait_while(state, |state| state.running == Some(start));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.stop { None } else { state.restart.take() }
    }
}
