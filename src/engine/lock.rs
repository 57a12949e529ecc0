//! One process at a time has a journal.
//!
//! The lock is on a file of its own beside the journal, which stays: the journal itself is another file each time that it
//! is written anew. The system takes the lock away from a process that ends, however it ends; the file is left.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::EngineError;
use super::journal::trouble;

/// A process's number is not longer.
const LONGEST_BYTES: u64 = 20;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a journal, or says who has it.
    pub fn take(journal: &Path) -> Result<Self, EngineError> {
        let path = beside(journal);
        let trouble = |source| trouble(&path, source);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(trouble)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EngineError::JournalInUse { path: journal.to_owned(), holder: holder(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(trouble(source)),
        }
        // for whoever finds it taken
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(trouble)?;
        Ok(Self { _file: file })
    }
}

fn beside(journal: &Path) -> PathBuf {
    let mut path = journal.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// The process that has it, as far as that can be told.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let number = file.take(LONGEST_BYTES).read_to_string(&mut text).ok().and_then(|_| text.parse::<u32>().ok());
    number.map_or_else(|| "another process".to_owned(), |number| format!("process {number}"))
}
