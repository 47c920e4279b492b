//! What a command writes to stdout: a table for people, or one JSON document.

use std::{
    io::{self, ErrorKind as IoErrorKind, Write},
    sync::Arc,
};

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde::Serialize;

use super::args::OutputFormat;
use crate::{
    clock::Clock,
    error::{Error, Result},
    report::{Progress, Terminal, printable},
};

/// Where a command writes: its document to stdout, progress to stderr.
#[derive(Debug, Clone)]
pub struct Console {
    format: OutputFormat,
    terminal: Terminal,
    clock: Arc<dyn Clock>,
}

/// Rows under headings.
#[derive(Debug, Clone, Default)]
pub struct Table {
    headings: Vec<&'static str>,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
}

/// Milliseconds since 1970-01-01 UTC in RFC 3339; beyond any calendar, their number.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

impl Console {
    /// A console that writes `format` to stdout and shares stderr with the log.
    #[must_use]
    pub fn new(format: OutputFormat, terminal: Terminal, clock: Arc<dyn Clock>) -> Self {
        Self { format, terminal, clock }
    }

    /// The clock of this process.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Shows on stderr how far some long work is, until it is dropped.
    #[must_use]
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        Progress::start(label, total, &self.terminal, self.clock())
    }

    /// Whether stdout gets one JSON document.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Writes `document`: as JSON, or as the text that `text` makes of it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the document has no JSON form or stdout cannot be written. A
    /// reader that closed the pipe is no error.
    pub fn print<D: Serialize>(&self, document: &D, text: impl FnOnce(&D) -> String) -> Result<()> {
        let output = match self.format {
            OutputFormat::Json => serde_json::to_string_pretty(document)
                .map_err(|error| Error::internal("cannot write the result as JSON").caused_by(error))?,
            OutputFormat::Table => text(document),
        };
        write_out(&output).map(|_| ())
    }

    /// Writes one of several documents: as JSON on a line of its own, or as the text that `text` makes of it. Gives whether
    /// somebody reads on.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub fn print_line<D: Serialize>(&self, document: &D, text: impl FnOnce(&D) -> String) -> Result<bool> {
        write_out(&match self.format {
            OutputFormat::Json => serde_json::to_string(document)
                .map_err(|error| Error::internal("cannot write the result as JSON").caused_by(error))?,
            OutputFormat::Table => text(document),
        })
    }
}

/// Writes to stdout; whether there is still a reader.
fn write_out(output: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", output.trim_end()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == IoErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::internal("cannot write to stdout").caused_by(error)),
    }
}

impl Table {
    /// A table under `headings`.
    #[must_use]
    pub fn new(headings: impl IntoIterator<Item = &'static str>) -> Self {
        Self { headings: headings.into_iter().collect(), ..Self::default() }
    }

    /// Puts these columns, counted from 0, to the right, as numbers should be.
    #[must_use]
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, in the manner of Kafka's own tools: no lines, columns by spaces.
    #[must_use]
    pub fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.headings);
        for row in &self.rows {
            // Topics, reasons and hosts come from elsewhere: a terminal must not act on them.
            table.add_row(row.iter().map(|cell| if cell.is_empty() { "-".into() } else { printable(cell) }));
        }
        for column in &self.right {
            if let Some(column) = table.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_plain_columns_and_escapes_what_is_not_ours() {
        let mut table = Table::new(["TOPIC", "LAG"]).right([1]);
        table.row(["orders".to_owned(), "7".to_owned()]);
        table.row(["a\x1b[31m\nb".to_owned(), "12345".to_owned()]);
        table.row([String::new(), "0".to_owned()]);
        let expected =
            ["TOPIC             LAG", "orders              7", "a\\u{1b}[31m\\nb  12345", "-                   0"];
        let lines: Vec<String> = table.render().lines().map(str::to_owned).collect();
        // Headings stand left in their column, numbers right.
        assert_eq!(lines[1..], expected[1..]);
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["TOPIC", "LAG"]);
    }
}
