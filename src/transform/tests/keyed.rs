//! Operations by key.

use super::*;
use crate::{ErrorKind, error::Stage};

#[test]
fn tr_07_group_by_key_keeps_the_order_of_partitions() {
    let graph = Graph::default();
    let input = texts(&graph);
    let groups = input.map(|word| (word, 1)).group_by_key();
    let [words, empty_strings, nothing] = word_batches();
    assert_eq!(sorted(&groups, &words), [key("a", vec![1, 1]), key("b", vec![1])]);
    assert_eq!(sorted(&groups, &empty_strings), [key("", vec![1, 1])]);
    assert_eq!(sorted(&groups, &nothing), []);
    let numbered = input.map(|text| (text.len(), text)).group_by_key();
    let batch = scope(&[&["p", "qq", "r"], &[], &["ss", "t"], &["u"]]);
    assert_eq!(
        sorted(&numbered, &batch),
        [(1, ["p", "r", "t", "u"].map(str::to_owned).to_vec()), (2, vec!["qq".to_owned(), "ss".to_owned()])]
    );
}

#[test]
fn tr_12_count_by_value() {
    let graph = Graph::default();
    let counts = numbers(&graph).count_by_value();
    let in_batch = |batch: &[&[&str]]| sorted(&counts, &scope(batch));
    assert_eq!(in_batch(&[&["1"], &[]]), [(1, 1)]);
    assert_eq!(in_batch(&[&["1", "1"], &["1"]]), [(1, 3)]);
    assert_eq!(in_batch(&[&["1"], &["2"]]), [(1, 1), (2, 1)]);
    assert_eq!(in_batch(&[&["1", "1"], &["2", "2"]]), [(1, 2), (2, 2)]);
    assert_eq!(in_batch(&[&[], &[]]), []);
}

#[test]
fn tr_13_and_14_values_keep_their_keys() {
    let graph = Graph::default();
    let totals = texts(&graph).map(|word| (word, 1)).reduce_by_key(|a, b| a + b);
    let (added, doubled) = (totals.map_values(|n| n + 10), totals.flat_map_values(|n| [n, n + 10]));
    let [words, empty_strings, nothing] = word_batches();
    assert_eq!(sorted(&added, &words), [key("a", 12), key("b", 11)]);
    assert_eq!(sorted(&added, &empty_strings), [key("", 12)]);
    assert_eq!(sorted(&added, &nothing), []);
    assert_eq!(sorted(&doubled, &words), [key("a", 2), key("a", 12), key("b", 1), key("b", 11)]);
    assert_eq!(sorted(&doubled, &empty_strings), [key("", 2), key("", 12)]);
    assert_eq!(sorted(&doubled, &nothing), []);
}

#[test]
fn combine_by_key_makes_merges_and_puts_together() {
    let graph = Graph::default();
    let shown = texts(&graph).map(|text| (text.len(), text)).combine_by_key(
        |first| format!("<{first}"),
        |before, value| format!("{before},{value}"),
        |before, later| format!("{before}>{later}"),
    );
    let batch = scope(&[&["a", "b", "cc"], &["d"], &["ee", "f"]]);
    assert_eq!(sorted(&shown, &batch), [(1, "<a,b><d><f".to_owned()), (2, "<cc><ee".to_owned())]);
    assert_eq!(sorted(&shown, &scope(&[])), []);
}

#[test]
fn aggregate_by_key_begins_with_zero_for_every_key() {
    let graph = Graph::default();
    let letters = texts(&graph).map(|text| (text.len(), text)).aggregate_by_key(
        String::from("-"),
        |before, value| before + &value,
        |before, later| before + &later,
    );
    let batch = scope(&[&["a", "b", "cc"], &["d"]]);
    assert_eq!(sorted(&letters, &batch), [(1, "-ab-d".to_owned()), (2, "-cc".to_owned())]);
}

#[test]
fn keys_values_swap_and_distinct() {
    let (graph, batch) = (Graph::default(), scope(&[&["b", "a"], &["b"]]));
    let pairs = texts(&graph).map(|word| (word, 7));
    assert_eq!(collected(&pairs.keys(), &batch), ["b", "a", "b"]);
    assert_eq!(collected(&pairs.values(), &batch), [7, 7, 7]);
    assert_eq!(collected(&pairs.swap(), &batch)[0], (7, "b".to_owned()));
    assert_eq!(sorted(&pairs.distinct(), &batch), [key("a", 7), key("b", 7)]);
    assert_eq!(sorted(&pairs.distinct(), &scope(&[])), []);
}

#[test]
fn partition_by_sets_the_partitions_of_the_shuffle_after_it() {
    let (graph, batch) = (Graph::default(), scope(&[&["a", "b"], &["a"], &["c"]]));
    let pairs = texts(&graph).map(|word| (word, 1));
    let usual = pairs.reduce_by_key(|a, b| a + b).rdd(&batch).unwrap();
    assert_eq!(usual.partitions(), 2, "as many as tasks run at a time");
    for partitions in [1, 3, 16] {
        // More partitions than keys: some are empty.
        let totals = pairs.partition_by(partitions).reduce_by_key(|a, b| a + b);
        assert_eq!(totals.rdd(&batch).unwrap().partitions(), partitions);
        assert_eq!(sorted(&totals, &batch), [key("a", 2), key("b", 1), key("c", 1)]);
        let groups = pairs.partition_by(partitions).group_by_key().rdd(&batch).unwrap();
        assert_eq!(groups.partitions(), partitions);
        let joined = pairs.join(&pairs.partition_by(partitions)).rdd(&batch).unwrap();
        assert_eq!((joined.partitions(), joined.count().unwrap()), (partitions, 6));
    }
    assert_eq!(pairs.partition_by(0).rdd(&batch).unwrap().partitions(), 1);
}

