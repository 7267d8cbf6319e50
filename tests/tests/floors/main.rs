//! Floors: inside every crate modules use each other in one direction only.

#![allow(clippy::unwrap_used, reason = "tests")]

mod graph;

use std::collections::BTreeSet;
use std::path::Path;

use graph::{Edges, ModulePath, Modules, circles};

/// Crates with the file that they begin with.
const CRATES: [&str; 8] = [
    "shared/src/lib.rs",
    "node/src/lib.rs",
    "aggregator/src/lib.rs",
    "client/src/lib.rs",
    "certs/src/lib.rs",
    "verifier/src/lib.rs",
    "cli/src/main.rs",
    "tests/src/lib.rs",
];

/// Modules that are in a circle still. This list may only become shorter.
const KNOWN: [(&str, &[&str]); 2] = [
    (
        "shared/src/lib.rs",
        &[
            "log::bundle",
            "log::bundle::manifest",
            "log::bundle::node",
            "log::bundle::node_archive",
            "log::bundle::readable",
            "log::bundle::report",
            "log::bundle::trust",
            "log::bundle::verify",
            "log::bundle::words",
            "log::filter",
            "log::filter::conditions",
            "log::filter::erased",
            "log::filter::evaluate",
            "log::filter::nodes",
            "log::filter::print",
            "log::filter::version_1",
            "log::filter::version_2",
            "log::filter::version_2::keys",
            "log::redact",
            "log::redact::names",
            "log::redact::texts",
            "log::redact::texts::addresses",
            "log::redact::texts::commands",
            "log::redact::texts::headers",
            "log::redact::texts::keyed",
            "log::redact::texts::markup",
            "log::redact::texts::phrases",
            "log::redact::texts::shapes",
            "log::redact::texts::sql",
            "log::redact::values",
            "log::redact::walk",
            "log::time",
            "log::zone",
        ],
    ),
    (
        "node/src/lib.rs",
        &[
            "api",
            "api::append",
            "api::http",
            "api::peer",
            "api::socket",
            "api::stream",
            "api::upkeep",
            "config",
            "crate",
            "forward",
            "forward::config",
            "forward::file",
            "forward::place",
            "forward::sink",
            "forward::stream",
            "forward::webhook",
            "forward::worker",
            "intake",
            "intake::config",
            "intake::files",
            "intake::files::content",
            "intake::files::known",
            "intake::join",
            "intake::journal",
            "intake::mapping",
            "intake::mapping::input",
            "intake::mapping::rule",
            "intake::pipeline",
            "intake::syslog",
            "intake::syslog::framing",
            "intake::syslog::message",
            "kept",
            "store",
            "store::aside",
            "store::check",
            "store::direct",
            "store::earlier",
            "store::epochs",
            "store::erase",
            "store::floor",
            "store::hold",
            "store::index",
            "store::index::block",
            "store::index::builder",
            "store::index::check",
            "store::index::encode",
            "store::index::indexer",
            "store::index::stored",
            "store::judging",
            "store::new_generation",
            "store::prove",
            "store::prune",
            "store::rows",
            "store::run",
            "store::scan",
            "store::search",
            "store::slice",
            "store::start",
            "store::transaction",
            "store::upkeep",
            "store::writer",
        ],
    ),
];

fn edges_of(crate_root: &str) -> Edges {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_root);
    Modules::load(&root, &|path| std::fs::read_to_string(path).ok()).edges()
}

