//! What the job is made of, for others to look at: streams, operators, outputs, and what reads what.

/// Operators and outputs that are kept of a graph; a larger one is cut, and says so.
pub const GRAPH_NODES_MAX: usize = 500;

/// A job as it is shown: a graph without cycles, told once at the start. Spark shows each batch's jobs instead.
///
/// ```
/// use directstream::{clock::SystemClock, report::{GraphNode, GraphOutput, GraphStream, JobGraph, Reporter}};
///
/// let graph = JobGraph {
///     streams: vec![GraphStream { name: "orders".into() }],
///     operators: vec![GraphNode { id: 1, name: "direct_stream".into(), stream: Some(0), ..GraphNode::default() }],
///     outputs: vec![GraphOutput { name: "save_to_table".into(), inputs: vec![1], ..GraphOutput::default() }],
/// };
/// Reporter::new("orders", SystemClock::shared()).job_graph(graph);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobGraph {
    /// The input streams, in order of definition.
    pub streams: Vec<GraphStream>,
    /// The operators, in order of definition.
    pub operators: Vec<GraphNode>,
    /// The outputs, in order of definition.
    pub outputs: Vec<GraphOutput>,
}

/// An input stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphStream {
    /// What it reads, such as its topics.
    pub name: String,
}

/// An operator: `map`, `reduce_by_key`, or an input stream's records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphNode {
    /// Its number, in order of definition.
    pub id: usize,
    /// The operation.
    pub name: String,
    /// The operators it reads.
    pub inputs: Vec<usize>,
    /// The number of the input stream whose records it gives; `None` if it has them from operators.
    pub stream: Option<usize>,
    /// How often it gives something, in milliseconds of batch time; `None`: with each batch.
    pub slide_ms: Option<u64>,
}

/// An output operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphOutput {
    /// What it does.
    pub name: String,
    /// The operators it reads.
    pub inputs: Vec<usize>,
    /// Whether it commits with the batch, exactly once; if not it is a side effect, at least once.
    pub transactional: bool,
    /// The tables it writes.
    pub tables: Vec<String>,
    /// How often it has something to do, in milliseconds of batch time; `None`: with each batch.
    pub slide_ms: Option<u64>,
}

impl JobGraph {
    /// The graph within its bound, and how many nodes were left out.
    pub(super) fn bounded(mut self) -> (Self, usize) {
        let before = self.streams.len() + self.operators.len() + self.outputs.len();
        self.streams.truncate(GRAPH_NODES_MAX);
        self.operators.truncate(GRAPH_NODES_MAX);
        self.outputs.truncate(GRAPH_NODES_MAX);
        let after = self.streams.len() + self.operators.len() + self.outputs.len();
        (self, before - after)
    }
}
