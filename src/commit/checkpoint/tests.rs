//! Damage of every kind, and what a folder looks like after many commits.

use std::{collections::BTreeSet, fs, path::Path};

use tempfile::TempDir;

use super::{
    chain::{self, HEAD},
    folder::Folder,
    look::CheckpointLook,
    segments,
    session::{Draft, Limits, Retention, Session},
    state::{Entry, State},
};
use crate::{
    commit::{
        letters::LetterSelection,
        moves::{MoveRequest, OffsetMove},
        settings::{StoreSettings, StoredPosition},
    },
    error::{ErrorKind, Result},
    types::{
        BatchCommit, BatchTime, CommittedRange, DeadLetter, DeadLetterStage, LostRange, LostRangeReason, Offset,
        OffsetRange, RangeCounts, SegmentKind, StateSegment, TopicId, TopicPartition,
    },
};

const APPLICATION: &str = "orders";
const NOW_MS: i64 = 1_700_000_000_000;
const KEEP_ALL: Retention = Retention { batches: 100, since_ms: 0 };

fn at(offset: i64) -> Offset {
    Offset::clamped(offset)
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("orders", number)
}

/// Batch `seq` of ten offsets a batch in partition 0.
fn batch(seq: u64) -> BatchCommit {
    let from = (i64::try_from(seq).unwrap() - 1) * 10;
    let range = OffsetRange::new(partition(0), at(from), at(from + 10));
    BatchCommit {
        batch_seq: seq,
        batch_time: BatchTime::from_ms(NOW_MS + i64::try_from(seq).unwrap()),
        ranges: vec![CommittedRange {
            range,
            expected: Some(at(from)),
            expected_topic_id: None,
            topic_id: None,
            counts: RangeCounts { records: 10, bytes: 100, checksum: u64::MAX - seq, ..RangeCounts::default() },
        }],
        tables: Vec::new(),
        records: Vec::new(),
        isolating: None,
        dead_letters: Vec::new(),
        lost_ranges: Vec::new(),
        state: Vec::new(),
        user_code: Vec::new(),
        processing_started_ms: NOW_MS,
    }
}

fn with_letter(seq: u64) -> BatchCommit {
    let letter = DeadLetter {
        topic_partition: partition(0),
        offset: at(3),
        stage: DeadLetterStage::Decode,
        reason: "no JSON".to_owned(),
        output: None,
        key: None,
        value: Some(vec![0, 255]),
        headers: "[]".to_owned(),
        timestamp_ms: None,
    };
    let lost = LostRange {
        topic_partition: partition(1),
        from_offset: at(5),
        until_offset: Some(at(9)),
        reason: LostRangeReason::Retention,
        topic_id: None,
    };
    BatchCommit { dead_letters: vec![letter], lost_ranges: vec![lost], ..batch(seq) }
}

/// With the state of one operator in some partitions, of which one by turns has a base. The first batch has all bases.
fn with_state(seq: u64, partitions: u32, first: u64) -> BatchCommit {
    let segment = |partition: u32| StateSegment {
        operator: 1,
        partition,
        batch_seq: seq,
        kind: match seq == first || seq % u64::from(partitions) == u64::from(partition) {
            true => SegmentKind::Base,
            false => SegmentKind::Delta,
        },
        keys: seq,
        data: format!("state {partition} of batch {seq}").into_bytes(),
    };
    BatchCommit { state: (0..partitions).map(segment).collect(), ..batch(seq) }
}

/// A folder that needs no disk: these tests write tens of thousands of files.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A folder that is written to as the store does it.
struct World {
    above: TempDir,
    session: Session,
}

impl World {
    /// An application that was made, taken over, and given its first positions.
    fn new() -> Self {
        let above = in_memory();
        let mut session = Session::open(&above.path().join("c"), APPLICATION).unwrap();
        assert!(session.is_empty());
        session.write_snapshot(State::default(), None, KEEP_ALL).unwrap();
        let owned = State { epoch: 1, owner: Some(uuid::Uuid::nil().to_string()), ..State::default() };
        session.write_snapshot(owned, None, KEEP_ALL).unwrap();
        let mut world = Self { above, session };
        world.change(|draft| {
            let position = |number| StoredPosition {
                topic_partition: partition(number),
                topic_id: None,
                until_offset: at(0),
                leader_epoch: None,
            };
            draft.put(draft.state.first(&[position(0), position(1)]).unwrap());
        });
        world
    }

    fn change(&mut self, change: impl FnOnce(&mut Draft)) {
        let state = self.session.state().unwrap().clone();
        let mut draft = Draft { positions: Vec::new(), state, entry: None, segments: Vec::new() };
        change(&mut draft);
        self.session.commit(draft, KEEP_ALL).unwrap();
    }

