//! Writing a file so that nobody ever sees half of one.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::FileError;
use super::layout::{
    ALIGN, BLOCK_LEN, FORMAT_VERSION, HEADER_LEN, MAX_SECTIONS, SectionInfo, block_hash, content_hash, encode,
    next_offset, section_hash,
};
use super::tag::Tag;

/// Writes a `.tng` file under a temporary name beside the target, and renames it when all is on disk.
///
/// A writer that is dropped unfinished removes its temporary file and leaves the target as it was.
#[must_use = "a file appears only when `finish` is called"]
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    temp: NamedTempFile,
    sections: Vec<SectionInfo>,
    /// A section begun and not (yet) ended well.
    open: Option<Tag>,
    end: u64,
    /// The block being filled, kept between sections to be allocated once.
    block: Vec<u8>,
}

/// What [`Writer::finish`] has put on disk.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The file's size.
    pub bytes: u64,
    /// As [`Mapped::content_hash`](super::Mapped::content_hash) will report it.
    pub content_hash: u64,
    /// The section table.
    pub sections: Vec<SectionInfo>,
}

impl Writer {
    /// Begin a file that will be at `path`. What is there now stays until [`finish`](Self::finish) replaces it.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let fail = FileError::io(path, "create it");
        if path.is_dir() || path.file_name().is_none() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tonnage-").suffix(".tmp");
        // A temporary file is its owner's alone; what it becomes is as readable as the umask says.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temp = builder.tempfile_in(folder(path)).map_err(fail)?;
        Self::over(path, temp)
    }

    fn over(path: &Path, mut temp: NamedTempFile) -> Result<Self, FileError> {
        let end = HEADER_LEN as u64;
        // Until `finish` the header is a hole: zeros, which no reader takes for a file of ours.
        temp.seek(SeekFrom::Start(end)).map_err(FileError::io(path, "write it"))?;
        let (sections, block) = (Vec::new(), Vec::with_capacity(BLOCK_LEN));
        Ok(Self { path: path.to_owned(), temp, sections, open: None, end, block })
    }

    /// Begin a section, to be written to and then [`end`](Section::end)ed.
    ///
    /// A section that is dropped instead, or whose writing failed, spoils the writer: no further section and no
    /// `finish` will succeed, so that an error someone ignored cannot end up in a file.
    pub fn section(&mut self, tag: Tag) -> Result<Section<'_>, FileError> {
        self.check_ended()?;
        let refuse = |why| Err(FileError::Refused { path: self.path.clone(), tag, why });
        if self.sections.iter().any(|before| before.tag == tag) {
            return refuse("there is one of that name");
        }
        if self.sections.len() == MAX_SECTIONS {
            return refuse("the table is full");
        }
        let Some(offset) = next_offset(self.end) else {
            return refuse("the file is too long");
        };
        self.open = Some(tag);
        let padding = [0; ALIGN as usize];
        self.append(&padding[..(offset - self.end) as usize]).map_err(FileError::io(&self.path, "write it"))?;
        self.block.clear();
        Ok(Section { writer: self, tag, offset, blocks: Vec::new(), failed: false })
    }

    /// Write a section in one go.
    pub fn section_bytes(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), FileError> {
        let mut section = self.section(tag)?;
        let written = section.write_all(bytes);
        written.map_err(FileError::io(&section.writer.path, "write it"))?;
        section.end()
    }

    /// Write the header, bring all to disk, and put the file in its place.
    pub fn finish(mut self) -> Result<Summary, FileError> {
        self.check_ended()?;
        let path = &self.path;
        let file = self.temp.as_file_mut();
        file.rewind()
            .and_then(|()| file.write_all(&encode(FORMAT_VERSION, &self.sections)))
            .and_then(|()| file.sync_all())
            .map_err(FileError::io(path, "write it"))?;
        self.temp.persist(path).map_err(|failed| FileError::io(path, "put it in its place")(failed.error))?;
        // The rename itself is on disk only when the folder is.
        #[cfg(unix)]
        File::open(folder(path))
            .and_then(|folder| folder.sync_all())
            .map_err(FileError::io(path, "bring its folder to disk"))?;
        Ok(Summary { bytes: self.end, content_hash: content_hash(&self.sections), sections: self.sections })
    }

    fn check_ended(&self) -> Result<(), FileError> {
        match self.open {
            None => Ok(()),
            Some(tag) => Err(FileError::Refused { path: self.path.clone(), tag, why: "it was begun and not ended" }),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.temp.as_file_mut().write_all(bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// A section being written: [`Write`] to it in pieces of any size, then call [`end`](Self::end).
#[must_use = "a section that is not ended spoils the file"]
#[derive(Debug)]
pub struct Section<'w> {
    writer: &'w mut Writer,
    tag: Tag,
    offset: u64,
    blocks: Vec<u64>,
    failed: bool,
}

impl Section<'_> {
    /// Write what is left and enter the section in the table.
    pub fn end(mut self) -> Result<(), FileError> {
        let written = if self.failed { Err(io::Error::other("an earlier write failed")) } else { self.put_block() };
        let Self { writer, tag, offset, blocks, .. } = self;
        written.map_err(FileError::io(&writer.path, "write it"))?;
        let (length, checksum) = (writer.end - offset, section_hash(&blocks));
        writer.sections.push(SectionInfo { tag, offset, length, checksum });
        writer.open = None;
        Ok(())
    }

    /// Hash and write the block gathered so far, full or the section's last.
    fn put_block(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.writer.block);
        if block.is_empty() {
            return Ok(());
        }
        self.blocks.push(block_hash(&block));
        let written = self.writer.append(&block);
        self.failed |= written.is_err();
        self.writer.block = block;
        self.writer.block.clear();
        written
    }
}

impl Write for Section<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_LEN - self.writer.block.len());
        self.writer.block.extend_from_slice(&bytes[..taken]);
        if self.writer.block.len() == BLOCK_LEN {
            self.put_block()?;
        }
        Ok(taken)
    }

    /// Does nothing: blocks are of one size whenever their bytes come, and `finish` brings them to disk.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tag = Tag::new("a");

    fn message(error: &FileError) -> String {
        error.to_string()
    }

    #[test]
    fn a_full_disk_is_told_and_cannot_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("full.tng");
        let full = || {
            let file = File::options().write(true).open("/dev/full").unwrap();
            // The path is only for the removal when dropped, which must not hit the device.
            let name = tempfile::TempPath::try_from_path(folder.path().join("gone")).unwrap();
            Writer::over(&target, NamedTempFile::from_parts(file, name)).unwrap()
        };

        let error = full().section_bytes(A, b"x").unwrap_err();
        assert!(message(&error).contains("could not write it: No space left"), "{error}");

        let mut writer = full();
        let mut section = writer.section(A).unwrap();
        section.write_all(&vec![1; BLOCK_LEN]).unwrap_err();
        let error = section.end().unwrap_err();
        assert!(message(&error).contains("an earlier write failed"), "{error}");
        let error = writer.section(Tag::new("b")).unwrap_err();
        assert!(message(&error).contains("section `a` cannot be written: it was begun and not ended"), "{error}");
        writer.finish().unwrap_err();
        assert!(!target.exists());
    }
}
