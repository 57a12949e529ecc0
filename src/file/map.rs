//! Reading a file where it lies.

use std::fs::{File, metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use memmap2::{Mmap, MmapMut, MmapOptions};
use rayon::prelude::*;

use super::error::FileError;
use super::layout::{self, HEADER_LEN, SectionInfo, decode, hash_section};
use super::tag::Tag;

/// A `.tng` file, mapped into memory and verified byte by byte.
///
/// It stays readable when its name is given to another file or removed; see [`Writer`](super::Writer).
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
    sections: Vec<SectionInfo>,
}

impl Mapped {
    /// Map the file and check all of it: header, table, padding, and every section's checksum on all cores.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::check(path, map(path)?)
    }

    /// Reads the file into memory of its own, in huge pages where the system has them, and checks it like
    /// [`Mapped::open`]: nothing is waited for later, and nothing can be evicted but to swap.
    pub fn open_resident(path: &Path) -> Result<Self, FileError> {
        Self::check(path, read(path)?)
    }

    /// The [`content_hash`](Self::content_hash) that a file claims: the header is read and checked, and nothing else.
    pub fn claimed_hash(path: &Path) -> Result<u64, FileError> {
        let read = || {
            let mut file = open(path)?;
            let mut header = [0; HEADER_LEN];
            file.read_exact(&mut header)?;
            Ok((header, file.metadata()?.len()))
        };
        let (header, file_len) = read().map_err(FileError::io(path, "read its header"))?;
        Ok(layout::content_hash(&decode(path, &header, file_len)?))
    }

    fn check(path: &Path, map: Mmap) -> Result<Self, FileError> {
        let file_len = map.len() as u64;
        let Some(header) = map.first_chunk::<HEADER_LEN>() else {
            return Err(FileError::Length { path: path.to_owned(), expected: HEADER_LEN as u64, got: file_len });
        };
        let sections = decode(path, header, file_len)?;
        let file = Self { path: path.to_owned(), map, sections };
        file.check_padding()?;
        file.check_sections()?;
        Ok(file)
    }

    /// The bytes of a section; they begin at a multiple of [`ALIGN`](super::ALIGN) in memory too.
    pub fn section(&self, tag: Tag) -> Result<&[u8], FileError> {
        match self.sections.iter().find(|section| section.tag == tag) {
            Some(section) => Ok(self.bytes_of(section)),
            None => Err(FileError::Missing { path: self.path.clone(), tag }),
        }
    }

    /// A section as the little-endian numbers it holds.
    pub fn numbers<T: Pod>(&self, tag: Tag) -> Result<&[T], FileError> {
        let bytes = self.section(tag)?;
        bytemuck::try_cast_slice(bytes).map_err(|_| FileError::NotNumbers {
            path: self.path.clone(),
            tag,
            length: bytes.len(),
            size: size_of::<T>(),
        })
    }

    /// The section table, in file order.
    pub fn sections(&self) -> impl Iterator<Item = SectionInfo> {
        self.sections.iter().copied()
    }

    /// The file's size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a file holds at least its header")]
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// The name it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One number for all that the file holds: equal for equal sections in the same order.
    ///
    /// It tells builds apart; it is no defence against someone who wants two to look alike.
    pub fn content_hash(&self) -> u64 {
        layout::content_hash(&self.sections)
    }

    /// `decode` has checked that every section lies within the file, so neither cast nor slice can fail.
    fn bytes_of(&self, section: &SectionInfo) -> &[u8] {
        &self.map[section.offset as usize..][..section.length as usize]
    }

    fn check_padding(&self) -> Result<(), FileError> {
        let mut end = HEADER_LEN;
        for section in &self.sections {
            let padding = &self.map[end..section.offset as usize];
            if padding.iter().any(|&byte| byte != 0) {
                let what = format!("the padding before section `{}` is not zero", section.tag);
                return Err(FileError::Malformed { path: self.path.clone(), what });
            }
            end = (section.offset + section.length) as usize;
        }
        Ok(())
    }

    fn check_sections(&self) -> Result<(), FileError> {
        let found: Vec<u64> = self.sections.par_iter().map(|section| hash_section(self.bytes_of(section))).collect();
        for (section, got) in self.sections.iter().zip(found) {
            if section.checksum != got {
                return Err(FileError::Damaged {
                    path: self.path.clone(),
                    part: format!("section `{}`", section.tag),
                    expected: section.checksum,
                    got,
                });
            }
        }
        Ok(())
    }
}

/// A copy of the file.
fn read(path: &Path) -> Result<Mmap, FileError> {
    let copied = || {
        let mut file = open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut copy = MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        let _ = copy.advise(memmap2::Advice::HugePage); // where there are none, small pages do
        file.read_exact(&mut copy)?;
        copy.make_read_only()
    };
    copied().map_err(FileError::io(path, "read it"))
}

/// Opens a regular file.
fn open(path: &Path) -> io::Result<File> {
    // Asked before opening: to open a pipe is to wait for its other end.
    if !metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// The one map.
fn map(path: &Path) -> Result<Mmap, FileError> {
    let fail = FileError::io(path, "open it");
    let mapped = || {
        let file = open(path)?;
        // SAFETY: the slice made of a map is sound as long as nobody changes or shortens the file under it. We
        // never do: `Writer` writes under a temporary name and renames, which leaves the mapped file as it is
        // even when its name goes to another. Nothing can stop another program with write permission; that one
        // must not write to index files in place is asked of the user in docs/file-format.md.
        unsafe { MmapOptions::new().map(&file) }
    };
    mapped().map_err(fail)
}
