//! Joins, losses and missing answers, case by case; then over random ones.

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn at(offset: i64) -> Offset {
    Offset::new(offset).unwrap()
}

fn id(text: &str) -> Option<TopicId> {
    Some(TopicId::new(text))
}

fn filter(topics: &[&str]) -> TopicFilter {
    TopicFilter::new(&Subscription::Topics(topics.iter().map(|topic| (*topic).to_owned()).collect())).unwrap()
}

fn pattern(text: &str) -> TopicFilter {
    TopicFilter::new(&Subscription::Pattern(text.to_owned())).unwrap()
}

/// A partition with topic id `a`, committed at `committed`.
fn tracked(topic: &str, partition: i32, committed: i64) -> Tracked {
    Tracked {
        topic_partition: tp(topic, partition),
        topic_id: id("a"),
        committed: at(committed),
        latest: None,
        truncated: false,
    }
}

/// A topic that is there, with earliest and latest offset of each partition.
fn answers(topic: &str, topic_id: Option<TopicId>, offsets: &[(i64, i64)]) -> Answers {
    let partitions = i32::try_from(offsets.len()).unwrap();
    let of = |which: fn(&(i64, i64)) -> i64| {
        offsets.iter().zip(0..).map(|(both, p)| (tp(topic, p), at(which(both)))).collect()
    };
    Answers {
        topics: [(Arc::from(topic), TopicAnswer::Topic { id: topic_id, partitions })].into(),
        earliest: of(|both| both.0),
        latest: of(|both| both.1),
        leader_epochs: BTreeMap::new(),
        refused: BTreeMap::new(),
        closed: BTreeSet::new(),
    }
}

/// A position of topic t, with the topic ids that are stored and told.
fn go_on(
    partition: i32,
    [expected_topic_id, topic_id]: [Option<TopicId>; 2],
    expected: Option<Offset>,
    from: i64,
) -> Position {
    let (topic_partition, from, latest_epoch) = (tp("t", partition), at(from), None);
    Position { topic_partition, topic_id, expected, expected_topic_id, from, latest_epoch }
}

fn fail(tracked: &[Tracked], answers: &Answers) -> Error {
    review(tracked, &filter(&["t"]), answers, OnDataLoss::Fail).unwrap_err()
}

fn skip(tracked: &[Tracked], answers: &Answers) -> Review {
    review(tracked, &filter(&["t"]), answers, OnDataLoss::Skip).unwrap()
}

