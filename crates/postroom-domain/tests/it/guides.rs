//! `docs/providers` is what the code says.

use std::collections::BTreeSet;
use std::path::Path;

use postroom_domain::provider::{all, guide};

#[test]
fn the_guides_in_docs_are_those_in_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers");
    let pages = all().iter().map(|provider| (format!("{}.md", provider.name), guide::page(provider)));
    let pages: Vec<(String, String)> = pages.chain([("README.md".to_owned(), guide::index(all()))]).collect();
    std::fs::create_dir_all(&folder).unwrap();
    let mut stale: Vec<String> = Vec::new();
    for (name, expected) in &pages {
        if std::fs::read_to_string(folder.join(name)).unwrap_or_default() != *expected {
            std::fs::write(folder.join(name), expected).unwrap();
            stale.push(name.clone());
        }
    }
    let known: BTreeSet<&String> = pages.iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !known.contains(&name) {
            std::fs::remove_file(folder.join(&name)).unwrap();
            stale.push(name);
        }
    }
    assert!(
        stale.is_empty(),
        "{stale:?} were not current and have been written anew: look at the difference and commit it"
    );
}
