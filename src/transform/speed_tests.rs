//! What a word costs between record and shuffle. A measurement: run it on an idle machine, with
//! `cargo test --release --lib transform::speed -- --ignored --nocapture`.

use std::{sync::Arc, time::Duration};

use super::{tests::scope, *};
use crate::{
    clock::{Clock, SystemClock},
    types::Record,
};

const LINES: usize = 200_000;
const WORDS_PER_LINE: usize = 15;
const DISTINCT: usize = 50_000;
const ROUNDS: usize = 5;

fn lines() -> Vec<String> {
    // A linear congruential generator: the same words in every run.
    let mut state = 1_u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("w{:05}", (state >> 8) as usize % DISTINCT)
    };
    (0..LINES).map(|_| (0..WORDS_PER_LINE).map(|_| word()).collect::<Vec<_>>().join(" ")).collect()
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() / LINES as u128
}

#[test]
#[ignore = "a measurement, for an idle machine: scripts/bench runs it"]
fn speed_of_counting_words() {
    let lines = lines();
    let halves: Vec<Vec<&str>> =
        lines.chunks(LINES / 2).map(|half| half.iter().map(String::as_str).collect()).collect();
    let batch = scope(&halves.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let owned = |record: Record| -> Vec<String> {
        record.text().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let timed = |rdd: Rdd<(String, i64)>| {
        let start = clock.monotonic();
        assert_eq!(
            rdd.map(|(_, count)| count).reduce(|a, b| a + b).unwrap(),
            i64::try_from(LINES * WORDS_PER_LINE).ok()
        );
        clock.monotonic().saturating_sub(start)
    };
    let (mut two_steps, mut one_step) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let input = DirectKafkaInputDStream::new(&Graph::default()).rdd(&batch).unwrap();
        two_steps.push(timed(input.flat_map(owned).map(|word| (word, 1_i64)).reduce_by_key(|a, b| a + b)));
        one_step.push(timed(input.emit_by_key(
            |line, emit| line.text().unwrap_or_default().split_whitespace().for_each(|word| emit(word, 1)),
            |a, b| a + b,
        )));
    }
    let (two_steps, one_step) = (median(two_steps), median(one_step));
    println!(
        "a line of {WORDS_PER_LINE} words, two threads: flat_map + reduce_by_key {two_steps} ns, emit_by_key {one_step} ns"
    );
}