    fn commit(&mut self, batch: &BatchCommit) {
        self.change(|draft| {
            draft.put(draft.state.moved(&batch.ranges).unwrap());
            draft.state.batch_seq = batch.batch_seq;
            draft.entry = Some(Entry::of(batch, 1, "test", NOW_MS));
            draft.segments.clone_from(&batch.state);
        });
    }

    /// Up to batch `last`.
    fn commits(&mut self, last: u64) -> &mut Self {
        for seq in self.session.state().unwrap().batch_seq + 1..=last {
            self.commit(&batch(seq));
        }
        self
    }

    fn path(&self) -> std::path::PathBuf {
        self.above.path().join("c").join(APPLICATION)
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        names.sort();
        names
    }

    fn load(&self) -> Result<Option<State>> {
        let folder = Folder::find(&self.above.path().join("c"), APPLICATION)?.unwrap();
        let Some(chain) = chain::load(&folder, APPLICATION, &mut BTreeSet::new())? else { return Ok(None) };
        for sealed in &chain.segments {
            segments::read(&folder, APPLICATION, sealed)?;
        }
        Ok(Some(chain.state))
    }

    fn look(&self) -> CheckpointLook {
        let url = format!("checkpoint:{}", self.above.path().join("c").display());
        CheckpointLook::open(&url.parse().unwrap(), APPLICATION).unwrap()
    }

    #[track_caller]
    fn is_damaged(&self, what: &str) {
        let error = self.load().map(|state| state.map(|state| state.positions)).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
        assert!(error.to_string().contains("file=") && error.to_string().contains("restore"), "{error}");
    }
}

/// A folder with each kind of file: a snapshot, a ledger file below it, and three deltas, of which two have state.
fn one_of_each() -> World {
    let mut world = World::new();
    world.commit(&batch(1));
    world.commit(&with_letter(2));
    let state = world.session.state().unwrap().clone();
    world.session.write_snapshot(State { epoch: 2, ..state }, None, KEEP_ALL).unwrap();
    world.commits(3);
    world.commit(&with_state(4, 2, 4));
    world.commit(&with_state(5, 2, 4));
    let kinds: Vec<String> = world.files().iter().map(|name| name.rsplit('.').next().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["ledger", "snapshot", "delta", "delta", "segments", "delta", "segments", "HEAD"]);
    world
}

#[test]
fn every_truncation_and_every_flipped_bit_of_every_file_is_found() {
    let world = one_of_each();
    let (mut lengths, mut flips) = (0, 0);
    for name in world.files() {
        let path = world.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            world.is_damaged(&format!("{name} cut off at {length}"));
            lengths += 1;
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                world.is_damaged(&format!("{name} with bit {bit} of byte {at} flipped"));
                flips += 1;
            }
        }
        fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
        world.is_damaged(&format!("{name} with a byte more"));
        fs::write(&path, &bytes).unwrap();
    }
    eprintln!("{lengths} truncations and {flips} flipped bits in {} files, all found", world.files().len());
    assert_eq!(world.load().unwrap().unwrap().batch_seq, 5);
}

