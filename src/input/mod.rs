//! What training leaves, read in bounded memory: matrices of vectors, ids, tags, numbers, popularity, interactions,
//! requests.
//!
//! | in | from | read by |
//! |---|---|---|
//! | vectors | `.npy` `.fvecs` `.safetensors` `.parquet` `.arrow` `.feather` | [`Vectors`] |
//! | ids | `.txt` `.npy` `.csv` `.parquet` `.arrow` `.feather` | [`Ids`] |
//! | tags | `.csv` `.parquet` `.arrow` `.feather` | [`read_tags`] |
//! | numbers | same | [`read_numbers`] |
//! | popularity | same | [`read_popularity`] |
//! | interactions | same | [`read_interactions`] |
//! | requests | same | [`read_accesses`] |
//!
//! Every file is treated as hostile: it may be cut short, flipped, ragged or a lie, and the answer is an
//! [`InputError`] that names the file, the place, what was expected, what was found and what to do about it.
//! Nothing is allocated on the word of a header before that word is checked against the length of the file.
//!
//! Files are read with positioned reads and are **not memory-mapped**. The inputs are the files most likely to be
//! rewritten while we read them (a trainer's output folder); a mapped file that shrinks kills the process with
//! SIGBUS, a positioned read returns an error. It also keeps resident memory to the buffers seen in the code.
//!
//! Numbers of rows and columns in messages count from 0, as numpy does; lines of text files count from 1, as
//! editors do. `file#name` selects one tensor or one column when a file has several.

mod accesses;
mod arrow_file;
mod column;
mod csv_file;
mod disk;
mod error;
mod fvecs;
mod id;
mod id_index;
mod ids;
mod interactions;
mod layout;
mod npy;
mod numbers;
mod parquet_file;
mod popularity;
mod safetensors_file;
mod sheet;
mod spool;
mod table;
mod tags;
#[cfg(test)]
mod testing;
mod texts;
mod vectors;

pub use accesses::read_accesses;
pub use error::{InputError, Place, check_rows};
pub use id::{Id, MAX_ID_BYTES};
pub use id_index::IdIndex;
pub use ids::Ids;
pub use interactions::read_interactions;
pub use layout::MAX_DIM;
pub use numbers::{MAX_FIELDS, Numbers, read_numbers};
pub use popularity::read_popularity;
pub use tags::{Tags, read_tags};
pub use texts::Texts;
pub use vectors::Vectors;
