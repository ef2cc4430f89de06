//! A file from the disk, with bounds: whatever stands at the path, the answer comes at once. Rim.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::FILE_MAX;
use super::fault::Fault;

/// The contents of the file at `path`, at most [`FILE_MAX`] bytes.
///
/// # Errors
/// One fault that names the path: it is missing, may not be read, is no file, is empty or too large.
pub fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |what: String| Fault::of_file(path, what);
    let failed = |error: std::io::Error| fault(format!("cannot be read: {error}"));
    // Without O_NONBLOCK opening a fifo waits for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = file.map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a fifo"
        } else {
            "a device"
        };
        return Err(fault(format!("is {what}: want a file")));
    }
    let mut contents = Vec::new();
    // One byte more tells a file that is too large, also one that grows while it is read.
    let limit = u64::try_from(FILE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() > FILE_MAX {
        return Err(fault(format!(
            "is larger than {FILE_MAX} bytes: want a configuration"
        )));
    }
    Ok(contents)
}
