//! Operations over many streams, and the graph that they are in.

use super::*;
use crate::ErrorKind;

const INPUT: [&[&[&str]]; 3] =
    [&[&["1", "2"], &["3", "4"]], &[&["101", "102"], &["103", "104"]], &[&["201", "202"], &["203", "204"]]];

fn plus(stream: &DStream<i64>, more: i64) -> DStream<i64> {
    stream.map(move |number| number + more)
}

#[test]
fn tr_15_union_of_two_streams() {
    let input = numbers(&Graph::default());
    let both = input.union(&plus(&input, 4));
    for (batch, first) in INPUT.into_iter().zip([1, 101, 201]) {
        assert_eq!(collected(&both, &scope(batch)), (first..first + 8).collect::<Vec<_>>());
    }
}

#[test]
fn tr_16_union_of_many_streams() {
    let graph = Graph::default();
    let input = numbers(&graph);
    let all = graph.union([input.clone(), plus(&input, 4), plus(&input, 8)]).unwrap();
    for (batch, first) in INPUT.into_iter().zip([1, 101, 201]) {
        assert_eq!(collected(&all, &scope(batch)), (first..first + 12).collect::<Vec<_>>());
    }
    assert_eq!(all.rdd(&scope(INPUT[0])).unwrap().partitions(), 6);
}

#[test]
fn tr_19_transform_with_a_map_inside() {
    let mapped = numbers(&Graph::default()).transform(|rdd| Ok(rdd.map(|number| number.to_string())));
    assert_eq!(collected(&mapped, &scope(INPUT[0])), ["1", "2", "3", "4"]);
}

#[test]
fn tr_23_transform_of_many_streams_has_all_of_them_and_the_batch_time() {
    let graph = Graph::default();
    let input = numbers(&graph);
    let all = graph.transform([input.clone(), plus(&input, 4), plus(&input, 8)], |rdds, batch_time| {
        assert_eq!((rdds.len(), batch_time), (3, BatchTime::from_ms(1000)));
        Ok(rdds[0].union(&rdds[1]).union(&rdds[2]))
    });
    let all = all.unwrap();
    for (batch, first) in INPUT.into_iter().zip([1, 101, 201]) {
        assert_eq!(collected(&all, &scope(batch)), (first..first + 12).collect::<Vec<_>>());
    }
}

#[test]
fn an_operation_over_many_streams_needs_one_and_only_its_own() {
    let (graph, other) = (Graph::default(), Graph::default());
    let none: [DStream<i64>; 0] = [];
    assert_eq!(graph.union(none.clone()).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(graph.transform(none, |rdds, _| Ok(rdds[0].clone())).unwrap_err().kind(), ErrorKind::Config);
    let error = graph.union([numbers(&graph), numbers(&other)]).unwrap_err();
    assert_eq!(error.to_string(), "a stream belongs to another context operation=union");
}

#[test]
fn a_stream_of_another_context_is_found_before_the_first_batch() {
    let (graph, other) = (Graph::default(), Graph::default());
    let (mine, foreign) = (numbers(&graph), numbers(&other));
    mine.print();
    graph.check().unwrap();
    let _ = mine.map(|n| (n, 1)).join(&foreign.map(|n| (n, 1)));
    let error = graph.check().unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Config, "a stream belongs to another context operation=join")
    );
    assert_eq!(other.check().unwrap_err().kind(), ErrorKind::Config, "it has no output");
}

#[test]
fn tr_34_input_streams_are_numbered_in_the_order_of_their_definition() {
    for _ in 0..2 {
        let graph = Graph::default();
        let inputs = [(); 3].map(|()| DirectKafkaInputDStream::new(&graph).input());
        assert_eq!(inputs, [0, 1, 2]);
    }
}

#[test]
fn every_operation_has_its_name_and_number() {
    let graph = Graph::default();
    let pairs = texts(&graph).map(|word| (word, 1));
    let name = |stream: String| stream.trim_start_matches("DStream(").split(' ').next().unwrap().to_owned();
    assert_eq!(name(format!("{:?}", pairs.join(&pairs))), "join");
    assert_eq!(name(format!("{:?}", pairs.count_by_value())), "count_by_value");
    assert_eq!(name(format!("{:?}", pairs.partition_by(2).group_by_key())), "group_by_key");
    let (a, b) = (pairs.keys(), pairs.values());
    assert!(a.id() < b.id());
}
