//! The program: see `cli` for its arguments.
fn main() {}
