//! The user's code in the batch's transaction: on a thread of its own, without the store's connection.
//!
//! What it wants of the database it asks for, and the committer's task, which has the connection, does it. So code that never
//! returns, even where it blocks its thread, is left behind at its deadline: the connection is closed like any other in doubt,
//! nothing of the batch is kept, and neither the committer nor the process' end waits for that thread.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    error::{Error, Result},
    types::{BatchCommit, BatchInfo, BatchTransaction, Cell, TransactionCode, TransactionSql, Value},
};

type Answer<T> = oneshot::Sender<Result<T>>;
type Rows = Vec<Vec<Cell>>;

/// What the code wants of the database.
enum Request {
    Execute(String, Vec<Value<'static>>, Answer<u64>),
    Fetch(String, Vec<Value<'static>>, Answer<Rows>),
}

/// The batch, as user code sees it.
pub(super) fn info_of(batch: &BatchCommit) -> BatchInfo {
    BatchInfo {
        batch_seq: batch.batch_seq,
        batch_time: batch.batch_time,
        ranges: batch.ranges.iter().map(|moved| moved.range.clone()).collect(),
    }
}

/// Waits for all of a batch's user code, but not for longer than `limit`. Whatever of it is at work on the connection then is
/// dropped with this future, and the connection has to be closed.
pub(super) async fn in_time(
    limit: Duration,
    batch: &BatchInfo,
    code: impl Future<Output = Result<()>> + Send,
) -> Result<()> {
    let over = |_| Err(batch.over_deadline("did not end its SQL", limit));
    tokio::time::timeout(limit, code).await.unwrap_or_else(over)
}

/// Runs `code` on a thread of its own; what it asks for is done by `sql`.
pub(super) async fn run(code: Arc<dyn TransactionCode>, batch: BatchInfo, sql: &mut dyn TransactionSql) -> Result<()> {
    let (requests, mut wanted) = mpsc::channel(1);
    let (give, mut given) = oneshot::channel();
    let runtime = Handle::current();
    let started = std::thread::Builder::new().name("user code".to_owned()).spawn(move || {
        runtime.block_on(tell(give, code, requests, batch));
    });
    started.map_err(|error| Error::internal("cannot start a thread for user code").caused_by(error))?;
    loop {
        tokio::select! {
            // Asked for and not waited for is asked for all the same.
            biased;
            Some(request) = wanted.recv() => serve(sql, request).await,
            ran = &mut given => return ran.unwrap_or_else(|_| Err(Error::internal("the thread of user code ended"))),
        }
    }
}

/// Runs `code` and gives what it came to, unless nobody waits any more: then the batch was given up, and the code is dropped where
/// it waits.
async fn tell(mut give: Answer<()>, code: Arc<dyn TransactionCode>, requests: mpsc::Sender<Request>, batch: BatchInfo) {
    let mut asking = Asking { requests };
    let mut transaction = BatchTransaction::new(&mut asking, &batch);
    // A panic is the user's error: it rolls the batch back as any other.
    let running = AssertUnwindSafe(code.run(&mut transaction)).catch_unwind();
    let ran = tokio::select! {
        ran = running => ran,
        () = give.closed() => return,
    };
    let panicked = |_| Err(Error::transform("the user's code panicked in the batch's transaction"));
    let _ = give.send(ran.unwrap_or_else(panicked));
}

async fn serve(sql: &mut dyn TransactionSql, request: Request) {
    // An answer that the code does not wait for any more is dropped: the work itself is done.
    match request {
        Request::Execute(text, parameters, answer) => {
            let _ = answer.send(sql.execute(&text, &parameters).await);
        }
        Request::Fetch(text, parameters, answer) => {
            let _ = answer.send(sql.fetch(&text, &parameters).await);
        }
    }
}

/// The transaction as the code's thread has it.
struct Asking {
    requests: mpsc::Sender<Request>,
}

impl Asking {
    async fn ask<T>(
        &self,
        parameters: &[Value<'_>],
        request: impl FnOnce(Vec<Value<'static>>, Answer<T>) -> Request,
    ) -> Result<T> {
        let (answer, done) = oneshot::channel();
        let parameters = parameters.iter().map(|value| value.clone().into_owned()).collect();
        let given_up = || Error::transform("the batch was given up while its user code ran");
        self.requests.send(request(parameters, answer)).await.map_err(|_| given_up())?;
        done.await.map_err(|_| given_up())?
    }
}

#[async_trait]
impl TransactionSql for Asking {
    async fn execute(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        let sql = sql.to_owned();
        self.ask(parameters, |parameters, answer| Request::Execute(sql, parameters, answer)).await
    }

    async fn fetch(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<Rows> {
        let sql = sql.to_owned();
        self.ask(parameters, |parameters, answer| Request::Fetch(sql, parameters, answer)).await
    }
}
