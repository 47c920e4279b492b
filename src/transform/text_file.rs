//! `text_file`: lines of files as an RDD.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BatchScope, Rdd,
    part_files::{Marker, failed, names},
};
use crate::{
    error::{Error, ErrorKind, Result},
    types::{Compute, Flow, ShuffleStage, Stop, Task},
};

struct TextFiles {
    paths: Vec<PathBuf>,
}

/// The error of a file that cannot be read: one that is not there will not come by waiting.
pub(super) fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let what = "cannot read a file";
    if !missing {
        return failed(what, path, error);
    }
    Error::new(ErrorKind::Config, format!("{what} path={}", path.display())).caused_by(error)
}

/// A line without its `\n` or `\r\n`; the last line of a file may end with neither.
pub(crate) fn without_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A line as text: what is not UTF-8 becomes `U+FFFD`.
pub(crate) fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

fn each_line(path: &Path, task: &Task, each: &mut dyn FnMut(String) -> Flow) -> Result<Flow> {
    let mut file = BufReader::new(File::open(path).map_err(|error| unreadable(path, error))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|error| unreadable(path, error))? == 0 || task.is_cancelled() {
            return Ok(ControlFlow::Continue(()));
        }
        let flow = each(text_of(without_ending(&line)));
        if flow.is_break() {
            return Ok(flow);
        }
    }
}

impl Compute<String> for TextFiles {
    fn partitions(&self) -> usize {
        self.paths.len()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(String) -> Flow) -> Flow {
        let Some(path) = self.paths.get(partition) else { return ControlFlow::Continue(()) };
        each_line(path, task, each).unwrap_or_else(|error| ControlFlow::Break(Stop::Failed(error)))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

impl Rdd<String> {
    /// The lines of a file, or of all files of a folder in the order of their names, one partition each; names that begin with
    /// `_` or a dot are passed over. Read anew with each action. Bytes that are not UTF-8 become `U+FFFD`. Spark: `textFile`.
    ///
    /// Of a folder that [`save_as_text_file`](Rdd::save_as_text_file) left, all parts must be there.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("words.txt").display().to_string();
    /// std::fs::write(&path, "to be\nor not\n")?;
    /// assert_eq!(Rdd::text_file(&path)?.map(|line| line.len()).collect()?, [5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is not there or may not be read; [`Corrupt`](ErrorKind::Corrupt) if parts are
    /// missing.
    pub fn text_file(path: &str) -> Result<Self> {
        let folder = Path::new(path);
        let found = folder.metadata().map_err(|error| unreadable(folder, error))?;
        let paths = if found.is_dir() {
            let mut names = names(folder)?;
            names.retain(|name| !name.starts_with(['_', '.']));
            names.sort_by_key(|name| (name.len(), name.clone()));
            if Marker::read(folder)?.is_some_and(|marker| marker.parts != names.len()) {
                return Err(Error::corrupt(format!("parts of a folder are missing path={path} found={}", names.len())));
            }
            names.into_iter().map(|name| folder.join(name)).collect()
        } else {
            vec![folder.to_owned()]
        };
        Ok(Self::new(Arc::new(TextFiles { paths }), BatchScope::outside()))
    }
}
