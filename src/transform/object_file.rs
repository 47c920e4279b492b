//! Elements as bytes in part files, and back: `object_file`.
//!
//! ```text
//! file    = "DSOBJ" version(1 byte)  block*  end
//! block   = length(u32)  elements(u32, not 0)  checksum(u64)  elements, in the postcard format, one after the other
//! end     = 0(u32)       0(u32)                checksum(u64)
//! ```
//!
//! Numbers are little endian. A checksum is xxh3 over the version, the part's number, how many blocks and how many elements there
//! were before, the length, the number of elements, and the elements' bytes. So no byte can change, no block can be missing or in
//! another's place, and a file that is cut off has no end. Fields of an element are known by their order alone: it is read with the
//! type that it was written with.

use std::{
    fs::File,
    io::{BufReader, Read},
    marker::PhantomData,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

use super::{
    BatchScope, Rdd,
    part_files::{Marker, PartEncoder, part_name},
    text_file::unreadable,
};
use crate::{
    error::{Error, ErrorKind, Result},
    types::{Compute, Flow, ShuffleStage, Stop, Task},
};

const MAGIC: &[u8; 5] = b"DSOBJ";
/// The version of the form of a part.
const FORMAT: u8 = 1;
/// A block is closed when it is this long.
const BLOCK_BYTES: usize = 32 * 1024;
/// ... or has so many elements: some types have no bytes at all, as `()`.
const BLOCK_ELEMENTS: u32 = 1 << 20;
/// Length, number of elements, checksum.
const HEAD_BYTES: usize = 16;

/// What was written or read of a part so far.
#[derive(Debug, Clone, Copy)]
struct Position {
    partition: u64,
    blocks: u64,
    elements: u64,
}

impl Position {
    fn at_start(partition: usize) -> Self {
        Self { partition: partition as u64, blocks: 0, elements: 0 }
    }

    /// The checksum of the next block.
    fn checksum(&self, length: u32, elements: u32, data: &[u8]) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&[FORMAT]);
        for number in [self.partition, self.blocks, self.elements] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&length.to_le_bytes());
        hash.update(&elements.to_le_bytes());
        hash.update(data);
        hash.digest()
    }

    fn advance(&mut self, elements: u32) {
        self.blocks += 1;
        self.elements += u64::from(elements);
    }
}

/// A part that is being written.
pub(super) struct Objects {
    position: Position,
    elements: u32,
    block: Vec<u8>,
}

impl Objects {
    /// Writes the block out. One without elements is the end.
    fn close(&mut self, length: u32, out: &mut Vec<u8>) {
        let checksum = self.position.checksum(length, self.elements, &self.block);
        out.extend(length.to_le_bytes());
        out.extend(self.elements.to_le_bytes());
        out.extend(checksum.to_le_bytes());
        out.append(&mut self.block);
        self.position.advance(self.elements);
        self.elements = 0;
    }
}

impl<T: Serialize> PartEncoder<T> for Objects {
    fn begin(partition: usize, out: &mut Vec<u8>) -> Result<Self> {
        out.extend(MAGIC);
        out.push(FORMAT);
        Ok(Self { position: Position::at_start(partition), elements: 0, block: Vec::new() })
    }

    fn add(&mut self, item: &T, out: &mut Vec<u8>) -> Result<()> {
        let cannot = |error| Error::transform("an element cannot be serialized").caused_by(error);
        self.block = postcard::to_extend(item, std::mem::take(&mut self.block)).map_err(cannot)?;
        self.elements += 1;
        if self.block.len() >= BLOCK_BYTES || self.elements == BLOCK_ELEMENTS {
            let length = u32::try_from(self.block.len())
                .map_err(|error| Error::transform("an element has 4 GiB or more").caused_by(error))?;
            self.close(length, out);
        }
        Ok(())
    }

    fn end(mut self, out: &mut Vec<u8>) {
        // Below the length at which a block is closed.
        let length = u32::try_from(self.block.len()).unwrap_or(u32::MAX);
        if self.elements > 0 {
            self.close(length, out);
        }
        self.close(0, out);
    }
}

/// A part that is being read.
struct Reader<'p, T> {
    path: &'p Path,
    file: BufReader<File>,
    position: Position,
    elements: PhantomData<fn() -> T>,
}