#[test]
fn a_partitioner_of_the_users_own_is_asked_once_per_pair() {
    let (graph, batch) = (Graph::default(), scope(&[&["1", "2", "3"], &["4", "5", "1"]]));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let odd_or_even = Partitioner::by(2, move |number: &i64| {
        count.fetch_add(1, Ordering::Relaxed);
        usize::try_from(*number).unwrap()
    });
    let pairs = numbers(&graph).map(|number| (number, 1));
    let totals = pairs.partition_by(odd_or_even.clone()).reduce_by_key(|a, b| a + b);
    let mut parts = collected(&totals.keys().glom(), &batch);
    parts.iter_mut().for_each(|part| part.sort_unstable());
    assert_eq!(parts, [vec![2, 4], vec![1, 3, 5]]);
    assert_eq!(asked.load(Ordering::Relaxed), 6, "the exchange is that of reduce_by_key, and no other ran");
    // Without an operation that takes it over, it is one of its own, and keeps every pair in its order.
    assert_eq!(collected(&pairs.partition_by(odd_or_even).keys().glom(), &batch), [vec![2, 4], vec![1, 3, 5, 1]]);
}

#[test]
fn a_key_goes_to_the_same_partition_in_every_run() {
    // Of keys in today's hash and seed: a change of either moves keys, and the order of rows with them.
    let partitioner = Partitioner::hash(1000);
    let places: Vec<usize> = [0_i64, 1, -1].iter().map(|key| partitioner.partition(key)).collect();
    let again: Vec<usize> = [0_i64, 1, -1].iter().map(|key| Partitioner::hash(1000).partition(key)).collect();
    assert_eq!(places, again);
    assert_eq!(Partitioner::by(3, |key: &usize| *key).partition(&7), 1);
    assert!(places.iter().all(|place| *place < 1000));
}

#[test]
fn a_panic_of_a_users_function_is_an_error_of_the_transform_stage() {
    let panics = |stream: &dyn Fn(DStream<(i64, i64)>) -> DStream<i64>| {
        let pairs = numbers(&Graph::default()).map(|number| (number, number));
        let batch = scope(&[&["1", "2"], &["1", "2"]]);
        let error = stream(pairs).rdd(&batch).and_then(|rdd| rdd.collect()).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Transform, Some(Stage::Transform)), "{error:?}");
        assert_eq!(error.kind().exit_code(), 6);
        assert!(error.to_string().starts_with("the user's code panicked"), "{error}");
    };
    let no = |_: i64| -> i64 { panic!("no") };
    panics(&|pairs| pairs.values().map(no));
    panics(&|pairs| pairs.map_values(no).values());
    panics(&|pairs| pairs.flat_map_values(move |value| [no(value)]).values());
    panics(&|pairs| pairs.partition_by(1).reduce_by_key(move |a, _| no(a)).values());
    panics(&|pairs| pairs.combine_by_key(no, |a, _| a, |a, _| a).values());
    panics(&|pairs| pairs.combine_by_key(|a| a, |a, _| a, move |a, _| no(a)).values());
    panics(&|pairs| pairs.aggregate_by_key(0, move |a, _| no(a), |a, _| a).values());
    panics(&|pairs| pairs.partition_by(Partitioner::by(2, move |key| no(*key).try_into().unwrap())).values());
    panics(&|pairs| {
        pairs.partition_by(Partitioner::by(2, move |key| no(*key).try_into().unwrap())).group_by_key().keys()
    });
    panics(&|pairs| pairs.sort_by(move |(key, _)| no(*key)).values());
    panics(&|pairs| pairs.values().reduce(move |a, _| no(a)));
    panics(&|pairs| pairs.values().fold(0, move |a, _| no(a)));
    panics(&|pairs| pairs.values().aggregate(0, move |a, _| no(a), |a, _| a));
}

#[test]
fn a_shuffle_of_a_shuffle_of_one_source_runs_each_stage_once() {
    let (graph, batch) = (Graph::default(), scope(&[&["a", "b"], &["a"]]));
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let words = texts(&graph).map(move |word| {
        counted.fetch_add(1, Ordering::Relaxed);
        (word, 1)
    });
    // Each level needs the one before it twice: run for each way that leads there, the first one would run 2^12 times.
    let mut totals = words.reduce_by_key(|a, b| a + b);
    for _ in 0..12 {
        totals = totals.join(&totals).map_values(|(a, _)| a);
    }
    assert_eq!(sorted(&totals, &batch), [key("a", 2), key("b", 1)]);
    assert_eq!(sorted(&totals.keys(), &batch), ["a", "b"]);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn tr_41_what_a_batch_computed_is_freed_with_it() {
    let (graph, witness) = (Graph::default(), Arc::new(()));
    let held = Arc::clone(&witness);
    let groups = texts(&graph).map(move |word| (word, Arc::clone(&held))).group_by_key();
    let before = Arc::strong_count(&witness);
    let batch = scope(&[&["a", "b"], &["a"]]);
    assert_eq!(groups.rdd(&batch).unwrap().count().unwrap(), 2);
    assert_eq!(Arc::strong_count(&witness), before + 3);
    drop(batch);
    assert_eq!(Arc::strong_count(&witness), before);
}
