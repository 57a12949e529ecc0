//! A CSV file with a header line, record by record.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::StringRecord;

use super::InputError;
use super::disk::Disk;

/// A record longer than this is a quote that was never closed, and would be read into memory to the end of the file.
const MAX_RECORD_BYTES: usize = 1 << 20;

pub(super) struct CsvFile {
    path: PathBuf,
    reader: csv::Reader<Metered>,
    left: Rc<Cell<usize>>,
}

/// A file that may be read only so far before a record ends.
struct Metered {
    file: File,
    left: Rc<Cell<usize>>,
}

impl Read for Metered {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(self.left.get());
        if most == 0 && !out.is_empty() {
            let message = format!("a record of more than {MAX_RECORD_BYTES} bytes: is a quote left open?");
            return Err(io::Error::other(message));
        }
        let read = self.file.read(&mut out[..most])?;
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

impl CsvFile {
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let file = Disk::open(path)?.try_clone()?;
        let left = Rc::new(Cell::new(MAX_RECORD_BYTES));
        let reader = csv::Reader::from_reader(Metered { file, left: Rc::clone(&left) });
        Ok(CsvFile { path: path.into(), reader, left })
    }

    /// The names in the first line.
    pub(super) fn header(&mut self) -> Result<Vec<String>, InputError> {
        let header = self.reader.headers().map_err(|e| refused(&self.path, &e))?;
        Ok(header.iter().map(str::to_owned).collect())
    }

    /// Calls `f(line, record)` for each record after the header.
    pub(super) fn for_each<E: From<InputError>>(
        &mut self,
        mut f: impl FnMut(u64, &StringRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut record = StringRecord::new();
        loop {
            self.left.set(MAX_RECORD_BYTES);
            if !self.reader.read_record(&mut record).map_err(|e| refused(&self.path, &e))? {
                return Ok(());
            }
            f(record.position().map_or(0, csv::Position::line), &record)?;
        }
    }
}

fn refused(path: &Path, error: &csv::Error) -> InputError {
    InputError::format(
        path,
        "CSV in UTF-8 whose records all have the fields of the header",
        error.to_string(),
        "correct the line, or export again",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Ids;
    use super::super::testing::{Folder, assert_says};
    use super::MAX_RECORD_BYTES;

    #[test]
    fn bad_records_are_refused_with_their_line() {
        let folder = Folder::new();
        for (bytes, says) in [
            (&b"id,b\n1,2\n3\n"[..], &["line: 3", "fields"][..]),
            (b"id,b\n1,2\n3,\xff\n", &["line 3", "UTF-8"]),
            (b"id,b\n1,2\n,3\n", &["line 3", "column id", "nothing"]),
            (b"1,2\n3,4\n", &["`id` or", "`1`, `2`"]),
            (b"id,id\n1,2\n", &["one column", "`id`, `id`"]),
            (b"", &["`id` or", "none"]),
        ] {
            let path = folder.file("a.csv", bytes);
            assert_says(&Ids::open(&path).unwrap_err(), &path, says);
        }
    }

    #[test]
    fn a_quote_left_open_does_not_swallow_the_file() {
        let folder = Folder::new();
        let row = "1,some words\n";
        let many = row.repeat(3 * MAX_RECORD_BYTES / row.len());
        let path = folder.file("a.csv", format!("id,text\n1,\"open\n{many}"));
        assert_says(&Ids::open(&path).unwrap_err(), &path, &["quote left open"]);
    }

    #[test]
    fn a_long_file_of_short_records_is_read_to_its_end() {
        let folder = Folder::new();
        let lines = (0..300_000).map(|id: u32| id.to_string()).collect::<Vec<_>>().join("\n");
        let path = folder.file("a.csv", format!("\u{feff}id\r\n{lines}"));
        assert_eq!(Ids::open(&path).unwrap(), Ids::U64((0..300_000).collect()));
    }
}
