//! Every command that the README shows is run, in the order it shows them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::RedisServer;

/// The server that the README talks to.
const SERVER: &str = "redis://127.0.0.1:6379/0";

/// The commands in the fenced `sh` blocks, one a line; a backslash at the end joins a line to the next.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in readme.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        commands.extend(block.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    commands
}

#[test]
fn every_command_of_the_readme_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("data/debian")).unwrap();
    for file in fs::read_dir(root.join("data/debian")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join("data/debian").join(file.file_name())).unwrap();
    }
    let server = RedisServer::start(&[]);
    let mut ran = 0;
    for line in commands(&readme) {
        if let Some(arguments) = line.strip_prefix("tonnage ") {
            let arguments = arguments.replace(SERVER, &server.url());
            let output = Command::new(env!("CARGO_BIN_EXE_tonnage"))
                .args(arguments.split_whitespace())
                .current_dir(folder.path())
                .output()
                .unwrap();
            let said = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
            let (text, error) = (said(&output.stdout), said(&output.stderr));
            assert!(output.status.success() && !text.is_empty(), "{line}: {text}{error}");
            ran += 1;
        } else if line.starts_with("tools/") {
            assert!(root.join(&line).is_file(), "{line}");
        } else {
            // the binary is built by cargo already; `demo` itself is run in tests/cli/job.rs
            let known = ["cargo run --release -- demo", "cargo install --path ."];
            assert!(known.contains(&&line[..]), "{line}: a command that no test runs");
        }
    }
    assert!(ran >= 10, "only {ran} commands were found");
}

#[test]
fn every_file_that_the_readme_links_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for link in readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(link.starts_with("http") || root.join(link).exists(), "{link}");
    }
}
