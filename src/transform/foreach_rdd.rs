//! The user's own code per batch: `foreach_rdd` as a side effect, `foreach_rdd_in` inside the batch's transaction.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{BatchScope, DStream, Output, Prepared, Rdd, SideEffect, TransactionalOutput};
use crate::{
    error::Result,
    types::{BatchTransaction, ColumnShape, TableSpec, TransactionCode},
};

struct Effect<F> {
    name: &'static str,
    slide_ms: Option<i64>,
    kept: bool,
    run: F,
}

impl<F: Fn(&BatchScope) -> Result<()> + Send + Sync> SideEffect for Effect<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn slide_ms(&self) -> Option<i64> {
        self.slide_ms
    }

    fn is_kept(&self) -> bool {
        self.kept
    }

    fn run(&self, scope: &BatchScope) -> Result<()> {
        (self.run)(scope)
    }
}

/// Runs `run` whenever the batch has an RDD of `stream`.
pub(crate) fn add_side_effect<T: Send + 'static>(
    stream: &DStream<T>,
    name: &'static str,
    run: impl Fn(&BatchScope) -> Result<()> + Send + Sync + 'static,
) {
    let effect = Effect { name, slide_ms: stream.slide_ms(), kept: stream.is_kept(), run };
    stream.graph().add_output(Output::SideEffect(Arc::new(effect)));
}

struct InTransaction<T, F> {
    stream: DStream<T>,
    function: Arc<F>,
}

struct Code<T, F> {
    rdd: Rdd<T>,
    function: Arc<F>,
}

impl<T, F> fmt::Debug for Code<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("foreach_rdd_in")
    }
}

#[async_trait]
impl<T, F> TransactionCode for Code<T, F>
where
    T: Clone + Send + Sync + 'static,
    F: for<'a, 't> Fn(Rdd<T>, &'a mut BatchTransaction<'t>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
{
    async fn run(&self, transaction: &mut BatchTransaction<'_>) -> Result<()> {
        (self.function)(self.rdd.clone(), transaction).await
    }
}

impl<T, F> TransactionalOutput for InTransaction<T, F>
where
    T: Clone + Send + Sync + 'static,
    F: for<'a, 't> Fn(Rdd<T>, &'a mut BatchTransaction<'t>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "foreach_rdd_in"
    }

    fn tables(&self) -> &[TableSpec] {
        &[]
    }

    fn reads_once(&self) -> bool {
        true
    }

    fn slide_ms(&self) -> Option<i64> {
        self.stream.slide_ms()
    }

    fn prepare(&self, scope: &BatchScope, _tables: &[Vec<ColumnShape>]) -> Result<Prepared> {
        // Computed before the transaction is open: the owner's transaction stays as short as the user's SQL.
        let rdd = self.stream.rdd(scope)?.persist()?;
        let code = Code { rdd, function: Arc::clone(&self.function) };
        Ok(Prepared { user_code: vec![Arc::new(code)], ..Prepared::default() })
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Runs `function` once per batch with its RDD. A side effect: it runs before the commit and again if the batch is
    /// retried, so at least once; the batch's time and ranges ([`Rdd::batch`]) make it possible to recognise a repetition.
    /// For effects that are exactly once see [`foreach_rdd_in`](Self::foreach_rdd_in). Spark: `foreachRDD`.
    pub fn foreach_rdd(&self, function: impl Fn(&Rdd<T>) -> Result<()> + Send + Sync + 'static) {
        let stream = self.used();
        add_side_effect(self, "foreach_rdd", move |scope| function(&stream.rdd(scope)?));
    }
}

impl<T: Clone + Send + Sync + 'static> DStream<T> {
    /// Runs `function` once per batch with its RDD inside the batch's own transaction: what it writes is committed with
    /// the batch's results and offsets, or not at all. It must be ready to run again after a rollback, and cannot commit.
    /// It runs on a thread of its own and may block it; what takes longer than `stream.batch_deadline` ends the stream with exit
    /// code 6, and nothing of the batch is kept.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// words.foreach_rdd_in(|rdd, transaction| {
    ///     Box::pin(async move {
    ///         for word in rdd.collect()? {
    ///             transaction.execute("INSERT INTO seen (word) VALUES ($1)", &[word.into()]).await?;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    /// # }
    /// ```
    pub fn foreach_rdd_in<F>(&self, function: F)
    where
        F: for<'a, 't> Fn(Rdd<T>, &'a mut BatchTransaction<'t>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
    {
        let output = InTransaction { stream: self.used(), function: Arc::new(function) };
        self.graph().add_output(Output::Transactional(Arc::new(output)));
    }
}
