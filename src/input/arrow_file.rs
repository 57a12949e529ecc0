//! An Arrow IPC file (`.arrow`, and `.feather` since version 2), streamed record batch by record batch.
//!
//! The crate's own file reader sizes buffers by lengths it has not compared with the file, and a refused
//! allocation aborts. So blocks are fetched here, their lengths checked first, and only then decoded.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::{Block, Message, MetadataVersion, root_as_footer, root_as_message};

use super::InputError;
use super::disk::Disk;
use super::table::{Batches, guarded, refused};

/// One record batch, as stored and again once decompressed, may take this much memory. Writers use batches of
/// thousands of rows, a few megabytes; a table written as one huge batch could not be read in bounded memory.
const MAX_BATCH_BYTES: u64 = 1 << 30;

const MAGIC: &[u8] = b"ARROW1";

pub(super) struct ArrowFile {
    disk: Disk,
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

impl ArrowFile {
    pub(super) fn open(disk: Disk) -> Result<Self, InputError> {
        let footer = read_footer(&disk)?;
        let (schema, version, dictionaries, batches) = guarded(disk.path(), || {
            let footer = root_as_footer(&footer).map_err(|e| refused(disk.path(), &e))?;
            let Some(schema) = footer.schema() else {
                return Err(bad(&disk, "a schema in the footer", "none"));
            };
            if !schema.endianness().equals_to_target_endianness() {
                return Err(bad(&disk, "the byte order of this machine", "the other"));
            }
            let schema = Arc::new(try_fb_to_schema(schema).map_err(|e| refused(disk.path(), &e))?);
            let dictionaries = footer.dictionaries().into_iter().flatten().copied().collect();
            let batches = footer.recordBatches().into_iter().flatten().copied().collect();
            Ok((schema, footer.version(), dictionaries, batches))
        })?;
        Ok(ArrowFile { disk, schema, version, dictionaries, batches })
    }

    pub(super) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All rows of the given columns, in the file's order.
    pub(super) fn batches(&self, columns: Vec<usize>) -> Result<Batches<'_>, InputError> {
        let decoder = self.decoder(columns)?;
        Ok(Box::new(self.batches.iter().map(move |block| self.batch(&decoder, block))))
    }

    fn decoder(&self, columns: Vec<usize>) -> Result<FileDecoder, InputError> {
        let mut decoder = FileDecoder::new(Arc::clone(&self.schema), self.version).with_projection(columns);
        for block in &self.dictionaries {
            let bytes = self.fetch(block)?;
            guarded(self.path(), || decoder.read_dictionary(block, &bytes).map_err(|e| refused(self.path(), &e)))?;
        }
        Ok(decoder)
    }

    fn batch(&self, decoder: &FileDecoder, block: &Block) -> Result<RecordBatch, InputError> {
        let bytes = self.fetch(block)?;
        let batch =
            guarded(self.path(), || decoder.read_record_batch(block, &bytes).map_err(|e| refused(self.path(), &e)))?;
        // To the decoder a message of no kind is nothing to read; to us it is rows gone missing.
        batch.ok_or_else(|| bad(&self.disk, "a record batch in every block", "an empty message"))
    }

    /// Reads a block and checks what it claims about itself.
    fn fetch(&self, block: &Block) -> Result<Buffer, InputError> {
        let lengths =
            (u64::try_from(block.offset()), u64::try_from(block.metaDataLength()), u64::try_from(block.bodyLength()));
        let (Ok(at), Ok(head), Ok(body)) = lengths else {
            return Err(bad(&self.disk, "blocks with lengths from 0", "a negative one"));
        };
        let end = at.checked_add(head).and_then(|end| end.checked_add(body));
        if end.is_none_or(|end| end > self.disk.len()) || head < 8 {
            return Err(bad(
                &self.disk,
                "every block inside the file",
                format!("{head} + {body} bytes from byte {at}"),
            ));
        }
        if head + body > MAX_BATCH_BYTES {
            return Err(too_large(&self.disk, head + body));
        }
        let mut bytes = MutableBuffer::from_len_zeroed((head + body) as usize);
        self.disk.read_at(at, bytes.as_slice_mut())?;
        let bytes = Buffer::from(bytes);
        guarded(self.path(), || {
            let (head, body) = bytes.as_slice().split_at(head as usize);
            // The length comes first; since 2019 after a marker of ones.
            let skip = if head.starts_with(&[0xff; 4]) { 8 } else { 4 };
            let message = root_as_message(&head[skip..]).map_err(|e| refused(self.path(), &e))?;
            self.check_decompressed(&message, body)
        })?;
        Ok(bytes)
    }