#[test]
fn a_pattern_matches_whole_names_and_not_kafkas_own_topics() {
    // DK-03: pat1, pat2, pat3 and not advanced3.
    let pat = pattern("pat\\d");
    for (topic, expected) in [("pat1", true), ("pat3", true), ("advanced3", false), ("pat10", false), ("xpat1", false)]
    {
        assert_eq!(pat.matches(topic), expected, "{topic}");
    }
    assert!(pattern("a|bc").matches("bc") && !pattern("a|bc").matches("ab"));
    assert!(!pattern(".*").matches("__consumer_offsets") && pattern(".*").matches("__mine"));
    assert_eq!(TopicFilter::new(&Subscription::Pattern("(".to_owned())).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(filter(&["t"]).names().map(<[_]>::len), Some(1));
    assert_eq!(pat.names(), None);
}

#[test]
fn what_is_tracked_goes_on_where_it_was_committed() {
    let review = skip(&[tracked("t", 1, 7), tracked("t", 0, 5)], &answers("t", id("a"), &[(0, 9), (7, 7)]));
    let positions: Vec<_> =
        review.positions.iter().map(|p| (p.topic_partition.partition, p.expected, p.from)).collect();
    assert_eq!(positions, [(0, Some(at(5)), at(5)), (1, Some(at(7)), at(7))]);
    assert_eq!(review.positions[0].topic_id, id("a"));
    assert!(review.joined.is_empty() && review.lost_ranges.is_empty() && review.problems.is_empty());
}

#[test]
fn a_partition_of_a_closed_topic_is_left_out_once_it_is_read_to_its_end() {
    let tracked = [tracked("t", 0, 5), tracked("t", 1, 8)];
    let open = answers("t", id("a"), &[(0, 9), (0, 8)]);
    assert_eq!(skip(&tracked, &open).positions.len(), 2);
    let closed = Answers { closed: [Arc::from("t")].into(), ..open };
    let review = skip(&tracked, &closed);
    assert_eq!(review.positions, [go_on(0, [id("a"), id("a")], Some(at(5)), 5)]);
    assert!(review.joined.is_empty() && review.lost_ranges.is_empty() && review.problems.is_empty());
    // One with nothing in it joins all the same: that it was there is stored.
    let empty = Answers { closed: [Arc::from("t")].into(), ..answers("t", id("a"), &[(0, 0)]) };
    assert_eq!(skip(&[], &empty).joined, [tp("t", 0)]);
    // Another file of its name is a loss, also where the old one was read to its end.
    let replaced = Answers { closed: [Arc::from("t")].into(), ..answers("t", id("b"), &[(0, 9), (0, 8)]) };
    assert_eq!(fail(&tracked[1..], &replaced).kind(), ErrorKind::OffsetsLost);
}

#[test]
fn dk_12_a_new_partition_joins_at_its_earliest_offset_when_it_is_seen() {
    let review = skip(&[tracked("t", 0, 5)], &answers("t", id("a"), &[(0, 9), (3, 8)]));
    assert_eq!(review.joined, [tp("t", 1)]);
    assert_eq!(review.positions[1], go_on(1, [None, id("a")], None, 3));
    // A whole topic joins in the same way, and one without an answer has to wait.
    let mut later = answers("pat7", None, &[(0, 9), (0, 1)]);
    later.earliest.remove(&tp("pat7", 1));
    let review = super::review(&[], &pattern("pat\\d"), &later, OnDataLoss::Fail).unwrap();
    assert_eq!(review.joined, [tp("pat7", 0)]);
    assert_eq!(review.problems, [Problem::of_partition(&tp("pat7", 1), ProblemKind::NoAnswer)]);
}

#[test]
fn topics_that_are_not_read_any_more_are_left_alone() {
    let review = skip(&[tracked("t", 0, 5), tracked("old", 0, 5)], &answers("t", id("a"), &[(0, 9)]));
    assert_eq!(review.positions.len(), 1);
    assert!(review.problems.is_empty());
}

#[test]
fn no_answer_is_no_evidence() {
    let all = [tracked("t", 0, 5), tracked("t", 1, 5)];
    let review = review(&all, &filter(&["t"]), &Answers::default(), OnDataLoss::Fail).unwrap();
    assert!(review.positions.is_empty());
    let topic: Arc<str> = Arc::from("t");
    assert_eq!(review.problems, [Problem::of_topic(&topic, ProblemKind::NoAnswer)]);
    for gone in ["earliest", "latest"] {
        let mut answers = answers("t", id("a"), &[(0, 9), (0, 9)]);
        let list = if gone == "earliest" { &mut answers.earliest } else { &mut answers.latest };
        list.remove(&tp("t", 1));
        let review = super::review(&all, &filter(&["t"]), &answers, OnDataLoss::Fail).unwrap();
        assert_eq!(review.positions.len(), 1, "{gone}");
        assert_eq!(review.problems, [Problem::of_partition(&tp("t", 1), ProblemKind::NoAnswer)]);
    }
}

#[test]
fn what_a_broker_says_instead_of_an_offset_is_passed_on() {
    let mut answers = answers("t", id("a"), &[(0, 9)]);
    answers.latest.clear();
    let told = |outcome| PartitionOffset { topic_partition: tp("t", 0), outcome };
    answers.take_latest([told(OffsetOutcome::Unauthorized)]);
    let review = skip(&[tracked("t", 0, 5)], &answers);
    let error = review.problems[0].to_error();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the principal may not describe the topic topic=t partition=0"), "{error}");
    answers.take_latest([told(OffsetOutcome::Offset { offset: at(7), leader_epoch: None })]);
    answers.take_earliest([told(OffsetOutcome::Offset { offset: at(1), leader_epoch: None })]);
    assert_eq!(skip(&[tracked("t", 0, 5)], &answers).positions.len(), 1);
    for (answer, expected) in [(TopicAnswer::Unauthorized, "may not describe"), (TopicAnswer::NotAnswered, "no answer")]
    {
        answers.topics.insert(Arc::from("t"), answer);
        let review = skip(&[tracked("t", 0, 5)], &answers);
        assert_eq!(review.problems.len(), 1);
        assert!(review.problems[0].to_error().to_string().contains(expected), "{review:?}");
    }
}

#[test]
fn a_topic_or_partition_that_is_not_there_is_waited_for() {
    let mut gone = Answers::default();
    gone.topics.insert(Arc::from("t"), TopicAnswer::Unknown);
    let review = skip(&[tracked("t", 0, 5)], &gone);
    assert!(review.positions.is_empty() && review.lost_ranges.is_empty());
    assert_eq!(review.problems.len(), 1);
    assert_eq!(review.problems[0].kind, ProblemKind::UnknownTopic);
    assert_eq!(review.problems[0].to_error().kind(), ErrorKind::Unavailable);
    let review = skip(&[tracked("t", 0, 5), tracked("t", 1, 5)], &answers("t", id("a"), &[(0, 9)]));
    let kind = ProblemKind::UnknownPartition { partitions: 1 };
    assert_eq!(review.problems, [Problem::of_partition(&tp("t", 1), kind)]);
}

#[test]
fn dk_18_retention_past_the_committed_offset_fails_with_everything_that_one_must_know() {
    let error = fail(&[tracked("t", 0, 5)], &answers("t", id("a"), &[(20, 30)]));
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::OffsetsLost, 4));
    assert_eq!(error.topic_partition(), Some(&tp("t", 0)));
    let text = error.to_string();
    for part in ["RETENTION", "committed=5", "earliest=20", "topic=t partition=0", "on_data_loss", "stored offset"] {
        assert!(text.contains(part), "{text}");
    }
    // At the very start of the log nothing is lost.
    assert_eq!(skip(&[tracked("t", 0, 20)], &answers("t", id("a"), &[(20, 30)])).lost_ranges, []);
}

