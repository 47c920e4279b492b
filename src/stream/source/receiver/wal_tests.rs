use super::*;

/// A log with segments of at most this many bytes.
fn open(folder: &Path, segment_bytes_max: u64) -> Result<Wal> {
    Wal::open(folder, segment_bytes_max)
}

fn append(wal: &mut Wal, values: &[&str]) {
    let frame = frame::encode(values, wal.latest(), 5).unwrap();
    let head = Head::parse(frame.first_chunk().unwrap()).unwrap();
    wal.append(&frame, &head).unwrap();
}

fn read(wal: &Wal, from: i64, until: i64) -> Result<Vec<(i64, String)>> {
    let mut found = Vec::new();
    blocks(&wal.segments_of(from, until), from, until, |block| {
        for (record, offset) in block.records.iter().zip(block.first_offset..) {
            if (from..until).contains(&offset) {
                found.push((offset, String::from_utf8(record.to_vec()).unwrap()));
            }
        }
        true
    })?;
    Ok(found)
}

fn all(wal: &Wal) -> Vec<String> {
    read(wal, wal.earliest(), wal.latest()).unwrap().into_iter().map(|(_, record)| record).collect()
}

/// Blocks of two records each, in segments of about three blocks.
fn written(folder: &Path, count: usize) -> Vec<String> {
    let mut wal = open(folder, 150).unwrap();
    let records: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
    for pair in records.chunks(2) {
        append(&mut wal, &pair.iter().map(String::as_str).collect::<Vec<_>>());
    }
    records
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = list(folder).unwrap().iter().map(|first| Segment::begin(folder, *first).path).collect();
    files.sort();
    files
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let records = written(folder.path(), 20);
    assert!(files(folder.path()).len() > 2);
    let mut wal = open(folder.path(), 150).unwrap();
    assert_eq!((wal.earliest(), wal.latest()), (0, 20));
    assert_eq!(all(&wal), records);
    let id = wal.id().clone();
    append(&mut wal, &["more"]);
    drop(wal);
    let wal = open(folder.path(), 1_000).unwrap();
    assert_eq!((wal.latest(), wal.id()), (21, &id));
    assert_eq!(read(&wal, 19, 21).unwrap(), [(19, "r19".to_owned()), (20, "more".to_owned())]);
}

#[test]
fn every_range_is_read_exactly() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 20);
    let wal = open(folder.path(), 150).unwrap();
    for from in 0..20 {
        for until in from..=20 {
            let expected: Vec<_> = (from..until).map(|n| (n, format!("r{n}"))).collect();
            assert_eq!(read(&wal, from, until).unwrap(), expected);
        }
    }
}

#[test]
fn a_log_has_one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let wal = open(folder.path(), 150).unwrap();
    assert_eq!(open(folder.path(), 150).unwrap_err().kind(), ErrorKind::Fenced);
    drop(wal);
    open(folder.path(), 150).unwrap();
}

#[test]
fn segments_that_lie_wholly_before_an_offset_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let records = written(folder.path(), 20);
    let mut wal = open(folder.path(), 150).unwrap();
    let whole = wal.bytes_from(0);
    for offset in 0..=20 {
        wal.forget_before(offset);
        assert!(wal.earliest() <= offset);
        let from = usize::try_from(wal.earliest()).unwrap();
        assert_eq!(all(&wal), records[from..]);
    }
    assert_eq!(files(folder.path()).len(), 1);
    assert!(wal.bytes_from(wal.earliest()) < whole && wal.bytes_from(20) == 0);
    drop(wal);
    assert_eq!(open(folder.path(), 150).unwrap().latest(), 20);
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let records = written(folder.path(), 4);
    let path = files(folder.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let block = bytes.len() / 2;
    for length in 0..=bytes.len() {
        for zeros in [0, 1, 50, 100] {
            let mut torn = bytes[..length].to_vec();
            // Zeros after whole blocks are of a block that was never written; within one they are damage, told below.
            if zeros > 0 && length % block != 0 {
                continue;
            }
            torn.extend(vec![0; zeros]);
            fs::write(&path, &torn).unwrap();
            let mut wal = open(folder.path(), 1_000).unwrap();
            let kept = length / block * 2;
            assert_eq!(all(&wal), records[..kept], "length {length}");
            assert_eq!(fs::metadata(&path).unwrap().len(), (length / block * block) as u64);
            append(&mut wal, &["new"]);
            assert_eq!(all(&wal).last().unwrap(), "new");
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found_at_the_start_and_named() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 10);
    let files = files(folder.path());
    assert!(files.len() > 1);
    for path in &files {
        let bytes = fs::read(path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(path, &flipped).unwrap();
            let error = open(folder.path(), 150).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
            assert!(
                error.to_string().contains(path.to_str().unwrap()) && error.to_string().contains("byte="),
                "{error}"
            );
        }
        fs::write(path, &bytes).unwrap();
    }
    open(folder.path(), 150).unwrap();
}

#[test]
fn a_flipped_byte_is_found_by_reading_as_well() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 4);
    let wal = open(folder.path(), 150).unwrap();
    let path = files(folder.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        assert_eq!(read(&wal, 0, 4).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        fs::write(&path, &bytes[..at]).unwrap();
        assert_eq!(read(&wal, 0, 4).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
    }
}

#[test]
fn a_torn_end_of_an_earlier_segment_and_a_missing_segment_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 20);
    let files = files(folder.path());
    let first = fs::read(&files[0]).unwrap();
    for length in 0..first.len() {
        fs::write(&files[0], &first[..length]).unwrap();
        assert_eq!(open(folder.path(), 150).unwrap_err().kind(), ErrorKind::Corrupt, "length {length}");
    }
    fs::write(&files[0], &first).unwrap();
    let second = fs::read(&files[1]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    assert_eq!(open(folder.path(), 150).unwrap_err().kind(), ErrorKind::Corrupt);
    fs::write(&files[1], second).unwrap();
    fs::write(folder.path().join(ID), "no id").unwrap();
    assert_eq!(open(folder.path(), 150).unwrap_err().kind(), ErrorKind::Corrupt);
    fs::remove_file(folder.path().join(ID)).unwrap();
    assert_eq!(open(folder.path(), 150).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_log_that_is_not_sure_of_its_disk_takes_nothing_more_and_the_next_start_reads_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let records = written(folder.path(), 4);
    let mut wal = open(folder.path(), 1_000).unwrap();
    let path = files(folder.path()).pop().unwrap();
    // Neither can a block be written to this, nor what was written of it be taken back.
    wal.writing = Some(File::open(&path).unwrap());
    let frame = frame::encode(&["new"], 4, 5).unwrap();
    let head = Head::parse(frame.first_chunk().unwrap()).unwrap();
    assert!(wal.append(&frame, &head).is_err());
    wal.writing = None;
    assert!(wal.broken().is_some() && wal.append(&frame, &head).is_err());
    assert_eq!(all(&wal), records);
    drop(wal);
    let mut wal = open(folder.path(), 1_000).unwrap();
    append(&mut wal, &["new"]);
    assert_eq!(wal.latest(), 5);
}
