//! The log: where lines go, and what happens when they cannot. A full disk, a vanished directory or a reader that
//! stopped reading costs lines, which are counted and reported; it never stops the service.

use std::fs::{File, OpenOptions};
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use env_logger::{Target, WriteStyle};
use log::{Level, LevelFilter, Record};
use rustix::event::{PollFd, PollFlags, poll};

use super::options::LogFormat;
use super::privileges::Identity;
use super::record;
use super::syslog::{Syslog, severity};
use crate::rim::lock::{Ranked, rank};

/// Longest line, in bytes. A pipe takes so much whole or not at all, and syslog takes no more in one datagram.
const LINE_MAX: usize = 4096;
/// How long a line waits for the reader of standard error, before it and those after it are dropped.
const STALL: Duration = Duration::from_millis(100);
/// Mode of a log file that we create: calls and addresses are nobody's business.
const MODE: u32 = 0o640;

/// The log of this process; its copies are one log.
#[derive(Clone)]
pub(crate) struct Log {
    lines: Arc<Ranked<Lines, { rank::LOG }>>,
}

impl Log {
    /// Logs to standard error; as the journal reads it, where that is at its other end.
    pub(crate) fn to_stderr() -> Self {
        let stderr = io::stderr();
        let journal = std::env::var("JOURNAL_STREAM").ok();
        Self::of(Sink::Stderr {
            journal: journal.is_some_and(|journal| is_journal(&stderr, &journal)),
            stderr,
            stalled: false,
        })
    }

    /// Logs to the file `path`, opened with the rights of `user`, whom we become, so that one that we create is its
    /// own and none is written that it may not write.
    pub(crate) fn to_file(path: &Path, user: Option<&Identity>) -> io::Result<Self> {
        Ok(Self::of(Sink::File(LogFile::open(path, user)?)))
    }

    /// Logs to the syslog of this machine.
    pub(crate) fn to_syslog(syslog: Syslog) -> Self {
        Self::of(Sink::Syslog(syslog))
    }

    fn of(sink: Sink) -> Self {
        Self {
            lines: Arc::new(Ranked::new(Lines {
                sink,
                format: LogFormat::Text,
                lost: 0,
                why: String::new(),
            })),
        }
    }

    /// Makes this the log of the whole process, its lines in `format`. `verbosity` counts `-v`; `RUST_LOG` wins where
    /// it is set.
    pub(crate) fn install(&self, verbosity: usize, format: LogFormat) {
        let level = match verbosity {
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        let mut builder = env_logger::Builder::new();
        builder
            .filter_level(level)
            .write_style(WriteStyle::Never)
            .target(Target::Pipe(Box::new(self.clone())));
        if let Ok(filters) = std::env::var("RUST_LOG") {
            builder.parse_filters(&filters);
        }
        let form = {
            let mut lines = self.lines.lock();
            lines.format = format;
            lines.sink.form()
        };
        builder.format(move |line, record| {
            let time = line.timestamp_millis().to_string();
            let mut head = Vec::new();
            match form {
                // A line of fields has both among these.
                Form::Dated if format == LogFormat::Text => write!(head, "{time} {} ", record.level())?,
                Form::Dated => {}
                Form::Journal => write!(head, "<{}>", severity(record.level()))?,
                Form::Syslog(facility) => Syslog::write_head(&mut head, facility, record.level())?,
            }
            // With its head and end it is no longer than a line may be; a longer text is cut where it is written.
            let room = LINE_MAX.saturating_sub(head.len() + 1);
            line.write_all(&head)?;
            writeln!(line, "{}", record::render(format, &time, record, room))
        });
        // Only a second call in one process fails, and the log that is there will do.
        let _ = builder.try_init();
    }

    /// Opens the file anew: a rotated one goes on under its new name without us. When that cannot be done the
    /// old one stays in use.
    pub(crate) fn reopen(&self) {
        let result = self.lines.lock().sink.reopen();
        match result {
            Ok(true) => log::info!("log reopened"),
            Ok(false) => {}
            Err(error) => log::warn!("cannot reopen the log, the old file stays in use: {error}"),
        }
    }
}

impl Write for Log {
    /// Takes one whole line. It always succeeds: what cannot be written is counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.lock().write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to a sink that may fail.
struct Lines {
    sink: Sink,
    format: LogFormat,
    /// Lines lost since the last one that got through.
    lost: u64,
    /// What the system said of the last of them.
    why: String,
}

impl Lines {
    fn write(&mut self, line: &[u8]) {
        let result = self.report_lost(line).and_then(|()| match cut(line) {
            Some(short) => self.sink.line(&short),
            None => self.sink.line(line),
        });
        if let Err(error) = result {
            self.lost = self.lost.saturating_add(1);
            self.why = error.to_string();
        }
    }

