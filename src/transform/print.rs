//! `print`: the first elements of each batch, to standard output.

use std::{fmt::Display, io::Write};

use super::{DStream, foreach_rdd::add_side_effect};
use crate::{error::Error, types::BatchTime};

/// How many elements `print` shows if it is not told, as in Spark.
const PRINTED_MAX: usize = 10;

impl<T: Display + Send + 'static> DStream<T> {
    /// Prints the first ten elements of every batch to standard output, in Spark's form. A side effect: at least once.
    /// Spark: `print`.
    pub fn print(&self) {
        self.print_first(PRINTED_MAX);
    }

    /// Prints the first `count` elements of every batch, as [`print`](Self::print). Spark: `print(num)`.
    pub fn print_first(&self, count: usize) {
        let stream = self.used();
        add_side_effect(self, "print", move |scope| {
            // One more than is shown tells whether there are more.
            let taken = stream.rdd(scope)?.take(count.saturating_add(1))?;
            let text = printed(scope.batch().batch_time, &taken, count);
            let written = std::io::stdout().lock().write_all(text.as_bytes());
            written.map_err(|error| Error::transform("cannot print to standard output").caused_by(error))
        });
    }
}

/// A batch as it is printed.
fn printed<T: Display>(batch_time: BatchTime, taken: &[T], count: usize) -> String {
    let line = "-".repeat(43);
    let mut text = format!("{line}\nTime: {batch_time}\n{line}\n");
    for item in taken.iter().take(count) {
        text.push_str(&format!("{item}\n"));
    }
    if taken.len() > count {
        text.push_str("...\n");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tr_35_a_printed_batch_has_its_time_and_its_first_elements() {
        let line = "-".repeat(43);
        let head = format!("{line}\nTime: 1000 ms\n{line}\n");
        let printed = |taken: &[i64], count| printed(BatchTime::from_ms(1000), taken, count);
        assert_eq!(printed(&[1, 2, 3], 2), format!("{head}1\n2\n...\n\n"));
        assert_eq!(printed(&[1, 2], 2), format!("{head}1\n2\n\n"));
        assert_eq!(printed(&[], 2), format!("{head}\n"));
    }
}
