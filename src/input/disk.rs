//! One regular file, opened once, its length taken once, read at positions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::InputError;

/// An open file. The length is the one bound every header is checked against.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let fail = |source| InputError::io(path, "opening", source);
        // Asked before opening, because opening a named pipe waits for a writer that may never come.
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if !metadata.is_file() {
            return Err(InputError::format(
                path,
                "a regular file",
                if metadata.is_dir() { "a folder" } else { "a pipe or device" },
                "name one file; inputs are read more than once and out of order",
            ));
        }
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok(Disk { file, path: path.into(), len })
    }

    /// A file that stands in for `path`: errors name `path`, bytes come from `file`.
    pub(super) fn stand_in(file: File, path: &Path, len: u64) -> Self {
        Disk { file, path: path.into(), len }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// A second handle for readers that want a `File` of their own. It shares our cursor, which we never use.
    pub(super) fn try_clone(&self) -> Result<File, InputError> {
        self.file.try_clone().map_err(|e| InputError::io(&self.path, "opening again", e))
    }

    /// Fills `out` from byte `at`.
    pub(super) fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), InputError> {
        self.file.read_exact_at(out, at).map_err(|e| {
            if e.kind() != io::ErrorKind::UnexpectedEof {
                return InputError::io(&self.path, "reading", e);
            }
            InputError::format(
                &self.path,
                format!("{} bytes from byte {at}", out.len()),
                "the end of the file",
                "the file is truncated or was cut while being read: write it again, then rename it into place",
            )
        })
    }

    /// Reads up to `N` bytes from the start: what a file's magic is recognised by.
    pub(super) fn magic<const N: usize>(&self) -> Result<Vec<u8>, InputError> {
        let mut head = vec![0; N.min(self.len as usize)];
        self.read_at(0, &mut head)?;
        Ok(head)
    }
}

/// The formats a path may have, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Npy,
    Fvecs,
    Safetensors,
    Parquet,
    Arrow,
    Csv,
    Txt,
}

impl Kind {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "npy" => Kind::Npy,
            "fvecs" => Kind::Fvecs,
            "safetensors" => Kind::Safetensors,
            "parquet" | "pq" => Kind::Parquet,
            "arrow" | "feather" | "ipc" => Kind::Arrow,
            "csv" => Kind::Csv,
            "txt" => Kind::Txt,
            _ => return None,
        })
    }
}

/// Splits `file#name` into the file and the name of the tensor or column wanted from it.
/// A path that exists as it stands is never split; a name where there is nothing to choose is refused.
pub(super) fn split_name(path: &Path) -> Result<(PathBuf, Option<String>), InputError> {
    let split = path.to_str().and_then(|text| text.rsplit_once('#'));
    let Some((file, name)) = split.filter(|_| !path.exists()) else {
        return Ok((path.into(), None));
    };
    let file = PathBuf::from(file);
    if matches!(Kind::of(&file), Some(Kind::Npy | Kind::Fvecs | Kind::Txt)) {
        let expected = "no `#name`: the format holds one thing";
        return Err(InputError::format(&file, expected, format!("`#{name}`"), "drop the `#name`"));
    }
    Ok((file, Some(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_off_only_when_the_path_does_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a#b.npy");
        std::fs::write(&plain, b"x").unwrap();
        assert_eq!(split_name(&plain).unwrap(), (plain.clone(), None));
        let (file, name) = split_name(Path::new("/no/m.safetensors#users")).unwrap();
        assert_eq!((file, name.as_deref()), ("/no/m.safetensors".into(), Some("users")));
        assert_eq!(split_name(Path::new("/no/m.npy")).unwrap(), ("/no/m.npy".into(), None));
        let message = split_name(Path::new("/no/m.npy#x")).unwrap_err().to_string();
        assert!(message.contains("`#x`"), "{message}");
    }

    #[test]
    fn folders_and_pipes_are_refused_without_waiting() {
        let message = Disk::open(Path::new("/")).unwrap_err().to_string();
        assert!(message.contains("a folder"), "{message}");
        let message = Disk::open(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(message.contains("device"), "{message}");
    }
}
