//! `print`: the first elements of each batch, to standard output.

use std::{fmt::Display, io::Write};

use super::{DStream, foreach_rdd::add_side_effect};
use crate::error::Error;

/// How many elements `print` shows, as in Spark.
const PRINTED_MAX: usize = 10;

impl<T: Display + Send + 'static> DStream<T> {
    /// Prints the first ten elements of every batch to standard output, in Spark's form. A side effect: at least once.
    /// Spark: `print`.
    pub fn print(&self) {
        let stream = self.used();
        add_side_effect(self, "print", move |scope| {
            let shown = stream.rdd(scope)?.take(PRINTED_MAX + 1)?;
            let line = "-".repeat(43);
            let mut text = format!("{line}\nTime: {}\n{line}\n", scope.batch().batch_time);
            for item in shown.iter().take(PRINTED_MAX) {
                text.push_str(&format!("{item}\n"));
            }
            if shown.len() > PRINTED_MAX {
                text.push_str("...\n");
            }
            text.push('\n');
            let written = std::io::stdout().lock().write_all(text.as_bytes());
            written.map_err(|error| Error::transform("cannot print to standard output").caused_by(error))
        });
    }
}
