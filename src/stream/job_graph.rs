//! What a job is made of, as the web page shows it.

use super::source::SourceSpec;
use crate::{
    config::Subscription,
    plan::TopicFilter,
    report::{GraphNode, GraphOutput, GraphStream, JobGraph},
    transform::{Graph, Operator, OperatorId, Output},
};

/// So many names of one stream's topics are shown.
const NAMES_MAX: usize = 10;

/// The job's streams, operators and outputs, and what reads what.
pub(super) fn job_graph(specs: &[SourceSpec], graph: &Graph) -> JobGraph {
    let slide = |slide_ms: Option<i64>| slide_ms.and_then(|ms| u64::try_from(ms).ok());
    let mut streams = 0..specs.len();
    let node = |operator: Operator| GraphNode {
        id: operator.id.0,
        name: operator.name.to_owned(),
        inputs: operator.inputs.iter().map(|id| id.0).collect(),
        // Streams and their first operators are defined together, one after the other.
        stream: operator.is_input.then(|| streams.next()).flatten(),
        slide_ms: slide(operator.slide_ms),
    };
    let operators = graph.operators().into_iter().map(node).collect();
    let output = |(output, inputs): (Output, Vec<OperatorId>)| {
        let (transactional, tables) = match &output {
            Output::Transactional(output) => {
                (true, output.tables().iter().map(|table| table.table.to_string()).collect())
            }
            Output::SideEffect(_) => (false, Vec::new()),
        };
        GraphOutput {
            name: format!("{output:?}"),
            inputs: inputs.iter().map(|id| id.0).collect(),
            transactional,
            tables,
            slide_ms: slide(output.slide_ms()),
        }
    };
    let outputs = graph.outputs().into_iter().zip(graph.inputs_of_outputs()).map(output).collect();
    let streams = specs.iter().map(|spec| GraphStream { name: stream_name(spec) }).collect();
    JobGraph { streams, operators, outputs }
}

/// What a stream reads, in words.
fn stream_name(spec: &SourceSpec) -> String {
    match spec {
        SourceSpec::Kafka { kafka, .. } => match &kafka.subscription {
            Subscription::Topics(topics) => names(topics),
            Subscription::Pattern(pattern) => format!("topics like {pattern}"),
            Subscription::Partitions(partitions) => names(partitions),
        },
        SourceSpec::Local(source) => match source.filter() {
            TopicFilter::Topics(topics) => names(topics),
            TopicFilter::Pattern(pattern) => format!("topics like {pattern}"),
            TopicFilter::Partitions(partitions, _) => names(partitions),
        },
    }
}

fn names<T: ToString>(all: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> String {
    let all = all.into_iter();
    let more = all.len().saturating_sub(NAMES_MAX);
    let mut text = all.take(NAMES_MAX).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        stream::DirectStream,
        transform::{DirectKafkaInputDStream, State, StateSpec},
    };

    fn spec(topics: &[&str]) -> SourceSpec {
        let stream = DirectStream::topics(topics.iter().copied()).bootstrap_servers("localhost:9092");
        SourceSpec::Kafka { kafka: Box::new(stream.kafka), max_rate_per_partition: None, group_id: None }
    }

    /// Each operator as `number name <- what it reads`, outputs without a number.
    fn told(graph: &JobGraph) -> Vec<String> {
        let numbers = |ids: &[usize]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let operators = graph.operators.iter().map(|node| {
            let stream = node.stream.map(|stream| format!("stream {stream}")).unwrap_or_default();
            let slide = node.slide_ms.map(|ms| format!(" every {ms}")).unwrap_or_default();
            format!("{} {} <- {}{stream}{slide}", node.id, node.name, numbers(&node.inputs))
        });
        let promise = |exactly| if exactly { "exactly once" } else { "at least once" };
        let outputs = graph
            .outputs
            .iter()
            .map(|output| format!("{} <- {}, {}", output.name, numbers(&output.inputs), promise(output.transactional)));
        operators.chain(outputs).collect()
    }

    #[test]
    fn the_graph_says_what_reads_what() {
        let graph = Graph::with_interval(Duration::from_secs(1));
        let [orders, returns] = [(); 2].map(|()| DirectKafkaInputDStream::new(&graph));
        let both = orders.union(&returns);
        let pairs = both.map(|_record| (1_i32, 1_i64));
        pairs.remember(Duration::from_secs(5)).unwrap();
        let sums = pairs.map_with_state(StateSpec::function(|key: &i32, _one, state: &mut State<i64>| {
            state.update(1);
            *key
        }));
        sums.state_snapshots().count().print();
        both.count().foreach_rdd_in(|_, _| Box::pin(async { Ok(()) }));
        let two_seconds = Duration::from_secs(2);
        pairs.window(two_seconds, two_seconds).unwrap().count().print();
        let graph = job_graph(&[spec(&["orders"]), spec(&["a", "b"])], &graph);
        assert_eq!(
            told(&graph),
            [
                "1 direct_stream <- stream 0",
                "2 direct_stream <- stream 1",
                "3 union <- 1 2",
                "4 map <- 3",
                "5 map_with_state <- 4",
                "6 state_snapshots <- 5",
                "7 count <- 6",
                "8 count <- 3",
                "9 window <- 4 every 2000",
                "10 count <- 9 every 2000",
                "print <- 7, at least once",
                "foreach_rdd_in <- 8, exactly once",
                "print <- 10, at least once",
            ]
        );
        assert_eq!(graph.streams.iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["orders", "a, b"]);
    }

    #[test]
    fn of_very_many_topics_the_first_are_named() {
        let topics: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
        assert_eq!(names(&topics), "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 2 more");
    }
}