#[test]
fn a_missing_file_is_found_whichever_it_is() {
    let world = one_of_each();
    for name in world.files() {
        let (path, aside) = (world.path().join(&name), world.above.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        world.is_damaged(&format!("without {name}"));
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(world.load().unwrap().unwrap().batch_seq, 5);
}

#[test]
fn files_in_one_anothers_place_are_found() {
    let world = one_of_each();
    let mut later = one_of_each();
    later.commits(6);
    for name in world.files() {
        let path = world.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        for from in world.files().iter().filter(|from| **from != name) {
            fs::write(&path, fs::read(world.path().join(from)).unwrap()).unwrap();
            world.is_damaged(&format!("{from} in the place of {name}"));
        }
        fs::write(&path, &bytes).unwrap();
    }
    // Whole files of another folder, where one batch more was committed.
    let head = world.path().join(HEAD);
    let older = fs::read(&head).unwrap();
    fs::write(&head, fs::read(later.path().join(HEAD)).unwrap()).unwrap();
    world.is_damaged("a HEAD that is newer than its files");
    fs::write(&head, &older).unwrap();
    for beyond in ["00000000000000000011.delta", "00000000000000000010.snapshot"] {
        let last = later.files().into_iter().rfind(|name| name.ends_with(".delta")).unwrap();
        fs::write(world.path().join(beyond), fs::read(later.path().join(last)).unwrap()).unwrap();
        world.is_damaged(&format!("a file beyond HEAD that is none of its own: {beyond}"));
        fs::remove_file(world.path().join(beyond)).unwrap();
    }
    assert_eq!(world.load().unwrap().unwrap().batch_seq, 5);
}

#[test]
fn a_head_older_than_the_files_beside_it_never_leads_back() {
    let mut world = one_of_each();
    let head = world.path().join(HEAD);
    let old = fs::read(&head).unwrap();
    world.commits(6);
    let newest = fs::read(&head).unwrap();
    // As after a crash before HEAD was written: the commit is there.
    fs::write(&head, &old).unwrap();
    assert_eq!(world.load().unwrap().unwrap().batch_seq, 6);
    fs::write(&head, &newest).unwrap();
    world.commits(7);
    fs::write(&head, &old).unwrap();
    world.is_damaged("a HEAD older by two");
}

#[test]
fn a_session_goes_on_from_a_commit_that_head_does_not_name_yet() {
    let mut world = one_of_each();
    let old = fs::read(world.path().join(HEAD)).unwrap();
    world.commits(6);
    for unfinished in ["HEAD.tmp", "00000000000000000099.delta.tmp"] {
        fs::write(world.path().join(unfinished), b"half a fi").unwrap();
    }
    fs::write(world.path().join(HEAD), &old).unwrap();
    let mut session = Session::open(&world.above.path().join("c"), APPLICATION).unwrap();
    assert_eq!(session.state().unwrap().batch_seq, 6);
    // Whoever dies after the next file leaves two beyond the old HEAD, if HEAD was not written first.
    let state = session.state().unwrap().clone();
    session.write_snapshot(State { epoch: 3, ..state }, None, KEEP_ALL).unwrap();
    assert_eq!(world.load().unwrap().unwrap().epoch, 3);
    assert!(world.files().iter().all(|name| !name.ends_with(".tmp")), "{:?}", world.files());
    world.session = session;
    world.commits(8);
    assert_eq!(world.look().batches(100).unwrap().len(), 8);
}

#[test]
fn what_was_left_of_a_first_start_is_begun_anew() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("c");
    let mut session = Session::open(&path, APPLICATION).unwrap();
    session.write_snapshot(State::default(), None, KEEP_ALL).unwrap();
    fs::remove_file(path.join(APPLICATION).join(HEAD)).unwrap();
    let mut session = Session::open(&path, APPLICATION).unwrap();
    assert!(session.is_empty());
    session.write_snapshot(State::default(), None, KEEP_ALL).unwrap();
    assert!(!Session::open(&path, APPLICATION).unwrap().is_empty());
}

#[test]
fn a_folder_stays_small_and_its_ledger_whole() {
    let mut world = World::new();
    world.session.limits = Limits { deltas: 7, delta_bytes: u64::MAX, ledger_bytes: 3000 };
    for last in 1..=100 {
        world.commits(last);
        assert_eq!(world.load().unwrap().unwrap().batch_seq, last);
        let batches = world.look().batches(1000).unwrap();
        assert_eq!(batches.iter().map(|batch| batch.batch_seq).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());
        // HEAD, one snapshot, up to seven deltas, and ledger files of at least 3,000 bytes but for the last one.
        let ledgers = world.files().iter().filter(|name| name.ends_with(".ledger")).count();
        assert!(world.files().len() - ledgers <= 9, "{:?}", world.files());
    }
    let ledgers: Vec<u64> = lengths(&world.path(), ".ledger");
    assert!(ledgers.len() > 1 && ledgers[..ledgers.len() - 1].iter().all(|length| *length >= 3000), "{ledgers:?}");
    let page = world.look().batches_from(40, 10).unwrap();
    assert_eq!(page.iter().map(|batch| batch.batch_seq).collect::<Vec<_>>(), (40..50).collect::<Vec<_>>());
    assert_eq!(page[0].ranges[0].counts.checksum, u64::MAX - 40);
    assert_eq!(world.look().batches(3).unwrap()[0].batch_seq, 98);
}

#[test]
fn state_is_there_again_and_what_no_start_would_read_is_removed() {
    const PARTITIONS: u32 = 4;
    let mut world = World::new();
    world.session.limits = Limits { deltas: 3, delta_bytes: u64::MAX, ledger_bytes: 1 << 20 };
    for last in 1..=40 {
        world.commit(&with_state(last, PARTITIONS, 1));
        assert_eq!(world.load().unwrap().unwrap().batch_seq, last);
        let stored = world.look().segments(1, 0..PARTITIONS).unwrap();
        for (partition, segments) in stored.into_iter().enumerate() {
            let written = (1..=last).map(|seq| with_state(seq, PARTITIONS, 1).state.swap_remove(partition));
            let written: Vec<StateSegment> = written.collect();
            let base = written.iter().rposition(|segment| segment.kind == SegmentKind::Base).unwrap();
            assert_eq!(segments, written[base..], "partition {partition} after batch {last}");
        }
        // As far back as the oldest of the newest bases, and what the next snapshot removes.
        let files = world.files().iter().filter(|name| name.ends_with(".segments")).count();
        assert!(files <= 4 + 3, "{:?}", world.files());
    }
    assert!(world.look().segments(2, 0..PARTITIONS).unwrap().iter().all(Vec::is_empty));
    // A new owner begins with a snapshot, which knows all of them.
    let state = world.session.state().unwrap().clone();
    world.session.write_snapshot(State { epoch: 2, ..state }, None, KEEP_ALL).unwrap();
    assert_eq!(world.look().segments(1, 3..4).unwrap()[0].len(), 2);
}

fn lengths(folder: &Path, end: &str) -> Vec<u64> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(end));
    files.sort();
    files.iter().map(|path| path.metadata().unwrap().len()).collect()
}