    /// Each compressed buffer begins with the length it will have; the decoder allocates what it says.
    fn check_decompressed(&self, message: &Message, body: &[u8]) -> Result<(), InputError> {
        let batch = message
            .header_as_record_batch()
            .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
        let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else {
            return Ok(());
        };
        let mut total = 0u64;
        for buffer in batch.buffers().into_iter().flatten() {
            let start = usize::try_from(buffer.offset()).ok();
            let prefix = start.and_then(|start| body.get(start..)).and_then(<[u8]>::first_chunk::<8>);
            if let Some(prefix) = prefix.filter(|_| buffer.length() > 0) {
                // -1 stands for a buffer left as it was.
                let length = i64::from_le_bytes(*prefix).max(0) as u64;
                total = total.saturating_add(length);
            }
        }
        if total > MAX_BATCH_BYTES {
            return Err(too_large(&self.disk, total));
        }
        Ok(())
    }
}

fn read_footer(disk: &Disk) -> Result<Vec<u8>, InputError> {
    let magic = disk.magic::<6>()?;
    if magic != MAGIC {
        let remedy = match magic.as_slice() {
            [b'F', b'E', b'A', b'1', ..] => "feather version 1 is not read: write version 2, the default since 2020",
            [0xff, 0xff, 0xff, 0xff, ..] => "an arrow stream has no index of its batches: write an IPC file (new_file)",
            _ => "the file is not an arrow IPC file: write it again, or name it for what it is",
        };
        let got = format!("`{}`", magic.escape_ascii());
        return Err(InputError::format(disk.path(), "`ARROW1`", got, remedy));
    }
    let mut tail = [0; 10];
    let Some(tail_at) = disk.len().checked_sub(tail.len() as u64) else {
        return Err(bad(disk, "a footer", "the end of the file"));
    };
    disk.read_at(tail_at, &mut tail)?;
    let length = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if &tail[4..] != MAGIC || u64::from(length) > tail_at {
        return Err(bad(disk, "a footer that ends in `ARROW1`", "none"));
    }
    let mut footer = vec![0; length as usize];
    disk.read_at(tail_at - u64::from(length), &mut footer)?;
    Ok(footer)
}

fn bad(disk: &Disk, expected: &str, got: impl Into<Box<str>>) -> InputError {
    InputError::format(disk.path(), expected, got, "the file is truncated or damaged: write it again")
}

fn too_large(disk: &Disk, got: u64) -> InputError {
    InputError::format(
        disk.path(),
        format!("record batches of at most {MAX_BATCH_BYTES} bytes"),
        format!("one of {got}"),
        "write smaller batches (pyarrow: max_chunksize, polars: record_batch_size) or parquet",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Vectors;
    use super::super::testing::{Folder, assert_says, fixed};

    #[test]
    fn relatives_of_the_format_are_told_apart() {
        let folder = Folder::new();
        for (bytes, says) in [
            (&b"FEA1 and so on"[..], "version 2"),
            (b"\xff\xff\xff\xff\0\0\0\0", "new_file"),
            (b"PAR1", "not an arrow IPC file"),
            (b"ARROW1", "footer"),
            (b"ARROW1\0\0\xff\xff\xff\x7fARROW1", "footer"),
            (b"ARROW1\0\0\0\0\0\0ARROW1", "readable table"),
        ] {
            let path = folder.file("a.arrow", bytes);
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &[says]);
        }
    }

    #[test]
    fn a_buffer_that_would_swell_past_the_limit_is_refused_before_it_is_made() {
        let folder = Folder::new();
        let zeros = vec![0.0; 3000];
        let path = folder.arrow("a.arrow", &[("v", fixed(1000, &zeros))]);
        let mut bytes = std::fs::read(&path).unwrap();
        // The uncompressed length stands before the compressed numbers: 12000 bytes become 2^40.
        let length = 12_000i64.to_le_bytes();
        let at = bytes.windows(8).position(|window| window == length).unwrap();
        bytes[at..at + 8].copy_from_slice(&(1i64 << 40).to_le_bytes());
        let path = folder.file("a.arrow", bytes);
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["1099511627776", "max_chunksize"]);
    }
}