    /// Says what was lost, at the time of the line that follows: its head is that up to the first blank, which
    /// ends the time, or syslog's tag. The journal has its own time.
    fn report_lost(&mut self, next: &[u8]) -> io::Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        let message = format!("{} log lines were lost: {}", self.lost, self.why);
        let next = String::from_utf8_lossy(next);
        let report = match self.sink.form() {
            _ if self.format != LogFormat::Text => {
                let (head, time) = record::head_of(self.format, &next);
                let line = record::render(
                    self.format,
                    time,
                    &Record::builder()
                        .level(Level::Warn)
                        .args(format_args!("{message}"))
                        .build(),
                    LINE_MAX,
                );
                format!("{head}{line}\n")
            }
            Form::Journal => format!("<{}>{message}\n", severity(Level::Warn)),
            Form::Dated | Form::Syslog(_) => {
                let head = next.split(' ').next().unwrap_or_default();
                format!("{head} WARN {message}\n")
            }
        };
        self.sink.line(report.as_bytes())?;
        self.lost = 0;
        Ok(())
    }
}

/// The beginning of a line that is too long, marked as such.
fn cut(line: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"...\n";
    if line.len() <= LINE_MAX {
        return None;
    }
    let begin = line.get(..LINE_MAX - MARK.len()).unwrap_or_default();
    // A character that is cut in two would make the file one of bad UTF-8.
    let whole = begin.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    Some([whole.as_bytes(), MARK].concat())
}

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With time and level.
    Dated,
    /// As journald takes it from standard error: with the level as a number; the time is its own.
    Journal,
    /// With syslog's priority, of this facility, and tag.
    Syslog(u8),
}

enum Sink {
    Stderr {
        stderr: Stderr,
        stalled: bool,
        journal: bool,
    },
    File(LogFile),
    Syslog(Syslog),
}

impl Sink {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr { stderr, stalled, .. } => {
                // Standard error is shared with whoever started us, so it cannot be made non-blocking.
                *stalled = !writable(stderr, if *stalled { Duration::ZERO } else { STALL })?;
                if *stalled {
                    return Err(io::Error::new(
                        io::ErrorKind::WouldBlock,
                        "standard error is not read",
                    ));
                }
                stderr.write_all(line)
            }
            Self::File(file) => file.line(line),
            Self::Syslog(syslog) => syslog.line(line),
        }
    }

    /// Whether there was something to reopen.
    fn reopen(&mut self) -> io::Result<bool> {
        match self {
            Self::File(file) => file.reopen().map(|()| true),
            Self::Stderr { .. } | Self::Syslog(_) => Ok(false),
        }
    }

    const fn form(&self) -> Form {
        match self {
            Self::Syslog(syslog) => Form::Syslog(syslog.facility()),
            Self::Stderr { journal: true, .. } => Form::Journal,
            Self::Stderr { .. } | Self::File(_) => Form::Dated,
        }
    }
}