#[test]
fn bytes_alone_make_a_snapshot_due() {
    let mut world = World::new();
    world.session.limits = Limits { deltas: u64::MAX, delta_bytes: 2000, ledger_bytes: 1 << 20 };
    world.commits(50);
    assert!(lengths(&world.path(), ".delta").iter().sum::<u64>() < 4000);
    assert_eq!(world.look().batches(1000).unwrap().len(), 50);
}

#[test]
fn old_batches_are_forgotten_and_what_they_lost_or_refused_is_not() {
    let mut world = World::new();
    world.session.limits = Limits { deltas: 3, delta_bytes: u64::MAX, ledger_bytes: 0 };
    world.commit(&with_letter(1));
    world.commits(40);
    let retention = Retention { batches: 10, since_ms: NOW_MS + 1 };
    for epoch in 2..=4 {
        let state = world.session.state().unwrap().clone();
        world.session.write_snapshot(State { epoch, ..state }, None, retention).unwrap();
        let mut look = world.look();
        let batches = look.batches(1000).unwrap();
        let (first, last) = (batches.first().unwrap().batch_seq, batches.last().unwrap().batch_seq);
        assert!(first > 20 && first <= 30 && last == 40, "{first} to {last}");
        let losses = look.lost_ranges().unwrap();
        assert_eq!((losses.len(), losses[0].batch_seq, losses[0].from_offset), (1, 1, at(5)));
        let letters = look.letters(&LetterSelection::default()).unwrap();
        assert_eq!((letters.len(), letters[0].info.batch_seq), (1, 1));
        assert_eq!((&letters[0].value, &letters[0].key), (&Some(vec![0, 255]), &None));
        let of = look.letters_of(1..=1000).unwrap();
        assert_eq!((of.len(), of[0].batch_seq, of[0].offset), (1, 1, letters[0].info.offset));
        assert!(look.letters_of(2..=1000).unwrap().is_empty());
        let contents = look.letter_contents(&[of[0].id]).unwrap();
        assert_eq!((contents.len(), &contents[0].value, &contents[0].key), (1, &Some(vec![0, 255]), &None));
        assert!(look.letter_contents(&[of[0].id + 1]).unwrap().is_empty());
        let elsewhere = LetterSelection { partition: Some(7), ..LetterSelection::default() };
        assert!(look.letters(&elsewhere).unwrap().is_empty());
    }
}

#[test]
fn a_look_sees_the_folder_as_it_was_although_a_job_goes_on() {
    let mut world = World::new();
    world.session.limits = Limits { deltas: 3, delta_bytes: u64::MAX, ledger_bytes: 500 };
    world.commits(10);
    let mut look = world.look();
    world.commits(30);
    assert_eq!(look.batches_from(1, 1000).unwrap().len(), 10);
    assert_eq!(look.application().unwrap().unwrap().batch_seq, 10);
    assert_eq!(look.offsets().unwrap()[0].until_offset, at(100));
}

#[test]
fn offsets_that_go_to_another_cluster_take_its_id_along() {
    let here = State { cluster_id: Some("one".to_owned()), ..State::default() };
    let settings = StoreSettings::new("checkpoint:unused".parse().unwrap(), APPLICATION);
    let moved = |cluster_id: Option<&str>| {
        let topic_id = Some(TopicId::new("there"));
        let first = OffsetMove { topic_partition: partition(0), expected: None, until_offset: at(7), topic_id };
        let cluster_id = cluster_id.map(str::to_owned);
        let request = MoveRequest { moves: vec![first], scenario: "set".to_owned(), delete_rows: None, cluster_id };
        here.moved_by(&request, &settings, NOW_MS).unwrap().0.cluster_id
    };
    assert_eq!((moved(None).as_deref(), moved(Some("two")).as_deref()), (Some("one"), Some("two")));
}
