//! `save_as_object_files`: each batch as a folder of elements that are read back as they were. And one RDD at a time.

use serde::Serialize;

use super::{DStream, Rdd, file_series::save_as_files, object_file::Objects, part_files::save};
use crate::error::Result;

impl<T: Serialize + Send + 'static> Rdd<T> {
    /// Writes the elements into a new folder, for [`object_file`](Rdd::object_file) to read back: in binary, with checksums.
    /// Otherwise as [`save_as_text_file`](Rdd::save_as_text_file). Spark: `saveAsObjectFile`.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("counts").display().to_string();
    /// Rdd::parallelize([("to".to_owned(), 2_u64), ("be".to_owned(), 2)], 2).save_as_object_file(&path)?;
    /// let again = Rdd::<(String, u64)>::object_file(&path)?;
    /// assert_eq!((again.partitions(), again.values().sum()?), (2, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`save_as_text_file`](Rdd::save_as_text_file), and [`Transform`](crate::ErrorKind::Transform) for an element that cannot
    /// be serialized.
    pub fn save_as_object_file(&self, path: &str) -> Result<()> {
        save::<T, Objects>(self, path)
    }
}

impl<T: Serialize + Send + 'static> DStream<T> {
    /// Writes each batch as a folder, `PREFIX-TIME` or `PREFIX-TIME.SUFFIX`, for [`Rdd::object_file`] to read back: in binary, with
    /// checksums. What is promised about the folders is what [`save_as_text_files`](DStream::save_as_text_files) promises. Spark:
    /// `saveAsObjectFiles`.
    ///
    /// ```
    /// # fn example(counts: directstream::transform::DStream<(String, u64)>) -> directstream::Result<()> {
    /// // out/counts-1700000000000/part-00000, ...
    /// counts.save_as_object_files("out/counts", "")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`save_as_text_files`](DStream::save_as_text_files).
    pub fn save_as_object_files(&self, prefix: &str, suffix: &str) -> Result<()> {
        save_as_files::<T, Objects>(self, "save_as_object_files", prefix, suffix)
    }
}
