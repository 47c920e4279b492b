//! A batch that the database refused, written record by record: the refused ones become dead letters, nothing else does.

use std::{collections::BTreeMap, ops::Range};

use async_trait::async_trait;
use directstream::{
    Error, ErrorKind, Result, TopicPartition,
    commit::{CommitOutcome, Committer, Recovered, TableShape},
    types::{
        BatchCommit, BatchTransaction, Column, ColumnType, DeadLetter, DeadLetterStage, Isolated, Isolating, Merge,
        RecordRows, TableRows, TableSpec, TransactionCode, Value,
    },
};

use super::{
    on_every_database,
    world::{
        World, append, at, batch, column, committed, encode, line_rows, lines, merged, moved, position, refused, upsert,
    },
};

on_every_database! {
    a_refused_batch_tells_whether_it_is_about_rows,
    every_kind_of_refusal_finds_its_record,
    the_first_of_two_equal_keys_stays,
    rows_that_refer_to_each_other_hold_if_they_are_in_one_slice,
    an_ill_database_makes_no_dead_letter,
    what_user_code_breaks_is_no_record_s_fault,
    rows_of_another_output_are_no_record_s_fault,
    dead_letters_of_earlier_steps_are_kept_beside_isolated_ones,
}

/// A record: its row in `orders`, and what it adds to its user's total.
#[derive(Debug, Clone)]
struct Order {
    id: i64,
    amount: i64,
    user: i64,
    /// Refers to a user, checked late.
    late: Option<i64>,
    adds: i64,
}

fn order(id: i64) -> Order {
    Order { id, amount: id % 100, user: id % 3, late: Some(id % 3), adds: 1 }
}

#[derive(Debug)]
struct Orders {
    shapes: Vec<TableShape>,
    orders: Vec<Order>,
    first_offset: i64,
}

impl RecordRows for Orders {
    fn len(&self) -> usize {
        self.orders.len()
    }

    fn bytes(&self, _record: usize) -> usize {
        100
    }

    fn rows(&self, records: Range<usize>) -> Result<Vec<TableRows>> {
        let orders = &self.orders[records];
        let rows: Vec<Vec<Value<'_>>> = orders
            .iter()
            .map(|order| {
                let late = order.late.map_or(Value::Null, Value::Int);
                vec![Value::Int(order.id), Value::Int(order.amount), Value::Int(order.user), late]
            })
            .collect();
        let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
        for order in orders {
            let total = totals.entry(order.user).or_default();
            *total = total.saturating_add(order.adds);
        }
        let sums: Vec<Vec<Value<'_>>> =
            totals.into_iter().map(|(user, total)| vec![Value::Int(user), Value::Int(total)]).collect();
        let table = |table: usize, rows: &[Vec<Value<'_>>]| TableRows {
            table,
            chunks: vec![encode(&self.shapes[table], rows)],
        };
        Ok(vec![table(0, &rows), table(1, &sums)])
    }

    fn dead_letter(&self, record: usize, reason: String, output: Option<String>) -> DeadLetter {
        DeadLetter {
            topic_partition: TopicPartition::new("orders", 0),
            offset: at(self.first_offset + i64::try_from(record).unwrap()),
            stage: DeadLetterStage::Write,
            reason,
            output,
            key: Some(self.orders[record].id.to_string().into_bytes()),
            value: None,
            headers: "[]".to_owned(),
            timestamp_ms: None,
        }
    }
}

fn tables() -> Vec<TableSpec> {
    let number = |name: &str| column(name, ColumnType::BigInt);
    let orders: Vec<Column> = ["id", "amount", "user_id", "late"].map(number).into();
    let totals = vec![number("user_id"), merged("total", ColumnType::BigInt, Merge::Add)];
    vec![append("orders", orders), upsert("totals", &["user_id"], totals)]
}

/// `orders` with every kind of constraint, users 0 to 2, and totals of 10 each.
async fn start(world: &World) -> (Committer, Recovered) {
    world
        .execute(
            "CREATE TABLE users (id bigint NOT NULL PRIMARY KEY); INSERT INTO users VALUES (0), (1), (2); \
             CREATE TABLE orders (id bigint NOT NULL UNIQUE, amount bigint CHECK (amount < 100), \
             user_id bigint REFERENCES users (id), late bigint REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED); \
             CREATE TABLE totals (user_id bigint NOT NULL PRIMARY KEY, total bigint); \
             INSERT INTO totals VALUES (0, 10), (1, 10), (2, 10)",
        )
        .await;
    start_again(world).await
}

async fn start_again(world: &World) -> (Committer, Recovered) {
    let (committer, recovered) = world.start([tables(), vec![lines()]].concat()).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    (committer, recovered)
}

fn isolating(recovered: &Recovered, orders: Vec<Order>) -> BatchCommit {
    let count = i64::try_from(orders.len()).unwrap();
    let mut batch = batch(1, vec![moved(0, 0, count)], Vec::new());
    batch.tables.clear();
    let records = Box::new(Orders { shapes: recovered.tables.clone(), orders, first_offset: 0 });
    batch.isolating = Some(Isolating { first_table: 0, records, isolated: Isolated::default() });
    batch
}

