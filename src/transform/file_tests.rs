//! Folders of files: what is in them, and that exactly those of committed batches are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    BatchScope, DStream, Graph, LocalRunner, Output, Rdd, SideEffect,
    part_files::failed,
    tests::{Batch, batch},
};
use crate::{
    error::{ErrorKind, Result},
    types::Term,
};

/// A process of the application that writes to `folder/out`.
struct Owner {
    epoch: u64,
    application: &'static str,
    zero_time_ms: i64,
    output: Arc<dyn SideEffect>,
}

impl Owner {
    fn scope(&self, seq: u64, time_ms: i64) -> BatchScope {
        let Batch { task, inputs } = batch(seq, time_ms, &[&[]]);
        let term = Term { application: self.application.into(), zero_time_ms: self.zero_time_ms, epoch: self.epoch };
        BatchScope::on_grid(task.in_term(Arc::new(term)), Arc::new(LocalRunner::new(2)), inputs, 0)
    }

    fn run(&self, seq: u64, time_ms: i64) -> Result<()> {
        self.output.run(&self.scope(seq, time_ms))
    }
}

/// A stream that has the time and the number of the batch, in two partitions.
fn numbers(graph: &Graph, slide_ms: i64) -> DStream<String> {
    DStream::sliding(graph, "numbers", slide_ms, |scope| {
        let batch = scope.batch();
        let parts = vec![vec![batch.batch_time.as_ms().to_string()], vec![format!("number {}", batch.batch_seq)]];
        Ok(Rdd::of_partitions(scope, parts))
    })
}

fn output(graph: &Graph) -> Arc<dyn SideEffect> {
    match graph.outputs().pop() {
        Some(Output::SideEffect(output)) => output,
        other => panic!("{other:?}"),
    }
}

fn prefix(folder: &TempDir) -> String {
    folder.path().join("out").display().to_string()
}

fn owner_sliding(folder: &TempDir, epoch: u64, slide_ms: i64) -> Owner {
    let graph = Graph::default();
    numbers(&graph, slide_ms).save_as_text_files(&prefix(folder), "txt").unwrap();
    Owner { epoch, application: "orders", zero_time_ms: 0, output: output(&graph) }
}

fn owner(folder: &TempDir, epoch: u64) -> Owner {
    owner_sliding(folder, epoch, 1)
}

/// The names in the folder, but for the lock's.
fn found(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".out-TIME.txt.owner").collect();
    names.sort();
    names
}

fn refused(done: Result<()>, kind: ErrorKind, words: &str) {
    let error = done.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.chain().contains(words), "{error:?}");
}

#[test]
fn a_batch_is_a_folder_in_sparks_form() {
    let folder = tempfile::tempdir().unwrap();
    owner(&folder, 1).run(1, 1000).unwrap();
    owner(&folder, 1).run(2, 2000).unwrap();
    assert_eq!(found(&folder), ["out-1000.txt", "out-2000.txt"]);
    let read = |name: &str| fs::read_to_string(folder.path().join("out-2000.txt").join(name)).unwrap();
    assert_eq!((read("part-00000"), read("part-00001")), ("2000\n".into(), "number 2\n".into()));
    assert!(read("_SUCCESS").starts_with(r#"{"directstream":1,"application":"orders","#));
    let graph = Graph::default();
    numbers(&graph, 1).save_as_text_files(&prefix(&folder), "").unwrap();
    Owner { output: output(&graph), ..owner(&folder, 1) }.run(3, 3000).unwrap();
    assert!(folder.path().join("out-3000/part-00001").exists());
}

#[test]
fn a_batch_that_is_run_again_replaces_its_own_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let one = owner(&folder, 1);
    one.run(1, 1000).unwrap();
    one.run(2, 2000).unwrap();
    // At the same time, at another one, and by the next owner, which finds what a process left that was killed.
    one.run(2, 2000).unwrap();
    one.run(2, 3000).unwrap();
    assert_eq!(found(&folder), ["out-1000.txt", "out-3000.txt"]);
    fs::create_dir(folder.path().join(".out-3000.txt.abc.tmp")).unwrap();
    fs::create_dir(folder.path().join(".others-3000.txt.abc.tmp")).unwrap();
    owner(&folder, 2).run(2, 4000).unwrap();
    assert_eq!(found(&folder), [".others-3000.txt.abc.tmp", "out-1000.txt", "out-4000.txt"]);
    // That one was committed.
    owner(&folder, 3).run(3, 5000).unwrap();
    assert_eq!(found(&folder)[1..], ["out-1000.txt", "out-4000.txt", "out-5000.txt"]);
}

#[test]
fn a_batch_between_two_slides_writes_nothing_and_removes_what_was_left_of_its_number() {
    let folder = tempfile::tempdir().unwrap();
    owner_sliding(&folder, 1, 2000).run(1, 2000).unwrap();
    let next = owner_sliding(&folder, 2, 2000);
    next.run(1, 3000).unwrap();
    assert_eq!(found(&folder), [""; 0]);
    next.run(2, 4000).unwrap();
    next.run(3, 5000).unwrap();
    assert_eq!(found(&folder), ["out-4000.txt"]);
}

#[test]
fn an_earlier_owner_changes_nothing_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (owner(&folder, 1), owner(&folder, 2));
    old.run(1, 1000).unwrap();
    new.run(2, 2000).unwrap();
    refused(old.run(2, 1900), ErrorKind::Fenced, "epoch=1 last=2");
    assert_eq!(found(&folder), ["out-1000.txt", "out-2000.txt"]);
}

