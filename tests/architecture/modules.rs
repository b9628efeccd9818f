//! The module tree of a set of sources: what each module defines, what it imports, and which
//! paths its code mentions.
//!
//! Only modules that are reached from `lib.rs` or `main.rs` without the tests are here, so what a
//! file for tests uses does not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{EXPORTED, Token, group_end, split_at_commas, tokens, without_tests};

/// One source file: its path from the root of the workspace, and its text.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Position of a file in [`Tree::files`].
pub type FileId = usize;
/// Position of a module in [`Tree::modules`].
pub type ModuleId = usize;

/// What a name in a module stands for.
#[derive(Debug, Clone)]
enum Definition {
    Item(FileId),
    Module(ModuleId),
    Import { path: Vec<String>, reexported: bool },
}

/// One name that a `use` makes known.
#[derive(Debug, Clone)]
pub struct Import {
    pub path: Vec<String>,
    /// The name here; `*` for everything of the path.
    pub name: String,
    /// Whether other modules may reach it through this one.
    pub reexported: bool,
}

/// A module, which is a file or stands in braces within one.
#[derive(Debug)]
pub struct Module {
    pub file: FileId,
    pub imports: Vec<Import>,
    /// Paths of two segments or more in its code, outside of `use`.
    pub paths: BTreeSet<Vec<String>>,
    /// Words in its code that may name an item.
    pub words: BTreeSet<String>,
    parent: Option<ModuleId>,
    /// The root of its crate.
    root: ModuleId,
    names: BTreeMap<String, Vec<Definition>>,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Item(FileId),
    Module(ModuleId),
}

/// The module trees of all crates among the sources.
#[derive(Debug)]
pub struct Tree {
    pub files: Vec<String>,
    pub modules: Vec<Module>,
}

impl Tree {
    /// Reads all crates whose root is among `sources`.
    pub fn read(sources: &[Source]) -> Self {
        let texts: BTreeMap<&str, &str> = sources
            .iter()
            .map(|source| (source.path.as_str(), source.text.as_str()))
            .collect();
        let mut tree = Self {
            files: Vec::new(),
            modules: Vec::new(),
        };
        for source in sources {
            let path = source.path.as_str();
            if path.ends_with("src/lib.rs") || path.ends_with("/main.rs") {
                tree.read_file(path, None, &texts);
            }
        }
        tree
    }

    /// Adds the module of a file and all below it; [`None`] if there is no such file.
    fn read_file(
        &mut self,
        path: &str,
        parent: Option<ModuleId>,
        texts: &BTreeMap<&str, &str>,
    ) -> Option<ModuleId> {
        let text = texts.get(path)?;
        let file = self.files.iter().position(|file| file == path);
        let file = file.unwrap_or_else(|| {
            self.files.push(path.to_owned());
            self.files.len() - 1
        });
        let module = self.add_module(file, parent);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = name.trim_end_matches(".rs");
        let folder = if ["lib", "main", "mod"].contains(&stem) {
            folder.to_owned()
        } else {
            format!("{folder}/{stem}")
        };
        let code = without_tests(&tokens(text));
        self.read_module(module, &code, &folder, texts);
        Some(module)
    }

    fn add_module(&mut self, file: FileId, parent: Option<ModuleId>) -> ModuleId {
        let id = self.modules.len();
        self.modules.push(Module {
            file,
            imports: Vec::new(),
            paths: BTreeSet::new(),
            words: BTreeSet::new(),
            parent,
            root: parent.map_or(id, |parent| self.modules[parent].root),
            names: BTreeMap::new(),
        });
        id
    }

    fn define(&mut self, module: ModuleId, name: &str, definition: Definition) {
        let names = &mut self.modules[module].names;
        names.entry(name.to_owned()).or_default().push(definition);
    }