/// The same batch as it is tried first: all rows at once.
fn whole(recovered: &Recovered, orders: Vec<Order>) -> BatchCommit {
    let mut batch = isolating(recovered, orders);
    let records = batch.isolating.take().unwrap().records;
    batch.tables = records.rows(0..records.len()).unwrap();
    batch
}

async fn letters(world: &World) -> Vec<i64> {
    let sql = format!("SELECT CAST(\"offset\" AS text) FROM {}", world.own("dead_letters"));
    let mut offsets: Vec<i64> = world.texts(&sql).await.iter().map(|offset| offset.parse().unwrap()).collect();
    offsets.sort_unstable();
    offsets
}

async fn a_refused_batch_tells_whether_it_is_about_rows(world: World) {
    let (committer, recovered) = start(&world).await;
    let bad: [fn(&mut Order); 4] =
        [|order| order.amount = 100, |order| order.user = 7, |order| order.late = Some(7), |order| order.id = 1];
    for spoil in bad {
        let mut orders: Vec<Order> = (0..10).map(order).collect();
        spoil(&mut orders[5]);
        let error = refused(committer.commit(whole(&recovered, orders)).await.unwrap());
        assert!(error.is_about_rows() && error.kind() == ErrorKind::Transform, "{error:?}");
    }
    // Not so what is the database's own trouble.
    world.execute("ALTER TABLE orders RENAME TO elsewhere").await;
    let error = refused(committer.commit(whole(&recovered, vec![order(1)])).await.unwrap());
    assert!(!error.is_about_rows(), "{error:?}");
    committer.stop().await;
}

async fn every_kind_of_refusal_finds_its_record(world: World) {
    let (committer, recovered) = start(&world).await;
    let mut orders: Vec<Order> = (0..5_000).map(order).collect();
    for check in [0, 17, 1_023, 1_024, 4_999] {
        orders[check].amount = 100;
    }
    orders[2_500].user = 7;
    orders[2_501].late = Some(7);
    orders[3_000].id = 17 + 1;
    orders[4_000].adds = i64::MAX;
    let done = committed(committer.commit(isolating(&recovered, orders.clone())).await.unwrap());
    let bad = [0, 17, 1_023, 1_024, 2_500, 2_501, 3_000, 4_000, 4_999];
    assert_eq!(letters(&world).await, bad);
    let isolated = done.isolated.unwrap();
    assert_eq!(isolated.dead_letters, 9);
    // Recounted by hand: every other record has its row and has been added, once.
    assert_eq!(world.count("orders").await, 4_991);
    for user in 0..3 {
        let good =
            |(record, order): &(usize, &Order)| order.user == user && !bad.contains(&i64::try_from(*record).unwrap());
        let count = i64::try_from(orders.iter().enumerate().filter(good).count()).unwrap();
        assert_eq!(world.number(&format!("SELECT total FROM totals WHERE user_id = {user}")).await, 10 + count);
        assert_eq!(world.count(&format!("orders WHERE user_id = {user}")).await, count);
    }
    // Kept whole, and nothing of them in a table.
    let letters = world.own("dead_letters");
    let reasons = world.texts(&format!("SELECT reason FROM {letters} ORDER BY \"offset\"")).await;
    assert!(reasons.iter().all(|reason| reason.contains("refused")), "{reasons:?}");
    let outputs = format!("{letters} WHERE stage = 'write' AND output = 'totals' AND \"offset\" = 4000");
    assert_eq!(world.count(&outputs).await, 1);
    assert_eq!(
        world.count(&format!("{letters} WHERE output = 'orders' AND key IS NOT NULL AND batch_seq = 1")).await,
        {
            // PostgreSQL checks a deferred key at the end of the slice, and then no table is at work.
            if world.is_postgres() { 7 } else { 8 }
        }
    );
    let ledger = world.own("batches");
    assert_eq!(world.number(&format!("SELECT dead_letters FROM {ledger}")).await, 9);
    assert_eq!(world.number(&format!("SELECT rows FROM {ledger}")).await, i64::try_from(isolated.rows).unwrap());
    assert_eq!(world.number(&format!("SELECT records FROM {ledger}")).await, 5_000);
    committer.stop().await;
}

async fn the_first_of_two_equal_keys_stays(world: World) {
    let (committer, recovered) = start(&world).await;
    let mut orders: Vec<Order> = (0..100).map(order).collect();
    orders[60].id = 50;
    orders[60].amount = 99;
    committed(committer.commit(isolating(&recovered, orders)).await.unwrap());
    assert_eq!(letters(&world).await, [60]);
    assert_eq!(world.number("SELECT amount FROM orders WHERE id = 50").await, 50);
    committer.stop().await;
}

