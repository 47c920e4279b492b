use std::{
    fs,
    ops::{ControlFlow, Range},
};

use super::*;
use crate::{
    plan::{Position, Review, Tracked, review},
    types::{Record, TopicId},
};

struct World {
    folder: Arc<tempfile::TempDir>,
    source: TextFileSource,
}

impl World {
    fn new(change: impl FnOnce(TextFiles) -> TextFiles) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let source = TextFileSource::new(change(TextFiles::in_folder(folder.path()))).unwrap();
        Self { folder, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tp(&self, name: &str) -> TopicPartition {
        TopicPartition::new(format!("file:{}/{name}", self.folder.path().display()), 0)
    }

    /// Moves a file into the folder, as old as `age` seconds after 1970.
    fn put(&self, name: &str, text: &str, age: u64) {
        let path = self.path(".being-written");
        fs::write(&path, text).unwrap();
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(age);
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        fs::rename(path, self.path(name)).unwrap();
    }

    async fn ask(&self) -> Answers {
        self.source.ask().await.unwrap()
    }

    async fn told(&self) -> Vec<(String, i64)> {
        let of =
            |(tp, end): (TopicPartition, Offset)| (self.source.name_of(&tp).unwrap().into_string().unwrap(), end.get());
        self.ask().await.latest.into_iter().map(of).collect()
    }

    fn range(&self, name: &str, bytes: Range<i64>) -> OffsetRange {
        OffsetRange::new(self.tp(name), Offset::clamped(bytes.start), Offset::clamped(bytes.end))
    }

    fn plan(&self, name: &str, bytes: Range<i64>) {
        self.source.prepare(&[self.range(name, bytes)], &|_| None).unwrap();
    }

    fn read(&self, name: &str, bytes: Range<i64>) -> Result<(Vec<Record>, RangeCounts), Error> {
        let mut records = Vec::new();
        let range = self.range(name, bytes);
        let read = self.source.read(&range, &|| false, &mut |chunk: Arc<Chunk>| {
            records.extend(chunk.records());
            ControlFlow::Continue(())
        });
        match read {
            Ok(counts) => Ok((records, counts)),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Enough) => panic!("nobody had enough"),
        }
    }

    async fn review(&self, name: &str, topic_id: Option<TopicId>, committed: i64) -> Result<Review> {
        let tracked = Tracked {
            topic_partition: self.tp(name),
            topic_id,
            committed: Offset::clamped(committed),
            latest: None,
            truncated: false,
        };
        review(&[tracked], self.source.filter(), &self.ask().await, self.source.on_data_loss())
    }

    /// A process that was started with this stored.
    async fn restarted(&self, name: &str, topic_id: TopicId, committed: i64) -> Self {
        let source = TextFileSource::new(self.source.files.settings.clone()).unwrap();
        let position = StoredPosition {
            topic_partition: self.tp(name),
            topic_id: Some(topic_id),
            until_offset: Offset::clamped(committed),
            leader_epoch: None,
        };
        source.open("app", &[position]).await.unwrap();
        Self { folder: Arc::clone(&self.folder), source }
    }
}

fn id(topic_id: &str) -> TopicId {
    TopicId::new(topic_id)
}

fn from(review: Result<Review>) -> Vec<i64> {
    review.unwrap().positions.into_iter().map(|position: Position| position.from.get()).collect()
}

#[tokio::test]
async fn a_file_is_a_topic_of_one_partition_and_its_offsets_are_its_bytes() {
    let world = World::new(|files| files);
    world.put("a.txt", "one\ntwo\n", 7);
    let answers = world.ask().await;
    let partitions = answers.partitions(world.source.filter());
    assert_eq!(partitions, [(world.tp("a.txt"), Some(id("8@7.000000000")))]);
    assert_eq!(answers.earliest[&world.tp("a.txt")], Offset::ZERO);
    let (records, counts) = world.read("a.txt", 0..8).unwrap();
    let seen: Vec<_> = records.iter().map(|r| (r.offset().get(), r.text().unwrap(), r.timestamp().as_ms())).collect();
    assert_eq!(seen, [(0, "one", Some(7_000)), (4, "two", Some(7_000))]);
    assert_eq!((counts.records, counts.gaps, counts.bytes), (2, 6, 6));
    assert_ne!(counts.checksum, 0);
    let again = [world.read("a.txt", 0..3).unwrap().1, world.read("a.txt", 3..8).unwrap().1];
    assert_eq!(again.map(|counts| (counts.records, counts.gaps)), [(1, 2), (1, 4)]);
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_stream_and_is_named() {
    let world = World::new(|files| files.line_bytes_max(3));
    world.put("a", "one\nthree\n", 1);
    world.ask().await;
    assert_eq!(world.read("a", 0..4).unwrap().1.records, 1);
    let error = world.read("a", 0..10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert!(error.to_string().contains("offset=4 line_bytes_max=3"), "{error}");
}

#[tokio::test]
async fn the_oldest_files_come_first_and_no_more_at_a_time_than_were_asked_for() {
    let world = World::new(|files| files.files_max(2));
    for (name, age) in [("c", 1), ("a", 2), ("b", 3), ("d", 4)] {
        world.put(name, "x\n", age);
    }
    let told = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 2)).collect::<Vec<_>>();
    assert_eq!(world.told().await, told(&["a", "c"]));
    assert_eq!(world.told().await, told(&["a", "c"]));
    world.plan("a", 0..1);
    assert_eq!(world.told().await, told(&["a", "c"]));
    world.plan("a", 1..2);
    assert_eq!(world.told().await, told(&["a", "b", "c"]));
    world.source.forget_before(&[(world.tp("b"), Offset::clamped(2)), (world.tp("c"), Offset::clamped(2))].into());
    assert_eq!(world.told().await, told(&["a", "b", "c", "d"]));
}

