//! What a process uses, from `/proc`; nothing where there is none.

use std::fs;

/// Of one process, in the units of its metrics.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Usage {
    /// Processor time in seconds.
    pub(super) cpu: f64,
    /// Bytes in memory.
    pub(super) resident: f64,
    /// Bytes of address space.
    pub(super) virtual_size: f64,
    /// Its threads.
    pub(super) threads: f64,
    /// Seconds since 1970, where the system says when it was started.
    pub(super) started: Option<f64>,
    /// Open files; of a process of somebody else not known.
    pub(super) open_files: Option<f64>,
    /// Files that it may open.
    pub(super) max_files: Option<f64>,
}

/// Our own.
pub(super) fn own() -> Option<Usage> {
    of("self")
}

/// That of the process `pid`, if it is the daemon: a number may be another process's by now.
pub(super) fn of_daemon(pid: i32) -> Option<Usage> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim_end() == "rtp_cluster").then(|| of(&pid.to_string()))?
}

fn of(process: &str) -> Option<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).ok();
    let booted = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| after(&text, "btime "));
    let files = fs::read_dir(format!("/proc/{process}/fd")).ok();
    usage(
        &read("stat")?,
        rustix::param::clock_ticks_per_second(),
        rustix::param::page_size(),
        booted,
    )
    .map(|usage| Usage {
        open_files: files
            .map(Iterator::count)
            .and_then(|n| u32::try_from(n).ok())
            .map(f64::from),
        max_files: read("limits").and_then(|text| after(&text, "Max open files")),
        ..usage
    })
}

/// The number behind `words` at the beginning of a line.
fn after(text: &str, words: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(words))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads `/proc/PID/stat`, see proc(5).
#[expect(
    clippy::cast_precision_loss,
    reason = "ticks a second and bytes of a page are few"
)]
fn usage(stat: &str, ticks: u64, page: usize, booted: Option<f64>) -> Option<Usage> {
    // The program's name stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of `fields` is the third of the page.
    let field = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    let (ticks, page) = (ticks as f64, page as f64);
    Some(Usage {
        cpu: (field(14)? + field(15)?) / ticks,
        resident: field(24)? * page,
        virtual_size: field(23)?,
        threads: field(20)?,
        started: booted
            .zip(field(22))
            .map(|(booted, since)| booted + since / ticks),
        open_files: None,
        max_files: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_page() {
        let stat =
            "12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 1000 40960 3 18446744073709551615";
        let found = usage(stat, 100, 4096, Some(1e9)).unwrap();
        assert_eq!(
            (found.cpu, found.threads, found.started),
            (2.0, 7.0, Some(1e9 + 10.0))
        );
        assert_eq!((found.resident, found.virtual_size), (3.0 * 4096.0, 40960.0));
        assert_eq!(usage("12 (x) S 1 2", 100, 4096, None), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn we_find_ourselves() {
        let own = own().unwrap();
        assert!(own.threads >= 1.0 && own.resident > 0.0 && own.open_files.unwrap() > 2.0);
        assert_eq!(
            of_daemon(i32::try_from(std::process::id()).unwrap()),
            None,
            "we are no daemon"
        );
    }
}