/// Whether `stream` is what `JOURNAL_STREAM` names: a device and an inode. It is inherited, and standard error may
/// have been sent elsewhere since.
fn is_journal(stream: &impl AsFd, journal: &str) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|found| journal == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Whether `stream` takes a line within `wait`.
fn writable(stream: &Stderr, wait: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(stream, PollFlags::OUT)];
    let wait = wait.try_into().unwrap_or_default();
    match poll(&mut polled, Some(&wait)) {
        // An error condition is for the write to report.
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// A log file that is found again by its path.
struct LogFile {
    path: PathBuf,
    user: Option<Identity>,
    file: File,
    /// The last line went out in part: the next one begins with a line end.
    torn: bool,
}

impl LogFile {
    fn open(path: &Path, user: Option<&Identity>) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            user: user.cloned(),
            file: append(path, user)?,
            torn: false,
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path, self.user.as_ref())?;
        self.torn = false;
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        // Removed under us: what we wrote now would be lost without a trace. One fstat(2) a line is cheap.
        if self.file.metadata()?.nlink() == 0 {
            self.reopen()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens `path` to append to. A FIFO or terminal is opened too, and never waited for.
fn append(path: &Path, user: Option<&Identity>) -> io::Result<File> {
    let open = || {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut options = OpenOptions::new();
        options.append(true).mode(MODE).custom_flags(flags);
        match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
            other => other,
        }
    };
    let opened = match user {
        Some(user) => user.acting(open)?,
        None => open(),
    };
    opened.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound && path.is_symlink() {
            // Whoever placed the link would say where we make a file.
            io::Error::new(error.kind(), "it is a link to a file that is not there")
        } else {
            error
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Room(PathBuf);

    impl Room {
        fn new() -> Self {
            static SERIAL: AtomicU32 = AtomicU32::new(0);
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("rtpc-log-{}-{serial}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(log: &Log, line: &str) {
        log.clone().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_rotated_log_goes_on_in_a_new_file_after_reopening_and_loses_nothing() {
        let room = Room::new();
        let path = room.0.join("log");
        let log = Log::to_file(&path, None).unwrap();
        write(&log, "T INFO one\n");
        fs::rename(&path, room.0.join("log.1")).unwrap();
        write(&log, "T INFO two\n");
        log.reopen();
        write(&log, "T INFO three\n");
        assert_eq!(room.read("log.1"), "T INFO one\nT INFO two\n");
        assert_eq!(room.read("log"), "T INFO three\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
    }

    #[test]
    fn a_removed_log_is_made_again_with_the_next_line() {
        let room = Room::new();
        let log = Log::to_file(&room.0.join("log"), None).unwrap();
        write(&log, "T INFO one\n");
        fs::remove_file(room.0.join("log")).unwrap();
        write(&log, "T INFO two\n");
        assert_eq!(room.read("log"), "T INFO two\n");
    }

    #[test]
    fn lost_lines_are_reported_in_the_format_of_the_others() {
        let room = Room::new();
        let path = room.0.join("log");
        let log = Log::to_file(&path, None).unwrap();
        for (format, next, want) in [
            (
                LogFormat::Json,
                r#"{"time":"T1","level":"info"}"#,
                r#"{"time":"T1","level":"warn","message":"2 log lines"#,
            ),
            (
                LogFormat::Logfmt,
                "time=T1 level=info",
                "time=T1 level=warn msg=\"2 log lines were lost: full\"\n",
            ),
        ] {
            log.reopen();
            {
                let mut lines = log.lines.lock();
                (lines.lost, lines.why, lines.format) = (2, "full".into(), format);
            }
            write(&log, &format!("{next}\n"));
            let text = room.read("log");
            assert!(
                text.starts_with(want) && text.ends_with(&format!("\n{next}\n")),
                "{text}"
            );
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn lines_lost_with_the_directory_are_reported_when_it_is_back() {
        let room = Room::new();
        let directory = room.0.join("d");
        fs::create_dir(&directory).unwrap();
        let log = Log::to_file(&directory.join("log"), None).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        write(&log, "T1 INFO one\n");
        write(&log, "T2 INFO two\n");
        fs::create_dir(&directory).unwrap();
        write(&log, "T3 INFO three\n");
        let text = room.read("d/log");
        assert!(
            text.starts_with("T3 WARN 2 log lines were lost: No such file"),
            "{text}"
        );
        assert!(text.ends_with("\nT3 INFO three\n"), "{text}");
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let log = Log::to_file(Path::new("/dev/full"), None).unwrap();
        for _ in 0..3 {
            write(&log, "T INFO one\n");
        }
        let lines = log.lines.lock();
        assert_eq!(lines.lost, 3);
        assert!(lines.why.contains("No space"), "{}", lines.why);
    }

    #[test]
    fn a_line_written_in_part_does_not_run_into_the_next() {
        let room = Room::new();
        let log = Log::to_file(&room.0.join("log"), None).unwrap();
        write(&log, "T INFO beg");
        if let Sink::File(file) = &mut log.lines.lock().sink {
            file.torn = true;
        }
        write(&log, "T INFO next\n");
        assert_eq!(room.read("log"), "T INFO beg\nT INFO next\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let room = Room::new();
        let path = room.0.join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert!(Log::to_file(&path, None).is_err());
        let _reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let log = Log::to_file(&path, None).unwrap();
        let line = format!("T INFO {}\n", "x".repeat(4000));
        for _ in 0..100 {
            write(&log, &line);
        }
        assert!(log.lines.lock().lost > 0);
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        let room = Room::new();
        let file = File::create(room.0.join("stream")).unwrap();
        let found = file.metadata().unwrap();
        assert!(is_journal(&file, &format!("{}:{}", found.dev(), found.ino())));
        assert!(!is_journal(
            &file,
            &format!("{}:{}", found.dev(), found.ino() + 1)
        ));
        assert!(!is_journal(&file, ""));
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        let long = format!("x{}\n", "é".repeat(LINE_MAX));
        let short = cut(long.as_bytes()).unwrap();
        assert!(short.len() <= LINE_MAX && short.ends_with(b"...\n"));
        assert!(String::from_utf8(short).is_ok());
        assert_eq!(cut(b"short\n"), None);
    }

    #[test]
    fn no_file_is_made_through_a_link_and_one_that_is_there_is_used() {
        let room = Room::new();
        let (link, file) = (room.0.join("log"), room.0.join("elsewhere"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let refused = Log::to_file(&link, None).err().unwrap();
        assert!(refused.to_string().contains("link"), "{refused}");
        assert!(!file.exists());
        fs::write(&file, "").unwrap();
        write(&Log::to_file(&link, None).unwrap(), "T INFO one\n");
        assert_eq!(room.read("elsewhere"), "T INFO one\n");
    }

    #[test]
    fn a_missing_directory_is_an_error_at_start() {
        let error = Log::to_file(Path::new("/nonexistent-rtpc/log"), None)
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
