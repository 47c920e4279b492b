//! A checkpoint folder as an operator meets it.

use std::fs;

use super::{Ran, world::World};
use crate::support::{fresh_database, run_example};

/// A job file for the folder that `examples/checkpoint_recovery.rs` writes to; it has no tables.
fn folder_job(world: &World) {
    let job = fs::read_to_string(world.folder.path().join("job.toml")).unwrap();
    let job = job.split("[[output]]").next().unwrap();
    let job =
        job.replace("sqlite:job.db", "checkpoint:kept").replace("name = \"job\"", "name = \"checkpoint-recovery\"");
    fs::write(world.folder.path().join("folder.toml"), job).unwrap();
}

#[track_caller]
fn refused<'r>(ran: &'r Ran, code: i32, word: &str) -> &'r str {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(word), "{}", ran.stderr);
    errors[0]
}

#[tokio::test]
async fn tables_in_a_folder_are_refused_in_one_line() {
    let world = World::sqlite(1).await;
    folder_job(&world);
    let with_tables = world.run(&["run", "job.toml", "--set", "store.url=checkpoint:kept"]);
    refused(&with_tables, 2, "a checkpoint folder keeps offsets and has no tables");
    let without = world.run(&["run", "folder.toml"]);
    refused(&without, 2, "write the job in Rust");
    assert!(!world.folder.path().join("kept").exists());
    for look in [&["batches", "folder.toml"][..], &["offsets", "show", "folder.toml"]] {
        refused(&world.run(look), 2, "has the job run yet?");
    }
}

#[tokio::test]
async fn a_folder_is_looked_at_verified_and_its_damage_named() {
    let (world, database) = (World::sqlite(2).await, fresh_database().await);
    folder_job(&world);
    world.produce(0, 0..70).await;
    world.produce(1, 0..30).await;
    let path = |name: &str| world.folder.path().join(name).display().to_string();
    let (kept, output) = (path("kept"), path("output"));
    let env = [("TOPIC", world.topic.as_str()), ("CHECKPOINT", &kept), ("OUTPUT", &output)];
    run_example("checkpoint_recovery", &world.kafka, &database, &env).await;

    let shown = world.json(&["offsets", "show", "folder.toml"]);
    let partitions = shown["partitions"].as_array().unwrap();
    let offsets: Vec<_> = partitions.iter().map(|one| one["current_offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [70, 30]);
    assert!(world.run(&["batches", "folder.toml"]).stdout.lines().count() > 2);
    let verified = world.json(&["verify", "folder.toml"]);
    assert_eq!((&verified["ok"], verified["records"].as_i64()), (&serde_json::json!(true), Some(100)));
    assert_eq!(world.json(&["dead-letters", "list", "folder.toml"])["total"], 0);

    // Offsets that an operator moves: the ledger knows, and the next run reads those records again.
    let back = ["offsets", "reset", "folder.toml", "--shift-by", "-10", "--execute"];
    refused(&world.run(&[&back[..], &["--delete-rows"]].concat()), 2, "a checkpoint folder has no tables");
    assert_eq!(world.json(&back)["moved"], 2);
    assert_eq!(world.run(&["offsets", "export", "folder.toml"]).stdout.matches(",60\n").count(), 1);
    assert_eq!(world.json(&["verify", "folder.toml"])["ok"], true);
    run_example("checkpoint_recovery", &world.kafka, &database, &env).await;
    let verified = world.json(&["verify", "folder.toml"]);
    assert_eq!((&verified["ok"], verified["records"].as_i64()), (&serde_json::json!(true), Some(120)));
    for no_tables in
        [&["migrate", "status", "folder.toml"][..], &["dead-letters", "discard", "folder.toml", "--all", "--execute"]]
    {
        refused(&world.run(no_tables), 2, "a checkpoint folder has no tables");
    }

    let files = fs::read_dir(world.folder.path().join("kept/checkpoint-recovery")).unwrap();
    for file in files.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("lock")) {
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        fs::write(&file, flipped).unwrap();
        let told = world.run(&["batches", "folder.toml"]);
        let line = refused(&told, 4, "the checkpoint folder is damaged");
        assert!(line.contains(file.file_name().unwrap().to_str().unwrap()), "{line}");
        fs::write(&file, whole).unwrap();
    }
    assert_eq!(world.run(&["batches", "folder.toml"]).code, 0);
}
