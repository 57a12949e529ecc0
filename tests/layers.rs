//! The house keeps its order: imports run downward, files stay short, and `unsafe`, printing and the environment
//! stay in the rooms that are allowed them. `src/lib.rs` has the map.
//!
//! The source is read token by token, without comments and literals, and paths are resolved to the folder they
//! lead to. Tests inside `src/` keep the same rules.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

/// Every folder of `src/`. A file imports from its own folder and from folders of lower rank.
const RANKS: [(&str, u8); 12] = [
    ("kernel", 0),
    ("file", 0),
    ("kv", 0),
    ("codec", 1),
    ("input", 1),
    ("graph", 2),
    ("store", 2),
    ("catalog", 3),
    ("engine", 4),
    ("plan", 5),
    ("service", 5),
    ("cli", 6),
];
/// These see everything.
const FREE: [&str; 2] = ["lib.rs", "main.rs"];
const UNSAFE_ROOMS: [&str; 4] = ["kernel/", "file/map.rs", "graph/scratch.rs", "graph/walk.rs"];
const TALKING_ROOMS: [&str; 2] = ["cli/", "main.rs"];
const PRINTING: [&str; 5] = ["println", "print", "eprintln", "eprint", "dbg"];
const MAX_LINES: usize = 500;

#[test]
fn the_house_keeps_its_order() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "{} has no lib.rs", src.display());
    let found: Vec<String> = files.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Every Rust file below `folder` as (path from `src/`, text).
fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

// ---------------------------------------------------------------------------------------------- the rules

/// All that is wrong with a file, given its path from `src/`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines where {MAX_LINES} are the most"));
    }
    let within = |rooms: &[&str]| rooms.iter().any(|room| path.starts_with(room));
    let rank = rank_of(path.split('/').next().unwrap());
    if rank.is_none() && !FREE.contains(&path) {
        found.push(format!("{path}: not in a folder of the house"));
    }
    let tokens = tokens(text);
    for (i, Token { text, line }) in tokens.iter().enumerate() {
        if text == "unsafe" && !within(&UNSAFE_ROOMS) {
            found.push(format!("{path}:{line}: unsafe"));
        }
        let called = text_at(&tokens, i + 1) == "!" && text_at(&tokens, i + 2) != "=";
        if called && PRINTING.contains(&text.as_str()) && !within(&TALKING_ROOMS) {
            found.push(format!("{path}:{line}: prints with {text}!"));
        }
    }
    for Import { path: target, line } in imports(module_of(path), &tokens) {
        if target.starts_with(&["std".into(), "env".into()]) && !within(&TALKING_ROOMS) {
            found.push(format!("{path}:{line}: reads std::env"));
        }
        if let (Some(rank), Some(("crate", inside))) = (rank, target.split_first().map(|(a, b)| (a.as_str(), b))) {
            found.extend(import_fault(path, rank, inside).map(|fault| format!("{path}:{line}: {fault}")));
        }
    }
    found
}

/// What is wrong with importing `target`, a path from the crate's root, in a file of this rank.
fn import_fault(path: &str, rank: u8, target: &[String]) -> Option<String> {
    let folder = target.first().map_or("", String::as_str);
    if path.starts_with(&format!("{folder}/")) {
        return None;
    }
    match rank_of(folder) {
        None => Some("reaches for the crate's root".into()),
        Some(other) if other < rank => None,
        Some(other) => Some(format!("imports {folder}, whose rank {other} is not below {rank}")),
    }
}

fn rank_of(folder: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == folder).map(|(_, rank)| *rank)
}

/// `graph/search.rs` is the module `graph::search`, `graph/mod.rs` is `graph`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let root = matches!(path, "lib" | "main");
    path.split('/').filter(|_| !root).map(str::to_owned).collect()
}

// ---------------------------------------------------------------------------------------------- the paths

/// A path with `crate` or an external crate first, as an import or inline.
struct Import {
    path: Vec<String>,
    line: usize,
}

fn imports(mut module: Vec<String>, tokens: &[Token]) -> Vec<Import> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut inline_modules = Vec::new();
    let mut at = 0;
    while let Some(Token { text, line }) = tokens.get(at) {
        let mut paths = Vec::new();
        match text.as_str() {
            "mod" if text_at(tokens, at + 2) == "{" => {
                inline_modules.push(depth);
                module.push(tokens[at + 1].text.clone());
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline_modules.last() == Some(&depth) {
                    inline_modules.pop();
                    module.pop();
                }
            }
            // `use<'a>` is a bound, not an import.
            "use" if text_at(tokens, at + 1) != "<" => {
                at += 1;
                use_tree(tokens, &mut at, &[], &mut paths);
            }
            "crate" | "self" | "super" | "std" if text_at(tokens, at + 1) == "::" => {
                paths.push(inline_path(tokens, &mut at));
            }
            _ => {}
        }
        found.extend(paths.into_iter().map(|path| Import { path: resolve(&module, &path), line: *line }));
        at += 1;
    }
    found
}

