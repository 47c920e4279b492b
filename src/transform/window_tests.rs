//! Windows against Spark's own examples. The ids are those of the behaviour list in `docs/conformance.md`.

use std::{fmt::Debug, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    BatchScope, DStream, DirectKafkaInputDStream, Graph, LocalRunner,
    tests::{Batch, batch},
};

const SECOND: Duration = Duration::from_secs(1);

fn graph() -> Graph {
    Graph::with_interval(SECOND)
}

/// The scope of batch number `seq`, `seq` seconds after the zero time.
fn scope(seq: u64, values: &[String]) -> BatchScope {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let middle = values.len() / 2;
    let Batch { task, inputs } =
        batch(seq, i64::try_from(seq).unwrap() * 1000, &[&values[..middle], &values[middle..]]);
    BatchScope::on_grid(task, Arc::new(LocalRunner::new(2)), inputs, 0)
}

/// Lets windows see a batch, as the driver does before outputs run; the elements of `stream`, sorted, where it has any then.
fn run<T: Ord + Send + 'static>(stream: &DStream<T>, seq: u64, values: &[String]) -> Option<Vec<T>> {
    let scope = scope(seq, values);
    stream.graph().histories().iter().for_each(|history| history.remember(&scope).unwrap());
    stream.is_due(&scope).then(|| {
        let mut items = stream.rdd(&scope).unwrap().collect().unwrap();
        items.sort_unstable();
        items
    })
}

/// What comes out of some batches of text, one after the other; batches without output are left out.
fn outputs<T: Ord + Send + Debug + 'static>(stream: &DStream<T>, batches: &[&[&str]]) -> Vec<Vec<T>> {
    let texts = |batch: &&[&str]| batch.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    (1..).zip(batches).filter_map(|(seq, batch)| run(stream, seq, &texts(batch))).collect()
}

fn texts(graph: &Graph) -> DStream<String> {
    DirectKafkaInputDStream::new(graph).map(|record| record.text().unwrap_or_default().to_owned())
}

fn numbers(graph: &Graph) -> DStream<i64> {
    texts(graph).map(|text| text.parse().unwrap())
}

/// `a 3` is the pair (a, 3).
fn pairs(graph: &Graph) -> DStream<(String, i64)> {
    texts(graph).map(|text| match text.split_once(' ') {
        Some((key, value)) => (key.to_owned(), value.parse().unwrap()),
        None => (text, 1),
    })
}

fn named<V: Copy>(pairs: &[(&str, V)]) -> Vec<(String, V)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

const SIX: &[&[&str]] = &[&["0"], &["1"], &["2"], &["3"], &["4"], &["5"]];
const BIG: &[&[&str]] = &[&["a"], &["a", "b"], &["a", "b", "c"], &["a", "b"], &["a"], &[]];

#[test]
fn wn_01_to_03_windows_of_numbers() {
    let window = |length, slide, batches: &[&[&str]]| {
        let graph = graph();
        outputs(&numbers(&graph).window(length * SECOND, slide * SECOND).unwrap(), batches)
    };
    assert_eq!(window(2, 1, SIX), [vec![0], vec![0, 1], vec![1, 2], vec![2, 3], vec![3, 4], vec![4, 5]]);
    assert_eq!(window(2, 2, SIX), [[0, 1], [2, 3], [4, 5]]);
    let eight = [SIX, &[&[], &[]]].concat();
    assert_eq!(window(4, 2, &eight), [vec![0, 1], vec![0, 1, 2, 3], vec![2, 3, 4, 5], vec![4, 5]]);
}