#[test]
fn retention_is_skipped_as_one_lost_range() {
    let review = skip(&[tracked("t", 0, 5)], &answers("t", id("a"), &[(20, 30)]));
    let lost = LostRange {
        topic_partition: tp("t", 0),
        from_offset: at(5),
        until_offset: Some(at(20)),
        reason: LostRangeReason::Retention,
        topic_id: id("a"),
    };
    assert_eq!(review.lost_ranges, [lost]);
    assert_eq!(review.positions, [go_on(0, [id("a"), id("a")], Some(at(5)), 20)]);
}

#[test]
fn dk_16_a_truncated_log_fails_or_is_gone_on_with_at_its_end() {
    let short = answers("t", id("a"), &[(0, 50)]);
    let text = fail(&[tracked("t", 0, 100)], &short).to_string();
    assert!(text.contains("TRUNCATED") && text.contains("committed=100") && text.contains("latest=50"), "{text}");
    let review = skip(&[tracked("t", 0, 100)], &short);
    assert_eq!((review.positions[0].expected, review.positions[0].from), (Some(at(100)), at(50)));
    assert_eq!((review.lost_ranges[0].from_offset, review.lost_ranges[0].until_offset), (at(100), None));
    assert_eq!(review.lost_ranges[0].reason, LostRangeReason::Truncated);
}