/// The paths of a `use`, with its groups multiplied out. Leaves `at` on what ends the tree.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    loop {
        match text_at(tokens, *at) {
            "{" => {
                while !matches!(text_at(tokens, *at), "}" | ";" | "") {
                    *at += 1;
                    use_tree(tokens, at, &path, paths);
                }
                *at += 1;
                return;
            }
            "," | "}" | ";" | "" => {
                // Equal after the last comma of a group.
                if path.len() > prefix.len() {
                    paths.push(path);
                }
                return;
            }
            "as" => *at += 1,
            "::" => {}
            name => path.push(name.to_owned()),
        }
        *at += 1;
    }
}

/// The path that begins at `at`. Leaves `at` on its last name.
fn inline_path(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = vec![tokens[*at].text.clone()];
    while text_at(tokens, *at + 1) == "::" && is_name(text_at(tokens, *at + 2)) {
        *at += 2;
        path.push(tokens[*at].text.clone());
    }
    path
}

/// With `self` and `super` replaced by what they stand for in `module`.
fn resolve(module: &[String], path: &[String]) -> Vec<String> {
    let local = matches!(path.first().map(String::as_str), Some("self" | "super"));
    let mut resolved = if local { [&["crate".to_owned()], module].concat() } else { Vec::new() };
    for name in path {
        match name.as_str() {
            "self" => {}
            "super" => drop(resolved.pop()),
            _ => resolved.push(name.clone()),
        }
    }
    resolved
}

// ---------------------------------------------------------------------------------------------- the tokens

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Names, `::` and single signs; no comments, strings, characters or lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = match skipped(rest) {
            0 if is_name(rest) => (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true),
            0 if rest.starts_with("::") => (2, true),
            0 => (first.len_utf8(), true),
            length => (length, false),
        };
        if is_token {
            tokens.push(Token { text: rest[..length].to_owned(), line });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// How much of the beginning is space, a comment, a literal or a lifetime.
fn skipped(text: &str) -> usize {
    let spaces = text.len() - text.trim_start().len();
    if spaces > 0 {
        return spaces;
    }
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    // A literal may have a prefix, then hashes if it is raw. `r#type` is a raw name.
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| text.starts_with(prefix)).unwrap_or("");
    let literal = &text[prefix.len()..];
    let hashes = literal.len() - literal.trim_start_matches('#').len();
    if prefix.ends_with('r') && literal[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix.len() + hashes + 1;
        return text[body..].find(&end).map_or(text.len(), |at| body + at + end.len());
    }
    match (prefix, literal.chars().next()) {
        ("r", Some('#')) => 2,
        ("" | "b" | "c", Some('"')) => prefix.len() + quoted(literal, '"'),
        ("" | "b", Some('\'')) => prefix.len() + character_or_lifetime(literal),
        _ => 0,
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a literal from its opening quote to its closing one.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') {
        return quoted(text, '\'');
    }
    1 + text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - 1)
}

// ---------------------------------------------------------------------------------------------- does it see?

/// The one thing wrong with a snippet, after its path.
#[track_caller]
fn only_fault(path: &str, text: &str) -> String {
    let mut found = violations(path, text);
    assert_eq!(found.len(), 1, "{text}\n{found:?}");
    found.pop().unwrap().trim_start_matches(path).trim_start_matches(':').to_owned()
}

#[track_caller]
fn sound(path: &str, text: &str) {
    assert_eq!(violations(path, text), [""; 0], "{text}");
}

#[test]
fn imports_upward_and_sideways_are_seen() {
    let upward = "1: imports catalog, whose rank 3 is not below 2";
    for text in [
        "use crate::catalog::Index;",
        "pub use crate::catalog;",
        "use crate::{\n codec::Codec, catalog::{Index,},};",
        "use super::super::catalog::Index;",
        "use super::super::{catalog as c};",
        "fn f(index: &crate::catalog::Index) {}",
        "fn f() -> Vec<super::super::catalog::Index> { todo() }",
        "macro_rules! m { () => { $crate::catalog::open() } }",
        "#[cfg(test)] mod tests { use crate::catalog::Index; }",
        "#[cfg(test)] mod tests { use super::super::super::catalog::Index; }",
    ] {
        assert_eq!(only_fault("graph/search.rs", text), upward, "{text}");
    }
    assert_eq!(only_fault("graph/mod.rs", "use super::catalog::Index;"), upward);
    let sideways = "2: imports store, whose rank 2 is not below 2";
    assert_eq!(only_fault("graph/search.rs", "\nuse crate::store::Page;"), sideways);
    let ground = "1: imports file, whose rank 0 is not below 0";
    assert_eq!(only_fault("kernel/x86/avx2.rs", "use super::super::super::file::Tag;"), ground);
    let two = violations("kv/mod.rs", "use crate::{codec, file::{Tag, Mapped as M}};");
    assert_eq!(two.len(), 3, "{two:?}");
}