#[test]
fn an_owner_that_is_replaced_while_it_writes_puts_nothing_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let new = owner(&folder, 2);
    let graph = Graph::default();
    let slow =
        numbers(&graph, 1).try_map(move |text| if text == "1000" { new.run(1, 1500).map(|()| text) } else { Ok(text) });
    slow.save_as_text_files(&prefix(&folder), "txt").unwrap();
    refused(Owner { output: output(&graph), ..owner(&folder, 1) }.run(1, 1000), ErrorKind::Fenced, "epoch=1 last=2");
    assert_eq!(found(&folder), ["out-1500.txt"]);
}

#[test]
fn folders_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    owner(&folder, 1).run(1, 1000).unwrap();
    let stranger = Owner { application: "others", ..owner(&folder, 2) };
    refused(stranger.run(1, 2000), ErrorKind::Config, "application=\"orders\"");
    let reborn = Owner { zero_time_ms: 5, ..owner(&folder, 2) };
    refused(reborn.run(1, 2000), ErrorKind::Config, "before its store was made anew");
    // As Spark leaves one, and as an operator makes room: not ours, so neither removed nor replaced.
    for time in [3000, 4000] {
        let spark = folder.path().join(format!("out-{time}.txt"));
        fs::create_dir(&spark).unwrap();
        fs::write(spark.join("_SUCCESS"), "").unwrap();
    }
    let one = owner(&folder, 2);
    one.run(2, 2000).unwrap();
    refused(one.run(3, 3000), ErrorKind::Config, "there is something already");
    one.run(3, 3500).unwrap();
    let names = ["out-1000.txt", "out-2000.txt", "out-3000.txt", "out-3500.txt", "out-4000.txt"];
    assert_eq!(found(&folder), names);
}

#[test]
fn a_store_that_was_put_back_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    owner(&folder, 1).run(1, 1000).unwrap();
    owner(&folder, 1).run(2, 2000).unwrap();
    refused(owner(&folder, 3).run(1, 3000), ErrorKind::Corrupt, "batch_seq=2 next=1");
    assert_eq!(found(&folder), ["out-1000.txt", "out-2000.txt"]);
}

#[test]
fn another_process_at_the_folders_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let one = owner(&folder, 1);
    one.run(1, 1000).unwrap();
    let lock = fs::File::open(folder.path().join(".out-TIME.txt.owner")).unwrap();
    lock.try_lock().unwrap();
    refused(one.run(2, 2000), ErrorKind::Unavailable, "another process");
    drop(lock);
    one.run(2, 2000).unwrap();
    fs::write(folder.path().join(".out-TIME.txt.owner"), "{").unwrap();
    refused(one.run(3, 3000), ErrorKind::Corrupt, "damaged");
}

