//! The sources of all crates, read once, and what the rules want to know of them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use hookwell_tests::kafka::project;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use walkdir::WalkDir;

/// The crates whose code users run.
pub(crate) const SHIPPED: [&str; 3] = ["common", "ingest", "processor"];

/// All crates: their directories, of which the last part is the name; packages are called
/// `hookwell-…`.
pub(crate) const CRATES: [&str; 7] =
    ["common", "ingest", "processor", "tests/auditor", "tests/fuzz", "tests", "bench"];

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the project's directory, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Whether all of it is test code.
    pub(crate) is_test: bool,
    /// What stands in the code that users run.
    pub(crate) shipped: Facts,
    /// What stands in test code.
    pub(crate) tested: Facts,
}

/// What stands in some code.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Every path, from its first segment on: of `use`, of expressions, types, and in macros.
    pub(crate) paths: Vec<Vec<String>>,
    /// Every text and byte text, but for documentation.
    pub(crate) literals: Vec<String>,
    /// Every function and its lines, from `fn` to the closing brace.
    pub(crate) functions: Vec<(String, usize)>,
    /// Every attribute: its name, and what it says beside.
    pub(crate) attributes: Vec<(String, String)>,
    /// The arguments of every `failpoint::hit` and `failpoint::is_lifted`.
    pub(crate) failpoints: Vec<String>,
    /// Every `pub use …::*`.
    pub(crate) glob_exports: usize,
    /// Lines.
    pub(crate) lines: usize,
}

impl Source {
    /// The crate's directory.
    pub(crate) fn krate(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Its module within its crate: `lane::window`; `lib` and `main` for the roots.
    pub(crate) fn module(&self) -> String {
        let within = self.path.split("/src/").nth(1).unwrap_or_default();
        within.trim_end_matches(".rs").replace('/', "::")
    }

    /// The facts of all its code.
    pub(crate) fn all(&self) -> [&Facts; 2] {
        [&self.shipped, &self.tested]
    }

    fn read(root: &Path, path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
        let file = syn::parse_file(&text).with_context(|| path.clone())?;
        let is_test = is_test_code(&path);
        let mut visitor = Visitor { test_depth: usize::from(is_test), ..Visitor::default() };
        visitor.visit_file(&file);
        let Visitor { mut shipped, mut tested, .. } = visitor;
        let lines = text.lines().count();
        match is_test {
            true => tested.lines = lines,
            false => shipped.lines = lines - tested.lines,
        }
        Ok(Self { path, text, is_test, shipped, tested })
    }
}

/// All sources, in the order of their paths.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> =
        LazyLock::new(|| read_all().expect("the sources lie beside this test and compile"));
    &SOURCES
}

/// Those whose code users run.
pub(crate) fn shipped() -> impl Iterator<Item = &'static Source> {
    sources().iter().filter(|source| SHIPPED.contains(&source.krate()) && !source.is_test)
}

fn read_all() -> Result<Vec<Source>> {
    let root = project().canonicalize()?;
    let mut sources = Vec::new();
    // What lies within another crate's directory is found there.
    for krate in CRATES.into_iter().filter(|krate| !krate.contains('/')) {
        for entry in WalkDir::new(root.join(krate)).sort_by_file_name() {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(&root, entry.path())?);
            }
        }
    }
    Ok(sources)
}

/// The system tests and what they stand on, and the tests of a file that were given one of their
/// own.
fn is_test_code(path: &str) -> bool {
    path.starts_with("tests/")
        || path.ends_with("_tests.rs")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

#[derive(Default)]
struct Visitor {
    test_depth: usize,
    shipped: Facts,
    tested: Facts,
}

impl Visitor {
    fn here(&mut self) -> &mut Facts {
        if self.test_depth == 0 { &mut self.shipped } else { &mut self.tested }
    }

    /// Visits something that is test code where its attributes say so.
    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let is_test = attributes.iter().any(is_for_tests);
        self.test_depth += usize::from(is_test);
        visit(self);
        self.test_depth -= usize::from(is_test);
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = lines(signature.fn_token.span, block.brace_token.span.close());
        self.here().functions.push((signature.ident.to_string(), lines));
    }

    fn use_tree(&mut self, before: &[String], tree: &syn::UseTree, exported: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree, exported),
            syn::UseTree::Name(name) => self.here().paths.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.here().paths.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => {
                self.here().glob_exports += usize::from(exported);
                self.here().paths.push(before.to_vec());
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree, exported));
            }
        }
    }

    /// Paths and texts in what is not parsed: the insides of macros.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(_) => self.end_path(&mut path),
                TokenTree::Literal(literal) => {
                    self.end_path(&mut path);
                    self.visit_lit(&syn::Lit::new(literal));
                }
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    self.tokens(group.stream());
                }
            }
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Vec<String>) {
        if 1 < path.len() {
            self.here().paths.push(path.clone());
        }
        path.clear();
    }
}

impl<'a> Visit<'a> for Visitor {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let is_test = item.attrs.iter().any(is_for_tests) && self.test_depth == 0;
        if let Some((brace, _)) = item.content.as_ref().filter(|_| is_test) {
            self.tested.lines += lines(item.mod_token.span, brace.span.close()) + 1;
        }
        self.within(&item.attrs, |visitor| visit::visit_item_mod(visitor, item));
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.within(&item.attrs, |visitor| {
            visitor.function(&item.sig, &item.block);
            visit::visit_item_fn(visitor, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.within(&item.attrs, |visitor| {
            visitor.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(visitor, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.within(&item.attrs, |visitor| visit::visit_item_impl(visitor, item));
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.within(&item.attrs, |visitor| {
            let exported = !matches!(item.vis, syn::Visibility::Inherited);
            visitor.use_tree(&[], &item.tree, exported);
            item.attrs.iter().for_each(|attribute| visitor.visit_attribute(attribute));
        });
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.here().paths.push(segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        let name = attribute.path().segments.last().map(|segment| segment.ident.to_string());
        let name = name.unwrap_or_default();
        if name != "doc" {
            let says = match &attribute.meta {
                syn::Meta::List(list) => list.tokens.to_string(),
                syn::Meta::Path(_) | syn::Meta::NameValue(_) => String::new(),
            };
            self.here().attributes.push((name, says));
        }
    }

    fn visit_lit(&mut self, literal: &'a syn::Lit) {
        self.here().literals.extend(text_of(literal));
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            let names: Vec<_> = function.path.segments.iter().map(|part| part.ident.to_string()).collect();
            if let ([.., "failpoint", "hit" | "is_lifted"], Some(syn::Expr::Lit(argument))) =
                (&names.iter().map(String::as_str).collect::<Vec<_>>()[..], call.args.first())
            {
                self.here().failpoints.extend(text_of(&argument.lit));
            }
        }
        visit::visit_expr_call(self, call);
    }
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    match &attribute.meta {
        syn::Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    }
}

fn text_of(literal: &syn::Lit) -> Option<String> {
    if let syn::Lit::Str(text) = literal {
        return Some(text.value());
    }
    if let syn::Lit::ByteStr(bytes) = literal {
        return Some(String::from_utf8_lossy(&bytes.value()).into_owned());
    }
    None
}

fn lines(first: proc_macro2::Span, last: proc_macro2::Span) -> usize {
    last.end().line - first.start().line + 1
}
