//! The packages, built once for all tests by the two commands that everybody builds them with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What the scripts built.
#[derive(Debug)]
pub struct Built {
    /// The Debian package.
    pub deb: PathBuf,
    /// A later one of the same version.
    pub newer_deb: PathBuf,
    /// What lintian reads.
    pub changes: PathBuf,
    /// The RPM.
    pub rpm: PathBuf,
}

/// The packages of this tree.
pub fn packages() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let deb = build("build-deb.sh", "1");
        let changes = deb.with_extension("changes");
        Built {
            newer_deb: build("build-deb.sh", "2"),
            rpm: build("build-rpm.sh", "1"),
            deb,
            changes,
        }
    })
}

/// The top of the tree.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory that Cargo builds in.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a directory of the build")
}

/// Where the packages' programs are, as they are in the packages.
pub fn program(name: &str) -> PathBuf {
    packages();
    target().join("packages/build/release").join(name)
}

/// Runs a script of packaging/; the path that it prints last.
fn build(script: &str, revision: &str) -> PathBuf {
    let mut command = Command::new("sh");
    command
        .arg(top().join("packaging").join(script))
        .env("RTP_CLUSTER_REVISION", revision);
    let output = command.output().expect("a shell");
    let said = text(&output);
    assert!(output.status.success(), "{script}: {said}");
    let path = PathBuf::from(said.lines().last().unwrap_or_default());
    assert!(path.is_file(), "{script}: {said}");
    path
}

/// What a command said on standard output, and before it on standard error.
pub fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    error + &String::from_utf8_lossy(&output.stdout)
}

/// Runs a command; its text, and the failure of the test unless it succeeds.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run `sh tests/run.sh`"));
    let said = text(&output);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    said
}
