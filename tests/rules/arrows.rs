//! The arrows between rooms: which room uses which is what the table of the tour says, and no two files import each
//! other, in however wide a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, files};

/// Modules by their path from the crate's root, each with the code of its file; programs stand below `bin`.
type Tree = BTreeMap<Vec<String>, String>;
/// A room, and those that it may use.
type Table = Vec<(String, BTreeSet<String>)>;

#[test]
fn each_room_uses_those_that_the_tour_says() {
    let tree = ours();
    let table = table(&files::read("src/lib.rs"));
    assert_eq!(
        faults_of(&table, &tree),
        [""; 0],
        "the table of rooms in src/lib.rs"
    );
    let wrong = arrows(&tree, &table);
    assert!(wrong.is_empty(), "not in the table of rooms: {wrong:#?}");
}

#[test]
fn no_two_files_import_each_other() {
    let tree = ours();
    let mut imports = imports(&tree);
    for (file, used) in &mut imports {
        // A room's first file and those in it are one: it offers what they have, and they share what it says.
        used.retain(|other| !file.starts_with(other));
    }
    let circles = circles(&imports);
    assert!(circles.is_empty(), "files that import each other: {circles:#?}");
}

/// The sources of this crate.
fn ours() -> Tree {
    code::all()
        .into_iter()
        .map(|(file, code)| (module(&file), code))
        .collect()
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; `src/lib.rs` is the root.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/')
        .filter(|part| *part != "lib")
        .map(str::to_owned)
        .collect()
}

/// The table of the tour that begins with `| room | may use |`.
fn table(tour: &str) -> Table {
    let rows = tour
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| !line.starts_with("| room | may use |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(quoted);
        let room = cells.next().unwrap_or_default().pop().unwrap_or_default();
        (room, cells.next().unwrap_or_default().into_iter().collect())
    })
    .collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A table has every room that there is and no other, and each uses only rooms that stand below it.
fn faults_of(table: &Table, tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (row, (room, uses)) in table.iter().enumerate() {
        if !tree.keys().any(|module| is_within(module, room)) {
            faults.push(format!("{room} is not there"));
        }
        for used in uses {
            if !table[row + 1..].iter().any(|(below, _)| below == used) {
                faults.push(format!("{room} uses {used}, which does not stand below it"));
            }
        }
    }
    for module in tree.keys().filter(|module| !module.is_empty()) {
        if room_of(module, table).is_none() {
            faults.push(format!("{} is in no room", module.join("::")));
        }
    }
    faults
}

fn is_within(module: &[String], room: &str) -> bool {
    let room: Vec<&str> = room.split('/').collect();
    module.len() >= room.len() && room.iter().zip(module).all(|(a, b)| a == b)
}

/// The narrowest room that `module` is in.
fn room_of<'a>(module: &[String], table: &'a Table) -> Option<&'a str> {
    let rooms = table.iter().map(|(room, _)| room.as_str());
    rooms
        .filter(|room| is_within(module, room))
        .max_by_key(|room| room.len())
}

/// Arrows that the table does not allow, each with the imports that it comes from.
fn arrows(tree: &Tree, table: &Table) -> BTreeMap<String, Vec<String>> {
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in tree {
        for path in paths(module, code).into_iter().map(|path| path.names) {
            let (Some(from), Some(to)) = (room_of(module, table), room_of(&path, table)) else {
                continue;
            };
            let allowed = table.iter().any(|(room, uses)| room == from && uses.contains(to));
            if from != to && !allowed {
                let import = format!("{}: {}", module.join("::"), path.join("::"));
                wrong.entry(format!("{from} -> {to}")).or_default().push(import);
            }
        }
    }
    wrong
}

/// Which file imports which. A module that offers what its children have (`pub use`) does not import it.
fn imports(tree: &Tree) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let offered: BTreeMap<Vec<String>, Vec<String>> = tree
        .iter()
        .flat_map(|(module, code)| {
            let offers = paths(module, code).into_iter().filter(|path| path.is_offer);
            offers.map(|path| {
                let name = path.names.last().cloned().unwrap_or_default();
                ([module.as_slice(), &[name]].concat(), path.names)
            })
        })
        .collect();
    tree.iter()
        .map(|(module, code)| {
            let imported = paths(module, code)
                .into_iter()
                .filter(|path| !(path.is_offer && path.names.starts_with(module)));
            let files = imported
                .map(|path| file_of(&path.names, tree, &offered))
                .filter(|file| file != module && !file.is_empty());
            (module.clone(), files.collect())
        })
        .collect()
}

