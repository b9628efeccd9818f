//! Which file uses which.
//!
//! A file uses the file that *defines* what it names. A re-export is an address and no use: who
//! imports a name from a `mod.rs` that re-exports it uses the file behind. So `mod child;` and
//! `pub use child::Name` are no arrows, unless the code of the same file names it as well; a
//! private `use child::Name` is one. Calls of methods are not seen, as nothing names their file.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{FileId, ModuleId, Target, Tree};

/// From one file to another, with the names that tie them.
pub type Arrows = BTreeMap<(FileId, FileId), BTreeSet<String>>;

/// The arrows among the files of a tree.
#[derive(Debug, Default)]
pub struct Graph {
    pub uses: Arrows,
    /// Re-exports that nothing in the same file uses.
    pub reexports: Arrows,
}

impl Graph {
    pub fn of(tree: &Tree) -> Self {
        let mut graph = Self::default();
        for module in 0..tree.modules.len() {
            graph.add_imports(tree, module);
            graph.add_paths(tree, module);
        }
        let uses = &graph.uses;
        graph.reexports.retain(|arrow, _| !uses.contains_key(arrow));
        graph
    }

    fn add_imports(&mut self, tree: &Tree, id: ModuleId) {
        let module = &tree.modules[id];
        for import in &module.imports {
            let targets = tree.resolve(id, &import.path);
            if import.name == "*" {
                for target in targets {
                    self.add_glob(tree, id, target);
                }
                continue;
            }
            let name = import.path.last().map_or("", String::as_str);
            let is_used = module.words.contains(&import.name);
            let leads_on = is_start_of_path(tree, id, &import.name);
            let has_items = targets.iter().any(|t| matches!(t, Target::Item(_)));
            for target in targets {
                let file = match target {
                    Target::Item(file) => file,
                    // What is used of a module is seen at the paths that begin with its name.
                    Target::Module(_) if has_items || leads_on => continue,
                    Target::Module(id) => tree.modules[id].file,
                };
                if import.reexported && !is_used {
                    add(&mut self.reexports, module.file, file, name);
                } else {
                    add(&mut self.uses, module.file, file, name);
                }
            }
        }
    }

    /// Of a glob, what the code names is used.
    fn add_glob(&mut self, tree: &Tree, id: ModuleId, target: Target) {
        let module = &tree.modules[id];
        match target {
            Target::Item(file) => add(&mut self.uses, module.file, file, "*"),
            Target::Module(from) => {
                for word in &module.words {
                    if tree.has_name(id, word) {
                        continue;
                    }
                    for target in tree.look_up(from, word) {
                        if let Target::Item(file) = target {
                            add(&mut self.uses, module.file, file, word);
                        }
                    }
                }
            }
        }
    }

    fn add_paths(&mut self, tree: &Tree, id: ModuleId) {
        let module = &tree.modules[id];
        for path in &module.paths {
            let first = path[0].as_str();
            let is_keyword = ["crate", "super", "self"].contains(&first);
            let through_module = || {
                let targets = tree.look_up(id, first);
                targets.iter().any(|t| matches!(t, Target::Module(_)))
            };
            if !is_keyword && !through_module() {
                continue;
            }
            let targets = tree.resolve(id, path);
            let has_items = targets.iter().any(|t| matches!(t, Target::Item(_)));
            for target in targets {
                let file = match target {
                    Target::Item(file) => file,
                    Target::Module(_) if has_items => continue,
                    Target::Module(id) => tree.modules[id].file,
                };
                add(&mut self.uses, module.file, file, &path.join("::"));
            }
        }
    }
}

/// Whether a path or another import of the module begins with `name`.
fn is_start_of_path(tree: &Tree, id: ModuleId, name: &str) -> bool {
    let module = &tree.modules[id];
    let paths = module.paths.iter();
    let imports = module.imports.iter().map(|import| &import.path);
    paths
        .chain(imports.filter(|path| path.len() > 1))
        .any(|path| path[0] == name)
}

fn add(arrows: &mut Arrows, from: FileId, to: FileId, name: &str) {
    if from != to {
        let names = arrows.entry((from, to)).or_default();
        names.insert(name.to_owned());
    }
}

/// The groups of files that use one another in a circle (strongly connected components of more
/// than one file), by Tarjan's algorithm.
pub fn circles(files: usize, arrows: &Arrows) -> Vec<Vec<FileId>> {
    struct Search<'a> {
        next: &'a [Vec<FileId>],
        index: Vec<Option<usize>>,
        low: Vec<usize>,
        on_stack: Vec<bool>,
        stack: Vec<FileId>,
        count: usize,
        found: Vec<Vec<FileId>>,
    }

    impl Search<'_> {
        fn visit(&mut self, file: FileId) {
            self.index[file] = Some(self.count);
            self.low[file] = self.count;
            self.count += 1;
            self.stack.push(file);
            self.on_stack[file] = true;
            let all = self.next;
            for &to in &all[file] {
                match self.index[to] {
                    None => {
                        self.visit(to);
                        self.low[file] = self.low[file].min(self.low[to]);
                    }
                    Some(index) if self.on_stack[to] => {
                        self.low[file] = self.low[file].min(index);
                    }
                    Some(_) => {}
                }
            }
            if Some(self.low[file]) == self.index[file] {
                let start = self.stack.iter().rposition(|&on| on == file);
                let mut group = self.stack.split_off(start.expect("it was pushed"));
                group.iter().for_each(|&on| self.on_stack[on] = false);
                group.sort_unstable();
                if group.len() > 1 {
                    self.found.push(group);
                }
            }
        }
    }

    let mut next = vec![Vec::new(); files];
    for &(from, to) in arrows.keys() {
        next[from].push(to);
    }
    let mut search = Search {
        next: &next,
        index: vec![None; files],
        low: vec![0; files],
        on_stack: vec![false; files],
        stack: Vec::new(),
        count: 0,
        found: Vec::new(),
    };
    for file in 0..files {
        if search.index[file].is_none() {
            search.visit(file);
        }
    }
    search.found
}
