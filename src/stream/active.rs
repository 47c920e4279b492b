//! The contexts that are active in this process, by the name of their application.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{StreamingContext, StreamingContextBuilder, StreamingContextState};
use crate::error::Result;

/// Weak: a context that its program has let go of is not kept alive by this list.
static CONTEXTS: Mutex<BTreeMap<String, Weak<StreamingContext>>> = Mutex::new(BTreeMap::new());

impl StreamingContextBuilder {
    /// The context of this application that is active in this process; if there is none, a new one, to which `set_up` gives its
    /// streams and outputs. For programs that come by the same place again and again, as a notebook or a request handler does.
    /// Spark: `StreamingContext.getActiveOrCreate`.
    ///
    /// Where an application goes on is not a matter of this: offsets, ledger and state are in the store, and each start of a
    /// context takes them up. Spark's `getOrCreate`, which restores a graph from a checkpoint, needs no counterpart: the program
    /// is the graph.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use directstream::stream::{DirectStream, StreamingContext};
    ///
    /// # async fn example() -> directstream::Result<()> {
    /// let builder = StreamingContext::builder("lines", Duration::from_secs(1)).store("sqlite:lines.db")?;
    /// let context = builder.get_or_create(|context| {
    ///     context.direct_stream(DirectStream::topics(["lines"]))?.count().print();
    ///     Ok(())
    /// })?;
    /// context.start().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Only contexts that were made by this function are found. Active is one from its start to its end.
    ///
    /// # Errors
    /// As [`build`](Self::build), and what `set_up` fails with.
    pub fn get_or_create(self, set_up: impl FnOnce(&StreamingContext) -> Result<()>) -> Result<Arc<StreamingContext>> {
        if let Some(active) = active(self.application()) {
            return Ok(active);
        }
        let context = Arc::new(self.build()?);
        // Without the lock: it is the user's code, and may come by here itself.
        set_up(&context)?;
        let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.retain(|_, context| context.strong_count() > 0);
        contexts.insert(context.application().to_owned(), Arc::downgrade(&context));
        Ok(context)
    }
}

/// The application's context that is active.
fn active(application: &str) -> Option<Arc<StreamingContext>> {
    let contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let context = contexts.get(application)?.upgrade()?;
    (context.state() == StreamingContextState::Active).then_some(context)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_context_that_is_not_active_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("a.db").display());
        let builder = || StreamingContext::builder("active-unit", Duration::from_secs(1)).store(&url).unwrap();
        let one = builder().get_or_create(|_| Ok(())).unwrap();
        let other = builder().get_or_create(|_| Ok(())).unwrap();
        assert!(!Arc::ptr_eq(&one, &other), "it was not started");
        let error = builder().get_or_create(|_| Err(Error::config("no good"))).unwrap_err();
        assert_eq!(error.to_string(), "no good");
    }
}