/// The module whose file has what `path` names, also where another module offers it.
fn file_of(path: &[String], tree: &Tree, offered: &BTreeMap<Vec<String>, Vec<String>>) -> Vec<String> {
    /// An offer of an offer of an offer.
    const DEPTH: usize = 8;
    let mut path = path.to_vec();
    for _ in 0..DEPTH {
        let offer = (1..=path.len()).find_map(|length| Some((length, offered.get(&path[..length])?)));
        match offer {
            Some((length, to)) if *to != path[..length] => path = [to, &path[length..]].concat(),
            _ => break,
        }
    }
    while !path.is_empty() && !tree.contains_key(&path) {
        path.pop();
    }
    path
}

/// Sets of files each of which leads to every other.
fn circles(imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<Vec<String>> {
    let reach: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = imports
        .keys()
        .map(|file| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
            while let Some(file) = next.pop() {
                let further = imports.get(file).into_iter().flatten();
                next.extend(further.filter(|file| seen.insert(*file)));
            }
            (file, seen)
        })
        .collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, seen) in &reach {
        let mutual = seen
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(file)));
        let circle: Vec<String> = mutual.map(|module| module.join("::")).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// A path that leads to something of this crate.
#[derive(Debug, PartialEq)]
struct Path {
    /// From the crate's root.
    names: Vec<String>,
    /// Whether it stands in a `pub use`.
    is_offer: bool,
}

/// Paths in `code` of `module` that begin with `crate`, `self`, `super`, the crate's name or a child's, in a `use` or
/// anywhere else.
fn paths(module: &[String], code: &str) -> Vec<Path> {
    let words = words(code);
    let children: BTreeSet<&str> = words
        .windows(3)
        .filter(|w| w[0] == "mod" && w[2] == ";")
        .map(|w| w[1])
        .collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let follows_path = at > 0 && words[at - 1] == "::";
        if *word == "use" {
            let is_offer = at > 0 && (words[at - 1] == "pub" || words[at - 1] == ")");
            let end = at
                + words[at..]
                    .iter()
                    .position(|w| *w == ";")
                    .unwrap_or(words.len() - at);
            let mut inside = words[at + 1..end].iter().copied();
            tree_of(&mut inside, &[], &mut |path| {
                let names = from_root(module, &children, path);
                found.extend(names.map(|names| Path { names, is_offer }));
            });
            at = end;
        } else if !follows_path && words.get(at + 1) == Some(&"::") {
            let mut path = vec![*word];
            while words.get(at + 1) == Some(&"::") && words.get(at + 2).is_some_and(|w| is_name(w)) {
                path.push(words[at + 2]);
                at += 2;
            }
            let names = from_root(module, &children, &path);
            found.extend(names.map(|names| Path {
                names,
                is_offer: false,
            }));
        }
        at += 1;
    }
    found
}

