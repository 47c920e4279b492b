//! Actions, and the streams of what they give.

use super::*;

#[test]
fn tr_09_reduce_and_its_like_give_one_element_per_batch() {
    let input = numbers(&Graph::default());
    let batches: [(&[&[&str]], i64); 3] =
        [(&[&["1", "2"], &["3", "4"]], 10), (&[&["5", "6"], &["7", "8"]], 26), (&[&["9", "10"], &["11", "12"]], 42)];
    let streams = [
        input.reduce(|a, b| a + b),
        input.fold(0, |a, b| a + b),
        input.aggregate(0, |sum, number| sum + number, |a, b| a + b),
        input.sum(),
    ];
    for (batch, total) in batches {
        for stream in &streams {
            assert_eq!(collected(stream, &scope(batch)), [total]);
        }
    }
    let lengths = streams.map(|stream| collected(&stream, &scope(&[&[], &[]])).len());
    assert_eq!(lengths, [0, 1, 1, 1], "without elements reduce has nothing, the others have zero");
}

#[test]
fn tr_11_count() {
    let count = texts(&Graph::default()).count();
    let batches: [&[&[&str]]; 5] = [&[&[], &[]], &[&["1"]], &[&["1"], &["2"]], &[&["1"], &["2", "3"]], &[&["1"; 4]]];
    for (batch, expected) in batches.into_iter().zip(0..) {
        assert_eq!(collected(&count, &scope(batch)), [expected]);
    }
}

#[test]
fn an_aggregate_goes_in_the_order_of_partitions() {
    let (graph, batch) = (Graph::default(), scope(&[&["a", "b"], &[], &["c"]]));
    let input = texts(&graph);
    let joined = input.aggregate(String::new(), |all, text| all + &text, |all, later| all + "|" + &later);
    assert_eq!(collected(&joined, &batch), ["|ab|c"]);
    assert_eq!(collected(&input.fold(String::from("-"), |a, b| a + &b), &batch), ["--ab-c"]);
}

#[test]
fn the_largest_and_the_smallest() {
    let (graph, batch) = (Graph::default(), scope(&[&["4", "9", "4"], &[], &["7", "1"]]));
    let input = numbers(&graph);
    assert_eq!(collected(&input.min(), &batch), [1]);
    assert_eq!(collected(&input.max(), &batch), [9]);
    assert_eq!(collected(&input.top(3), &batch), [9, 7, 4]);
    assert_eq!(collected(&input.take_ordered(3), &batch), [1, 4, 4]);
    assert_eq!(collected(&input.top(99), &batch), [9, 7, 4, 4, 1]);
    assert_eq!(collected(&input.top(0), &batch), [] as [i64; 0]);
    let nothing = scope(&[&[]]);
    assert_eq!(collected(&input.min().union(&input.max()).union(&input.top(2)), &nothing), [] as [i64; 0]);
}

#[test]
fn a_map_keeps_the_last_value_of_a_key() {
    let pairs = Rdd::parallelize([("a", 1), ("b", 2), ("a", 3)], 2);
    let map = pairs.collect_as_map().unwrap();
    assert_eq!((map.len(), map["a"], map["b"]), (2, 3, 2));
}

#[test]
fn an_rdd_of_no_batch_says_so() {
    let rdd = Rdd::parallelize(0..10, 4);
    assert_eq!(rdd.partitions(), 4);
    assert_eq!(rdd.batch().batch_seq, 0);
    assert_eq!(Rdd::parallelize([0; 0], 0).glom().collect().unwrap(), [[0; 0]]);
    assert_eq!(Rdd::parallelize(0..2, 5).glom().map(|part| part.len()).sum().unwrap(), 2);
    let error = rdd.try_map(|n| if n < 5 { Ok(n) } else { Err(crate::Error::transform("too large")) }).count();
    assert_eq!(error.unwrap_err().to_string(), "too large");
}