    /// Reads the items and the code of a module. Its files for child modules lie in `folder`.
    fn read_module(
        &mut self,
        module: ModuleId,
        code: &[Token<'_>],
        folder: &str,
        texts: &BTreeMap<&str, &str>,
    ) {
        let text = |at: usize| code.get(at).map_or("", |token| token.text);
        // Depth of brackets: items of the module are at depth 0.
        let mut depth = 0;
        let mut at = 0;
        while at < code.len() {
            let token = code[at];
            let before = if at > 0 { text(at - 1) } else { "" };
            match token.text {
                _ if !token.is_word() => {
                    if token.is("(") || token.is("[") || token.is("{") {
                        depth += 1;
                    } else if token.is(")") || token.is("]") || token.is("}") {
                        depth -= 1;
                    }
                }
                "pub"
                    if text(at + 1) == "("
                        && ["crate", "self", "super", "in"].contains(&text(at + 2)) =>
                {
                    // `pub(in path)` names a module but uses nothing of it.
                    at = group_end(code, at + 1);
                }
                // `use<'a>` says what a type captures.
                "use" if text(at + 1) != "<" => {
                    let len = code[at..].iter().take_while(|token| !token.is(";")).count();
                    let reexported = before == "pub" || before == ")";
                    for (path, name) in imports_of(&code[at + 1..at + len]) {
                        if name != "*" && name != "_" {
                            let path = path.clone();
                            let import = Definition::Import { path, reexported };
                            self.define(module, &name, import);
                        }
                        self.modules[module].imports.push(Import {
                            path,
                            name,
                            reexported,
                        });
                    }
                    at += len;
                }
                "mod" if depth == 0 && text(at + 2) == ";" => {
                    let name = text(at + 1);
                    let child = self
                        .read_file(&format!("{folder}/{name}.rs"), Some(module), texts)
                        .or_else(|| {
                            self.read_file(&format!("{folder}/{name}/mod.rs"), Some(module), texts)
                        });
                    if let Some(child) = child {
                        self.define(module, name, Definition::Module(child));
                    }
                    at += 1;
                }
                "mod" if depth == 0 && text(at + 2) == "{" => {
                    let name = text(at + 1);
                    let end = group_end(code, at + 2);
                    let child = self.add_module(self.modules[module].file, Some(module));
                    self.define(module, name, Definition::Module(child));
                    let within = format!("{folder}/{name}");
                    self.read_module(child, &code[at + 3..end], &within, texts);
                    at = end;
                }
                "macro_rules" if text(at + 1) == "!" => {
                    let item = Definition::Item(self.modules[module].file);
                    self.define(module, text(at + 2), item.clone());
                    if before == EXPORTED.text {
                        self.define(self.modules[module].root, text(at + 2), item);
                    }
                    at += 2;
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                    if before != "*" =>
                {
                    let name = at + 1 + usize::from(text(at + 1) == "mut");
                    let is_item = code.get(name).is_some_and(Token::is_word)
                        && !["fn", "unsafe", "async", "extern"].contains(&text(name));
                    if is_item {
                        if depth == 0 {
                            let item = Definition::Item(self.modules[module].file);
                            self.define(module, text(name), item);
                        }
                        at = name;
                    }
                }
                _ if before != "." && before != "::" => {
                    let (path, end) = path_at(code, at);
                    let word = path[0].as_str();
                    // A small letter begins variables and fields too; those are not called.
                    if word.starts_with(char::is_uppercase)
                        || ["(", "!", "::"].contains(&text(at + 1))
                    {
                        self.modules[module].words.insert(word.to_owned());
                    }
                    if path.len() > 1 {
                        self.modules[module].paths.insert(path);
                    }
                    at = end - 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// What `path` in `module` leads to, by way of all re-exports; nothing if it leads out of the
    /// crate. Where the last module on the way does not show the name, as a macro makes it, it is
    /// taken for an item of that module.
    pub fn resolve(&self, module: ModuleId, path: &[String]) -> BTreeSet<Target> {
        self.follow(module, path, &mut BTreeSet::new())
    }

    /// What `name` stands for in `module`, if the module defines or imports it.
    pub fn look_up(&self, module: ModuleId, name: &str) -> BTreeSet<Target> {
        self.look(module, name, &mut BTreeSet::new())
    }

    /// Whether `name` is defined in `module`, or imported by name.
    pub fn has_name(&self, module: ModuleId, name: &str) -> bool {
        self.modules[module].names.contains_key(name)
    }

    fn follow(&self, module: ModuleId, path: &[String], seen: &mut Seen) -> BTreeSet<Target> {
        let mut targets = match path[0].as_str() {
            "crate" => BTreeSet::from([Target::Module(self.modules[module].root)]),
            "self" => BTreeSet::from([Target::Module(module)]),
            "super" => self.parent_of(module),
            first => self.look(module, first, seen),
        };
        for segment in &path[1..] {
            let is_module = |target: &Target| matches!(target, Target::Module(_));
            if targets.iter().any(is_module) {
                targets.retain(is_module);
            }
            targets = targets
                .into_iter()
                .flat_map(|target| match target {
                    Target::Module(id) => self.step(id, segment, seen),
                    // A variant, or an associated item.
                    Target::Item(file) => BTreeSet::from([Target::Item(file)]),
                })
                .collect();
        }
        targets
    }

    fn parent_of(&self, module: ModuleId) -> BTreeSet<Target> {
        let parent = self.modules[module].parent.map(Target::Module);
        parent.into_iter().collect()
    }

    /// Where a segment within a path leads from `module`.
    fn step(&self, module: ModuleId, segment: &str, seen: &mut Seen) -> BTreeSet<Target> {
        match segment {
            "super" => return self.parent_of(module),
            "self" => return BTreeSet::from([Target::Module(module)]),
            _ => {}
        }
        let found = self.look(module, segment, seen);
        let this = &self.modules[module];
        if found.is_empty() && !self.has_name(module, segment) {
            return BTreeSet::from([Target::Item(this.file)]);
        }
        found
    }

    fn look(&self, module: ModuleId, name: &str, seen: &mut Seen) -> BTreeSet<Target> {
        let this = &self.modules[module];
        let mut targets = BTreeSet::new();
        for (at, definition) in this.names.get(name).into_iter().flatten().enumerate() {
            match definition {
                Definition::Item(file) => _ = targets.insert(Target::Item(*file)),
                Definition::Module(id) => _ = targets.insert(Target::Module(*id)),
                Definition::Import { path, reexported } => {
                    let key = (module, name.to_owned(), at);
                    if !seen.insert(key.clone()) {
                        continue;
                    }
                    let found = self.follow(module, path, seen);
                    seen.remove(&key);
                    if found.is_empty() && *reexported {
                        // Another crate's, chosen here.
                        targets.insert(Target::Item(this.file));
                    }
                    targets.extend(found);
                }
            }
        }
        let key = (module, name.to_owned(), usize::MAX);
        if this.names.contains_key(name) || !seen.insert(key.clone()) {
            return targets;
        }
        for import in this.imports.iter().filter(|import| import.name == "*") {
            for target in self.follow(module, &import.path, seen) {
                if let Target::Module(id) = target {
                    targets.extend(self.look(id, name, seen));
                }
            }
        }
        seen.remove(&key);
        targets
    }
}

/// The definitions that are being followed: of a module, of a name, the how manieth.
type Seen = BTreeSet<(ModuleId, String, usize)>;

/// The path that starts at `at`, and the position behind it.
fn path_at(code: &[Token<'_>], at: usize) -> (Vec<String>, usize) {
    let mut path = vec![code[at].text.to_owned()];
    let mut end = at + 1;
    while code.get(end).is_some_and(|token| token.is("::"))
        && code.get(end + 1).is_some_and(Token::is_word)
    {
        path.push(code[end + 1].text.to_owned());
        end += 2;
    }
    (path, end)
}

/// The paths and names of a `use`, whose tree is given.
fn imports_of(tree: &[Token<'_>]) -> Vec<(Vec<String>, String)> {
    let mut path = Vec::new();
    let mut at = 0;
    while at < tree.len() {
        let token = tree[at];
        if token.is("{") {
            let inside = &tree[at + 1..group_end(tree, at)];
            return split_at_commas(inside)
                .into_iter()
                .flat_map(imports_of)
                .map(|(rest, name)| {
                    let rest_is_self = rest == ["self"];
                    let name = if rest_is_self && name == "self" {
                        path.last().cloned().unwrap_or_default()
                    } else {
                        name
                    };
                    let rest = if rest_is_self { Vec::new() } else { rest };
                    ([path.clone(), rest].concat(), name)
                })
                .collect();
        } else if token.is("*") {
            return vec![(path, "*".to_owned())];
        } else if token.is("as") {
            return vec![(path, tree[at + 1].text.to_owned())];
        } else if token.is_word() {
            path.push(token.text.to_owned());
        } else if token.is("::") && at == 0 {
            // A path of another crate, whatever the modules here are called.
            path.push("::".to_owned());
        }
        at += 1;
    }
    let name = path.last().cloned().unwrap_or_default();
    vec![(path, name)]
}
