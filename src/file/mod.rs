//! Bytes on disk: the `.tng` container.
//!
//! A container is a header and up to [`MAX_SECTIONS`] tagged sections. This storey knows where sections lie and
//! that they are whole; what they mean is the caller's. The one thing to know: every byte of a file is covered
//! by a check, and [`Mapped::open`] makes all of them, so a `Mapped` that exists is what a [`Writer`] finished.
//! What it cannot vouch for is that the writer meant well: contents are still to be validated by their owner.
//!
//! `docs/file-format.md` draws the layout.
//!
//! ```
//! use tonnage::file::{FileError, Mapped, Tag, Writer};
//!
//! const CODES: Tag = Tag::new("codes");
//!
//! # fn main() -> Result<(), FileError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = &folder.path().join("example.tng");
//! let mut writer = Writer::create(path)?;
//! writer.section_bytes(CODES, bytemuck::cast_slice(&[1.0_f32, 2.0]))?;
//! writer.finish()?;
//!
//! let file = Mapped::open(path)?;
//! assert_eq!(file.numbers::<f32>(CODES)?, [1.0, 2.0]);
//! # Ok(())
//! # }
//! ```

mod error;
mod layout;
mod map;
mod memory;
mod tag;
mod write;

pub use error::FileError;
pub use layout::{ALIGN, FORMAT_VERSION, MAX_SECTIONS, SectionInfo};
pub use map::Mapped;
pub use memory::available_bytes;
pub use tag::Tag;
pub use write::{Section, Summary, Writer};

#[cfg(not(target_endian = "little"))]
compile_error!("a .tng file is little-endian and is used in place: big-endian hosts are not supported");