#[test]
fn a_topic_created_again_is_found_whatever_its_offsets_say() {
    // Fewer, as many, and more records than were committed.
    for latest in [3, 5, 500] {
        let text = fail(&[tracked("t", 0, 5)], &answers("t", id("b"), &[(0, latest)])).to_string();
        assert!(text.contains("TOPIC_RECREATED") && text.contains("stored_topic_id=a topic_id=b"), "{text}");
    }
    // It is found even where the offsets of the new topic are not answered yet.
    let none = Answers { earliest: BTreeMap::new(), latest: BTreeMap::new(), ..answers("t", id("b"), &[(0, 9)]) };
    assert_eq!(fail(&[tracked("t", 0, 5)], &none).kind(), ErrorKind::OffsetsLost);
}

#[test]
fn a_topic_created_again_is_skipped_to_its_earliest_offset() {
    let again = answers("t", id("b"), &[(2, 9)]);
    for (latest, until) in [(Some(at(8)), Some(at(8))), (Some(at(3)), None), (None, None)] {
        let review = skip(&[Tracked { latest, ..tracked("t", 0, 5) }], &again);
        assert_eq!((review.lost_ranges[0].from_offset, review.lost_ranges[0].until_offset), (at(5), until));
        assert_eq!(review.lost_ranges[0].reason, LostRangeReason::TopicRecreated);
        assert_eq!(review.lost_ranges[0].topic_id, id("a"));
        assert_eq!(review.positions, [go_on(0, [id("a"), id("b")], Some(at(5)), 2)]);
    }
    let silent = Answers { earliest: BTreeMap::new(), ..again };
    let review = skip(&[tracked("t", 0, 5)], &silent);
    assert!(review.positions.is_empty() && review.lost_ranges.is_empty());
    assert_eq!(review.problems[0].kind, ProblemKind::NoAnswer);
    // The new topic has fewer partitions.
    let review = skip(&[tracked("t", 7, 5)], &answers("t", id("b"), &[(2, 9)]));
    assert_eq!(review.problems[0].kind, ProblemKind::UnknownPartition { partitions: 1 });
    assert_eq!(review.joined, [tp("t", 0)]);
}

