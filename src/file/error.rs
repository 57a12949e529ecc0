//! What can be wrong with a file, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::tag::Tag;

/// Why a `.tng` file could not be written or opened. Every message names the file and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("{}: could not {doing}: {source}", path.display())]
    Io {
        /// The file asked for.
        path: PathBuf,
        /// What was being done, to be read after "could not".
        doing: &'static str,
        /// The system's own words.
        source: io::Error,
    },
    /// The first bytes are not those of a `.tng` file.
    #[error("{}: not a .tng file, or one translated as text on its way here: copy it again as binary", path.display())]
    NotTng {
        /// The file asked for.
        path: PathBuf,
    },
    /// A format this program does not know yet.
    #[error("{}: written by a newer Tonnage (format {got}, this reads up to {reads}): upgrade", path.display())]
    NewerVersion {
        /// The file asked for.
        path: PathBuf,
        /// The format version in the file.
        got: u32,
        /// The newest this program reads.
        reads: u32,
    },
    /// Cut short, or grown.
    #[error("{}: {got} bytes long where {expected} are expected: copy or build it again", path.display())]
    Length {
        /// The file asked for.
        path: PathBuf,
        /// Bytes the header promises; the header's own size if there is less than that.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// Some bytes are not those that were written.
    #[error("{}: {part} is damaged (checksum {got:016x}, expected {expected:016x}): copy or build it again", path.display())]
    Damaged {
        /// The file asked for.
        path: PathBuf,
        /// The header, or which section.
        part: String,
        /// The checksum in the file.
        expected: u64,
        /// The checksum of the bytes there are.
        got: u64,
    },
    /// The checksums hold, but no Tonnage wrote this.
    #[error("{}: malformed: {what}: build it again", path.display())]
    Malformed {
        /// The file asked for.
        path: PathBuf,
        /// The rule it breaks.
        what: String,
    },
    /// A section that is not there.
    #[error("{}: has no section `{tag}`: build it again", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
        /// The section asked for.
        tag: Tag,
    },
    /// A section that does not hold a whole number of the numbers asked for.
    #[error("{}: section `{tag}` of {length} bytes is not a list of {size}-byte numbers: build it again", path.display())]
    NotNumbers {
        /// The file asked for.
        path: PathBuf,
        /// The section asked for.
        tag: Tag,
        /// Its length in bytes.
        length: usize,
        /// Bytes of one number.
        size: usize,
    },
    /// A section that cannot be written; the fault is the caller's.
    #[error("{}: section `{tag}` cannot be written: {why}", path.display())]
    Refused {
        /// The file being written.
        path: PathBuf,
        /// The section at fault.
        tag: Tag,
        /// The rule it breaks.
        why: &'static str,
    },
}

impl FileError {
    /// For `map_err`: the failed step and the file it was for.
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }
}