async fn rows_that_refer_to_each_other_hold_if_they_are_in_one_slice(world: World) {
    // The first record refers to the second one, and the check is late enough for that.
    world
        .execute(
            "CREATE TABLE orders (id bigint NOT NULL PRIMARY KEY, amount bigint, user_id bigint, \
             late bigint REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED); \
             CREATE TABLE totals (user_id bigint NOT NULL PRIMARY KEY, total bigint)",
        )
        .await;
    let (committer, recovered) = start_again(&world).await;
    let orders = vec![Order { late: Some(2), ..order(1) }, Order { late: None, ..order(2) }];
    committed(committer.commit(isolating(&recovered, orders)).await.unwrap());
    assert_eq!((world.count("orders").await, letters(&world).await.len()), (2, 0));
    committer.stop().await;
}

async fn an_ill_database_makes_no_dead_letter(world: World) {
    let (committer, recovered) = start(&world).await;
    // A trigger that meets a full disk at one row, and a missing table on SQLite, where a trigger cannot choose its code.
    let (ill, well) = if world.is_postgres() {
        (
            "CREATE FUNCTION ill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 57 THEN \
             RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER ill BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION ill()",
            "DROP TRIGGER ill ON orders",
        )
    } else {
        ("CREATE TRIGGER ill AFTER INSERT ON orders BEGIN INSERT INTO gone VALUES (1); END", "DROP TRIGGER ill")
    };
    world.execute(ill).await;
    let mut orders: Vec<Order> = (0..100).map(order).collect();
    orders[20].amount = 100;
    let CommitOutcome::NotCommitted { batch, error, .. } =
        committer.commit(isolating(&recovered, orders)).await.unwrap()
    else {
        panic!("committed")
    };
    assert!(!error.is_about_rows(), "{error:?}");
    assert_eq!(error.kind().is_retryable(), world.is_postgres(), "{error:?}");
    assert_eq!((letters(&world).await.len(), world.count("orders").await), (0, 0));
    // The same batch again, once the database is well: the one bad record, and counted once.
    world.execute(well).await;
    let done = committed(committer.commit(*batch).await.unwrap());
    assert_eq!((done.isolated.unwrap().dead_letters, letters(&world).await), (1, vec![20]));
    assert_eq!(world.count("orders").await, 99);
    committer.stop().await;
}

#[derive(Debug)]
struct Breaks;

#[async_trait]
impl TransactionCode for Breaks {
    async fn run(&self, transaction: &mut BatchTransaction<'_>) -> Result<()> {
        transaction.execute("INSERT INTO users VALUES (0)", &[]).await.map(drop)
    }
}

async fn what_user_code_breaks_is_no_record_s_fault(world: World) {
    let (committer, recovered) = start(&world).await;
    let mut batch = whole(&recovered, vec![order(1)]);
    batch.user_code.push(std::sync::Arc::new(Breaks));
    let error = refused(committer.commit(batch).await.unwrap());
    assert!(error.kind() == ErrorKind::Transform && !error.is_about_rows(), "{error:?}");
    let mut batch = isolating(&recovered, vec![order(1)]);
    batch.user_code.push(std::sync::Arc::new(Breaks));
    let error: Error = refused(committer.commit(batch).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert_eq!((letters(&world).await.len(), world.count("orders").await), (0, 0));
    committer.stop().await;
}

async fn rows_of_another_output_are_no_record_s_fault(world: World) {
    world.execute("CREATE TABLE lines (id bigint NOT NULL UNIQUE, name text)").await;
    let (committer, recovered) = start(&world).await;
    let mut batch = isolating(&recovered, vec![order(1), Order { amount: 100, ..order(2) }]);
    let twice = vec![line_rows(&recovered.tables[2], 0, 5), line_rows(&recovered.tables[2], 4, 9)];
    batch.tables.push(TableRows { table: 2, chunks: twice });
    let error = refused(committer.commit(batch).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Transform);
    assert_eq!((letters(&world).await.len(), world.count("orders").await), (0, 0));
    // And without that fault both outputs are written, with user code after them.
    let mut batch = isolating(&recovered, vec![order(1), Order { amount: 100, ..order(2) }]);
    batch.tables.push(TableRows { table: 2, chunks: vec![line_rows(&recovered.tables[2], 0, 5)] });
    committed(committer.commit(batch).await.unwrap());
    assert_eq!((letters(&world).await, world.count("orders").await, world.count("lines").await), (vec![1], 1, 5));
    committer.stop().await;
}

async fn dead_letters_of_earlier_steps_are_kept_beside_isolated_ones(world: World) {
    let (committer, recovered) = start(&world).await;
    let mut batch = isolating(&recovered, vec![order(1), Order { amount: 100, ..order(2) }]);
    let mut letter = batch.isolating.as_ref().unwrap().records.dead_letter(0, "not JSON".to_owned(), None);
    letter.offset = at(5);
    letter.stage = DeadLetterStage::Decode;
    batch.dead_letters.push(letter);
    committed(committer.commit(batch).await.unwrap());
    assert_eq!(letters(&world).await, [1, 5]);
    assert_eq!(world.number(&format!("SELECT dead_letters FROM {}", world.own("batches"))).await, 2);
    committer.stop().await;
}
