//! Operations on partitions and on the order of elements.

use super::*;

fn hundred(first: i64) -> BatchScope {
    let texts: Vec<String> = (first..first + 100).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    scope(&[&texts[..50], &texts[50..]])
}

#[test]
fn tr_04_glom() {
    let groups = numbers(&Graph::default()).glom();
    assert_eq!(collected(&groups, &scope(&[&["1", "2"], &["3", "4"]])), [[1, 2], [3, 4]]);
    assert_eq!(collected(&groups, &scope(&[&["5", "6"], &["7", "8"]])), [[5, 6], [7, 8]]);
    assert_eq!(collected(&groups, &scope(&[&[], &["9"]])), [vec![], vec![9]]);
}

#[test]
fn tr_06_repartition_to_more_and_to_fewer_partitions() {
    let input = numbers(&Graph::default());
    for first in [1, 101, 201] {
        let batch = hundred(first);
        let five = input.repartition(5);
        assert_eq!(five.rdd(&batch).unwrap().partitions(), 5);
        assert_eq!(sorted(&five, &batch), (first..first + 100).collect::<Vec<_>>());
        let sizes = collected(&five.glom().map(|part| part.len()), &batch);
        assert_eq!(sizes, [20; 5], "evenly");
        let two = five.repartition(2);
        assert_eq!(two.rdd(&batch).unwrap().partitions(), 2);
        assert_eq!(sorted(&two, &batch), (first..first + 100).collect::<Vec<_>>());
    }
    assert_eq!(collected(&input.repartition(3).glom(), &scope(&[])), [[]; 3] as [[i64; 0]; 3]);
}

#[test]
fn coalesce_keeps_order_and_computes_nothing_twice() {
    let (graph, batch) = (Graph::default(), scope(&[&["1"], &["2", "3"], &[], &["4"], &["5"]]));
    let input = numbers(&graph);
    assert_eq!(collected(&input.coalesce(2).glom(), &batch), [vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(input.coalesce(9).rdd(&batch).unwrap().partitions(), 5);
    assert_eq!(input.coalesce(0).rdd(&batch).unwrap().partitions(), 1);
    assert_eq!(input.coalesce(2).rdd(&batch).unwrap().take(2).unwrap(), [1, 2]);
}

#[test]
fn sorting_is_stable_and_goes_over_all_partitions() {
    let (graph, batch) = (Graph::default(), scope(&[&["pear", "fig"], &["kiwi", "apple"], &["plum", "yam"]]));
    let input = texts(&graph);
    let by_length = input.sort_by(|word| word.len());
    assert_eq!(collected(&by_length, &batch), ["fig", "yam", "pear", "kiwi", "plum", "apple"]);
    assert_eq!(by_length.rdd(&batch).unwrap().partitions(), 2);
    let reversed = input.map(|word| (std::cmp::Reverse(word.clone()), word)).sort_by_key().values();
    assert_eq!(collected(&reversed, &batch), ["yam", "plum", "pear", "kiwi", "fig", "apple"]);
    assert_eq!(collected(&by_length, &scope(&[])), [] as [String; 0]);
    assert_eq!(collected(&by_length, &scope(&[&["one"]])), ["one"]);
}

#[test]
fn sorting_reads_its_input_once_and_makes_partitions_of_about_the_same_size() {
    let (graph, batch) = (Graph::default(), hundred(0));
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let input = numbers(&graph);
    let descending = input
        .map(move |number| {
            counted.fetch_add(1, Ordering::Relaxed);
            number
        })
        .sort_by(|number| std::cmp::Reverse(*number));
    assert_eq!(collected(&descending, &batch), (0..100).rev().collect::<Vec<_>>());
    let sizes = collected(&descending.glom().map(|part| part.len()), &batch);
    assert_eq!(sizes.iter().sum::<usize>(), 100);
    assert!(sizes.iter().all(|size| (40..=60).contains(size)), "{sizes:?}");
    assert_eq!(reads.load(Ordering::Relaxed), 100);
    // One key alone: it is not torn apart.
    let same = input.sort_by(|_| ());
    assert_eq!(collected(&same.glom().map(|part| part.len()), &batch), [0, 100]);
    assert_eq!(collected(&same, &batch), (0..100).collect::<Vec<_>>());
}

#[test]
fn zip_with_index_counts_over_partitions() {
    let (graph, batch) = (Graph::default(), scope(&[&["a"], &[], &["b", "c"]]));
    let numbered = texts(&graph).zip_with_index();
    assert_eq!(collected(&numbered, &batch), [key("a", 0), key("b", 1), key("c", 2)]);
    assert_eq!(numbered.rdd(&batch).unwrap().partitions(), 3);
}

#[test]
fn tr_45_records_themselves_may_be_kept() {
    let (graph, batch) = (Graph::default(), scope(&[&["a"], &["b", "c"]]));
    let records = DirectKafkaInputDStream::new(&graph);
    let kept = records.rdd(&batch).unwrap().persist().unwrap();
    drop(batch);
    let texts: Vec<_> = kept.collect().unwrap().iter().map(|record| record.text().unwrap().to_owned()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
}
