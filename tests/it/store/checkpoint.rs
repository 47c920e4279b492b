//! What only a checkpoint folder is like: no tables, files that can be damaged, a disk that can be full.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use directstream::{
    ErrorKind,
    commit::{CommitOutcome, LetterSelection, Letters, StoreSettings},
    types::{DeadLetter, DeadLetterStage, EncodedRows, LostRange, LostRangeReason, TableRows},
};

use super::{
    worker::{Ended, Job, committed, folder},
    world::{APPLICATION, World, at, batch, committed as is_committed, lines, moved, position, refused},
};

#[tokio::test]
async fn tables_are_refused_at_start_and_rows_at_the_commit() {
    let world = World::checkpoint();
    let settings = StoreSettings { tables: vec![lines()], ..world.settings() };
    let error = world.try_start(settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("has no tables") && error.to_string().contains("foreach_rdd"), "{error}");
    let (committer, _) = world.start(Vec::new()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let mut rows = batch(1, vec![moved(0, 0, 10)], Vec::new());
    rows.tables = vec![TableRows { table: 0, chunks: vec![EncodedRows { rows: 1, ..EncodedRows::default() }] }];
    assert_eq!(refused(committer.commit(rows).await.unwrap()).kind(), ErrorKind::Config);
    is_committed(committer.commit(batch(1, vec![moved(0, 0, 10)], Vec::new())).await.unwrap());
    committer.stop().await;
}

#[tokio::test]
async fn offsets_that_are_not_the_expected_ones_are_a_conflict() {
    let world = World::checkpoint();
    let (committer, _) = world.start(Vec::new()).await;
    committer.initialize_positions(vec![position(0, 0), position(1, 7)]).await.unwrap();
    let stale = batch(1, vec![moved(0, 0, 10), moved(1, 0, 10)], Vec::new());
    let CommitOutcome::Conflict { positions, .. } = committer.commit(stale).await.unwrap() else {
        panic!("no conflict")
    };
    assert_eq!(positions, [position(0, 0), position(1, 7)]);
    let mut inserted = moved(1, 0, 10);
    inserted.expected = None;
    let again = committer.commit(batch(1, vec![inserted], Vec::new())).await.unwrap();
    assert!(matches!(again, CommitOutcome::Conflict { .. }), "{again:?}");
    let mut new = moved(2, 3, 10);
    new.expected = None;
    is_committed(committer.commit(batch(1, vec![moved(0, 0, 10), new], Vec::new())).await.unwrap());
    assert_eq!(committer.positions().await.unwrap(), [position(0, 10), position(1, 7), position(2, 10)]);
    committer.stop().await;
}

#[tokio::test]
async fn dead_letters_and_lost_ranges_are_kept_and_can_be_looked_at() {
    let world = World::checkpoint();
    let (committer, _) = world.start(Vec::new()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let place = position(0, 0).topic_partition;
    let mut first = batch(1, vec![moved(0, 0, 10)], Vec::new());
    first.dead_letters = [8, 3]
        .map(|offset| DeadLetter {
            topic_partition: place.clone(),
            offset: at(offset),
            stage: DeadLetterStage::Decode,
            reason: "no JSON".to_owned(),
            output: None,
            key: None,
            value: Some(vec![0, 255]),
            headers: "[]".to_owned(),
            timestamp_ms: Some(5),
        })
        .into();
    first.lost_ranges = vec![LostRange {
        topic_partition: place,
        from_offset: at(0),
        until_offset: None,
        reason: LostRangeReason::Truncated,
        topic_id: None,
    }];
    is_committed(committer.commit(first).await.unwrap());
    let url = world.url().parse().unwrap();
    let mut letters = Letters::open(&url, APPLICATION).await.unwrap();
    assert_eq!(letters.count(&LetterSelection::default()).await.unwrap(), 2);
    let listed = letters.list(&LetterSelection::default(), 10).await.unwrap();
    assert_eq!(listed.iter().map(|letter| letter.offset).collect::<Vec<_>>(), [at(3), at(8)]);
    let one = letters.read(listed[1].clone()).await.unwrap().unwrap();
    assert_eq!((one.info.offset, one.value, one.timestamp_ms), (at(8), Some(vec![0, 255]), Some(5)));
    let kept = letters.discard(&LetterSelection::default()).await.unwrap_err();
    assert_eq!(kept.kind(), ErrorKind::Config);
    let mut look = world.inspector().await;
    assert_eq!(look.lost_ranges().await.unwrap()[0].until_offset, None);
    let ledger = look.batches(9).await.unwrap();
    assert_eq!((ledger[0].dead_letters, ledger[0].lost_ranges, ledger[0].records), (2, 1, 10));
    committer.stop().await;
    // Owners, locks and unfinished files are gone.
    let mut ends: Vec<String> = fs::read_dir(world.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.rsplit('.').next().unwrap().to_owned())
        .collect();
    ends.sort();
    assert_eq!(ends, ["HEAD", "ledger", "lock", "snapshot"]);
}

#[tokio::test]
async fn a_damaged_folder_ends_the_start_and_the_running_process() {
    let world = World::checkpoint();
    let (committer, _) = world.start(Vec::new()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    is_committed(committer.commit(batch(1, vec![moved(0, 0, 10)], Vec::new())).await.unwrap());
    let head = world.folder().join("HEAD");
    let whole = fs::read(&head).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&head, damaged).unwrap();
    let running = committer.commit(batch(2, vec![moved(0, 10, 20)], Vec::new())).await.unwrap_err();
    assert_eq!(running.kind(), ErrorKind::Corrupt, "{running:?}");
    let starting = world.try_start(world.settings()).await.unwrap_err();
    assert_eq!(starting.kind(), ErrorKind::Corrupt, "{starting:?}");
    assert_eq!(starting.kind().exit_code(), 4);
    assert!(starting.to_string().contains("HEAD") && starting.to_string().contains("restore"), "{starting}");
    fs::write(&head, whole).unwrap();
    let (_, recovered) = world.start(Vec::new()).await;
    assert_eq!((recovered.batch_seq, recovered.positions), (1, vec![position(0, 10)]));
}

#[tokio::test]
async fn a_folder_that_is_emptied_under_a_process_ends_it() {
    let world = World::checkpoint();
    let (committer, _) = world.start(Vec::new()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    fs::remove_dir_all(world.folder()).unwrap();
    let error = committer.commit(batch(1, vec![moved(0, 0, 10)], Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

/// The places where the disk may fail or the process may die, in the order in which they are passed.
const POINTS: [&str; 9] = [
    "checkpoint::read",
    "checkpoint::before_create",
    "checkpoint::mid_write",
    "checkpoint::before_flush",
    "checkpoint::after_flush",
    "checkpoint::before_rename",
    "checkpoint::after_rename",
    "checkpoint::before_folder_flush",
    "checkpoint::after_folder_flush",
];
const BATCHES: u64 = 3;
const AT_A_TIME: usize = 3;

#[test]
fn sigkill_each_time_at_each_step_of_a_write() {
    each_time_at_each_step("kill", |folder, ended, failed| {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(9), "{failed}: {ended:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kept = runtime.block_on(committed(folder));
        assert!((ended.committed()..=ended.committed() + 1).contains(&kept), "{failed}: {kept} kept, {ended:?}");
        let clean = Job::new(folder, BATCHES).run();
        assert!(clean.status.success(), "{failed}: {clean:?}");
        assert_eq!(runtime.block_on(committed(folder)), BATCHES, "{failed}");
    });
}

#[test]
fn a_full_disk_each_time_at_each_step_of_a_write() {
    each_time_at_each_step("errno:28", copes);
}

#[test]
fn a_failing_disk_each_time_at_each_step_of_a_write() {
    each_time_at_each_step("errno:5", copes);
}

/// The program copes by itself, and tells what it did.
fn copes(folder: &Path, ended: &Ended, failed: &str) {
    assert!(ended.status.success() && ended.committed() == BATCHES, "{failed}: {ended:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(committed(folder)), BATCHES, "{failed}");
}

/// Does `action` the first time that each step is passed, the second time, and so on until it is not passed so often.
fn each_time_at_each_step(action: &str, check: impl Fn(&Path, &Ended, &str) + Sync) {
    let (next, fired, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(point) = POINTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            for passed in 0.. {
                let folder = folder();
                let times = if passed == 0 { String::new() } else { format!("{passed}*off->") };
                let failpoints = format!("{point}={times}1*return({action})->off");
                let ended = Job { failpoints: failpoints.clone(), ..Job::new(folder.path(), BATCHES) }.run();
                if !ended.told.contains(&format!("failpoint {point}: {action}")) {
                    assert!(ended.status.success() && passed > 5, "{failpoints}: {ended:?}");
                    break;
                }
                fired.fetch_add(1, Ordering::Relaxed);
                let one = || check(folder.path(), &ended, &failpoints);
                if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                    failed.lock().unwrap().push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
                }
            }
        }
    };
    std::thread::scope(|scope| (0..AT_A_TIME).for_each(|_| drop(scope.spawn(work))));
    eprintln!("{action}: {} faults at {} steps", fired.into_inner(), POINTS.len());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn a_disk_that_stays_full_ends_the_process_and_the_next_start_goes_on() {
    let folder = folder();
    let always = "checkpoint::before_create=9*off->return(errno:28)";
    let unavailable_max = Duration::from_secs(1);
    let job = Job { failpoints: always.to_owned(), unavailable_max, ..Job::new(folder.path(), 5) };
    let ended = job.run();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.told.contains("No space left on device"), "{ended:?}");
    let kept = committed(folder.path()).await;
    assert!(kept > 0 && (ended.committed()..=ended.committed() + 1).contains(&kept), "{kept} {ended:?}");
    let clean = Job::new(folder.path(), 5).run();
    assert!(clean.status.success(), "{clean:?}");
    assert_eq!(committed(folder.path()).await, 5);
}

/// A file system of 256 KiB of the process's own, where the kernel allows that; else the same by a failpoint.
#[test]
fn a_disk_that_is_full_is_waited_for() {
    const MOUNTED: &str =
        r#"exec unshare -rm sh -c 'mount -t tmpfs -o size=256k none "$WORKER_FOLDER" && exec "$@"' sh "$@""#;
    let folder = folder();
    let job = Job { around: Some(MOUNTED), mode: "full", ..Job::new(folder.path(), 5) };
    let ended = job.run();
    if !ended.told.contains("committed 1") {
        eprintln!("no file system can be mounted here, a failpoint takes its place: {}", ended.told);
        let failpoints = "checkpoint::mid_write=9*off->8*return(errno:28)->off".to_owned();
        let ended = Job { failpoints, ..Job::new(folder.path(), 5) }.run();
        assert!(ended.status.success() && ended.committed() == 5, "{ended:?}");
        return;
    }
    assert!(ended.status.success() && ended.committed() == 5, "{ended:?}");
    let order = ["committed 4", "full", "room", "committed 5"].map(|word| ended.told.find(word).unwrap());
    assert!(order.is_sorted(), "{ended:?}");
    assert!(ended.told.contains("No space left on device"), "{ended:?}");
}

/// A limit on a file's size (RLIMIT_FSIZE): a real error of a real write.
#[tokio::test]
async fn a_write_that_the_kernel_cuts_short_leaves_what_was_there() {
    let folder = folder();
    assert!(Job::new(folder.path(), 2).run().status.success());
    let unavailable_max = Duration::from_secs(1);
    let limited = r#"trap "" XFSZ; ulimit -f 1; exec "$@""#;
    // Not under the limit's own eyes: what it tells goes through a pipe.
    let around = format!("({limited}) 2>&1 | cat; exit 0").replace("exec \"$@\"", "exec \"$@\" 2>&1");
    let ended = Job { around: Some(&around), unavailable_max, ..Job::new(folder.path(), 9) }.run();
    assert!(ended.told.contains("File too large") && ended.committed() < 9, "{ended:?}");
    assert_eq!(committed(folder.path()).await, 2);
    assert!(Job::new(folder.path(), 4).run().status.success());
    assert_eq!(committed(folder.path()).await, 4);
}

#[tokio::test]
async fn a_second_process_is_told_who_the_owner_is_and_follows_when_that_is_killed() {
    let folder = folder();
    let owner = Job { mode: "hold", ..Job::new(folder.path(), 2) }.start();
    owner.until_it_tells("done").await;
    let second = Job::new(folder.path(), 4).start().ended_in_time().await;
    assert_eq!(second.status.code(), Some(5), "{second:?}");
    let owners_id = format!("process_id={}", owner.id());
    assert!(second.told.contains("host=") && second.told.contains(&owners_id), "{second:?}");
    owner.signal("KILL");
    owner.ended_in_time().await;
    let start = Instant::now();
    let third = Job::new(folder.path(), 4).start().ended_in_time().await;
    assert!(third.status.success() && start.elapsed() < Duration::from_secs(8), "{third:?} {:?}", start.elapsed());
    assert_eq!(committed(folder.path()).await, 4);
}

#[tokio::test]
async fn of_two_processes_started_together_one_owns_the_folder() {
    let folders: Vec<_> = (0..10).map(|_| folder()).collect();
    let pairs: Vec<_> = folders
        .iter()
        .map(|folder| [(); 2].map(|()| Job { mode: "hold", ..Job::new(folder.path(), 5) }.start()))
        .collect();
    for ([mut one, mut other], folder) in pairs.into_iter().zip(&folders) {
        crate::support::wait_until("one of the two ends", Duration::from_secs(60), async || {
            one.has_ended() || other.has_ended()
        })
        .await;
        let (loser, winner) = if one.has_ended() { (one, other) } else { (other, one) };
        let loser = loser.ended_in_time().await;
        assert_eq!(loser.status.code(), Some(5), "{loser:?}");
        assert!(loser.told.contains(&format!("process_id={}", winner.id())), "{loser:?}");
        winner.until_it_tells("done").await;
        assert_eq!(committed(folder.path()).await, 5);
    }
}

#[tokio::test]
async fn a_zombie_before_its_transaction_is_fenced() {
    let folder = folder();
    let failpoints = "commit::before_begin=3*off->1*return(stop)->off".to_owned();
    let zombie = Job { failpoints, ..Job::new(folder.path(), 5) }.start();
    zombie.stopped().await;
    let successor = Job { take_over: true, ..Job::new(folder.path(), 5) }.start().ended_in_time().await;
    assert!(successor.status.success(), "{successor:?}");
    zombie.signal("CONT");
    let zombie = zombie.ended_in_time().await;
    assert_eq!(zombie.status.code(), Some(5), "{zombie:?}");
    assert_eq!(committed(folder.path()).await, 5);
}

/// Nobody can take the folder's lock from a process that is stopped: the successor says who it is, and ends.
#[tokio::test]
async fn a_process_that_stands_still_in_the_middle_of_a_write_is_named() {
    let folder = folder();
    let failpoints = "checkpoint::before_rename=9*off->1*return(stop)->off".to_owned();
    let still = Job { failpoints, ..Job::new(folder.path(), 5) }.start();
    still.stopped().await;
    let successor = Job { take_over: true, ..Job::new(folder.path(), 5) }.start().ended_in_time().await;
    assert_eq!(successor.status.code(), Some(5), "{successor:?}");
    assert!(successor.told.contains(&format!("process_id={}", still.id())), "{successor:?}");
    still.signal("CONT");
    let still = still.ended_in_time().await;
    assert!(still.status.success(), "{still:?}");
    assert_eq!(committed(folder.path()).await, 5);
}