#[tokio::test]
async fn a_file_that_was_read_to_its_end_may_go_and_is_in_no_batch_any_more() {
    let world = World::new(|files| files);
    world.put("a", "one\n", 5);
    let topic_id = Some(id("4@5.000000000"));
    assert_eq!(from(world.review("a", topic_id.clone(), 2).await), [2]);
    assert!(from(world.review("a", topic_id.clone(), 4).await).is_empty());
    world.plan("a", 2..4);
    fs::remove_file(world.path("a")).unwrap();
    let review = world.review("a", topic_id.clone(), 4).await.unwrap();
    assert!(review.positions.is_empty() && review.problems.is_empty(), "{review:?}");
    let restarted = world.restarted("a", topic_id.clone().unwrap(), 4).await;
    let review = restarted.review("a", topic_id, 4).await.unwrap();
    assert!(review.positions.is_empty() && review.problems.is_empty(), "{review:?}");
}

#[tokio::test]
async fn a_file_that_is_gone_before_its_end_is_a_problem_that_may_pass() {
    let world = World::new(|files| files);
    world.put("a", "one\n", 5);
    let topic_id = id("4@5.000000000");
    let restarted = world.restarted("a", topic_id.clone(), 2).await;
    fs::rename(world.path("a"), world.path(".a")).unwrap();
    let review = restarted.review("a", Some(topic_id.clone()), 2).await.unwrap();
    assert!(review.positions.is_empty(), "{review:?}");
    let error = review.problems[0].to_error();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with("the file is gone"), "{error}");
    assert_eq!(restarted.read("a", 2..4).unwrap_err().kind(), ErrorKind::Unavailable);
    fs::rename(world.path(".a"), world.path("a")).unwrap();
    assert_eq!(from(restarted.review("a", Some(topic_id), 2).await), [2]);
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_begun_is_a_loss() {
    let world = World::new(|files| files);
    world.put("a", "one\ntwo\n", 5);
    let topic_id = id("8@5.000000000");
    assert_eq!(from(world.review("a", Some(topic_id.clone()), 4).await), [4]);
    world.plan("a", 4..8);
    assert_eq!(world.source.ask_topics().await.unwrap().unwrap().len(), 1);
    world.put("a", "one\ntwo\n", 6);
    assert_eq!(world.read("a", 4..8).unwrap_err().kind(), ErrorKind::Unavailable);
    let found = world.source.ask_topics().await.unwrap().unwrap().into_values().next();
    assert_eq!(found, Some(TopicAnswer::Topic { partitions: 1, id: Some(id("8@6.000000000")) }));
    let error = world.review("a", Some(topic_id.clone()), 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetsLost);
    assert!(error.to_string().contains("the file was changed or replaced"), "{error}");
    let skipping = World {
        source: TextFileSource::new(TextFiles::in_folder(world.folder.path()).on_data_loss(OnDataLoss::Skip)).unwrap(),
        folder: Arc::clone(&world.folder),
    };
    assert_eq!(from(skipping.review("a", Some(topic_id), 4).await), [0]);
}

#[tokio::test]
async fn with_new_files_only_the_first_start_passes_over_what_is_there() {
    let world = World::new(TextFiles::new_files_only);
    world.put("old", "one\n", 5);
    let positions = world.source.first_positions().await.unwrap().unwrap();
    assert_eq!(positions.iter().map(|p| p.until_offset.get()).collect::<Vec<_>>(), [4]);
    let all = World::new(|files| files);
    all.put("old", "one\n", 5);
    assert!(all.source.first_positions().await.unwrap().unwrap().is_empty());
    assert_eq!(all.told().await, [("old".to_owned(), 4)]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_refused_at_the_start_and_tells_nothing_later() {
    let missing = TextFileSource::new("no/such/folder".into()).unwrap();
    let error = missing.open("app", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(missing.ask().await.unwrap().topics.is_empty());
    assert!(TextFileSource::new("".into()).is_err());
}

#[test]
fn two_folders_have_no_topic_in_common() {
    let source = |folder: &str| TextFileSource::new(folder.into()).unwrap();
    let (inner, outer) = (source("in/a+b/"), source("in"));
    assert!(inner.filter().matches("file:in/a+b/x.txt") && !outer.filter().matches("file:in/a+b/x.txt"));
    assert!(!inner.filter().matches("file:in/aab/x.txt") && outer.filter().matches("file:in/x.txt"));
}