#[test]
fn what_passes_is_retried_and_what_must_be_mended_is_not() {
    let kind = |code| failed("cannot", Path::new("out"), io::Error::from_raw_os_error(code)).kind();
    for code in [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EMFILE, libc::ENOENT] {
        assert_eq!(kind(code), ErrorKind::Unavailable, "{code}");
    }
    for code in [libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOTDIR, libc::ENAMETOOLONG, libc::ELOOP] {
        assert_eq!(kind(code), ErrorKind::Config, "{code}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let inside = folder.path().join("file/out").display().to_string();
    let numbers = Rdd::parallelize([1], 1);
    refused(numbers.save_as_text_file(&inside), ErrorKind::Config, "file");
    for wrong in ["", "/", "a/", ".."] {
        refused(numbers.save_as_text_file(wrong), ErrorKind::Config, "does not end with a name");
    }
}

#[test]
fn names_are_one_outputs_alone_and_a_prefix_ends_with_a_name() {
    let graph = Graph::default();
    let stream = numbers(&graph, 1);
    stream.save_as_text_files("out/a", "txt").unwrap();
    stream.save_as_text_files("out/a", "").unwrap();
    stream.save_as_object_files("out/a-1", "txt").unwrap();
    refused(stream.save_as_object_files("./out/a", "txt"), ErrorKind::Config, "two outputs");
    refused(stream.save_as_text_files("out/", "txt"), ErrorKind::Config, "does not end with a name");
    refused(stream.save_as_text_files("out/b", "a/b"), ErrorKind::Config, "suffix");
}

#[test]
fn an_rdd_is_saved_once_and_a_batch_replaces_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = prefix(&folder);
    let five = Rdd::parallelize(1..=5, 2);
    five.save_as_text_file(&path).unwrap();
    refused(five.save_as_text_file(&path), ErrorKind::Config, "there is something already");
    assert_eq!(Rdd::text_file(&path).unwrap().glom().collect().unwrap(), [vec!["1", "2"], vec!["3", "4", "5"]]);
    fs::remove_file(folder.path().join("out/part-00001")).unwrap();
    assert_eq!(Rdd::text_file(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    let gone = folder.path().join("gone").display().to_string();
    assert_eq!(Rdd::text_file(&gone).unwrap_err().kind(), ErrorKind::Config);
    // By its number.
    let graph = Graph::default();
    let (stream, of) = (numbers(&graph, 1), path.clone());
    stream.foreach_rdd(move |rdd| rdd.save_as_text_file(&format!("{of}-{}", rdd.batch().batch_seq)));
    let one = Owner { output: output(&graph), ..owner(&folder, 1) };
    one.run(1, 1000).unwrap();
    one.run(1, 2000).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("out-1/part-00000")).unwrap(), "2000\n");
    refused(Owner { application: "others", ..one }.run(1, 3000), ErrorKind::Config, "there is something already");
}

#[test]
fn a_panic_of_the_users_code_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bad = Rdd::parallelize([1, 2], 2).map(|n| if n == 2 { panic!("no good") } else { n });
    refused(bad.save_as_text_file(&prefix(&folder)), ErrorKind::Transform, "no good");
    assert_eq!(found(&folder), [""; 0]);
}

#[test]
fn objects_come_back_as_they_were_over_many_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let items: Vec<(u64, Option<String>)> =
        (0..20_000).map(|n| (n, (n % 3 > 0).then(|| "x".repeat(usize::try_from(n % 50).unwrap())))).collect();
    let path = prefix(&folder);
    Rdd::parallelize(items.clone(), 3).save_as_object_file(&path).unwrap();
    let again = Rdd::<(u64, Option<String>)>::object_file(&path).unwrap();
    assert_eq!((again.partitions(), again.collect().unwrap() == items), (3, true));
    assert_eq!(again.take(3).unwrap(), items[..3]);
    assert!(fs::metadata(folder.path().join("out/part-00000")).unwrap().len() > 3 * 32 * 1024);
    // Elements without bytes, and partitions without elements.
    let path = folder.path().join("units").display().to_string();
    Rdd::parallelize([(); 3], 5).save_as_object_file(&path).unwrap();
    assert_eq!(Rdd::<()>::object_file(&path).unwrap().count().unwrap(), 3);
    assert_eq!(Rdd::<u64>::object_file(&path).unwrap().count().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(Rdd::<u64>::object_file("nowhere").unwrap_err().kind(), ErrorKind::Config);
}

/// A folder of object files, small enough to damage it everywhere.
fn small_objects(folder: &TempDir) -> (String, Vec<PathBuf>) {
    let path = prefix(folder);
    Rdd::parallelize([(1_u8, "one".to_owned()), (2, String::new()), (3, "drei".to_owned())], 2)
        .save_as_object_file(&path)
        .unwrap();
    (path, ["part-00000", "part-00001", "_SUCCESS"].map(|name| folder.path().join("out").join(name)).to_vec())
}

fn read_objects(path: &str) -> Result<Vec<(u8, String)>> {
    Rdd::object_file(path)?.collect()
}

