//! A fresh directory for each test, short enough for a UNIX socket's path, gone when the test has passed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

/// A directory of one test's own.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// Makes one under the system's directory for temporary files.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("rtpc-{}-{number}", process::id()));
        // What a killed run with the same number has left behind is nobody's any more.
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(path)
    }

    /// The path of `name` in this directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in this directory and gives its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the files of this test stay in {}", self.0.display());
        } else {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}