/// Calls `take` with each path of a `use` tree, `a::{b, c::d}` and so on; returns at the end of a brace.
fn tree_of<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    before: &[&'a str],
    take: &mut impl FnMut(&[&'a str]),
) {
    let mut path = before.to_vec();
    let mut renamed = false;
    let mut nested = false;
    while let Some(word) = words.next() {
        match word {
            "{" => {
                tree_of(words, &path, take);
                nested = true;
            }
            "," | "}" => {
                if !nested && path.len() > before.len() {
                    take(&path);
                }
                (path, renamed, nested) = (before.to_vec(), false, false);
                if word == "}" {
                    return;
                }
            }
            "as" => renamed = true,
            // `a::{self}` is `a`, which is a path of its own.
            "self" if !path.is_empty() => {
                take(&path);
                nested = true;
            }
            word if is_name(word) && !renamed => path.push(word),
            _ => {}
        }
    }
    if !nested && path.len() > before.len() {
        take(&path);
    }
}

/// `path` from the crate's root, where it leads into this crate.
fn from_root(module: &[String], children: &BTreeSet<&str>, path: &[&str]) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    let mut rest = path;
    match *path.first()? {
        "crate" | "rtp_cluster" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first() == Some(&"super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        child if children.contains(child) => {}
        _ => return None,
    }
    Some(
        base.into_iter()
            .chain(rest.iter().map(|s| (*s).to_owned()))
            .collect(),
    )
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Names, `::`, and every other character that is no blank.
fn words(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// A tree of files for the tests of these rules.
fn sample(files: &[(&str, &str)]) -> Tree {
    files
        .iter()
        .map(|(file, code)| (module(file), code::bare(code)))
        .collect()
}

const SAMPLE_TABLE: &str = "//! | room | may use |\n//! |---|---|\n//! | `server` | `dispatch`, `rim` |\n\
                            //! | `server/link` | `rim` |\n//! | `dispatch` | `rim` |\n//! | `rim` | |\n//!\n//! | x | y |";

#[test]
fn one_wrong_use_is_found() {
    let table = table(SAMPLE_TABLE);
    let right = [
        ("src/lib.rs", "pub mod dispatch; pub mod rim; pub mod server;"),
        (
            "src/server/mod.rs",
            "mod link; use crate::dispatch::{self, route::Route};",
        ),
        (
            "src/server/link.rs",
            "use crate::rim::now; // use crate::dispatch::Dispatch;",
        ),
        (
            "src/dispatch/mod.rs",
            "mod route; pub use route::Route; fn f() { crate::rim::now() }",
        ),
        ("src/dispatch/route.rs", ""),
        ("src/rim/mod.rs", ""),
    ];
    let tree = sample(&right);
    assert_eq!(faults_of(&table, &tree), [""; 0]);
    assert_eq!(arrows(&tree, &table), BTreeMap::new());
    for (file, wrong, arrow) in [
        ("src/rim/mod.rs", "use crate::dispatch::Route;", "rim -> dispatch"),
        (
            "src/rim/mod.rs",
            "use {core::fmt, crate::{server::{A, B}}};",
            "rim -> server",
        ),
        (
            "src/dispatch/route.rs",
            "fn f() -> crate::server::Server {}",
            "dispatch -> server",
        ),
        (
            "src/dispatch/route.rs",
            "use super::super::server::Server;",
            "dispatch -> server",
        ),
        (
            "src/server/link.rs",
            "use crate::dispatch::Dispatch;",
            "server/link -> dispatch",
        ),
        (
            "src/server/link.rs",
            "use super::Server;",
            "server/link -> server",
        ),
        (
            "src/server/mod.rs",
            "use link::Link;  mod link;",
            "server -> server/link",
        ),
    ] {
        let mut tree = tree.clone();
        tree.insert(module(file), wrong.to_owned());
        let found: Vec<String> = arrows(&tree, &table).into_keys().collect();
        assert_eq!(found, [arrow], "{file}: {wrong}");
    }
}

#[test]
fn a_table_that_is_not_in_order_or_not_whole_is_found() {
    let tree = sample(&[("src/a.rs", ""), ("src/b.rs", ""), ("src/c.rs", "")]);
    let table = table("| room | may use |\n|---|---|\n| `b` | |\n| `a` | `b` |\n| `d` | |");
    let faults = faults_of(&table, &tree);
    let expected = [
        "a uses b, which does not stand below it",
        "d is not there",
        "c is in no room",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn a_circle_is_found_however_wide_and_an_offer_is_none() {
    let offer = ("src/a/mod.rs", "mod b; mod c; pub use b::B;");
    let straight = [
        offer,
        ("src/a/b.rs", ""),
        ("src/a/c.rs", "use super::B; use super::b::X;"),
    ];
    assert_eq!(circles(&imports(&sample(&straight))), Vec::<Vec<String>>::new());
    for (files, circle) in [
        // What c takes from its parent is b's.
        (
            vec![
                offer,
                ("src/a/b.rs", "use super::c::C;"),
                ("src/a/c.rs", "use super::B;"),
            ],
            vec!["a::b", "a::c"],
        ),
        // A parent that uses its child, which uses what the parent has.
        (
            vec![
                ("src/a/mod.rs", "mod b; use b::B; struct A;"),
                ("src/a/b.rs", "use super::A;"),
            ],
            vec!["a", "a::b"],
        ),
        (
            vec![
                ("src/a.rs", "fn f(_: crate::b::B) {}"),
                ("src/b.rs", "use crate::c::{C as D, E};"),
                ("src/c.rs", "use crate::a::f;"),
                ("src/d.rs", "use crate::a::f;"),
            ],
            vec!["a", "b", "c"],
        ),
    ] {
        assert_eq!(circles(&imports(&sample(&files))), [circle], "{files:?}");
    }
}