impl<'p, T: DeserializeOwned> Reader<'p, T> {
    fn open(path: &'p Path, partition: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::corrupt(format!("a part of a folder is missing path={}", path.display())).caused_by(error)
            }
            _ => unreadable(path, error),
        })?;
        let (file, position) = (BufReader::new(file), Position::at_start(partition));
        let mut reader = Self { path, file, position, elements: PhantomData };
        let mut magic = [0; MAGIC.len() + 1];
        reader.read_exact(&mut magic)?;
        match magic.split_last() {
            Some((&FORMAT, magic)) if magic == MAGIC => Ok(reader),
            Some((format, magic)) if magic == MAGIC => Err(Error::config(format!(
                "an object file was written by another version of this program path={} format={format}",
                path.display()
            ))),
            _ => Err(reader.damaged("it does not begin as one")),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        let Position { blocks, .. } = self.position;
        Error::corrupt(format!("an object file is damaged: {what} path={} block={blocks}", self.path.display()))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
            _ => unreadable(self.path, error),
        })
    }

    /// The number of elements of the next block, and their bytes; `None` at the end.
    fn block(&mut self) -> Result<Option<(u32, Vec<u8>)>> {
        let mut head = [0; HEAD_BYTES];
        self.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, elements) = (number(0), number(4));
        let mut data = Vec::new();
        // A length that is wrong takes no more memory than the file has bytes.
        let read = (&mut self.file).take(u64::from(length)).read_to_end(&mut data);
        let read = read.map_err(|error| unreadable(self.path, error))?;
        if u32::try_from(read).ok() != Some(length) {
            return Err(self.damaged("it is cut off"));
        }
        if self.position.checksum(length, elements, &data).to_le_bytes() != head[8..] {
            return Err(self.damaged("a checksum is wrong"));
        }
        self.position.advance(elements);
        if elements > 0 {
            return Ok(Some((elements, data)));
        }
        match self.file.read(&mut [0]).map_err(|error| unreadable(self.path, error))? {
            0 => Ok(None),
            _ => Err(self.damaged("there is more after its end")),
        }
    }

    /// Gives every element to `each`.
    fn each(mut self, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Result<Flow> {
        while let Some((elements, data)) = self.block()? {
            if task.is_cancelled() {
                break;
            }
            let mut rest = data.as_slice();
            for _ in 0..elements {
                let (item, after) =
                    postcard::take_from_bytes(rest).map_err(|error| self.other_type().caused_by(error))?;
                rest = after;
                let flow = each(item);
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            if !rest.is_empty() {
                return Err(self.other_type());
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whole bytes that are not of this type.
    fn other_type(&self) -> Error {
        let path = self.path.display();
        Error::config(format!("the elements of an object file are not of the type that they are read as path={path}"))
    }
}

struct ObjectFiles<T> {
    folder: PathBuf,
    parts: usize,
    elements: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Compute<T> for ObjectFiles<T> {
    fn partitions(&self) -> usize {
        self.parts
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let path = self.folder.join(part_name(partition));
        let read = Reader::open(&path, partition).and_then(|reader| reader.each(task, each));
        read.unwrap_or_else(|error| ControlFlow::Break(Stop::Failed(error)))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

impl<T: DeserializeOwned + Send + 'static> Rdd<T> {
    /// The elements that [`save_as_object_file`](Rdd::save_as_object_file), or a batch of
    /// [`save_as_object_files`](super::DStream::save_as_object_files), left in a folder: in the same partitions and in the same
    /// order. Read anew with each action, block by block. Several folders: [`union`](Rdd::union). Spark: `objectFile`.
    ///
    /// `T` must be the type that was written: fields are known by their order, not by their names.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("numbers").display().to_string();
    /// Rdd::parallelize(1..=5_u32, 2).save_as_object_file(&path)?;
    /// assert_eq!(Rdd::<u32>::object_file(&path)?.collect()?, [1, 2, 3, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is not there, or was not written as such a folder. An action fails with
    /// [`Corrupt`](ErrorKind::Corrupt) where a file is cut off or altered, and with `Config` where the type is another one.
    pub fn object_file(path: &str) -> Result<Self> {
        let folder = Path::new(path);
        let Some(marker) = Marker::read(folder)? else {
            return Err(Error::new(ErrorKind::Config, format!("there is no whole folder of object files path={path}")));
        };
        let (folder, parts) = (folder.to_owned(), marker.parts);
        Ok(Self::new(Arc::new(ObjectFiles { folder, parts, elements: PhantomData }), BatchScope::outside()))
    }
}
