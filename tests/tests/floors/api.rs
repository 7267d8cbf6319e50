//! The public interface of the client library, as text. A change of it is a decision: the snapshot is in `tests/golden/client-api.txt`.

use std::collections::BTreeSet;
use std::path::Path;

/// Items that the crate exports, by name, from `pub use` and `pub mod` in its root.
fn exported(root: &syn::File) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut modules) = (BTreeSet::new(), BTreeSet::new());
    for item in &root.items {
        match item {
            syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Public(_)) => leaves(&item.tree, &mut names),
            syn::Item::Mod(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                modules.insert(item.ident.to_string());
            }
            _ => {}
        }
    }
    (names, modules)
}

fn leaves(tree: &syn::UseTree, names: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, names),
        syn::UseTree::Name(name) => {
            names.insert(name.ident.to_string());
        }
        syn::UseTree::Rename(name) => {
            names.insert(name.rename.to_string());
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        syn::UseTree::Glob(_) => panic!("a glob hides what is exported"),
    }
}

/// Attributes that are a part of the interface.
fn marks(attributes: &[syn::Attribute]) -> String {
    let of = |name: &str| attributes.iter().any(|attribute| attribute.path().is_ident(name));
    let cfg = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let cfg: String = cfg.map(|attribute| text(attribute) + " ").collect();
    let flag = |name: &str| if of(name) { format!("#[{name}] ") } else { String::new() };
    format!("{cfg}{}{}", flag("non_exhaustive"), flag("must_use"))
}

fn text(node: &impl quote::ToTokens) -> String {
    node.to_token_stream().to_string()
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn fields(fields: &syn::Fields, all: bool) -> String {
    let shown = fields.iter().filter(|field| all || is_public(&field.vis));
    let shown: Vec<String> = shown
        .map(|field| match &field.ident {
            Some(name) => format!("{name}: {}", text(&field.ty)),
            None => text(&field.ty),
        })
        .collect();
    shown.join(", ")
}

fn describe(item: &syn::Item, is_exported: &dyn Fn(&str) -> bool, lines: &mut BTreeSet<String>) {
    match item {
        syn::Item::Struct(item) if is_exported(&item.ident.to_string()) => {
            let head = format!("{}struct {}{}", marks(&item.attrs), item.ident, text(&item.generics));
            lines.insert(format!("{head} {{ {} }}", fields(&item.fields, false)));
        }
        syn::Item::Enum(item) if is_exported(&item.ident.to_string()) => {
            for variant in &item.variants {
                lines.insert(format!("enum {}::{} {{ {} }}", item.ident, variant.ident, fields(&variant.fields, true)));
            }
            lines.insert(format!("{}enum {}", marks(&item.attrs), item.ident));
        }
        syn::Item::Fn(item) if is_public(&item.vis) && is_exported(&item.sig.ident.to_string()) => {
            lines.insert(format!("{}{}", marks(&item.attrs), text(&item.sig)));
        }
        syn::Item::Impl(item) => {
            let owner = text(&item.self_ty);
            let name = owner.split(' ').next().unwrap_or_default().to_owned();
            if !is_exported(&name) {
                return;
            }
            if let Some((_, path, _)) = &item.trait_ {
                lines.insert(format!("impl {} for {owner}", text(path)));
                return;
            }
            for inner in &item.items {
                match inner {
                    syn::ImplItem::Fn(function) if is_public(&function.vis) => {
                        lines.insert(format!("{owner}: {}{}", marks(&function.attrs), text(&function.sig)));
                    }
                    syn::ImplItem::Const(constant) if is_public(&constant.vis) => {
                        lines.insert(format!("{owner}: const {}: {}", constant.ident, text(&constant.ty)));
                    }
                    // Setters of entries are made by a macro: its input names them.
                    syn::ImplItem::Macro(made) => {
                        for word in made.mac.tokens.clone() {
                            if let proc_macro2::TokenTree::Ident(setter) = word {
                                lines.insert(format!("{owner}: {setter} (made by a macro)"));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
}

fn interface(root: &Path) -> String {
    let parse = |path: &Path| syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
    let lib = parse(&root.join("lib.rs"));
    let (names, modules) = exported(&lib);
    let mut lines: BTreeSet<String> = names.iter().map(|name| format!("use {name}")).collect();
    let mut paths = Vec::new();
    files(root, &mut paths);
    for path in &paths {
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_exported = |name: &str| names.contains(name) || modules.contains(&module);
        parse(path).items.iter().for_each(|item| describe(item, &is_exported, &mut lines));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn the_interface_of_the_client_changes_on_purpose_only() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = interface(&here.join("../client/src"));
    assert!(made.contains("Recorder: async fn emit"), "{made}");
    let path = here.join("golden/client-api.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let difference: Vec<String> = made
        .lines()
        .filter(|line| !golden.lines().any(|known| known == *line))
        .map(|line| format!("+ {line}"))
        .chain(golden.lines().filter(|line| !made.lines().any(|known| known == *line)).map(|line| format!("- {line}")))
        .collect();
    assert!(
        difference.is_empty(),
        "the client's interface changed; if that is meant, say so in CHANGELOG.md and run this with UPDATE_GOLDEN=1\n{}",
        difference.join("\n")
    );
}
