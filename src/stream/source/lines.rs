//! The lines that begin in a range of a file's bytes.
//!
//! A range may be cut anywhere. A line belongs to the range in which it begins: whoever reads from the middle of a line goes to
//! the next one's beginning, and whoever reads a line that goes on beyond the range reads it to its end. So every line is in
//! one range, whatever the cuts.

use std::{
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::{ControlFlow, Range},
};

use crate::transform::without_ending;

/// How much of a file is read at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// What a walk over lines ends with.
#[derive(Debug)]
pub(super) enum Ended<B> {
    /// All lines were given.
    AtTheEnd,
    /// Whoever takes them had enough.
    Stopped(B),
    /// The line that begins at this byte has more bytes than a line may have.
    TooLong {
        /// Where it begins.
        at: u64,
    },
}

/// Gives each line that begins within `range` to `each`, with the byte it begins at and without its ending. A line has at most
/// `line_bytes_max` bytes, its ending not among them.
///
/// # Errors
/// What reading failed with.
pub(super) fn lines_of<B>(
    mut file: impl Read + Seek,
    range: Range<u64>,
    line_bytes_max: usize,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<B>,
) -> io::Result<Ended<B>> {
    let Range { start, end: until } = range;
    // The byte before tells whether a line begins here.
    let mut at = start.saturating_sub(1);
    file.seek(SeekFrom::Start(at))?;
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    if start > 0 {
        let Some(skipped) = skip_line(&mut file, until.saturating_sub(at))? else { return Ok(Ended::AtTheEnd) };
        at += skipped;
    }
    let mut line = Vec::new();
    // With room for an ending, and for one byte that is too many.
    let most = u64::try_from(line_bytes_max).unwrap_or(u64::MAX).saturating_add(3);
    while at < until {
        line.clear();
        let bytes = file.by_ref().take(most).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        let text = without_ending(&line);
        if text.len() > line_bytes_max {
            return Ok(Ended::TooLong { at });
        }
        if let ControlFlow::Break(stop) = each(at, text) {
            return Ok(Ended::Stopped(stop));
        }
        at += bytes as u64;
    }
    Ok(Ended::AtTheEnd)
}

/// Goes beyond the next line feed among the next `most` bytes, and tells how many bytes that was; `None` if there is none.
fn skip_line(file: &mut impl BufRead, most: u64) -> io::Result<Option<u64>> {
    let mut skipped = 0;
    while skipped < most {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let within = usize::try_from(most - skipped).unwrap_or(usize::MAX).min(buffer.len());
        let found = buffer[..within].iter().position(|byte| *byte == b'\n');
        let bytes = found.map_or(within, |at| at + 1);
        file.consume(bytes);
        skipped += bytes as u64;
        if found.is_some() {
            return Ok(Some(skipped));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    type Found = Vec<(u64, Vec<u8>)>;

    fn lines(bytes: &[u8], range: Range<u64>, most: usize) -> (Found, Ended<()>) {
        let mut found = Vec::new();
        let ended = lines_of(Cursor::new(bytes), range, most, |at, line| {
            found.push((at, line.to_vec()));
            ControlFlow::Continue(())
        });
        (found, ended.unwrap())
    }

    /// The same by another way: the whole of it is split at once.
    fn all_lines(bytes: &[u8]) -> Found {
        let mut found = Vec::new();
        let mut at = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            found.push((at, without_ending(line).to_vec()));
            at += line.len() as u64;
        }
        found
    }

    #[test]
    fn a_line_belongs_to_the_range_in_which_it_begins() {
        let text = b"ab\ncd\r\n\nlast";
        let of = |range| lines(text, range, 100).0;
        assert_eq!(of(0..1), [(0, b"ab".to_vec())]);
        assert_eq!(of(1..3), []);
        assert_eq!(of(1..4), [(3, b"cd".to_vec())]);
        assert_eq!(of(3..9), [(3, b"cd".to_vec()), (7, vec![]), (8, b"last".to_vec())]);
        assert_eq!(of(9..12), []);
        assert_eq!(of(0..12), all_lines(text));
        assert_eq!(lines(b"a\n", 0..2, 100).0, [(0, b"a".to_vec())]);
        assert_eq!(lines(b"", 0..0, 100).0, []);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_by_the_byte_it_begins_at() {
        for ending in ["", "\n", "\r\n"] {
            let of = |line: &str| lines(format!("x\n{line}{ending}").as_bytes(), 0..3, 4).1;
            assert!(matches!(of("1234"), Ended::AtTheEnd));
            assert!(matches!(of("12345"), Ended::TooLong { at: 2 }));
            assert!(matches!(of("1234567890"), Ended::TooLong { at: 2 }));
        }
    }

    proptest! {
        #[test]
        fn however_a_file_is_cut_its_lines_are_those_of_the_whole(
            bytes in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0_usize..300, 0..12),
        ) {
            let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(bytes.len()) as u64).collect();
            cuts.extend([0, bytes.len() as u64]);
            cuts.sort_unstable();
            let mut found = Vec::new();
            for cut in cuts.windows(2) {
                let (lines, _) = lines(&bytes, cut[0]..cut[1], 1_000);
                prop_assert!(lines.iter().all(|(at, _)| (cut[0]..cut[1]).contains(at)));
                found.extend(lines);
            }
            prop_assert_eq!(&found, &all_lines(&bytes));
            if let Ok(text) = std::str::from_utf8(&bytes)
                && !text.ends_with('\r')
            {
                let texts: Vec<_> = found.iter().map(|(_, line)| String::from_utf8_lossy(line).into_owned()).collect();
                prop_assert_eq!(texts, text.lines().map(str::to_owned).collect::<Vec<_>>());
            }
        }
    }
}
