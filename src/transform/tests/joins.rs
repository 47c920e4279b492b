//! Operations on two streams' pairs.

use super::*;

type Ones = DStream<(String, i64)>;
type Xs = DStream<(String, char)>;

/// Two streams: `(word, 1)` of the first input and `(word, 'x')` of the second.
fn two_streams(graph: &Graph) -> (Ones, Xs) {
    (texts(graph).map(|word| (word, 1)), texts(graph).map(|word| (word, 'x')))
}

/// The inputs of Spark's join tests: `[a, b] [a, ""] [""] []` and `[a, b] [b, ""] [] [""]`.
fn batches() -> [BatchScope; 4] {
    [
        scope_of(&[&[&["a"], &["b"]], &[&["a"], &["b"]]]),
        scope_of(&[&[&["a"], &[""]], &[&["b"], &[""]]]),
        scope_of(&[&[&[""], &[]], &[&[], &[]]]),
        scope_of(&[&[&[], &[]], &[&[""], &[]]]),
    ]
}

fn in_batches<T: Ord + Send + 'static>(stream: &DStream<T>) -> [Vec<T>; 4] {
    batches().map(|batch| sorted(stream, &batch))
}

#[test]
fn tr_25_join() {
    let (ones, xs) = two_streams(&Graph::default());
    let both = |word| key(word, (1, 'x'));
    assert_eq!(in_batches(&ones.join(&xs)), [vec![both("a"), both("b")], vec![both("")], vec![], vec![]]);
}

#[test]
fn tr_22_transform_with_a_join_inside() {
    let (ones, xs) = two_streams(&Graph::default());
    let joined = ones.transform_with(&xs, |ones, xs| {
        assert_eq!(ones.batch().batch_time, BatchTime::from_ms(1000));
        Ok(ones.join(&xs))
    });
    assert_eq!(in_batches(&joined), in_batches(&ones.join(&xs)));
}

#[test]
fn tr_26_outer_joins() {
    let (ones, xs) = two_streams(&Graph::default());
    let left = |word, other| key(word, (1, other));
    assert_eq!(
        in_batches(&ones.left_outer_join(&xs)),
        [
            vec![left("a", Some('x')), left("b", Some('x'))],
            vec![left("", Some('x')), left("a", None)],
            vec![left("", None)],
            vec![]
        ]
    );
    let right = |word, one| key(word, (one, 'x'));
    assert_eq!(
        in_batches(&ones.right_outer_join(&xs)),
        [
            vec![right("a", Some(1)), right("b", Some(1))],
            vec![right("", Some(1)), right("b", None)],
            vec![],
            vec![right("", None)]
        ]
    );
    assert_eq!(
        in_batches(&ones.full_outer_join(&xs)),
        [
            vec![key("a", (Some(1), Some('x'))), key("b", (Some(1), Some('x')))],
            vec![key("", (Some(1), Some('x'))), key("a", (Some(1), None)), key("b", (None, Some('x')))],
            vec![key("", (Some(1), None))],
            vec![key("", (None, Some('x')))]
        ]
    );
}

#[test]
fn a_key_that_both_sides_have_often_gives_every_pair_in_order() {
    let left = Rdd::parallelize([("k", 1), ("k", 2), ("alone", 3)], 3);
    let right = Rdd::parallelize([("k", 'a'), ("other", 'b'), ("k", 'c'), ("k", 'd')], 2);
    let pairs = left.join(&right).values().collect().unwrap();
    assert_eq!(pairs, [(1, 'a'), (1, 'c'), (1, 'd'), (2, 'a'), (2, 'c'), (2, 'd')]);
    assert_eq!(left.full_outer_join(&right).count().unwrap(), 8);
}

#[test]
fn cogroup_has_the_values_of_both_sides() {
    let (graph, batch) = (Graph::default(), scope_of(&[&[&["a", "b"], &["a"]], &[&["a"], &["c", "a"]]]));
    let (ones, xs) = two_streams(&graph);
    let expected = [key("a", (vec![1, 1], vec!['x', 'x'])), key("b", (vec![1], vec![])), key("c", (vec![], vec!['x']))];
    assert_eq!(sorted(&ones.cogroup(&xs), &batch), expected);
}

#[test]
fn what_is_here_and_not_there_and_what_is_in_both() {
    let (graph, batch) = (Graph::default(), scope_of(&[&[&["a", "b"], &["a", "b", "c"]], &[&["b"], &["d", "b"]]]));
    let (here, there) = (texts(&graph), texts(&graph));
    assert_eq!(sorted(&here.subtract(&there), &batch), ["a", "a", "c"]);
    assert_eq!(sorted(&here.intersection(&there), &batch), ["b"]);
    let (here, there) = (here.map(|word| (word, 1)), there.map(|word| (word, 'x')));
    assert_eq!(sorted(&here.subtract_by_key(&there), &batch), [key("a", 1), key("a", 1), key("c", 1)]);
    let nothing = scope_of(&[&[], &[]]);
    assert_eq!(sorted(&here.subtract_by_key(&there), &nothing), []);
}

#[test]
fn a_stream_is_joined_with_itself() {
    let (graph, batch) = (Graph::default(), scope(&[&["a"], &["b", "a"]]));
    let words = texts(&graph).map(|word| (word, 1));
    assert_eq!(sorted(&words.join(&words), &batch).len(), 5);
    assert!(!graph.reads_once(), "it is read for each side: its chunks are kept");
}

#[test]
fn every_batch_is_joined_with_an_rdd_from_outside_and_belongs_to_its_batch() {
    let (graph, batch) = (Graph::default(), scope(&[&["a"], &["b", "c"]]));
    let table = Rdd::parallelize([key("a", 10), key("b", 20), key("z", 30)], 2);
    let words = texts(&graph).map(|word| (word, 1));
    let (left, right) = (table.clone(), table.clone());
    let here = words.transform(move |rdd| Ok(rdd.join(&left).map_values(|(_, number)| number)));
    let there = words.transform(move |rdd| {
        let joined = right.join(&rdd);
        assert_eq!(joined.batch().batch_seq, 1);
        Ok(joined.map_values(|(number, _)| number))
    });
    for _ in 0..2 {
        assert_eq!(sorted(&here, &batch), [key("a", 10), key("b", 20)]);
        assert_eq!(sorted(&there, &batch), [key("a", 10), key("b", 20)]);
    }
    // Also one that has nothing of the batch in it.
    let constant = words.transform(move |_| Ok(table.clone()));
    assert_eq!(constant.rdd(&batch).unwrap().batch().batch_seq, 1);
}

#[test]
fn a_join_that_two_outputs_need_runs_once() {
    let (graph, batch) = (Graph::default(), scope_of(&[&[&["a"], &["b"]], &[&["a"], &["b"]]]));
    let (ones, xs) = two_streams(&graph);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let joined = ones.join(&xs.map(move |pair| {
        counted.fetch_add(1, Ordering::Relaxed);
        pair
    }));
    assert_eq!(joined.keys().rdd(&batch).unwrap().count().unwrap(), 2);
    assert_eq!(collected(&joined.values().count(), &batch), [2]);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
