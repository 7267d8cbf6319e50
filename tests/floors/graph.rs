//! Reads the modules of a crate, and the dependencies between them, from its source.
//!
//! Edges connect modules whose files define items. A file that contains only `mod` and `pub use` is a facade: names are followed
//! through it to the module that defines them. `#[cfg(test)]` items are left out, and `mod x;` is not an edge.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Path of a module below the root of its crate; empty for the root.
pub(crate) type ModulePath = Vec<String>;

/// Names already followed, each with its module. They stop the recursion when imports refer to each other.
type Followed = BTreeSet<(ModulePath, Vec<String>)>;

/// Edges between the modules of one crate.
pub(crate) type Edges = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

#[derive(Debug, Default)]
struct Module {
    /// Module that the source file itself defines. For an inline module, this is the module of the file that contains it.
    file: ModulePath,
    children: BTreeSet<String>,
    /// Names imported by `use`, with the path as written.
    imports: BTreeMap<String, Vec<String>>,
    /// Imported paths that end in `*`.
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
    /// Every path in the module, as written.
    named: Vec<Vec<String>>,
    has_items: bool,
}

/// The modules of one crate.
pub(crate) struct Modules(BTreeMap<ModulePath, Module>);

impl Modules {
    /// Reads a crate from its root file. `read` returns the text of a file, or `None` if there is no such file.
    pub(crate) fn load(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut modules = Self(BTreeMap::new());
        let folder = root.parent().unwrap().to_path_buf();
        modules.add_file(root, &folder, Vec::new(), read);
        modules
    }

    fn add_file(&mut self, file: &Path, folder: &Path, path: ModulePath, read: &dyn Fn(&Path) -> Option<String>) {
        let text = read(file).unwrap_or_else(|| panic!("{} cannot be read", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add_items(&parsed.items, folder, path.clone(), &path, read);
    }

    fn add_items(
        &mut self,
        items: &[syn::Item],
        folder: &Path,
        path: ModulePath,
        file: &ModulePath,
        read: &dyn Fn(&Path) -> Option<String>,
    ) {
        let mut module = Module { file: file.clone(), ..Module::default() };
        for item in items.iter().filter(|item| !is_test_only(attributes(item))) {
            if let syn::Item::Mod(inner) = item {
                let name = inner.ident.to_string();
                module.children.insert(name.clone());
                let mut inner_path = path.clone();
                inner_path.push(name.clone());
                match &inner.content {
                    Some((_, items)) => {
                        module.has_items = true;
                        self.add_items(items, &folder.join(&name), inner_path, file, read);
                    }
                    None => {
                        let (file, folder) = file_of(folder, &name, read);
                        self.add_file(&file, &folder, inner_path, read);
                    }
                }
                continue;
            }
            let is_public_use = matches!(item, syn::Item::Use(item) if !matches!(item.vis, syn::Visibility::Inherited));
            module.has_items |= !is_public_use;
            module.items.extend(name_of(item));
            Names(&mut module).visit_item(item);
        }
        self.0.insert(path, module);
    }

    /// Returns the modules that each module refers to. Modules are represented by the files that contain them.
    pub(crate) fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (path, module) in &self.0 {
            if !self.0[&module.file].has_items {
                continue;
            }
            let from = edges.entry(module.file.clone()).or_default();
            let imported = module.imports.values().chain(&module.named);
            from.extend(imported.filter_map(|name| self.resolve(path, name)));
            from.extend(module.globs.iter().flat_map(|glob| self.resolve_glob(path, glob)));
            from.remove(&module.file);
        }
        edges
    }

    /// Resolves a path in a module to the module of the file that defines it; `None` for names of other crates and for facades.
    fn resolve(&self, at: &ModulePath, name: &[String]) -> Option<ModulePath> {
        let (module, rest) = self.walk(at, name, &mut Followed::new())?;
        // A path that ends at a module is only the prefix of another path, or a variable with the name of the module.
        let file = &self.0[&module].file;
        (!rest.is_empty() && self.0[file].has_items).then(|| file.clone())
    }

    /// Follows a path to the module that defines it. Also returns the rest of the path in that module: an item and its parts, or nothing.
    fn walk(&self, at: &ModulePath, name: &[String], followed: &mut Followed) -> Option<(ModulePath, Vec<String>)> {
        if !followed.insert((at.clone(), name.to_vec())) {
            return None;
        }
        let mut at = at.clone();
        let mut rest = name.to_vec();
        let mut is_first = true;
        // Whether the path so far names a module of this crate. If so, the rest is defined there, perhaps by a macro.
        let mut is_ours = false;
        while let Some(segment) = rest.first().cloned() {
            let is_super = segment == "super";
            match segment.as_str() {
                "crate" if is_first => at.clear(),
                "self" if is_first => {}
                "super" => drop(at.pop()?),
                _ => {
                    let module = self.0.get(&at)?;
                    if module.children.contains(&segment) {
                        at.push(segment);
                    } else if module.items.contains(&segment) {
                        return Some((at, rest));
                    } else if let Some(import) = module.imports.get(&segment) {
                        // In `use time::time` the first segment is another crate.
                        if import.first() == Some(&segment) {
                            return None;
                        }
                        let mut path = import.clone();
                        path.extend(rest.into_iter().skip(1));
                        return self.walk(&at, &path, followed);
                    } else {
                        // Ignore globs of other crates: a name that only such a glob could import belongs to another crate.
                        let begins_here = |glob: &&Vec<String>| {
                            glob.first().is_some_and(|first| {
                                matches!(first.as_str(), "crate" | "self" | "super")
                                    || module.children.contains(first)
                                    || module.items.contains(first)
                                    || module.imports.contains_key(first)
                            })
                        };
                        for glob in module.globs.iter().filter(begins_here) {
                            let path: Vec<String> = glob.iter().chain(&rest).cloned().collect();
                            if let Some(found) = self.walk(&at, &path, followed).filter(|(_, left)| !left.is_empty()) {
                                return Some(found);
                            }
                        }
                        return is_ours.then_some((at, rest));
                    }
                }
            }
            rest.remove(0);
            is_first = is_super;
            is_ours = true;
        }
        Some((at, rest))
    }

    /// Returns the module that a glob imports from; for a facade, the modules that it re-exports from.
    fn resolve_glob(&self, at: &ModulePath, glob: &[String]) -> Vec<ModulePath> {
        let Some((target, rest)) = self.walk(at, glob, &mut Followed::new()) else { return Vec::new() };
        let Some(module) = self.0.get(&target).filter(|_| rest.is_empty()) else {
            return self.resolve(at, glob).into_iter().collect();
        };
        if self.0[&module.file].has_items {
            return vec![module.file.clone()];
        }
        module.imports.values().filter_map(|name| self.resolve(&target, name)).collect()
    }
}

/// Returns the cycles: groups of modules that reach each other, each group once and in order.
pub(crate) fn circles(edges: &Edges) -> Vec<BTreeSet<ModulePath>> {
    let reach: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        edges.keys().map(|from| (from, reachable(edges, from))).collect();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for from in edges.keys() {
        if !reach[from].contains(from) || !seen.insert(from.clone()) {
            continue;
        }
        let back = |to: &&&ModulePath| reach.get(**to).is_some_and(|their| their.contains(from));
        let group: BTreeSet<ModulePath> = reach[from].iter().filter(back).map(|path| (*path).clone()).collect();
        seen.extend(group.iter().cloned());
        found.push(group);
    }
    found
}

fn reachable<'a>(edges: &'a Edges, from: &ModulePath) -> BTreeSet<&'a ModulePath> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&ModulePath> = edges.get(from).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(edges.get(next).into_iter().flatten());
        }
    }
    found
}