#[test]
fn wn_05_to_12_reduced_by_key_with_and_without_inverse() {
    let forms = |length: u32, slide: u32, batches: &[&[&str]]| {
        let (plain, inverse) = (graph(), graph());
        let (length, slide) = (length * SECOND, slide * SECOND);
        let plain = pairs(&plain).reduce_by_key_and_window(|a, b| a + b, length, slide).unwrap();
        let with = pairs(&inverse);
        let inverse = with.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a - b, length, slide).unwrap();
        let (plain, inverse) = (outputs(&plain, batches), outputs(&inverse, batches));
        assert_eq!(plain, inverse);
        plain
    };
    assert_eq!(forms(2, 1, &[&["a 1", "a 3"]]), [named(&[("a", 4)])]);
    assert_eq!(forms(2, 1, &[&["a"], &["a"]]), [named(&[("a", 1)]), named(&[("a", 2)])]);
    assert_eq!(forms(2, 1, &[&["a"], &["a", "b"]]), [named(&[("a", 1)]), named(&[("a", 2), ("b", 1)])]);
    let leaves = forms(2, 1, &[&["a"], &["a"], &[], &[]]);
    assert_eq!(leaves, [named(&[("a", 1)]), named(&[("a", 2)]), named(&[("a", 1)]), vec![]]);
    let larger = forms(4, 2, &[&["a 1"], &["a 2"], &["a 3"], &["a 4"], &["a 5"], &["a 6"], &[], &[]]);
    assert_eq!(larger, [3, 10, 18, 11].map(|sum| named(&[("a", sum)])));
    let once: [&[(&str, i64)]; 6] = [
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 2), ("b", 2), ("c", 1)],
        &[("a", 2), ("b", 2), ("c", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 1)],
    ];
    let expected: Vec<_> = once.iter().chain(&once).map(|pairs| named(pairs)).collect();
    assert_eq!(forms(2, 1, &[BIG, BIG].concat()), expected);
}

#[test]
fn wn_13_grouped_by_key() {
    let grouped = |batches: &[&[&str]]| {
        let groups = pairs(&graph()).group_by_key_and_window(2 * SECOND, SECOND).unwrap();
        outputs(&groups, batches)
    };
    let ones: [&[(&str, usize)]; 6] = [
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 2), ("b", 2), ("c", 1)],
        &[("a", 2), ("b", 2), ("c", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 1)],
    ];
    let of = |pairs: &&[(&str, usize)]| -> Vec<(String, Vec<i64>)> {
        pairs.iter().map(|(key, count)| ((*key).to_owned(), vec![1; *count])).collect()
    };
    assert_eq!(grouped(&[BIG, BIG].concat()), ones.iter().chain(&ones).map(of).collect::<Vec<_>>());
    // Batch by batch, and in order within one.
    let ordered = grouped(&[&["a 3", "a 1"], &["a 2"], &[]]);
    assert_eq!(ordered, [vec![3, 1], vec![3, 1, 2], vec![2]].map(|values| vec![("a".to_owned(), values)]));
    // A key without values leaves.
    assert_eq!(grouped(&[&["a"], &[], &[]])[2], []);
}

#[test]
fn wn_14_and_16_counts() {
    let (two, one) = (2 * SECOND, SECOND);
    let counts: DStream<u64> = texts(&graph()).count_by_window(two, one).unwrap();
    let of = outputs(&counts, &[&["1"], &["1"], &["1", "2"], &["0"], &[], &[]]);
    assert_eq!(of.concat(), [1, 2, 3, 3, 1, 0]);
    let values = texts(&graph()).count_by_value_and_window(two, one).unwrap();
    let of = outputs(&values, &[&["a"], &["b", "b"], &["a", "b"]]);
    assert_eq!(of, [named(&[("a", 1)]), named(&[("a", 1), ("b", 2)]), named(&[("a", 1), ("b", 3)])]);
}

#[test]
fn wn_17_an_empty_window_reduces_to_nothing() {
    let sums = numbers(&graph()).reduce_by_window(|a, b| a + b, 2 * SECOND, SECOND).unwrap();
    assert_eq!(outputs(&sums, &[&["1", "2"], &["3"], &[], &[], &["4"]]), [vec![3], vec![6], vec![3], vec![], vec![4]]);
}

#[test]
fn wn_19_and_20_durations_are_checked_when_the_window_is_defined() {
    let input = texts(&graph());
    let halved = |length, slide| input.window(Duration::from_millis(length), Duration::from_millis(slide));
    let told = |length, slide| halved(length, slide).unwrap_err().to_string();
    assert!(told(1500, 1000).contains("the window duration of a windowed DStream (1500 ms) must be a multiple"));
    assert!(told(2000, 1500).contains("the slide duration of a windowed DStream (1500 ms) must be a multiple"));
    assert!(told(0, 1000).contains("above 0") && told(1000, 0).contains("above 0"));
    let sliding = halved(4000, 2000).unwrap();
    let told = sliding.window(3 * SECOND, 2 * SECOND).unwrap_err().to_string();
    assert!(told.contains("slide duration of its parent DStream (2000 ms)"), "{told}");
}

