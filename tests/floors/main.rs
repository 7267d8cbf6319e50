//! Checks the layering: inside every crate, modules depend on each other in one direction only.

#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod graph;

use std::collections::BTreeSet;
use std::path::Path;

use graph::{Edges, ModulePath, Modules, circles};

/// Root files of the crates, each with a minimum number of edges between modules, because a parser that extracts nothing from the
/// source would find no cycle either.
const CRATES: [(&str, usize); 17] = [
    ("shared/format/src/lib.rs", 60),
    ("shared/redact/src/lib.rs", 30),
    ("shared/query/src/lib.rs", 50),
    ("shared/detect/src/lib.rs", 2),
    ("shared/siem/src/lib.rs", 8),
    ("shared/evidence/src/lib.rs", 30),
    ("shared/protocol/src/lib.rs", 3),
    ("shared/net/src/lib.rs", 8),
    ("node/src/lib.rs", 350),
    ("archive/src/lib.rs", 20),
    ("aggregator/src/lib.rs", 200),
    ("client/src/lib.rs", 50),
    ("certs/src/lib.rs", 15),
    ("verifier/src/lib.rs", 0),
    ("cli/src/main.rs", 180),
    ("tests/support/lib.rs", 3),
    ("tests/campaign/main.rs", 40),
];

/// Crates with their folders, lowest layer first: a module may use modules of its own folder and of folders earlier in the list.
/// A module outside the listed folders is above all of them.
const FOLDERS: [(&str, &[&str]); 3] = [
    ("archive/src/lib.rs", &["store", "row", "record", "file", "history", "read", "write", "verify"]),
    (
        "node/src/lib.rs",
        &[
            "start_at",
            "store::table",
            "store::index",
            "store::read",
            "store::engine",
            "store::fsck",
            "store::offline",
            "store::lifecycle",
            "store",
            "sources",
            "sinks",
            "tokens",
            "config",
            "retention",
            "metrics",
            "http",
        ],
    ),
    (
        "aggregator/src/lib.rs",
        &[
            "access",
            "config",
            "cluster",
            "scan",
            "witness",
            "answer",
            "audit",
            "archiving",
            "metrics",
            "state",
            "tasks",
            "web",
            "http",
        ],
    ),
];

/// Returns the edges that point up, as "from uses to".
fn upward(edges: &Edges, folders: &[&str]) -> Vec<String> {
    // The longest folder path that contains a module determines the layer of the module: `store::read` before `store`.
    let floor = |module: &ModulePath| {
        let path = name(module);
        let is_in = |folder: &str| path == folder || path.starts_with(&format!("{folder}::"));
        let best =
            folders.iter().enumerate().filter(|(_, folder)| is_in(folder)).max_by_key(|(_, folder)| folder.len());
        best.map_or(folders.len(), |(floor, _)| floor)
    };
    let arrows = edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    arrows
        .filter(|(from, to)| floor(to) > floor(from))
        .map(|(from, to)| format!("{} uses {}", name(from), name(to)))
        .collect()
}

#[test]
fn folders_use_what_is_below_them() {
    let mut wrong = Vec::new();
    for (root, folders) in FOLDERS {
        let edges = edges_of(root);
        for folder in folders {
            let is_there =
                |module: &ModulePath| name(module) == *folder || name(module).starts_with(&format!("{folder}::"));
            assert!(edges.keys().any(is_there), "{root} has no folder {folder}");
        }
        wrong.extend(upward(&edges, folders).into_iter().map(|arrow| format!("{root}: {arrow}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let files = [
        ("lib.rs", "mod low; mod high;"),
        ("low/mod.rs", "pub mod a; pub mod b;"),
        ("low/a.rs", "pub struct A; fn f(_: crate::low::b::B) {}"),
        ("low/b.rs", "pub struct B; fn f() { crate::high::c::g() }"),
        ("high/mod.rs", "pub mod c;"),
        ("high/c.rs", "pub fn g() { crate::low::a::h() }"),
    ];
    let read = |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
    let edges = Modules::load(Path::new("lib.rs"), &read).edges();
    assert_eq!(upward(&edges, &["low", "high"]), ["low::b uses high::c"]);
    assert_eq!(upward(&edges, &["high", "low"]), ["high::c uses low::a"]);
    // A module in none of the folders is above all others.
    assert_eq!(upward(&edges, &["low"]), ["low::b uses high::c"]);
}

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
    for (root, arrows_min) in CRATES {
        let edges = edges_of(root);
        let arrows: usize = edges.values().map(BTreeSet::len).sum();
        assert!(arrows >= arrows_min, "{root}: only {arrows} arrows between modules are seen");
        for circle in circles(&edges) {
            let inside = |from: &ModulePath| {
                let to = edges[from].iter().filter(|to| circle.contains(*to)).map(name);
                format!("  {} uses {}", name(from), to.collect::<Vec<_>>().join(", "))
            };
            let arrows: Vec<String> = circle.iter().map(inside).collect();
            wrong.push(format!("{root}: a circle of {} modules\n{}", circle.len(), arrows.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the cycles of a crate whose files are given as text. The first file is the root of the crate.
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
    // A cycle through two files, one of which is re-exported under another name.
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
    // The root of a crate is a module like any other.
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
        // Visibility restrictions and doc comments are not dependencies.
        "pub struct A; pub(in crate::b) fn f() {}",
        "/// See [`crate::b::B`].\npub struct A;",
        // A variable that has the same name as a module is not a dependency.
        "mod b {} pub struct A; fn f(b: u8) -> u8 { println!(\"{}\", b); b }",
        // Other crates.
        "pub struct A; fn f() { std::b::f(); }",
    ] {
        assert_eq!(made(&[ROOT, ("a.rs", a), b, ("c.rs", LEAF)]), Vec::<BTreeSet<String>>::new(), "{a}");
    }
    // A child uses its parent, and the parent only declares the child.
    let child = ("a/inner.rs", "use super::A; pub struct Inner(A);");
    assert!(made(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod inner; pub struct A;"), child]).is_empty());
    // A facade re-exports items of its modules, and these may use each other through it.
    let facade = ("a/mod.rs", "//! Facade.\nmod x; mod y; pub use x::X; pub use y::Y;");
    let [x, y] = [("a/x.rs", "pub struct X;"), ("a/y.rs", "use super::X; pub struct Y(X);")];
    assert!(made(&[("lib.rs", "mod a; pub use a::X;"), facade, x, y]).is_empty());
}
