//! A stream as a node of the job's graph: for each batch it makes an RDD.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{BatchScope, Element, Graph, Rdd};
use crate::error::Result;

/// The number of an operator, given in order of definition: the same program gives the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorId(pub(crate) usize);

/// A stream as a lazy chain of operations: for each batch it gives an [`Rdd`].
pub struct DStream<T> {
    node: Arc<Node<T>>,
}

/// Makes the operator's RDD of a batch.
type MakeRdd<T> = Box<dyn Fn(&BatchScope) -> Result<Rdd<T>> + Send + Sync>;

struct Node<T> {
    id: OperatorId,
    name: &'static str,
    graph: Graph,
    nature: Nature,
    make: MakeRdd<T>,
    children: AtomicUsize,
}

/// What a stream has from those that it is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nature {
    /// How often there is an RDD, in milliseconds of batch time; `None`: with each batch.
    pub(super) slide_ms: Option<i64>,
    /// Whether its elements depend on state, and so on all batches before.
    pub(super) stateful: bool,
    /// Whether its elements come from what is kept, also where memory has no room: then nobody needs the records twice.
    pub(super) kept: bool,
}

impl<T> Clone for DStream<T> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node) }
    }
}

impl<T> fmt::Debug for DStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DStream({} {:?})", self.node.name, self.node.id)
    }
}

impl<T: Send + 'static> DStream<T> {
    pub(crate) fn new(
        graph: &Graph,
        name: &'static str,
        make: impl Fn(&BatchScope) -> Result<Rdd<T>> + Send + Sync + 'static,
    ) -> Self {
        Self::of_nature(graph, name, Nature::default(), make)
    }

    /// A stream with an RDD every `slide_ms` only.
    pub(crate) fn sliding(
        graph: &Graph,
        name: &'static str,
        slide_ms: i64,
        make: impl Fn(&BatchScope) -> Result<Rdd<T>> + Send + Sync + 'static,
    ) -> Self {
        Self::of_nature(graph, name, Nature { slide_ms: Some(slide_ms), ..Nature::default() }, make)
    }

    pub(super) fn of_nature(
        graph: &Graph,
        name: &'static str,
        nature: Nature,
        make: impl Fn(&BatchScope) -> Result<Rdd<T>> + Send + Sync + 'static,
    ) -> Self {
        let node = Node {
            id: graph.next_operator(name, nature.slide_ms),
            name,
            graph: graph.clone(),
            nature,
            make: Box::new(make),
            children: AtomicUsize::new(0),
        };
        Self { node: Arc::new(node) }
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.node.graph
    }

    /// A stream that makes its RDD from this one's.
    pub(crate) fn derive<U: Send + 'static>(
        &self,
        name: &'static str,
        make: impl Fn(Rdd<T>) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        let parent = self.used();
        DStream::of_nature(&self.node.graph, name, self.node.nature, move |scope| make(parent.rdd(scope)?))
    }

    /// A stream of the same elements that are kept.
    pub(super) fn derive_persisted(
        &self,
        kept: bool,
        make: impl Fn(Rdd<T>) -> Result<Rdd<T>> + Send + Sync + 'static,
    ) -> Self {
        let parent = self.used();
        let nature = Nature { kept: kept || self.node.nature.kept, ..self.node.nature };
        Self::of_nature(&self.node.graph, "persist", nature, move |scope| make(parent.rdd(scope)?))
    }

    /// Whether its elements come from what is kept, also where memory has no room.
    pub(super) fn is_kept(&self) -> bool {
        self.node.nature.kept
    }

    /// How often there is an RDD, in milliseconds of batch time; `None`: with each batch.
    pub(crate) fn slide_ms(&self) -> Option<i64> {
        self.node.nature.slide_ms
    }

    /// Whether its elements depend on state.
    pub(super) fn is_stateful(&self) -> bool {
        self.node.nature.stateful
    }

    /// The same as a number: the batch interval where there is one with each batch.
    pub(crate) fn every_ms(&self) -> i64 {
        self.slide_ms().unwrap_or_else(|| self.graph().interval_ms())
    }

    /// Whether the batch has an RDD of this stream.
    pub(crate) fn is_due(&self, scope: &BatchScope) -> bool {
        scope.is_due(self.slide_ms())
    }

    /// A stream whose RDD holds what an action on this one's gave, in one partition.
    pub(super) fn derive_action<U: Element, I: IntoIterator<Item = U>>(
        &self,
        name: &'static str,
        action: impl Fn(Rdd<T>) -> Result<I> + Send + Sync + 'static,
    ) -> DStream<U> {
        self.derive(name, move |rdd| {
            let scope = rdd.scope().clone();
            Ok(Rdd::of_partitions(&scope, vec![action(rdd)?.into_iter().collect()]))
        })
    }

    /// A stream that makes its RDD from this one's and another's.
    pub(super) fn derive_with<U: Send + 'static, R: Send + 'static>(
        &self,
        other: &DStream<U>,
        name: &'static str,
        make: impl Fn(Rdd<T>, Rdd<U>) -> Result<Rdd<R>> + Send + Sync + 'static,
    ) -> DStream<R> {
        if !self.node.graph.is(other.graph()) {
            self.node.graph.note_fault(format!("a stream belongs to another context operation={name}"));
        }
        self.node.graph.check_slides(name, [self.slide_ms(), other.slide_ms()]);
        let (this, other) = (self.used(), other.used());
        let nature = Nature {
            slide_ms: self.slide_ms(),
            stateful: self.is_stateful() || other.is_stateful(),
            kept: self.is_kept() && other.is_kept(),
        };
        DStream::of_nature(&self.node.graph, name, nature, move |scope| make(this.rdd(scope)?, other.rdd(scope)?))
    }

    /// A handle for a child or an output: the second one makes this stream a shared one.
    pub(crate) fn used(&self) -> Self {
        if self.node.children.fetch_add(1, Ordering::Relaxed) > 0 && !self.is_kept() {
            self.node.graph.note_shared_operator();
        }
        self.node.graph.take(self.node.id);
        self.clone()
    }

    /// This stream's RDD of a batch.
    pub(crate) fn rdd(&self, scope: &BatchScope) -> Result<Rdd<T>> {
        scope.generate(self.node.id, |scope| (self.node.make)(scope))
    }

    /// The operator's number.
    #[must_use]
    pub fn id(&self) -> OperatorId {
        self.node.id
    }
}
