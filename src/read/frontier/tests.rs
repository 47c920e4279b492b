//! The machine against a model of the client: a log with records, markers and holes, a queue that shows only some of it,
//! and the client's own position with its off-by-one. All small logs are tried, and random larger ones; the obvious rule
//! without `poison` has to lose records in the same model, or the model would prove nothing.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Record,
    /// A transaction marker: never shown, but it moves the position.
    Marker,
    /// Compacted, or a record of an aborted transaction: nothing shows it, and nothing moves.
    Hole,
}

impl Run for Vec<i64> {
    fn span(&self) -> Option<(i64, i64)> {
        Some((*self.first()?, *self.last()?))
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn split_at_offset(mut self, offset: i64) -> (Self, Self) {
        let rest = self.split_off(self.partition_point(|&own| own < offset));
        (self, rest)
    }
}

/// What lies in the queue.
#[derive(Debug, Clone, Copy)]
enum Queued {
    Record(i64),
    Marker(i64),
    Eof(i64),
}

/// One partition as the client shows it after an assign or a seek.
struct Model {
    queue: VecDeque<Queued>,
    position: Option<i64>,
    /// How much of the queue has arrived.
    arrived: usize,
}

impl Model {
    /// `eofs` has a bit for each offset that once was the end of the log while the reader waited there.
    fn at(log: &[Cell], eofs: u32, from: i64) -> Self {
        let mut queue = VecDeque::new();
        for (offset, cell) in (0..).zip(log) {
            if offset >= from && eofs & (1 << offset) != 0 {
                queue.push_back(Queued::Eof(offset));
            }
            match cell {
                _ if offset < from => {}
                Cell::Record => queue.push_back(Queued::Record(offset)),
                Cell::Marker => queue.push_back(Queued::Marker(offset)),
                Cell::Hole => {}
            }
        }
        queue.push_back(Queued::Eof(end(log)));
        Self { queue, position: None, arrived: 0 }
    }