/// Returns the file of `mod name;`, which is `name.rs` or `name/mod.rs`, and the folder of its children.
fn file_of(folder: &Path, name: &str, read: &dyn Fn(&Path) -> Option<String>) -> (PathBuf, PathBuf) {
    let inner = folder.join(name);
    let file = folder.join(format!("{name}.rs"));
    if read(&file).is_some() { (file, inner) } else { (inner.join("mod.rs"), inner) }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    Some(match item {
        syn::Item::Const(item) => item.ident.to_string(),
        syn::Item::Enum(item) => item.ident.to_string(),
        syn::Item::Fn(item) => item.sig.ident.to_string(),
        syn::Item::Macro(item) => item.ident.as_ref()?.to_string(),
        syn::Item::Static(item) => item.ident.to_string(),
        syn::Item::Struct(item) => item.ident.to_string(),
        syn::Item::Trait(item) => item.ident.to_string(),
        syn::Item::Type(item) => item.ident.to_string(),
        syn::Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// Returns whether the attributes contain `#[cfg(test)]`, alone or combined with further conditions by `all`.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    let needs_test = |text: &str| text == "test" || text.starts_with("all(test,") || text.starts_with("all(test )");
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| needs_test(&list.tokens.to_string().replace(" ,", ",").replace("all (", "all(")))
    })
}

/// Collects the names that an item uses.
struct Names<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test_only(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.0.named.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    // `pub(in crate::x)` restricts which modules may use an item; the item does not use that path.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("doc") {
            return;
        }
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

impl Names<'_> {
    fn tree(&mut self, tree: &syn::UseTree, before: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            syn::UseTree::Name(name) => self.import(before, &name.ident.to_string(), None),
            syn::UseTree::Rename(rename) => {
                self.import(before, &rename.ident.to_string(), Some(rename.rename.to_string()));
            }
            syn::UseTree::Glob(_) => self.0.globs.push(before.clone()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    fn import(&mut self, before: &[String], name: &str, renamed: Option<String>) {
        let mut path = before.to_vec();
        if name != "self" || path.is_empty() {
            path.push(name.to_owned());
        }
        let known_as = renamed.or_else(|| path.last().cloned()).unwrap_or_default();
        if known_as == "_" {
            self.0.named.push(path);
        } else if let Some(other) = self.0.imports.insert(known_as, path) {
            // Two functions import the same name: keep both paths.
            self.0.named.push(other);
        }
    }

    /// Collects paths from the tokens of a macro or an attribute, including string literals such as `with = "crate::times"`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut after = String::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.end(&mut path);
                    match other {
                        TokenTree::Ident(ident) => {
                            after = ident.to_string();
                            path.push(ident.to_string());
                        }
                        TokenTree::Literal(literal) => self.literal(&literal.to_string(), after == "with"),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.0.named.push(std::mem::take(path));
        }
    }

    /// Collects the path in a string literal. `is_module` is set if the literal names a module whose functions are used.
    fn literal(&mut self, text: &str, is_module: bool) {
        if let Ok(path) = syn::parse_str::<syn::Path>(text.trim_matches('"')) {
            let names = path.segments.iter().map(|segment| segment.ident.to_string());
            self.0.named.push(names.chain(is_module.then(|| "_".to_owned())).collect());
        }
    }
}
