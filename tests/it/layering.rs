//! Which module may import which: the table of `docs/architecture.md`, kept by parsing every file under `src/`.
//!
//! Seen are `use` trees of any shape, plain paths, paths inside macros, and paths in attribute strings (`serde(with)`).
//! What could hide an import is refused: naming the crate root itself (`use crate as x`, `use crate::*`), re-exports at
//! the root, `extern crate self`, `#[path]` and `include!`.
//!
//! Not seen: what a macro of another crate makes up, and the order of the steps within `gateway`.

mod checker;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::Item;

use checker::{owner, violations};

/// The words, the settings and the log: what each role may use of ours.
const SHARED: &[&str] = &["api", "config", "telemetry"];
const ALL: &[&str] = &[
    "api",
    "config",
    "telemetry",
    "gateway",
    "control_plane",
    "delegate",
    "runner",
    "agent",
    "app",
    "cli",
];

/// Module → what it may import beside itself. `main` is the program, `lib` the map of the crate.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("config", &["api"]),
    ("telemetry", &["config"]),
    ("gateway", SHARED),
    ("control_plane", SHARED),
    ("delegate", SHARED),
    ("runner", SHARED),
    ("agent", SHARED),
    (
        "app",
        &[
            "api",
            "config",
            "telemetry",
            "gateway",
            "control_plane",
            "delegate",
            "runner",
            "agent",
        ],
    ),
    ("cli", ALL),
    ("main", &["config", "telemetry", "app", "cli"]),
    ("lib", &[]),
];

#[test]
fn no_module_imports_what_the_table_forbids() {
    let files = sources();
    let mut read = BTreeMap::<String, usize>::new();
    let mut problems = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a file that was just listed can be read");
        let place = place_of(file.strip_prefix(root()).expect("listed below the root"));
        *read.entry(owner(&place)).or_default() += 1;
        for problem in violations(&place, &text) {
            problems.push(format!("{}: {problem}", file.display()));
        }
    }
    for (module, _) in MAY_IMPORT {
        assert!(
            read.contains_key(*module),
            "no file of `{module}` was read: the table or the walk is wrong"
        );
    }
    assert!(
        problems.is_empty(),
        "imports against the table:\n  {}",
        problems.join("\n  ")
    );
}

#[test]
fn the_table_names_the_modules_of_the_crate() {
    let text = fs::read_to_string(root().join("lib.rs")).expect("src/lib.rs can be read");
    let file = syn::parse_file(&text).expect("src/lib.rs parses");
    let mut declared: Vec<String> = file
        .items
        .iter()
        .filter_map(|item| {
            if let Item::Mod(module) = item {
                Some(module.ident.to_string())
            } else {
                None
            }
        })
        .collect();
    declared.sort();
    let mut listed: Vec<&str> = ALL.to_vec();
    listed.sort_unstable();
    assert_eq!(declared, listed);
}

#[test]
fn forbidden_imports_are_found_in_every_disguise() {
    for (place, code) in [
        ("api", "use crate::config::Settings;"),
        ("gateway", "use crate::{api::Route, runner::Driver};"),
        (
            "gateway",
            "use crate::{api::{self, Route}, control_plane::{store::{Store}}};",
        ),
        ("gateway", "use crate::delegate as helper;"),
        ("gateway", "use crate::{api, delegate as helper};"),
        ("gateway", "use crate as root;"),
        ("gateway", "use crate::{self as root};"),
        ("gateway", "use crate::*;"),
        ("gateway", "use super::*;"),
        ("gateway", "use {crate::api::Route, crate::app::App};"),
        ("gateway::auth", "use super::super::runner::Driver;"),
        ("gateway::auth", "use self::super::super::{runner as r};"),
        ("gateway", "mod inner { use super::super::agent::Ide; }"),
        (
            "gateway",
            "mod inner { fn f() { super::super::agent::start(); } }",
        ),
        (
            "gateway",
            "#[cfg(test)] mod tests { use crate::runner::Driver; }",
        ),
        ("gateway", "fn f() { crate::runner::start(); }"),
        ("gateway", "fn f() { use crate::runner; }"),
        ("gateway", "fn f(driver: &dyn crate::runner::Driver) {}"),
        ("gateway", "impl crate::runner::Driver for X {}"),
        ("gateway", "fn f() { assert!(crate::runner::ready()); }"),
        (
            "gateway",
            "fn f() { select! { x = super::runner::next() => {} } }",
        ),
        (
            "gateway",
            "macro_rules! m { () => { use $crate::{api::A, runner::{B}}; } }",
        ),
        ("gateway", "fn f() { info!(\"{}\", [crate::cli::NAME]); }"),
        (
            "gateway",
            "struct S { #[serde(with = \"crate::app::time\")] at: u8 }",
        ),
        ("gateway", "pub use ::cde_gateway::runner::Driver;"),
        ("gateway", "use crate::Reexported;"),
        ("gateway", "extern crate self as me;"),
        ("gateway", "#[path = \"../runner/mod.rs\"] mod other;"),
        ("gateway", "include!(\"../runner/mod.rs\");"),
        ("runner", "use crate::agent::Ide;"),
        ("agent", "use crate::runner::Driver;"),
        ("control_plane", "use crate::app::Roles;"),
        ("app", "use crate::cli::Arguments;"),
        ("main", "use cde_gateway::runner::Driver;"),
        ("lib", "pub use gateway::Gateway;"),
        ("lib", "pub use self::gateway::Gateway;"),
    ] {
        assert!(
            !violations(&split(place), code).is_empty(),
            "passed in `{place}`: {code}"
        );
    }
}

#[test]
fn permitted_imports_pass() {
    for (place, code) in [
        (
            "api",
            "use super::api::Route; use std::{fmt, time::Duration};",
        ),
        (
            "api::id",
            "use super::*; use self::inner::X; pub(crate) fn f() {} pub(in crate::api) fn g() {}",
        ),
        (
            "config",
            "use crate::{api::{GitspaceId, Secret as Hidden}, config::Settings};",
        ),
        (
            "gateway::auth",
            "use super::{route::Route, super::api::Role}; use crate::telemetry;",
        ),
        (
            "gateway",
            "//! Unlike [`crate::runner`], and `crate::app`.\nfn f(&self) { self.runner(); Self::app(); }",
        ),
        (
            "gateway",
            "mod runner { pub fn f() {} } fn g() { runner::f(); self::runner::f(); }",
        ),
        (
            "gateway",
            "fn f() { info!(url = \"crate::runner is only text\", \"{self}\"); other::crate_runner::x(); }",
        ),
        ("cli", "use crate::{app::App, gateway, agent};"),
        ("main", "use cde_gateway::{cli, telemetry};"),
        ("lib", "pub mod gateway; pub mod runner;"),
    ] {
        assert_eq!(
            violations(&split(place), code),
            Vec::<String>::new(),
            "in `{place}`: {code}"
        );
    }
}

fn split(place: &str) -> Vec<String> {
    place.split("::").map(String::from).collect()
}

/// `gateway/auth/mod.rs` → `["gateway", "auth"]`.
fn place_of(file: &Path) -> Vec<String> {
    let mut place: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if place.last().is_some_and(|last| last == "mod") {
        place.pop();
    }
    place
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    walkdir::WalkDir::new(root())
        .into_iter()
        .map(|entry| entry.expect("src/ can be listed").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