#[test]
fn wn_28_a_stream_has_no_batch_between_its_slides_and_those_of_one_operation_slide_alike() {
    let graph = graph();
    let input = texts(&graph);
    let mapped = input.window(2 * SECOND, 2 * SECOND).unwrap().map(|text| text.to_uppercase()).count();
    assert_eq!(outputs(&mapped, &[&["a"], &["b"], &["c"], &["d"]]), [[2], [2]]);
    mapped.print();
    graph.check().unwrap();
    let _ = input.window(2 * SECOND, SECOND).unwrap().union(&input.window(2 * SECOND, 2 * SECOND).unwrap());
    let told = graph.check().unwrap_err().to_string();
    assert!(told.contains("operation=union slide=1000 ms other=2000 ms"), "{told}");
}

#[test]
fn a_window_over_windows() {
    let graph = graph();
    let pairs_of = numbers(&graph).window(2 * SECOND, 2 * SECOND).unwrap().reduce(|a, b| a + b);
    let sums = pairs_of.window(4 * SECOND, 4 * SECOND).unwrap();
    assert_eq!(outputs(&sums, &[&["1"], &["2"], &["3"], &["4"], &["5"], &[], &[], &["6"]]), [vec![3, 7], vec![5, 6]]);
}

#[test]
fn a_batch_counts_for_its_window_and_one_slide_more() {
    let graph = graph();
    let stream = texts(&graph).window(3 * SECOND, 2 * SECOND).unwrap();
    run(&stream, 1, &["a".to_owned()]);
    run(&stream, 2, &[]);
    let counts = |second: i64| graph.histories().iter().any(|history| history.counts_at(second * 1000));
    // In the windows of 2 and no more in that of 4, which has to say so.
    assert_eq!([2, 3, 4, 5, 6, 7].map(counts), [true, true, true, true, false, false]);
}

proptest! {
    /// Whatever is run again, from whichever batch on, and however the batches look: both forms give the sum over the
    /// batches of the window.
    #[test]
    fn windows_survive_batches_that_are_run_again(
        batches in proptest::collection::vec(proptest::collection::vec((0_u8..4, 1_i64..9), 0..5), 1..14),
        again in proptest::collection::vec((1_u64..14, 1_u64..3), 0..4),
        (length, slide) in (1_u32..6, 1_u32..4),
    ) {
        let (plain, inverse) = (graph(), graph());
        let (long, slid) = (length * SECOND, slide * SECOND);
        let plain = pairs(&plain).reduce_by_key_and_window(|a, b| a + b, long, slid).unwrap();
        let inverse = pairs(&inverse);
        let inverse = inverse.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a - b, long, slid).unwrap();
        let texts: Vec<Vec<String>> =
            batches.iter().map(|batch| batch.iter().map(|(key, value)| format!("k{key} {value}")).collect()).collect();
        let expected = |seq: usize| {
            let mut sums = std::collections::BTreeMap::<String, i64>::new();
            for (key, value) in batches[seq.saturating_sub(length as usize)..seq].iter().flatten() {
                *sums.entry(format!("k{key}")).or_default() += value;
            }
            sums.into_iter().collect::<Vec<_>>()
        };
        let mut again = again;
        let mut seq = 1;
        while seq <= texts.len() {
            let number = seq as u64;
            // Something else was run under this number first, and dropped: what counts is the last run. At most the batch before
            // may be run again with it.
            let of = |stream: &DStream<(String, i64)>| {
                run(stream, number, &["k0 1000".to_owned()]);
                run(stream, number, &texts[seq - 1])
            };
            let due = u32::try_from(seq).unwrap().is_multiple_of(slide);
            let expected = due.then(|| expected(seq));
            prop_assert_eq!(of(&plain), expected.clone());
            prop_assert_eq!(of(&inverse), expected);
            match again.iter().position(|(at, _)| *at == number) {
                Some(found) => seq = seq.saturating_sub(usize::try_from(again.remove(found).1).unwrap() - 1).max(1),
                None => seq += 1,
            }
        }
    }
}
