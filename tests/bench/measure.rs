//! Numbers: percentiles, the processor time and memory of a process, and the table with its verdicts.

use std::fs;
use std::time::Duration;

/// Lines of the closing table, and whether all were good.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    measured: String,
    target: String,
    good: Option<bool>,
}

impl Table {
    /// A number with a bound that it must not pass.
    pub fn at_most(&mut self, what: &str, measured: f64, bound: f64, unit: &str) {
        let good = measured <= bound;
        self.push(
            what,
            number(measured, unit),
            format!("<= {}", number(bound, unit)),
            Some(good),
        );
    }

    /// A number with a bound that it must reach.
    pub fn at_least(&mut self, what: &str, measured: f64, bound: f64, unit: &str) {
        let good = measured >= bound;
        self.push(
            what,
            number(measured, unit),
            format!(">= {}", number(bound, unit)),
            Some(good),
        );
    }

    /// A number that explains others and has no bound.
    pub fn note(&mut self, what: &str, measured: f64, unit: &str) {
        self.push(what, number(measured, unit), String::new(), None);
    }

    fn push(&mut self, what: &str, measured: String, target: String, good: Option<bool>) {
        let row = Row {
            what: what.to_owned(),
            measured,
            target,
            good,
        };
        println!("  {}", row.line());
        self.rows.push(row);
    }

    /// Prints everything again, in one place; whether no bound was missed.
    pub fn close(&self) -> bool {
        println!("\n{}", "-".repeat(100));
        for row in &self.rows {
            println!("{}", row.line());
        }
        let bad = self.rows.iter().filter(|row| row.good == Some(false)).count();
        println!("{} rows, {bad} FAIL", self.rows.len());
        bad == 0
    }
}

impl Row {
    fn line(&self) -> String {
        let Self {
            what,
            measured,
            target,
            good,
        } = self;
        let verdict = match good {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "",
        };
        format!("{what:<58} {measured:>16} {target:>16}  {verdict}")
    }
}

fn number(value: f64, unit: &str) -> String {
    let digits = if value.abs() >= 1000.0 { 0 } else { 2 };
    format!("{value:.digits$} {unit}")
}

/// The value below which `share` (0 to 1) of the samples lie. Sorts them.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    assert!(!samples.is_empty(), "nothing was measured");
    samples.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into what is in memory"
    )]
    let index = (samples.len() as f64 * share) as usize;
    samples[index.min(samples.len() - 1)]
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Processor time that a process has used so far, by its fields `utime` and `stime`.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name in the second field may hold spaces; it ends with the last parenthesis.
    let after = &stat[stat.rfind(')').expect("a name") + 2..];
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().expect("a number"))
        .sum();
    // Linux tells user space in hundredths of a second, whatever its own clock.
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("a process has memory");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib * 1024
}
