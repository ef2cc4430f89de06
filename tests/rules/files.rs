//! The files of the repository, by their paths from its top.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What git keeps, sorted. In a tree that is no checkout there is nothing to hold to these rules.
pub(crate) fn tracked() -> Vec<String> {
    // A checkout may belong to somebody else than the one who tests.
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git is installed");
    assert!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let list = String::from_utf8(listed.stdout).expect("names are UTF-8");
    // A file that is removed and not yet committed so.
    let mut files: Vec<String> = list
        .split_terminator('\0')
        .filter(|file| exists(file))
        .map(str::to_owned)
        .collect();
    files.sort();
    files
}

/// Those of `src/`.
pub(crate) fn sources() -> Vec<String> {
    let mut files = tracked();
    files.retain(|file| file.starts_with("src/") && has_extension(file, "rs"));
    files
}

/// The text of a file.
pub(crate) fn read(file: &str) -> String {
    text(file).unwrap_or_else(|| panic!("{file} is no text"))
}

/// The text of a file; `None` of one that is none.
pub(crate) fn text(file: &str) -> Option<String> {
    let bytes = fs::read(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    String::from_utf8(bytes).ok()
}

pub(crate) fn exists(file: &str) -> bool {
    path(file).exists()
}

pub(crate) fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file)
        .extension()
        .is_some_and(|found| found == extension)
}

pub(crate) fn path(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
