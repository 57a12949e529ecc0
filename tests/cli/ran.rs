//! The built binary run in a folder, and what it did.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    /// All of these words are somewhere in what it said.
    pub fn says(&self, words: &[&str]) {
        let all = format!("{}{}", self.out, self.err);
        assert!(words.iter().all(|word| all.contains(word)), "{words:?} in {all}");
    }

    /// Refused with that code and all of these words, in one line and with nothing on standard output.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, &self.out[..]), (code, ""), "{self:?}");
        assert!(words.iter().all(|word| self.err.contains(word)), "{words:?} in {}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
    }
}

pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonnage"));
    command.current_dir(folder).args(line.split_whitespace()).stdin(Stdio::null());
    command
}

pub fn run(folder: &Path, line: &str) -> Ran {
    let output = command(folder, line).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}
