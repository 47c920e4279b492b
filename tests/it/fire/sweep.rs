//! A fault at every arrow, from the plan to the acknowledgement.

use std::{
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::field::{Field, LIMIT};

/// A failpoint, and how often it is passed before it fires: in the eighth of 25 batches, unless it is one of the start.
struct Arrow {
    point: &'static str,
    passed: u32,
    /// What has to go wrong before the arrow is reached at all.
    first: &'static str,
    /// The exit code where an error that passes is met here: the program copes by itself, or its code says: start again.
    error: i32,
}

const fn arrow(point: &'static str, passed: u32) -> Arrow {
    Arrow { point, passed, first: "", error: 0 }
}

const fn doubt(point: &'static str, first: &'static str) -> Arrow {
    Arrow { point, passed: 0, first, error: 0 }
}

/// Between the stages, where nobody tries again.
const fn ending(point: &'static str, passed: u32) -> Arrow {
    Arrow { point, passed, first: "", error: 3 }
}

/// The first positions are one transaction more, and three tables are three writes.
const ARROWS: &[Arrow] = &[
    arrow("commit::after_connect", 0),
    arrow("commit::after_prepare", 0),
    arrow("commit::before_take_over", 0),
    arrow("commit::after_take_over", 0),
    arrow("commit::before_commit", 0),
    arrow("commit::after_commit", 0),
    arrow("plan::done", 7),
    arrow("read::chunk", 30),
    arrow("transform::done", 7),
    ending("stream::hand_over", 7),
    arrow("commit::before_begin", 8),
    arrow("commit::after_begin", 8),
    arrow("commit::after_lock", 8),
    arrow("commit::mid_write", 22),
    arrow("commit::after_write", 8),
    arrow("commit::after_move_offsets", 8),
    arrow("commit::after_advance", 7),
    arrow("commit::before_commit", 8),
    arrow("commit::after_commit", 8),
    ending("stream::acknowledge", 7),
    doubt("commit::before_settle", "commit::after_commit=8*off->1*return(error)->off;"),
    doubt("commit::after_settle", "commit::before_commit=8*off->1*return(error)->off;"),
    arrow("commit::before_release", 0),
];

/// A checkpoint folder's own: the delta and then `HEAD` of the eighth batch, after two files each of making the folder, taking the
/// application over, and the first positions.
const DISK: &[Arrow] = &[
    arrow("checkpoint::before_create", 20),
    arrow("checkpoint::mid_write", 20),
    arrow("checkpoint::before_flush", 20),
    arrow("checkpoint::after_flush", 20),
    arrow("checkpoint::before_rename", 20),
    arrow("checkpoint::after_rename", 20),
    arrow("checkpoint::before_folder_flush", 20),
    arrow("checkpoint::after_folder_flush", 20),
    arrow("checkpoint::mid_write", 21),
    arrow("checkpoint::after_flush", 21),
    arrow("checkpoint::after_rename", 21),
    arrow("checkpoint::after_folder_flush", 21),
];

/// The arrows of a job whose offsets are in a checkpoint folder: it has no tables to write.
fn in_a_folder() -> impl Iterator<Item = &'static Arrow> {
    ARROWS.iter().filter(|arrow| arrow.point != "commit::mid_write").chain(DISK)
}

/// What is done at an arrow. A signal that is not its own is `None` here.
const ACTIONS: &[&str] = &["abort", "stop", "panic", "error", "delay:1500"];

/// How many programs run at a time: two cores, and half of the time is waiting.
const AT_A_TIME: usize = 3;

#[test]
fn sigkill_at_every_arrow_in_postgres() {
    sweep("postgres", ARROWS.iter().map(|arrow| (arrow, "kill")));
}

#[test]
fn sigkill_at_every_arrow_in_sqlite() {
    sweep("sqlite", ARROWS.iter().map(|arrow| (arrow, "kill")));
}

#[test]
fn sigkill_at_every_arrow_in_a_checkpoint_folder() {
    sweep("checkpoint", in_a_folder().map(|arrow| (arrow, "kill")));
}

#[test]
fn other_faults_at_every_arrow_in_postgres() {
    sweep("postgres", others(ARROWS.iter(), 0));
}

