//! Upserts merge column by column, the same on every store.

use directstream::{
    ErrorKind,
    types::{ColumnType, Merge, TableSpec, Value},
};

use super::{
    on_every_database,
    world::{World, append, batch, column, committed, encode, lines, merged, moved, position, refused, upsert},
};

on_every_database! {
    each_column_merges_in_its_own_way,
    null_counts_as_absent_for_add_min_and_max,
    a_sum_out_of_range_is_refused,
    text_is_compared_by_its_bytes,
    every_type_comes_out_as_it_went_in,
    all_faults_of_all_tables_are_told_together,
    a_decimal_that_the_column_would_round_is_refused_at_start,
}

fn totals() -> TableSpec {
    upsert(
        "totals",
        &["user", "day"],
        vec![
            column("user", ColumnType::Text),
            column("day", ColumnType::Integer),
            merged("sum", ColumnType::BigInt, Merge::Add),
            merged("low", ColumnType::BigInt, Merge::Min),
            merged("high", ColumnType::Double, Merge::Max),
            merged("first", ColumnType::Text, Merge::First),
            column("last", ColumnType::Text),
        ],
    )
}

/// Commits each list of rows as a batch of its own.
async fn commit_each(world: &World, table: TableSpec, batches: Vec<Vec<Vec<Value<'_>>>>) {
    let (committer, recovered) = world.start(vec![table]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    for (index, rows) in batches.into_iter().enumerate() {
        let from = i64::try_from(index).unwrap();
        let rows = encode(&recovered.tables[0], &rows);
        let next = batch(u64::try_from(index).unwrap() + 1, vec![moved(0, from, from + 1)], vec![rows]);
        committed(committer.commit(next).await.unwrap());
    }
    committer.stop().await;
}

async fn each_column_merges_in_its_own_way(world: World) {
    let row = |user: &'static str, number: i64, text: &'static str| {
        vec![user.into(), 1_i64.into(), number.into(), number.into(), (number as f64).into(), text.into(), text.into()]
    };
    let batches =
        vec![vec![row("ann", 5, "a"), row("bob", 1, "x")], vec![row("ann", 3, "b")], vec![row("ann", 9, "c")]];
    commit_each(&world, totals(), batches).await;
    assert_eq!(world.count("totals").await, 2);
    let text = "SELECT sum || ' ' || low || ' ' || CAST(high AS bigint) || ' ' || \"first\" || ' ' || \"last\" FROM totals \
                WHERE \"user\" = 'ann'";
    assert_eq!(world.texts(text).await, ["17 3 9 a c"]);
}

async fn null_counts_as_absent_for_add_min_and_max(world: World) {
    let row = |number: Option<i64>| -> Vec<Value<'static>> {
        let high = number.map(|number| number as f64);
        vec!["ann".into(), 1_i64.into(), number.into(), number.into(), high.into(), Value::Null, Value::Null]
    };
    commit_each(&world, totals(), vec![vec![row(None)], vec![row(Some(4))], vec![row(None)], vec![row(Some(3))]]).await;
    let text = "SELECT sum || ' ' || low || ' ' || CAST(high AS bigint) FROM totals";
    assert_eq!(world.texts(text).await, ["7 3 4"]);
}

async fn a_sum_out_of_range_is_refused(world: World) {
    for (name, column_type, near) in [
        ("a", ColumnType::BigInt, i64::MAX),
        ("b", ColumnType::Integer, i32::MAX.into()),
        ("c", ColumnType::SmallInt, 32_767),
    ] {
        let table =
            upsert(name, &["id"], vec![column("id", ColumnType::Integer), merged("n", column_type, Merge::Add)]);
        let mut settings = world.settings();
        settings.application = name.into();
        settings.tables = vec![table];
        let (committer, recovered) = world.try_start(settings).await.unwrap();
        committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
        let rows = |n: i64| vec![encode(&recovered.tables[0], &[vec![1_i64.into(), n.into()]])];
        committed(committer.commit(batch(1, vec![moved(0, 0, 1)], rows(near))).await.unwrap());
        let error = refused(committer.commit(batch(2, vec![moved(0, 1, 2)], rows(1))).await.unwrap());
        assert_eq!(error.kind(), ErrorKind::Transform, "{error:?}");
        assert_eq!(world.number(&format!("SELECT CAST(n AS bigint) FROM {name}")).await, near);
        committer.stop().await;
    }
}

