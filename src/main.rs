//! The `tonnage` command.
fn main() {}
