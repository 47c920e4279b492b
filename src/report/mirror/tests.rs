//! What is written when: with a target and an owner of the test's own, on a clock that the test moves.

use std::time::Duration;

use super::*;
use crate::{
    clock::ManualClock,
    error::{Error, ErrorKind},
};

/// Long enough for a task to take its turn, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(20);

fn of(offsets: &[(i32, i64)]) -> Offsets {
    offsets.iter().map(|(partition, offset)| (TopicPartition::new("t", *partition), Offset::clamped(*offset))).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A mirror that was told everything once.
pub(in crate::report) fn told(kind: MirrorKind, clock: Arc<dyn Clock>) -> Arc<MirrorState> {
    let state = MirrorState::new(kind, clock);
    state.begin(of(&[(0, 10), (1, 5)]));
    state.committed(of(&[(0, 14)]));
    state.failed();
    state.succeeded();
    Arc::new(state)
}

#[test]
fn all_is_due_at_first_and_then_what_differs() {
    let mut slot = Slot::default();
    assert_eq!(slot.due(), None);
    slot.begin(of(&[(0, 10), (1, 5)]));
    let due = slot.due().unwrap();
    assert_eq!((&due.offsets, due.whole), (&of(&[(0, 10), (1, 5)]), true));
    slot.wrote(due);
    assert_eq!((slot.due(), slot.lag()), (None, 0));
    slot.committed(of(&[(1, 8)]));
    assert_eq!((slot.due().unwrap().offsets, slot.lag()), (of(&[(1, 8)]), 3));
    slot.again();
    assert_eq!(slot.due().unwrap().offsets, of(&[(0, 10), (1, 8)]));
}

#[test]
fn the_last_value_wins_and_within_a_term_it_never_goes_back() {
    let mut slot = Slot::default();
    slot.begin(of(&[(0, 10)]));
    for offset in [11, 30, 20] {
        slot.committed(of(&[(0, offset)]));
    }
    assert_eq!((slot.due().unwrap().offsets, slot.lag()), (of(&[(0, 30)]), 20));
    // A new term begins where the store is.
    slot.begin(of(&[(0, 3)]));
    assert_eq!((slot.due().unwrap().offsets, slot.lag()), (of(&[(0, 3)]), 0));
}

#[test]
fn what_was_written_before_a_term_began_is_not_its_own() {
    let mut slot = Slot::default();
    slot.begin(of(&[(0, 10)]));
    let due = slot.due().unwrap();
    slot.begin(of(&[(0, 4)]));
    slot.wrote(due);
    assert_eq!(slot.due().unwrap().offsets, of(&[(0, 4)]));
}

#[test]
fn a_partition_that_joins_counts_from_its_first_commit() {
    let mut slot = Slot::default();
    slot.begin(Offsets::new());
    assert_eq!(slot.due(), None, "there is nothing to write");
    slot.committed(of(&[(7, 1_000)]));
    assert_eq!((slot.lag(), slot.due().unwrap().offsets), (0, of(&[(7, 1_000)])));
    slot.committed(of(&[(7, 1_002)]));
    assert_eq!(slot.lag(), 2);
}

/// What is wrong at the moment, and what was written.
#[derive(Debug, Default)]
struct World {
    written: Vec<Offsets>,
    tries: usize,
    asked: usize,
    closed: usize,
    fails: Option<ErrorKind>,
    not_ours: Option<ErrorKind>,
    not_whole: bool,
    silent: bool,
}

type Shared = Arc<Mutex<World>>;

fn with<T>(world: &Shared, work: impl FnOnce(&mut World) -> T) -> T {
    work(&mut world.lock().unwrap())
}

struct Target(Shared);

#[async_trait]
impl MirrorTarget for Target {
    async fn write(&mut self, offsets: &Offsets) -> Result<()> {
        let (fails, silent) = with(&self.0, |world| {
            world.tries += 1;
            if world.fails.is_none() && !world.silent {
                world.written.push(offsets.clone());
            }
            (world.fails, world.silent)
        });
        if silent {
            std::future::pending::<()>().await;
        }
        fails.map_or(Ok(()), |kind| Err(Error::new(kind, "no")))
    }

    fn is_whole(&self) -> bool {
        with(&self.0, |world| !std::mem::take(&mut world.not_whole))
    }

    async fn close(&mut self) {
        with(&self.0, |world| world.closed += 1);
    }
}

struct Owner(Shared);

#[async_trait]
impl Ownership for Owner {
    async fn check(&self) -> Result<()> {
        with(&self.0, |world| {
            world.asked += 1;
            world.not_ours.map_or(Ok(()), |kind| Err(Error::new(kind, "not ours")))
        })
    }
}

/// A running mirror.
struct Run {
    mirror: Mirror,
    world: Shared,
    clock: Arc<ManualClock>,
}

impl Run {
    fn of(offsets: &[(i32, i64)], world: World) -> Self {
        let (world, clock) = (Arc::new(Mutex::new(world)), Arc::new(ManualClock::at(1_000)));
        let (target, owner) = (Box::new(Target(Arc::clone(&world))), Arc::new(Owner(Arc::clone(&world))));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let mirror = Mirror::start(MirrorKind::Zookeeper, target, owner, shared, of(offsets));
        Self { mirror, world, clock }
    }

    /// Moves the clock by seconds, as often as it takes.
    async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let waited = async {
            while !with(&self.world, |world| holds(world)) {
                self.clock.advance(seconds(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.world));
    }

    fn commits(&self, offsets: &[(i32, i64)]) {
        self.mirror.state().committed(of(offsets));
    }

    fn last(&self) -> Option<Offsets> {
        with(&self.world, |world| world.written.last().cloned())
    }

    fn metrics(&self) -> String {
        render(&[self.mirror.state()]).concat()
    }
}

#[tokio::test]
async fn a_start_writes_all_that_is_stored_and_a_commit_what_it_moved() {
    let run = Run::of(&[(0, 10), (1, 5)], World::default());
    run.until("the start", |world| world.written == [of(&[(0, 10), (1, 5)])]).await;
    assert_eq!(with(&run.world, |world| world.asked), 1, "whose the application is was asked first");
    run.commits(&[(1, 9)]);
    run.until("a commit", |world| world.written.last() == Some(&of(&[(1, 9)]))).await;
    assert!(run.metrics().contains("directstream_mirror_lag_offsets{mirror=\"zookeeper\"} 0\n"), "{}", run.metrics());
}

#[tokio::test]
async fn a_server_that_is_away_costs_a_try_a_second_and_gets_the_last_value() {
    let run = Run::of(&[(0, 0)], World { fails: Some(ErrorKind::Unavailable), ..World::default() });
    run.until("tries", |world| world.tries >= 3).await;
    let began = run.clock.monotonic();
    let tries = with(&run.world, |world| world.tries);
    for offset in 1..=100 {
        run.commits(&[(0, offset)]);
    }
    run.until("more tries", |world| world.tries >= tries + 5).await;
    let took = run.clock.monotonic().saturating_sub(began);
    assert!(took >= seconds(4), "five tries in {took:?}");
    let metrics = run.metrics();
    assert!(metrics.contains("directstream_mirror_lag_offsets{mirror=\"zookeeper\"} 100\n"), "{metrics}");
    assert!(metrics.contains("directstream_mirror_last_success_time_seconds{mirror=\"zookeeper\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("directstream_mirror_errors_total{mirror=\"zookeeper\"} 0\n"), "{metrics}");
    with(&run.world, |world| world.fails = None);
    run.until("it is back", |world| world.written == [of(&[(0, 100)])]).await;
}

#[tokio::test]
async fn a_fenced_process_writes_nothing_more() {
    let run = Run::of(&[(0, 0)], World::default());
    run.until("the start", |world| world.written.len() == 1).await;
    with(&run.world, |world| world.not_ours = Some(ErrorKind::Fenced));
    // It was committed, and then the process stood still while another one took over, be it ever so short.
    run.commits(&[(0, 7)]);
    run.until("what goes with the session is gone", |world| world.closed == 1).await;
    run.mirror.close(MirrorEnd::Flush, LIMIT).await;
    assert_eq!(with(&run.world, |world| (world.written.len(), world.closed)), (1, 1));
}

#[tokio::test]
async fn while_nobody_knows_whose_the_application_is_nothing_is_written() {
    let run = Run::of(&[(0, 4)], World { not_ours: Some(ErrorKind::Unavailable), ..World::default() });
    run.until("it was asked", |world| world.asked >= 3).await;
    assert_eq!(run.last(), None);
    with(&run.world, |world| world.not_ours = None);
    run.until("it is known", |world| world.written == [of(&[(0, 4)])]).await;
}

#[tokio::test]
async fn where_somebody_else_has_written_nothing_is_tried_before_the_store_says_whose_it_is() {
    let run = Run::of(&[(0, 0)], World::default());
    run.until("the start", |world| world.written.len() == 1).await;
    with(&run.world, |world| world.fails = Some(ErrorKind::Conflict));
    let asked = with(&run.world, |world| world.asked);
    run.commits(&[(0, 1)]);
    run.until("it is asked", |world| world.asked > asked).await;
    with(&run.world, |world| (world.fails, world.not_ours) = (None, Some(ErrorKind::Fenced)));
    run.until("it is over", |world| world.closed == 1).await;
    assert_eq!(run.last(), Some(of(&[(0, 0)])));
}

#[tokio::test]
async fn all_is_written_again_every_hour_and_when_something_of_it_is_gone() {
    let run = Run::of(&[(0, 1), (1, 2)], World::default());
    run.until("the start", |world| world.written.len() == 1).await;
    with(&run.world, |world| world.not_whole = true);
    run.until("it is whole again", |world| world.written.len() == 2).await;
    let began = run.clock.monotonic();
    run.until("an hour is over", |world| world.written.len() == 3).await;
    let took = run.clock.monotonic().saturating_sub(began);
    assert!(took >= Duration::from_secs(59 * 60), "{took:?}");
    assert_eq!(run.last(), Some(of(&[(0, 1), (1, 2)])));
}

#[tokio::test]
async fn at_its_end_what_is_committed_is_written_once_more() {
    let run = Run::of(&[(0, 1)], World::default());
    run.until("the start", |world| world.written.len() == 1).await;
    // The clock stands still: it is in the middle of its pause.
    run.commits(&[(0, 2)]);
    run.mirror.close(MirrorEnd::Flush, LIMIT).await;
    assert_eq!(with(&run.world, |world| (world.written.len(), world.closed)), (2, 1));
    run.commits(&[(0, 3)]);
    assert_eq!(run.last(), Some(of(&[(0, 2)])));

    let abandoned = Run::of(&[(0, 1)], World::default());
    abandoned.until("the start", |world| world.written.len() == 1).await;
    abandoned.commits(&[(0, 2)]);
    abandoned.mirror.close(MirrorEnd::Abandon, LIMIT).await;
    assert_eq!(with(&abandoned.world, |world| (world.written.len(), world.closed)), (1, 1));
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_the_end_up_for_its_time_and_no_longer() {
    let run = Run::of(&[(0, 1)], World { silent: true, ..World::default() });
    run.until("it is asked", |world| world.tries == 1).await;
    let ended = tokio::time::timeout(LIMIT, run.mirror.close(MirrorEnd::Flush, Duration::from_millis(20)));
    ended.await.expect("it ends");
}
