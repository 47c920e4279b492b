//! `save_as_text_files`: each batch as a folder of lines. And one RDD at a time.

use std::{fmt::Display, io::Write};

use super::{
    DStream, Rdd,
    file_series::save_as_files,
    part_files::{PartEncoder, save},
};
use crate::error::{Error, Result};

/// A line per element.
struct Lines;

impl<T: Display> PartEncoder<T> for Lines {
    fn begin(_partition: usize, _out: &mut Vec<u8>) -> Result<Self> {
        Ok(Self)
    }

    fn add(&mut self, item: &T, out: &mut Vec<u8>) -> Result<()> {
        writeln!(out, "{item}").map_err(|error| Error::transform("an element cannot be shown as text").caused_by(error))
    }

    fn end(self, _out: &mut Vec<u8>) {}
}

impl<T: Display + Send + 'static> Rdd<T> {
    /// Writes the elements as lines into a new folder: `part-00000` and so on, one file per partition, and `_SUCCESS`. Folders
    /// above it are made. An element with a line break in it becomes two lines. Spark: `saveAsTextFile`.
    ///
    /// The folder comes into being whole or not at all. It must not be there yet, with one exception: within a stream the
    /// batch that is run again replaces the folder that it left itself. A batch keeps its number when it is run again, and may
    /// get another time and other ranges, so let the path have `batch().batch_seq` in it, and no time.
    /// [`save_as_text_files`](DStream::save_as_text_files) sees to all that by itself.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("words").display().to_string();
    /// Rdd::parallelize(["to", "be", "or"], 2).save_as_text_file(&path)?;
    /// assert_eq!(std::fs::read_to_string(format!("{path}/part-00001"))?, "be\nor\n");
    /// assert_eq!(Rdd::text_file(&path)?.collect()?, ["to", "be", "or"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if there is something already, or the folder above cannot be written to;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) for a disk that is full or fails; what a task failed with.
    pub fn save_as_text_file(&self, path: &str) -> Result<()> {
        save::<T, Lines>(self, path)
    }
}

impl<T: Display + Send + 'static> DStream<T> {
    /// Writes each batch as a folder of lines, `PREFIX-TIME` or, if `suffix` is not empty, `PREFIX-TIME.SUFFIX`, where `TIME` is
    /// the batch time in milliseconds since 1970-01-01 UTC. In it are `part-00000` and so on, one file per partition, and
    /// `_SUCCESS`. Folders above it are made; a relative prefix begins in the folder that the process is in now. Spark:
    /// `saveAsTextFiles`.
    ///
    /// A side effect: it runs before the commit, and again if the batch does. What comes of it is exactly once all the same: a
    /// folder comes into being whole or not at all, one that a batch left which was never committed is removed before another
    /// batch takes its place, and so **once a batch is committed, the folders are those of the committed batches**. For that all
    /// processes of the application must see the same file system, one with locks and with a rename that is atomic. While a
    /// batch is not committed its folder may go and come again: who reads along takes a folder once there is a later one, or
    /// the ledger knows it. Folders may be taken away by whoever is done with them. See the example `save_as_files`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) -> directstream::Result<()> {
    /// // out/words-1700000000000.txt/part-00000, ...
    /// words.save_as_text_files("out/words", "txt")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the prefix does not end with a name, or another output of the job has the same
    /// names. A batch fails with `Config` where the disk may not be written to, or where the folders belong to another
    /// application; with [`Unavailable`](crate::ErrorKind::Unavailable), which is retried, where it is full or fails.
    pub fn save_as_text_files(&self, prefix: &str, suffix: &str) -> Result<()> {
        save_as_files::<T, Lines>(self, "save_as_text_files", prefix, suffix)
    }
}