fn name(path: &ModulePath) -> String {
    if path.is_empty() { "crate".to_owned() } else { path.join("::") }
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let mut wrong = Vec::new();
    for root in CRATES {
        let edges = edges_of(root);
        let known: BTreeSet<&str> =
            KNOWN.iter().filter(|(known, _)| *known == root).flat_map(|(_, modules)| modules.iter().copied()).collect();
        let mut found = BTreeSet::new();
        for circle in circles(&edges) {
            let names: BTreeSet<String> = circle.iter().map(name).collect();
            if !names.iter().all(|name| known.contains(name.as_str())) {
                let inside = |from: &ModulePath| {
                    let to = edges[from].iter().filter(|to| circle.contains(*to)).map(name);
                    format!("  {} uses {}", name(from), to.collect::<Vec<_>>().join(", "))
                };
                let arrows: Vec<String> = circle.iter().map(inside).collect();
                wrong.push(format!("{root}: a circle of {} modules\n{}", circle.len(), arrows.join("\n")));
            }
            found.extend(names);
        }
        for gone in known.iter().filter(|known| !found.contains(**known)) {
            wrong.push(format!("{root}: {gone} is in no circle any more; take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A crate of files that are given as text; the first is its root.
fn made(files: &[(&str, &str)]) -> Vec<BTreeSet<String>> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned())
    };
    let edges = Modules::load(Path::new(files[0].0), &read).edges();
    circles(&edges).iter().map(|circle| circle.iter().map(name).collect()).collect()
}

fn circle(names: &[&str]) -> Vec<BTreeSet<String>> {
    vec![names.iter().map(|name| (*name).to_owned()).collect()]
}

const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; mod c;");
const LEAF: &str = "pub struct Leaf;";

#[test]
fn a_circle_is_found_however_it_is_written() {
    let b = ("b.rs", "use crate::a::A; pub struct B(A); pub fn f() {}");
    for a in [
        "pub struct A; fn f(_: crate::b::B) {}",
        "pub struct A; fn f() { crate::b::f(); }",
        "pub struct A; fn f() { super::b::f() }",
        "use super::b; pub struct A; fn f() { b::f() }",
        "use super::b as other; pub struct A; fn f() { other::f() }",
        "use crate::b::*; pub struct A; fn f(_: B) {}",
        "pub struct A; fn f() { use crate::b::B; }",
        "pub struct A; fn f() { println!(\"{:?}\", crate::b::f()); }",
        "pub struct A; #[derive(Serialize)] struct X { #[serde(with = \"crate::b\")] x: u8 }",
        "pub struct A; #[derive(Serialize)] struct X { #[serde(default = \"crate::b::f\")] x: u8 }",
        "pub struct A; impl From<crate::b::B> for A { fn from(_: crate::b::B) -> A { A } }",
        "pub struct A; mod inner { fn f() { crate::b::f() } }",
        "pub struct A; mod inner { fn f() { super::super::b::f() } }",
    ] {
        assert_eq!(made(&[ROOT, ("a.rs", a), b, ("c.rs", LEAF)]), circle(&["a", "b"]), "{a}");
    }
}

#[test]
fn a_circle_through_a_re_export_is_found() {
    let root = ("lib.rs", "mod a; mod b; mod c; pub use b::B; pub use c::*;");
    let a = ("a.rs", "use crate::B; pub struct A(B);");
    assert_eq!(made(&[root, a, ("b.rs", "use crate::a::A; pub struct B(A);"), ("c.rs", LEAF)]), circle(&["a", "b"]));
    let a = ("a.rs", "use crate::Leaf; pub struct A(Leaf);");
    let c = ("c.rs", "use crate::a::A; pub struct Leaf(A);");
    assert_eq!(made(&[root, a, ("b.rs", "pub struct B;"), c]), circle(&["a", "c"]));
    // Through two of them, one under another name.
    let folder = ("b/mod.rs", "mod inner; pub use inner::Inner as B;");
    let inner = ("b/inner.rs", "pub struct Inner(crate::a::A);");
    assert_eq!(
        made(&[root, ("a.rs", "use crate::B; pub struct A(B);"), folder, inner, ("c.rs", LEAF)]),
        circle(&["a", "b::inner"])
    );
}

#[test]
fn a_circle_of_parent_and_child_is_found() {
    let root = ("lib.rs", "mod a;");
    let child = ("a/inner.rs", "use super::A; pub struct Inner(A);");
    assert_eq!(
        made(&[root, ("a/mod.rs", "mod inner; pub struct A(inner::Inner);"), child]),
        circle(&["a", "a::inner"])
    );
    assert_eq!(made(&[root, ("a.rs", "mod inner; pub struct A(inner::Inner);"), child]), circle(&["a", "a::inner"]));
    // The root of a crate is a module like others.
    let root = ("lib.rs", "mod a; pub struct Root(a::A);");
    assert_eq!(made(&[root, ("a.rs", "pub struct A; fn f(_: crate::Root) {}")]), circle(&["a", "crate"]));
}

#[test]
fn a_circle_of_three_is_found() {
    let [a, b] = [("a.rs", "pub struct A(super::b::B);"), ("b.rs", "pub struct B(super::c::C);")];
    assert_eq!(made(&[ROOT, a, b, ("c.rs", "pub struct C(Box<super::a::A>);")]), circle(&["a", "b", "c"]));
}

#[test]
fn what_is_no_circle_is_none() {
    let b = ("b.rs", "use crate::a::A; pub struct B(A); pub fn f() {}");
    for a in [
        // Tests may use everything.
        "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
        "pub struct A; #[cfg(test)] use crate::b::B;",
        "pub struct A; impl A { #[cfg(test)] fn f() { crate::b::f() } }",
        // Who may use something is not what it uses; nor is what is said of it.
        "pub struct A; pub(in crate::b) fn f() {}",
        "/// See [`crate::b::B`].\npub struct A;",
        // A variable that is called like a module.
        "mod b {} pub struct A; fn f(b: u8) -> u8 { println!(\"{}\", b); b }",
        // Other crates.
        "pub struct A; fn f() { std::b::f(); }",
    ] {
        assert_eq!(made(&[ROOT, ("a.rs", a), b, ("c.rs", LEAF)]), Vec::<BTreeSet<String>>::new(), "{a}");
    }
    // A child uses its parent, and the parent only has it.
    let child = ("a/inner.rs", "use super::A; pub struct Inner(A);");
    assert!(made(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod inner; pub struct A;"), child]).is_empty());
    // A facade passes on what its modules have, and they may use each other through it.
    let facade = ("a/mod.rs", "//! Facade.\nmod x; mod y; pub use x::X; pub use y::Y;");
    let [x, y] = [("a/x.rs", "pub struct X;"), ("a/y.rs", "use super::X; pub struct Y(X);")];
    assert!(made(&[("lib.rs", "mod a; pub use a::X;"), facade, x, y]).is_empty());
}
