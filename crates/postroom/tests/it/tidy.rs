//! Keeps the house in order: which crate may use which, where a library may appear, how long a file may be, and that
//! documents point at things that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each of our crates may use. Web and delivery never meet but in storage.
const ARROWS: [(&str, &[&str]); 6] = [
    ("postroom-domain", &[]),
    ("postroom-storage", &["postroom-domain"]),
    ("postroom-delivery", &["postroom-domain", "postroom-storage"]),
    ("postroom-web", &["postroom-domain", "postroom-storage"]),
    ("postroom", &["postroom-domain", "postroom-storage", "postroom-delivery", "postroom-web"]),
    // Only tests use it, so no arrow points at it.
    ("postroom-testkit", &[]),
];

/// Libraries that have one home. The binary may use HTTP for its client commands and its bench.
const HOMES: [(&str, &[&str]); 7] = [
    ("rusqlite", &["postroom-storage"]),
    ("tokio-postgres", &["postroom-storage", "postroom-testkit"]),
    ("axum", &["postroom-web", "postroom"]),
    ("hyper-rustls", &["postroom-delivery", "postroom"]),
    ("tokio-rustls", &["postroom-delivery"]),
    ("clap", &["postroom"]),
    ("lettre", &["postroom"]),
];

/// The longest source file, in lines.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// Every file below a folder with this ending, but for what git does not keep.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files(&path, ending, found);
            }
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

/// The `[dependencies]` of each of our crates.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    ARROWS
        .iter()
        .map(|(name, _)| {
            let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).expect(name);
            let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
            let table = manifest["dependencies"].as_table().expect("a table");
            ((*name).to_owned(), table.keys().cloned().collect())
        })
        .collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let dependencies = dependencies();
    for (name, allowed) in ARROWS {
        for used in dependencies[name].iter().filter(|used| used.starts_with("postroom")) {
            assert!(allowed.contains(&used.as_str()), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn a_library_with_one_home_appears_nowhere_else() {
    for (name, used) in dependencies() {
        for (library, homes) in HOMES {
            assert!(
                !used.iter().any(|used| used == library) || homes.contains(&name.as_str()),
                "{library} belongs to {homes:?}, not to {name}"
            );
        }
    }
}

#[test]
fn source_files_are_short_and_finished() {
    // Put together here so that this file does not find itself.
    let unfinished =
        [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore"), concat!("FIX", "ME")];
    let mut sources = Vec::new();
    files(&root().join("crates"), "rs", &mut sources);
    assert!(sources.len() > 20, "the sources were found");
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source file is UTF-8");
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}: split it", path.display());
        for word in unfinished {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn documents_link_to_files_that_exist() {
    let mut documents = Vec::new();
    files(&root(), "md", &mut documents);
    for path in documents {
        let text = fs::read_to_string(&path).expect("a document is UTF-8");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            let folder = path.parent().expect("a file has a folder");
            assert!(folder.join(target).exists(), "{} links to {target}, which does not exist", path.display());
        }
    }
}