async fn text_is_compared_by_its_bytes(world: World) {
    let columns = vec![
        column("id", ColumnType::Integer),
        merged("low", ColumnType::Text, Merge::Min),
        merged("high", ColumnType::Text, Merge::Max),
    ];
    let row = |text: &'static str| vec![1_i64.into(), text.into(), text.into()];
    commit_each(&world, upsert("words", &["id"], columns), vec![vec![row("a")], vec![row("Z")], vec![row("ä")]]).await;
    assert_eq!(world.texts("SELECT low || high FROM words").await, ["Zä"]);
}

async fn every_type_comes_out_as_it_went_in(world: World) {
    let mut columns: Vec<_> = ColumnType::ALL.iter().enumerate().map(|(i, of)| column(&format!("c{i}"), *of)).collect();
    columns.push(column("none", ColumnType::Jsonb));
    let values: Vec<Value<'_>> = vec![
        true.into(),
        Value::Int(-32_768),
        Value::Int(i32::MIN.into()),
        Value::Int(i64::MIN),
        0.1_f64.into(),
        Value::Number("123456789012345678901234567890.123456789".into()),
        "it's \"ä\" \\ \n".into(),
        Value::Bytes(vec![0, 1, 255].into()),
        Value::TimestampMicros(1_700_000_000_123_000),
        Value::Json("{\"a\": [1, 2]}".into()),
        Value::Null,
    ];
    commit_each(&world, append("kinds", columns), vec![vec![values]]).await;
    let texts = world.texts("SELECT CAST(c5 AS text) FROM kinds").await;
    assert_eq!(texts, ["123456789012345678901234567890.123456789"]);
    assert_eq!(world.texts("SELECT c6 FROM kinds").await, ["it's \"ä\" \\ \n"]);
    assert_eq!(world.number("SELECT c3 FROM kinds").await, i64::MIN);
    assert_eq!(world.count("kinds WHERE c4 = 0.1 AND \"none\" IS NULL").await, 1);
    let time = if world.is_postgres() {
        "SELECT to_char(c8 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM kinds"
    } else {
        "SELECT c8 FROM kinds"
    };
    assert_eq!(world.texts(time).await, ["2023-11-14T22:13:20.123Z"]);
    assert_eq!(world.texts("SELECT CAST(c9 AS text) FROM kinds").await, ["{\"a\": [1, 2]}"]);
}

async fn all_faults_of_all_tables_are_told_together(world: World) {
    world.execute("CREATE TABLE here (id bigint, name text, must text NOT NULL)").await;
    let columns = || {
        vec![
            column("id", ColumnType::BigInt),
            merged("name", ColumnType::Text, Merge::Add),
            column("no", ColumnType::Text),
        ]
    };
    let here = upsert("here", &["id"], columns());
    let missing = TableSpec { create: false, ..append("missing", vec![column("id", ColumnType::BigInt)]) };
    let tables = vec![here, lines(), missing];
    let error = world.try_start(directstream::commit::StoreSettings { tables, ..world.settings() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for fault in ["column=name", "column=no", "column=must", "no unique constraint", "table=missing"] {
        assert!(text.contains(fault), "{fault}: {text}");
    }
}

async fn a_decimal_that_the_column_would_round_is_refused_at_start(world: World) {
    world.execute("CREATE TABLE prices (price numeric(10, 2), at_place numeric(4))").await;
    let table = append("prices", vec![column("price", ColumnType::Numeric), column("at_place", ColumnType::Numeric)]);
    let settings = directstream::commit::StoreSettings { tables: vec![table], ..world.settings() };
    let error = world.try_start(settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("column=price") && text.contains("column=at_place") && text.contains("numeric"), "{text}");
}

/// Decimals are text in SQLite: 1.0 and 1.00 would be two keys, and sums and comparisons not exact.
#[tokio::test]
async fn sqlite_refuses_a_decimal_as_a_key_and_where_it_would_be_compared() {
    let world = World::sqlite();
    let other = |merge| vec![column("id", ColumnType::BigInt), merged("price", ColumnType::Numeric, merge)];
    let tables = [
        upsert("by_price", &["price"], vec![column("price", ColumnType::Numeric), column("id", ColumnType::BigInt)]),
        upsert("sums", &["id"], other(Merge::Add)),
        upsert("lows", &["id"], other(Merge::Min)),
        upsert("highs", &["id"], other(Merge::Max)),
    ];
    for table in tables {
        let name = table.table.to_string();
        let settings = directstream::commit::StoreSettings { tables: vec![table], ..world.settings() };
        let error = world.try_start(settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let told = format!("table={name} column=price");
        assert!(error.to_string().contains("numeric exactly") && error.to_string().ends_with(&told), "{error}");
    }
    // Kept as it is, a decimal is fine.
    let (committer, _) = world.start(vec![upsert("last", &["id"], other(Merge::Last))]).await;
    committer.stop().await;
}