#[test]
fn every_truncation_and_every_flipped_bit_of_an_object_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, files) = small_objects(&folder);
    assert_eq!(read_objects(&path).unwrap().len(), 3);
    for file in &files {
        let whole = fs::read(file).unwrap();
        let mut damages: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        damages.extend((0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        damages.push([whole.as_slice(), &[0]].concat());
        for damaged in damages {
            fs::write(file, &damaged).unwrap();
            // The line's end is not part of the mark.
            let is_mark = file.ends_with("_SUCCESS");
            if is_mark && damaged.strip_suffix(b"\n").unwrap_or(&damaged) == whole.strip_suffix(b"\n").unwrap() {
                continue;
            }
            match read_objects(&path).map_err(|error| error.kind()) {
                Err(ErrorKind::Corrupt | ErrorKind::Config) => {}
                // White space after the mark is no part of it either.
                Ok(read) if is_mark => {
                    assert_eq!(damaged.trim_ascii(), whole.trim_ascii());
                    assert_eq!(read.len(), 3);
                }
                other => panic!("{} {damaged:?}: {other:?}", file.display()),
            }
        }
        fs::write(file, &whole).unwrap();
    }
    // A whole file in the place of another, and one that is missing.
    fs::copy(&files[0], &files[1]).unwrap();
    assert_eq!(read_objects(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    fs::remove_file(&files[1]).unwrap();
    assert_eq!(read_objects(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(folder.path().join("out").read_dir().unwrap().count(), 2);
}

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// A process takes the application over. The one before is dead, or only taken for dead.
    TakeOver,
    /// The owner runs its next batch, so many milliseconds later, and commits it or does not get to that.
    Batch { later: i64, committed: bool },
    /// A process that was taken for dead goes on with the batch that it was at.
    Zombie { which: usize, later: i64 },
    /// A process dies while it writes.
    HalfWritten,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => Just(Event::TakeOver),
        5 => (1_i64..5, any::<bool>()).prop_map(|(later, committed)| Event::Batch { later: later * 500, committed }),
        2 => (0_usize..9, 1_i64..5).prop_map(|(which, later)| Event::Zombie { which, later: later * 500 }),
        1 => Just(Event::HalfWritten),
    ];
    proptest::collection::vec(event, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever dies, goes on or is run again: once a batch is committed, the folders are those of the committed batches.
    #[test]
    fn folders_are_those_of_the_committed_batches(events in events(), slide_ms in prop_oneof![Just(500), Just(1000)]) {
        let folder = tempfile::tempdir().unwrap();
        let mut owners = vec![owner_sliding(&folder, 1, slide_ms)];
        // At which batch each is, or was when it was taken over.
        let mut at = vec![(1, 0)];
        // The epoch of the owner that ran last.
        let mut latest = 0;
        let mut committed = BTreeMap::new();
        let mut last_time = 0;
        let last = Event::Batch { later: 500, committed: true };
        for event in events.into_iter().chain([last]) {
            let seq = committed.len() as u64 + 1;
            let current = owners.len() - 1;
            match event {
                Event::TakeOver => {
                    at[current] = (seq, last_time);
                    owners.push(owner_sliding(&folder, owners.len() as u64 + 1, slide_ms));
                    at.push((seq, last_time));
                }
                Event::Batch { later, committed: commits } => {
                    let time = last_time + later;
                    owners[current].run(seq, time).unwrap();
                    latest = owners[current].epoch;
                    if commits {
                        committed.insert(seq, time);
                        last_time = time;
                        let expected: BTreeSet<String> = committed
                            .values()
                            .filter(|time| *time % slide_ms == 0)
                            .map(|time| format!("out-{time}.txt"))
                            .collect();
                        prop_assert_eq!(found(&folder).into_iter().collect::<BTreeSet<_>>(), expected);
                    }
                }
                Event::Zombie { which, later } if current > 0 => {
                    let which = which % current;
                    let (seq, last_time) = at[which];
                    let done = owners[which].run(seq, last_time + later);
                    if owners[which].epoch < latest {
                        prop_assert_eq!(done.unwrap_err().kind(), ErrorKind::Fenced);
                    } else {
                        latest = owners[which].epoch;
                        done.unwrap();
                    }
                }
                Event::Zombie { .. } => {}
                Event::HalfWritten => {
                    // Seen and removed by the next process at the latest; here that is a new one.
                    at[current] = (seq, last_time);
                    owners.push(owner_sliding(&folder, owners.len() as u64 + 1, slide_ms));
                    at.push((seq, last_time));
                    fs::create_dir(folder.path().join(format!(".out-{last_time}.txt.{seq}.tmp"))).ok();
                }
            }
        }
    }
}

#[test]
fn an_output_outside_of_a_stream_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Batch { task, inputs } = batch(1, 1000, &[&[]]);
    let scope = BatchScope::new(task, Arc::new(LocalRunner::new(1)), inputs);
    refused(owner(&folder, 1).output.run(&scope), ErrorKind::Internal, "outside of any stream");
}