#[test]
fn other_faults_at_every_arrow_in_sqlite() {
    sweep("sqlite", others(ARROWS.iter(), 2));
}

#[test]
fn other_faults_at_every_arrow_in_a_checkpoint_folder() {
    sweep("checkpoint", others(in_a_folder(), 1));
}

/// One action at each arrow by turns, or with `DIRECTSTREAM_FIRE=all` every action at each.
fn others(
    arrows: impl Iterator<Item = &'static Arrow>,
    shift: usize,
) -> impl Iterator<Item = (&'static Arrow, &'static str)> {
    let all = std::env::var("DIRECTSTREAM_FIRE").is_ok_and(|value| value == "all");
    arrows.enumerate().flat_map(move |(number, arrow)| {
        let turn = (number + shift) % ACTIONS.len();
        ACTIONS
            .iter()
            .enumerate()
            .filter(move |(index, _)| all || *index == turn)
            .map(move |(_, action)| (arrow, *action))
    })
}

/// Each case on a thread and a runtime of its own; a case that fails tells which one it is, and the others go on.
fn sweep(store: &str, cases: impl Iterator<Item = (&'static Arrow, &'static str)>) {
    let (cases, next) = (cases.collect::<Vec<_>>(), AtomicUsize::new(0));
    let (failed, times) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        while let Some((arrow, action)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let case = || runtime.block_on(survive(store, arrow, action));
            match catch_unwind(AssertUnwindSafe(case)) {
                Ok(time) => times.lock().unwrap().push(time),
                Err(panic) => {
                    let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    failed.lock().unwrap().push(format!("{action} at {} after {}: {why}", arrow.point, arrow.passed));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..AT_A_TIME).for_each(|_| drop(scope.spawn(work))));
    let (failed, mut times) = (failed.into_inner().unwrap(), times.into_inner().unwrap());
    times.sort_unstable();
    let of = |index: usize| times.get(index).copied().unwrap_or_default();
    let (median, longest) = (of(times.len() / 2), of(times.len().saturating_sub(1)));
    eprintln!("{store}: {} faults, {} not survived", cases.len(), failed.len());
    eprintln!("{store}: the run that finishes alone took {median:.1?} (median), {longest:.1?} (longest)");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// How long the run took that finished alone.
async fn survive(store: &str, arrow: &Arrow, action: &str) -> Duration {
    let field = Field::on(store).await;
    let Arrow { point, passed, first, error } = arrow;
    let times = if *passed == 0 { String::new() } else { format!("{passed}*off->") };
    let process = field.run(&format!("{first}{point}={times}1*return({action})->off"));
    if action == "stop" {
        process.stopped(LIMIT).await;
        assert!(process.kill());
    } else {
        let end = process.end(LIMIT).await;
        match action {
            "kill" => assert_eq!(end.signal(), Some(9), "{end}"),
            "abort" => assert_eq!(end.signal(), Some(6), "{end}"),
            // All is committed by then: the next start finds the session gone.
            "panic" if *point == "commit::before_release" => assert_eq!(end.code(), Some(0), "{end}"),
            // The user's code has no part in these.
            "panic" if ["plan::done", "transform::done"].contains(point) => assert_eq!(end.code(), Some(1), "{end}"),
            // Told as a defect, or as one of the user's code.
            "panic" => assert!(matches!(end.code(), Some(1 | 6)), "{end}"),
            "error" => assert_eq!(end.code(), Some(*error), "{end}"),
            _ => assert_eq!(end.code(), Some(0), "{end}"),
        }
    }
    let fired = format!("failpoint {point}: {action}");
    assert!(field.said().contains(&fired), "it did not fire: {}", field.said());
    let start = Instant::now();
    field.finish().await;
    let took = start.elapsed();
    field.compare().await;
    let ended = matches!(action, "kill" | "abort" | "stop" | "panic") || (action == "error" && *error != 0);
    if ended && *point != "commit::before_release" {
        let rest = field.committed_last().await;
        assert!(rest >= field.records() / 5, "only {rest} records were left to do");
    }
    took
}