#[test]
fn reaching_for_the_crate_root_is_seen() {
    for text in ["use crate::*;", "use crate as house;", "use super::super::{self as house};", "use crate::Item;"] {
        assert_eq!(only_fault("graph/search.rs", text), "1: reaches for the crate's root", "{text}");
    }
}

#[test]
fn imports_downward_and_within_are_sound() {
    sound("graph/search.rs", "use crate::codec::Codec; use crate::{kernel, graph::queue}; use super::{self, queue};");
    sound("graph/search.rs", "mod tests { use super::super::queue; mod deeper { use super::super::super::queue; } }");
    sound("graph/search.rs", "mod a { fn f() {} } use super::queue; pub(in crate::graph) fn f() {}");
    sound("graph/search.rs", "fn f(q: &self::Queue) -> impl Iterator<Item = u8> + use<'_> { super::queue::new() }");
    sound("graph/search.rs", "use std::collections::{BinaryHeap, HashMap}; use rayon::prelude::*;");
    sound("cli/build.rs", "use crate::{catalog, engine, kernel, plan, service, store};");
    sound("main.rs", "use tonnage::cli; use crate::anything;");
}

#[test]
fn rooms_without_leave_are_seen() {
    assert_eq!(only_fault("store/page.rs", "fn f() {\n    unsafe { g() }\n}"), "2: unsafe");
    assert_eq!(only_fault("file/write.rs", "unsafe impl Send for Writer {}"), "1: unsafe");
    for printer in ["print", "println", "eprint", "eprintln", "dbg"] {
        for call in ["!", " !"] {
            let text = format!("fn f() {{ std::{printer}{call}(\"x\"); }}");
            assert_eq!(only_fault("engine/mod.rs", &text), format!("1: prints with {printer}!"), "{text}");
        }
    }
    for text in ["use std::env;", "use std::{fs, env::var};", "fn f() { ::std::env::var(\"X\"); }"] {
        assert_eq!(only_fault("service/mod.rs", text), "1: reads std::env", "{text}");
    }
    sound("file/map.rs", "fn f() { unsafe { g() } }");
    sound("kernel/neon.rs", "unsafe fn f() {}");
    sound("cli/mod.rs", "use std::env; fn f() { print!(\"x\") }");
    sound("engine/mod.rs", "fn print(dbg: bool) -> bool { dbg != true && env!(\"CARGO_PKG_VERSION\") != \"\" }");
}

#[test]
fn strange_folders_and_long_files_are_seen() {
    assert_eq!(only_fault("util/mod.rs", ""), " not in a folder of the house");
    assert_eq!(only_fault("helpers.rs", ""), " not in a folder of the house");
    sound("graph/mod.rs", &"\n".repeat(500));
    assert_eq!(only_fault("graph/mod.rs", &"\n".repeat(501)), " 501 lines where 500 are the most");
}

#[test]
fn comments_and_literals_are_not_code() {
    for text in [
        "// unsafe println!() use crate::cli;",
        "/// use crate::cli;\n//! unsafe",
        "/* unsafe /* nested */ use crate::cli; */",
        r#"const A: &str = "unsafe \" use crate::cli; // "; const B: &[u8] = b"unsafe";"#,
        r##"const A: &str = r#"unsafe " println!() use crate::cli;"#;"##,
        "const A: [u8; 2] = [b'\"', b'\\'']; const B: char = '\"';",
        "fn f<'unsafe_>(a: &'unsafe_ str) -> char { '\\'' }",
        "fn r#unsafe_() {}",
        "const C: &std::ffi::CStr = c\"unsafe\"; const R: &[u8] = br\"unsafe\\\";",
    ] {
        sound("store/page.rs", text);
    }
    // And what follows them is.
    for text in [
        "/* a /* b */ c */ unsafe fn f() {}",
        "const A: &str = \"//\"; unsafe fn f() {}",
        "const A: &str = r#\"\"# ; unsafe fn f() {}",
        "const A: char = '\"'; unsafe fn f() {}",
        "fn g<'a>(a: &'a str) {} unsafe fn f() {}",
        "const A: char = '\\\\'; unsafe fn f() {}",
    ] {
        assert_eq!(only_fault("store/page.rs", text), "1: unsafe", "{text}");
    }
}