    /// As `rd_kafka_consume_batch_queue` does it: markers are passed over and move the position, and so do all entries that
    /// are given out, each to its offset + 1, also EOF.
    fn take(&mut self, max: usize, arriving: usize) -> Vec<Queued> {
        self.arrived = (self.arrived + arriving).min(self.queue.len());
        let mut taken = Vec::new();
        while taken.len() < max && self.arrived > 0 {
            let Some(queued) = self.queue.pop_front() else { break };
            self.arrived -= 1;
            let (Queued::Record(offset) | Queued::Marker(offset) | Queued::Eof(offset)) = queued;
            self.position = self.position.max(Some(offset + 1));
            if !matches!(queued, Queued::Marker(_)) {
                taken.push(queued);
            }
        }
        taken
    }
}

fn end(log: &[Cell]) -> i64 {
    i64::try_from(log.len()).unwrap()
}

/// One range by the rule of the module, or by the obvious one. The records, or `None` if it does not end.
fn close(
    frontier: &mut Frontier<Vec<i64>>,
    model: &mut Model,
    until: i64,
    (cap, arriving): (usize, usize),
    poison: bool,
) -> Option<Vec<i64>> {
    let mut out = Vec::new();
    frontier.begin(until, &mut out);
    let mut steps = 0;
    while !frontier.covers(until) {
        let missing = usize::try_from(until - frontier.get()).unwrap();
        let mut run = Vec::new();
        for queued in model.take(cap.min(missing), arriving) {
            match queued {
                Queued::Record(offset) => run.push(offset),
                Queued::Marker(_) => unreachable!(),
                Queued::Eof(offset) => {
                    frontier.records(std::mem::take(&mut run), until, &mut out);
                    frontier.eof(offset);
                }
            }
        }
        frontier.records(run, until, &mut out);
        if !frontier.covers(until) {
            if !poison {
                frontier.poison = i64::MIN;
            }
            frontier.position(model.position);
        }
        steps += 1;
        if steps > 100 {
            return None;
        }
    }
    Some(out.concat())
}

fn expected(log: &[Cell], from: i64, until: i64) -> Vec<i64> {
    (0..).zip(log).filter(|(o, cell)| (from..until).contains(o) && **cell == Cell::Record).map(|(o, _)| o).collect()
}

/// Reads the whole log in ranges that end where `ends` has a bit; whether every range was exact.
fn exact(log: &[Cell], eofs: u32, ends: u32, pace: (usize, usize), poison: bool) -> Result<(), String> {
    let (mut frontier, mut model) = (Frontier::at(0), Model::at(log, eofs, 0));
    let mut from = 0;
    for until in (1..=end(log)).filter(|&until| until == end(log) || ends & (1 << until) != 0) {
        let given = close(&mut frontier, &mut model, until, pace, poison);
        if given.as_ref() != Some(&expected(log, from, until)) {
            return Err(format!("{log:?} eofs={eofs:b} pace={pace:?} [{from}, {until}): {given:?}"));
        }
        from = until;
    }
    Ok(())
}

/// All logs up to this length.
const LENGTH: u32 = 5;

fn all_small_cases(poison: bool) -> (u32, Vec<String>) {
    let (mut cases, mut wrong) = (0, Vec::new());
    for length in 1..=LENGTH {
        for code in 0..3_u32.pow(length) {
            let cell = |index| match code / 3_u32.pow(index) % 3 {
                0 => Cell::Record,
                1 => Cell::Marker,
                _ => Cell::Hole,
            };
            let log: Vec<_> = (0..length).map(cell).collect();
            for eofs in 0..1 << length {
                for ends in (0..1 << length).step_by(2) {
                    for pace in [(1, 1), (1, 9), (9, 1), (2, 2), (9, 9)] {
                        cases += 1;
                        wrong.extend(exact(&log, eofs, ends, pace, poison).err());
                    }
                }
            }
        }
    }
    (cases, wrong)
}

#[test]
fn every_small_log_is_read_exactly() {
    let (cases, wrong) = all_small_cases(true);
    assert!(cases > 500_000, "{cases}");
    assert_eq!(wrong.first(), None, "{} of {cases}", wrong.len());
}

#[test]
fn believing_the_position_after_an_eof_loses_records() {
    let (cases, wrong) = all_small_cases(false);
    assert!(
        wrong.len() > 1_000,
        "the obvious rule fails in {} of {cases} cases only: the model is too kind",
        wrong.len()
    );
}

#[test]
fn an_eof_counts_while_records_are_carried() {
    let (mut frontier, mut out) = (Frontier::at(0), Vec::new());
    // Offsets 1 to 3 are gaps: the take for [0, 2) brings 0 and 4, and the end.
    frontier.records(vec![0, 4], 2, &mut out);
    frontier.eof(7);
    assert_eq!((out.concat(), frontier.get()), (vec![0], 7));
    let mut out = Vec::new();
    frontier.begin(7, &mut out);
    assert!(frontier.covers(7), "forgetting the EOF would wait for ever: it comes once");
    assert_eq!(out.concat(), [4]);
}

#[test]
fn a_carried_run_is_split_over_ranges() {
    let (mut frontier, mut out) = (Frontier::at(0), Vec::new());
    frontier.records(vec![3, 5, 8], 1, &mut out);
    assert!(out.is_empty());
    for (until, given) in [(3, vec![]), (4, vec![3]), (8, vec![5]), (9, vec![8])] {
        let mut out = Vec::new();
        frontier.begin(until, &mut out);
        assert!(frontier.covers(until));
        assert_eq!(out.concat(), given);
    }
}

#[test]
fn records_that_come_again_are_dropped() {
    let (mut frontier, mut out) = (Frontier::at(10), Vec::new());
    frontier.records(vec![10, 11, 12], 20, &mut out);
    frontier.records(vec![8, 9, 12, 13], 20, &mut out);
    assert_eq!((out.concat(), frontier.dropped(), frontier.get()), (vec![10, 11, 12, 13], 3, 14));
}

#[test]
fn a_position_after_an_error_is_not_believed() {
    let mut frontier: Frontier<Vec<i64>> = Frontier::at(5);
    frontier.failed(9);
    frontier.position(Some(10));
    assert_eq!(frontier.get(), 5);
    frontier.position(Some(11));
    assert_eq!(frontier.get(), 11);
    frontier.restart(2);
    frontier.position(Some(3));
    assert_eq!(frontier.get(), 3, "a seek forgets what was popped before it");
}

#[test]
fn an_unknown_position_says_nothing() {
    let mut frontier: Frontier<Vec<i64>> = Frontier::at(5);
    frontier.position(None);
    frontier.position(Some(4));
    assert_eq!(frontier.get(), 5);
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![4 => Just(Cell::Record), 1 => Just(Cell::Marker), 1 => Just(Cell::Hole)]
}

/// Ranges that go on, and now and then back.
#[derive(Debug, Clone)]
enum Move {
    On(i64),
    Back(i64),
}

fn movement() -> impl Strategy<Value = Move> {
    prop_oneof![5 => (1..9_i64).prop_map(Move::On), 1 => (0..30_i64).prop_map(Move::Back)]
}

proptest! {
    #[test]
    fn random_logs_with_seeks_back_are_read_exactly(
        log in prop::collection::vec(cell(), 1..31),
        eofs: u32,
        moves in prop::collection::vec((movement(), 1..9_usize, 1..9_usize), 1..40),
    ) {
        let (mut frontier, mut model) = (Frontier::at(0), Model::at(&log, eofs, 0));
        let mut from = 0;
        for (movement, cap, arriving) in moves {
            let until = match movement {
                Move::Back(to) => {
                    from = to.min(end(&log));
                    frontier.restart(from);
                    model = Model::at(&log, eofs, from);
                    continue;
                }
                Move::On(by) => (from + by).min(end(&log)),
            };
            let given = close(&mut frontier, &mut model, until, (cap, arriving), true);
            prop_assert_eq!(given, Some(expected(&log, from, until)));
            from = until;
        }
    }
}
