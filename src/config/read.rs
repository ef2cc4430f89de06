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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::Command;

    use super::super::{Parsed, load, parse, write};
    use super::*;

    /// A directory of its own for a test, gone when it ends.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rtp_cluster-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The samples of `tests/corpus/config/NAME`, sorted: file, contents.
    fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus/config")
            .join(name);
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "xml"));
        files.sort();
        files
            .into_iter()
            .map(|file| (file.clone(), read(&file).unwrap()))
            .collect()
    }

    /// What stands beside a sample, without the last line end; empty where nothing does.
    fn beside(file: &Path, extension: &str) -> String {
        fs::read_to_string(file.with_extension(extension))
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    fn parse_sample(file: &Path, contents: &[u8]) -> Result<Parsed, String> {
        let name = Path::new(file.file_name().unwrap());
        parse(name, contents).map_err(|faults| faults.to_string())
    }

    #[test]
    fn every_bad_sample_is_refused_with_its_errors() {
        let samples = corpus("bad");
        assert!(samples.len() >= 18, "samples are missing");
        for (file, contents) in samples {
            let expected = beside(&file, "errors");
            assert!(
                !expected.is_empty(),
                "{} has no .errors beside it",
                file.display()
            );
            assert_eq!(parse_sample(&file, &contents), Err(expected));
        }
    }

    #[test]
    fn every_good_sample_loads_with_its_warnings_and_is_written_as_it_was_read() {
        let samples = corpus("good");
        assert!(samples.len() >= 5, "samples are missing");
        for (file, contents) in samples {
            let parsed = parse_sample(&file, &contents).unwrap();
            let warnings: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(warnings.join("\n"), beside(&file, "warnings"));
            let again = parse_sample(&file, write(&parsed.config).as_bytes()).unwrap();
            assert_eq!(again.config, parsed.config, "{}", file.display());
        }
    }

    /// What `tests/fuzz` looks for, over the samples: whatever the bytes, the answer is a configuration or faults with
    /// their places.
    #[test]
    fn a_sample_that_is_torn_or_has_a_byte_changed_is_answered() {
        for (file, contents) in ["good", "bad"].into_iter().flat_map(corpus) {
            for at in (0..64).map(|n| contents.len() * n / 64) {
                let mut changed = contents.clone();
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 0x80;
                }
                for text in [&contents[..at], &changed] {
                    let faults = parse(&file, text).err();
                    let mut faults = faults.iter().flatten();
                    assert!(
                        faults.all(|fault| fault.at().is_some()),
                        "{}: byte {at}",
                        file.display()
                    );
                }
            }
        }
    }

    #[test]
    fn two_spellings_of_a_configuration_are_one() {
        let samples = corpus("good");
        let config = |name: &str| {
            let (file, contents) = samples.iter().find(|(file, _)| file.ends_with(name)).unwrap();
            parse_sample(file, contents).unwrap().config
        };
        assert_eq!(config("all-elements.xml"), config("all-elements-otherwise.xml"));
        for other in ["utf-16.xml", "utf-16-big-endian.xml"] {
            assert_eq!(config("iso-8859-1.xml"), config(other), "{other}");
        }
    }

    #[test]
    fn the_installed_sample_loads_without_a_word() {
        let (parsed, contents) =
            load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/rtp_cluster.xml")).unwrap();
        assert_eq!(parsed.warnings, []);
        assert_eq!(parsed.config.clusters.len(), 1);
        assert_eq!(contents, include_bytes!("../../etc/rtp_cluster.xml"));
    }

    #[test]
    fn what_is_no_file_is_refused_at_once_by_its_kind() {
        let dir = Dir::new("read");
        let refused = |name: &str| {
            let path = dir.0.join(name);
            let fault = read(&path).unwrap_err().to_string();
            fault
                .strip_prefix(&format!("{}: ", path.display()))
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            refused("missing"),
            "cannot be read: No such file or directory (os error 2)"
        );
        assert_eq!(refused(""), "is a directory: want a file");
        // A fifo that nobody writes to: without care this would wait for ever.
        assert!(
            Command::new("mkfifo")
                .arg(dir.0.join("fifo"))
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(refused("fifo"), "is a fifo: want a file");
        let _listener = UnixListener::bind(dir.0.join("socket")).unwrap();
        assert!(refused("socket").starts_with("cannot be read: "));
        assert_eq!(
            read(Path::new("/dev/zero")).unwrap_err().to_string(),
            "/dev/zero: is a device: want a file"
        );
        assert_eq!(
            load(Path::new("/dev/null")).unwrap_err().to_string(),
            "/dev/null: is a device: want a file"
        );
    }

    #[test]
    fn a_file_may_have_four_mebibytes_and_not_one_byte_more() {
        let dir = Dir::new("large");
        let path = dir.0.join("f.xml");
        fs::write(&path, vec![b' '; FILE_MAX]).unwrap();
        assert_eq!(read(&path).unwrap().len(), FILE_MAX);
        fs::write(&path, vec![b' '; FILE_MAX + 1]).unwrap();
        let want = format!(
            "{}: is larger than 4194304 bytes: want a configuration",
            path.display()
        );
        assert_eq!(read(&path).unwrap_err().to_string(), want);
    }

    #[test]
    fn an_owner_that_this_machine_does_not_know_is_told_with_its_place() {
        let dir = Dir::new("owner");
        let path = dir.0.join("f.xml");
        let load_with = |owner: &str| {
            let text = format!(
                "<rtp_cluster_config><rtp_cluster><name>C</name><protocol>UNIX</protocol><address>/c</address>\n\
                 <socket owner=\"{owner}\"/></rtp_cluster></rtp_cluster_config>"
            );
            fs::write(&path, text).unwrap();
            load(&path).map(|_| ()).map_err(|faults| faults.to_string())
        };
        for owner in ["root", "root:root", "4000000001:4000000002"] {
            assert_eq!(load_with(owner), Ok(()), "{owner}");
        }
        for (owner, kind) in [("no-such-one", "user"), ("root:no-such-one", "group")] {
            let want = format!(
                "{}:2:9: cluster C: socket owner: there is no {kind} \"no-such-one\" on this machine: want one that \
                 exists, or a number",
                path.display()
            );
            assert_eq!(load_with(owner), Err(want));
        }
    }

    #[test]
    fn an_empty_file_is_told_with_its_place() {
        let dir = Dir::new("empty");
        let path = dir.0.join("f.xml");
        fs::write(&path, "").unwrap();
        let want = format!(
            "{}:1:1: the file is empty: want <rtp_cluster_config>",
            path.display()
        );
        assert_eq!(load(&path).unwrap_err().to_string(), want);
    }
}
