//! The shuffles against what plain collections make of the same elements, whatever the partitions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// Few keys, so that many are on both sides and many are there twice.
fn pairs() -> impl Strategy<Value = Vec<(u8, u32)>> {
    vec((0..8_u8, any::<u32>()), 0..40)
}

fn in_order<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

/// Keys with their values of both sides, by nested loops.
fn cogrouped(left: &[(u8, u32)], right: &[(u8, u32)]) -> BTreeMap<u8, (Vec<u32>, Vec<u32>)> {
    let mut groups = BTreeMap::<u8, (Vec<u32>, Vec<u32>)>::new();
    left.iter().for_each(|(key, value)| groups.entry(*key).or_default().0.push(*value));
    right.iter().for_each(|(key, value)| groups.entry(*key).or_default().1.push(*value));
    groups
}

fn or_none(values: &[u32]) -> Vec<Option<u32>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

proptest! {
    #[test]
    fn combined_by_key(items in pairs(), parts in 1..5_usize, reducers in 1..12_usize) {
        let mut groups = BTreeMap::<u8, Vec<u32>>::new();
        items.iter().for_each(|(key, value)| groups.entry(*key).or_default().push(*value));
        let rdd = Rdd::parallelize(items.clone(), parts);
        let placed = rdd.partition_by(reducers);
        let expected: Vec<_> = groups.clone().into_iter().collect();
        prop_assert_eq!(in_order(rdd.group_by_key().collect()?), expected.clone());
        prop_assert_eq!(in_order(placed.group_by_key().collect()?), expected);
        // Text, because joining it depends on the order.
        let texts = rdd.map_values(|value| format!("{value} ")).reduce_by_key(|a, b| a + &b);
        let text = |values: Vec<u32>| values.iter().map(|value| format!("{value} ")).collect::<String>();
        let expected: Vec<_> = groups.clone().into_iter().map(|(key, values)| (key, text(values))).collect();
        prop_assert_eq!(in_order(texts.collect()?), expected);
        let sums = placed.aggregate_by_key(0_u64, |sum, value| sum + u64::from(value), |a, b| a + b);
        let expected: Vec<_> =
            groups.iter().map(|(key, values)| (*key, values.iter().copied().map(u64::from).sum::<u64>())).collect();
        prop_assert_eq!(in_order(sums.collect()?), expected);
        let counts: Vec<_> = groups.iter().map(|(key, values)| (*key, values.len() as u64)).collect();
        prop_assert_eq!(in_order(rdd.keys().count_by_value().collect()?), counts);
        prop_assert_eq!(in_order(rdd.keys().distinct().collect()?), groups.into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn joined(left in pairs(), right in pairs(), parts in 1..5_usize, reducers in 1..12_usize) {
        let groups = cogrouped(&left, &right);
        let (here, there) = (Rdd::parallelize(left, parts), Rdd::parallelize(right, 3));
        let here = here.partition_by(reducers);
        prop_assert_eq!(in_order(here.cogroup(&there).collect()?), groups.clone().into_iter().collect::<Vec<_>>());
        let (mut inner, mut left_outer, mut right_outer, mut full) = (vec![], vec![], vec![], vec![]);
        for (key, (values, others)) in &groups {
            inner.extend(values.iter().flat_map(|v| others.iter().map(|w| (*key, (*v, *w)))));
            left_outer.extend(values.iter().flat_map(|v| or_none(others).into_iter().map(|w| (*key, (*v, w)))));
            right_outer.extend(or_none(values).into_iter().flat_map(|v| others.iter().map(move |w| (*key, (v, *w)))));
            let others = or_none(others);
            full.extend(or_none(values).into_iter().flat_map(|v| others.iter().map(move |w| (*key, (v, *w)))));
        }
        prop_assert_eq!(in_order(here.join(&there).collect()?), in_order(inner));
        prop_assert_eq!(in_order(here.left_outer_join(&there).collect()?), in_order(left_outer));
        prop_assert_eq!(in_order(here.right_outer_join(&there).collect()?), in_order(right_outer));
        prop_assert_eq!(in_order(here.full_outer_join(&there).collect()?), in_order(full));
    }

    #[test]
    fn here_and_there(left in pairs(), right in pairs(), parts in 1..5_usize) {
        let (here, there) = (Rdd::parallelize(left.clone(), parts), Rdd::parallelize(right.clone(), 2));
        let keys: BTreeSet<u8> = right.iter().map(|(key, _)| *key).collect();
        let kept: Vec<(u8, u32)> = left.iter().filter(|(key, _)| !keys.contains(key)).copied().collect();
        prop_assert_eq!(in_order(here.subtract_by_key(&there).collect()?), in_order(kept.clone()));
        let kept = kept.into_iter().map(|(key, _)| key).collect();
        prop_assert_eq!(in_order(here.keys().subtract(&there.keys()).collect()?), in_order(kept));
        let both: BTreeSet<u8> = left.iter().map(|(key, _)| *key).filter(|key| keys.contains(key)).collect();
        prop_assert_eq!(in_order(here.keys().intersection(&there.keys()).collect()?), Vec::from_iter(both));
    }

    #[test]
    fn in_other_partitions(items in pairs(), parts in 1..5_usize, wanted in 1..8_usize) {
        let rdd = Rdd::parallelize(items.clone(), parts);
        prop_assert_eq!(rdd.coalesce(wanted).collect()?, items.clone());
        let dealt = rdd.repartition(wanted);
        let sizes = dealt.glom().map(|part| part.len()).collect()?;
        prop_assert_eq!(sizes.len(), wanted);
        // Each map partition deals evenly on its own.
        prop_assert!(sizes.iter().max().zip(sizes.iter().min()).is_some_and(|(max, min)| max - min <= parts));
        prop_assert_eq!(in_order(dealt.collect()?), in_order(items.clone()));
        let partitioner = Partitioner::hash(wanted);
        let placed = rdd.partition_by(partitioner.clone()).glom().collect()?;
        for (partition, part) in placed.iter().enumerate() {
            let expected = items.iter().filter(|(key, _)| partitioner.partition(key) == partition);
            prop_assert_eq!(part, &expected.copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn sorted_and_numbered(items in pairs(), parts in 1..9_usize, count in 0..12_usize) {
        let rdd = Rdd::parallelize(items.clone(), parts);
        let mut expected = items.clone();
        expected.sort_by_key(|(key, _)| *key);
        prop_assert_eq!(rdd.sort_by_key().collect()?, expected);
        let numbered: Vec<_> = items.iter().copied().zip(0..).collect();
        prop_assert_eq!(rdd.zip_with_index().collect()?, numbered);
        let ordered = in_order(items);
        prop_assert_eq!(rdd.take_ordered(count)?, ordered.iter().take(count).copied().collect::<Vec<_>>());
        prop_assert_eq!(rdd.top(count)?, ordered.iter().rev().take(count).copied().collect::<Vec<_>>());
    }

    #[test]
    fn the_same_in_every_run(items in pairs(), parts in 1..5_usize) {
        let run = || {
            let rdd = Rdd::parallelize(items.clone(), parts);
            let joined = rdd.join(&rdd.map_values(|value| value / 2)).collect()?;
            Ok::<_, crate::Error>((rdd.reduce_by_key(u32::wrapping_add).collect()?, joined))
        };
        prop_assert_eq!(run()?, run()?);
    }
}