#[test]
fn topic_ids_are_optional_until_one_was_known() {
    // A broker that tells none.
    let unknown = Tracked { topic_id: None, ..tracked("t", 0, 5) };
    assert_eq!(skip(std::slice::from_ref(&unknown), &answers("t", None, &[(0, 9)])).positions.len(), 1);
    // One that begins to tell them.
    assert_eq!(skip(&[unknown], &answers("t", id("b"), &[(0, 9)])).positions[0].topic_id, id("b"));
    // One that stops: corrupt, whatever on_data_loss says.
    for choice in [OnDataLoss::Fail, OnDataLoss::Skip] {
        let error = review(&[tracked("t", 0, 5)], &filter(&["t"]), &answers("t", None, &[(0, 9)]), choice).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn one_error_tells_how_many_partitions_are_lost() {
    let text = fail(&[tracked("t", 0, 1), tracked("t", 1, 2)], &answers("t", id("a"), &[(5, 9), (6, 9)])).to_string();
    assert!(text.contains("topic=t partition=0") && text.contains("and_more_partitions=1"), "{text}");
}

#[test]
fn silence_is_borne_for_so_long() {
    let seconds = Duration::from_secs;
    let (one, other) = (
        Problem::of_partition(&tp("t", 0), ProblemKind::NoAnswer),
        Problem::of_partition(&tp("t", 1), ProblemKind::NoAnswer),
    );
    let mut silence = Silence::default();
    silence.note([&one], seconds(10));
    silence.note([&one, &other], seconds(20));
    assert_eq!(silence.longest(seconds(25)), Some((&one, seconds(15))));
    assert!(silence.check(seconds(25), seconds(16)).is_ok());
    let error = silence.check(seconds(26), seconds(16)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.topic_partition(), Some(&tp("t", 0)));
    assert!(error.chain().contains("gave up waiting seconds=16"), "{}", error.chain());
    // An answer makes good for it.
    silence.note([&other], seconds(30));
    assert_eq!(silence.longest(seconds(30)), Some((&other, seconds(10))));
    silence.note([], seconds(31));
    assert!(silence.check(seconds(1000), Duration::ZERO).is_ok());
}

proptest! {
    #[test]
    fn a_review_accounts_for_every_partition_once(
        list in proptest::collection::vec((0_i64..50, 0_i64..50, 0_i64..50, any::<bool>(), any::<bool>()), 1..6),
        recreated: bool,
        more in 0_usize..3,
    ) {
        let all: Vec<_> = list.iter().zip(0..).map(|((committed, ..), p)| tracked("t", p, *committed)).collect();
        let mut offsets: Vec<_> = list.iter().map(|(_, one, two, ..)| (*one.min(two), *one.max(two))).collect();
        offsets.extend(vec![(0, 9); more]);
        let mut answers = answers("t", id(if recreated { "b" } else { "a" }), &offsets);
        for ((.., earliest, latest), p) in list.iter().zip(0..) {
            if !earliest {
                answers.earliest.remove(&tp("t", p));
            }
            if !latest {
                answers.latest.remove(&tp("t", p));
            }
        }
        let review = skip(&all, &answers);
        prop_assert_eq!(review.positions.len() + review.problems.len(), list.len() + more);
        prop_assert_eq!(review.joined.len(), more);
        for position in &review.positions {
            let lost = review.lost_ranges.iter().find(|lost| lost.topic_partition == position.topic_partition);
            prop_assert_eq!(lost.is_some(), position.expected.is_some_and(|expected| expected != position.from) || recreated && position.expected.is_some());
            if let Some(lost) = lost {
                prop_assert_eq!(Some(lost.from_offset), position.expected);
                prop_assert!(lost.until_offset.is_none_or(|until| until >= lost.from_offset));
            }
            let earliest = answers.earliest.get(&position.topic_partition);
            prop_assert!(earliest.is_some_and(|earliest| position.from >= *earliest));
        }
        // Failing and skipping agree on what is a loss.
        let failed = super::review(&all, &filter(&["t"]), &answers, OnDataLoss::Fail);
        if failed.is_ok() {
            prop_assert!(review.lost_ranges.is_empty());
        }
    }
}

#[test]
fn a_log_that_reading_found_cut_off_is_a_loss_although_its_offsets_fit() {
    let cut = [Tracked { truncated: true, ..tracked("t", 0, 5) }];
    let answers = answers("t", id("a"), &[(0, 9)]);
    let error = fail(&cut, &answers);
    assert!(error.kind() == ErrorKind::OffsetsLost && error.to_string().contains("reason=TRUNCATED"), "{error}");
    let review = skip(&cut, &answers);
    assert_eq!(review.positions, [go_on(0, [id("a"), id("a")], Some(at(5)), 5)]);
    let lost = &review.lost_ranges[0];
    assert_eq!((lost.from_offset, lost.until_offset, lost.reason), (at(5), None, LostRangeReason::Truncated));
}

#[test]
fn the_epoch_of_the_leader_comes_with_the_latest_offset() {
    let mut answers = answers("t", id("a"), &[(0, 9), (0, 9)]);
    let told = |offset, leader_epoch| PartitionOffset {
        topic_partition: tp("t", 0),
        outcome: OffsetOutcome::Offset { offset: at(offset), leader_epoch },
    };
    answers.take_latest([told(9, Some(4))]);
    answers.take_earliest([told(0, Some(2))]);
    let epochs: Vec<_> = skip(&[tracked("t", 0, 5)], &answers).positions.iter().map(|p| p.latest_epoch).collect();
    assert_eq!(epochs, [Some(4), None]);
}
