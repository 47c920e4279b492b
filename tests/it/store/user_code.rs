//! The user's own SQL in the batch's transaction: with the batch or not at all, whatever it tries.

use async_trait::async_trait;
use directstream::{
    Error, ErrorKind, Result,
    types::{BatchTransaction, TransactionCode, Value},
};

use super::{
    on_every_database,
    world::{World, committed, line_batch, lines, position, refused},
};

on_every_database! {
    its_rows_commit_with_the_batch,
    its_error_rolls_everything_back,
    an_error_that_it_swallows_still_rolls_everything_back,
    a_commit_of_its_own_rolls_everything_back,
    a_commit_of_its_own_that_it_keeps_quiet_about_rolls_everything_back,
    a_rollback_of_its_own_rolls_everything_back,
    what_it_writes_after_a_rollback_of_its_own_does_not_stay,
    words_that_control_the_transaction_do_not_reach_the_database,
    a_parameter_that_cannot_be_bound_rolls_everything_back_even_if_swallowed,
    the_second_line_stops_a_commit_that_the_first_one_does_not_see,
    its_panic_rolls_everything_back,
}

#[derive(Debug, Clone, Copy)]
enum Does {
    Writes,
    Fails,
    Panics,
    Swallows,
    Runs(&'static str, bool),
    WritesAfter(&'static str),
    BindsNonsense,
    LooksAtTheGuard(&'static str),
}

#[derive(Debug)]
struct Code(Does);

#[async_trait]
impl TransactionCode for Code {
    async fn run(&self, transaction: &mut BatchTransaction<'_>) -> Result<()> {
        let time = transaction.batch().batch_time.as_ms();
        let insert = "INSERT INTO mine (id, note) VALUES ($1, $2)";
        assert_eq!(transaction.execute(insert, &[Value::Int(time), "it's".into()]).await?, 1);
        match self.0 {
            Does::Writes => {
                let rows = transaction.fetch("SELECT id, note FROM mine WHERE note = $1", &["it's".into()]).await?;
                assert_eq!(rows, [[Value::Int(time), Value::Text("it's".into())]]);
                Ok(())
            }
            Does::Fails => Err(Error::transform("the user is not content")),
            Does::Panics => panic!("the user's code has a defect"),
            Does::Swallows => {
                let _ = transaction.execute("INSERT INTO nowhere VALUES (1)", &[]).await;
                Ok(())
            }
            Does::WritesAfter(sql) => {
                let _ = transaction.execute(sql, &[]).await;
                let _ = transaction.execute(insert, &[Value::Int(time + 1), "stays?".into()]).await;
                Ok(())
            }
            Does::BindsNonsense => {
                let never = Value::TimestampMicros(i64::MAX);
                assert!(transaction.execute(insert, &[Value::Int(time + 1), never]).await.is_err());
                Ok(())
            }
            Does::LooksAtTheGuard(applications) => {
                let seq = transaction.fetch(&format!("SELECT open_seq FROM {applications}"), &[]).await?;
                Err(Error::transform(format!("open_seq={seq:?}")))
            }
            Does::Runs(sql, quiet) => match transaction.execute(sql, &[]).await {
                Err(_) if quiet => Ok(()),
                done => done.map(drop),
            },
        }
    }
}

async fn run(world: &World, does: Does) -> Option<Error> {
    world.execute("CREATE TABLE mine (id bigint PRIMARY KEY, note text)").await;
    let (committer, recovered) = world.start(vec![lines()]).await;
    committer.initialize_positions(vec![position(0, 0)]).await.unwrap();
    let mut first = line_batch(&recovered.tables[0], 1, 0, 10);
    first.user_code.push(std::sync::Arc::new(Code(does)));
    let outcome = committer.commit(first).await.unwrap();
    if matches!(does, Does::Writes) {
        committed(outcome);
        committer.stop().await;
        return None;
    }
    let error = refused(outcome);
    assert_eq!(error.kind(), ErrorKind::Transform, "{error:?}");
    assert_eq!(world.count("mine").await, 0);
    assert_eq!(world.count("lines").await, 0);
    assert_eq!(world.count(&world.own("batches")).await, 0);
    // The committer is as good as new.
    committed(committer.commit(line_batch(&recovered.tables[0], 1, 0, 10)).await.unwrap());
    assert_eq!(world.count("lines").await, 10);
    committer.stop().await;
    Some(error)
}

async fn its_rows_commit_with_the_batch(world: World) {
    run(&world, Does::Writes).await;
    assert_eq!(world.count("mine").await, 1);
    assert_eq!(world.count("lines").await, 10);
    let open = format!("{} WHERE open_seq IS NOT NULL", world.own("applications"));
    assert_eq!(world.count(&open).await, 0);
}

async fn its_error_rolls_everything_back(world: World) {
    let error = run(&world, Does::Fails).await.unwrap();
    assert!(error.to_string().contains("not content"), "{error}");
}

async fn its_panic_rolls_everything_back(world: World) {
    run(&world, Does::Panics).await;
}

async fn an_error_that_it_swallows_still_rolls_everything_back(world: World) {
    run(&world, Does::Swallows).await;
}

async fn a_commit_of_its_own_rolls_everything_back(world: World) {
    run(&world, Does::Runs("COMMIT", false)).await;
}

async fn a_commit_of_its_own_that_it_keeps_quiet_about_rolls_everything_back(world: World) {
    run(&world, Does::Runs("COMMIT", true)).await;
}

async fn a_rollback_of_its_own_rolls_everything_back(world: World) {
    run(&world, Does::Runs("ROLLBACK", true)).await;
}

async fn what_it_writes_after_a_rollback_of_its_own_does_not_stay(world: World) {
    // `run` counts: neither the row from before nor the one from after is there.
    run(&world, Does::WritesAfter("ROLLBACK")).await;
}

async fn words_that_control_the_transaction_do_not_reach_the_database(world: World) {
    let error =
        run(&world, Does::Runs("/* mine */ rollback to savepoint directstream_user_code", false)).await.unwrap();
    assert!(error.to_string().ends_with("statement=\"ROLLBACK\""), "{error}");
}

async fn a_parameter_that_cannot_be_bound_rolls_everything_back_even_if_swallowed(world: World) {
    run(&world, Does::BindsNonsense).await;
}

/// No word of a COMMIT is seen where a procedure or another client's mistake says it. So each half of the second line is
/// tried by itself: the guard is set while user code runs, and with it set a COMMIT fails in the database.
async fn the_second_line_stops_a_commit_that_the_first_one_does_not_see(world: World) {
    let applications = if world.is_postgres() { "directstream.applications" } else { "directstream_applications" };
    let error = run(&world, Does::LooksAtTheGuard(applications)).await.unwrap();
    assert_eq!(error.to_string(), "open_seq=[[Int(1)]]");
    let open = format!("UPDATE {} SET open_seq = batch_seq + 1", world.own("applications"));
    let insert = "INSERT INTO mine (id, note) VALUES (1, 'committed by hand')";
    let refused = world.try_execute(&format!("BEGIN; {open}; {insert}; COMMIT")).await.unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("foreign key"), "{refused}");
    assert_eq!(world.count("mine").await, 0);
    if world.is_postgres() {
        // In a procedure's body the word is not seen, and the database refuses it by itself.
        world.execute("DELETE FROM lines; DROP TABLE mine; DROP SCHEMA directstream CASCADE").await;
        run(&world, Does::Runs("DO $$ BEGIN COMMIT; END $$", true)).await;
    }
}
