//! The live view: every member of every cluster, anew each second, until `q`.

#[cfg(feature = "console")]
mod layout;
#[cfg(feature = "console")]
mod look_thread;
#[cfg(feature = "console")]
mod picture;
#[cfg(feature = "console")]
mod screen;

use core::time::Duration;

use super::daemon::{Daemon, Trouble};
use super::{Ending, complain};

/// Between two looks where the command does not say it.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest that can be asked for, in seconds.
const INTERVALS: core::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// `top [SECONDS]`
pub(super) fn run(daemon: &Daemon, command: &str) -> Result<Ending, Trouble> {
    match interval(command) {
        Ok(interval) => show(daemon, interval),
        Err(wrong) => {
            complain(&wrong);
            Ok(Ending::Usage)
        }
    }
}

fn interval(command: &str) -> Result<Duration, String> {
    let mut words = command.split_whitespace().skip(1);
    let Some(text) = words.next() else {
        return Ok(INTERVAL);
    };
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| INTERVALS.contains(seconds) && words.next().is_none());
    let (least, most) = (INTERVALS.start(), INTERVALS.end());
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        format!("top \"{text}\": want top, or top SECONDS with a number from {least} to {most}")
    })
}

#[cfg(feature = "console")]
fn show(daemon: &Daemon, interval: Duration) -> Result<Ending, Trouble> {
    use std::io::{self, IsTerminal as _};

    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        complain("top: want a terminal; ls and stats are for programs");
        return Ok(Ending::Usage);
    }
    if super::is_dumb_terminal() {
        return screen::print(daemon, interval);
    }
    screen::run(daemon, interval)
}

#[cfg(not(feature = "console"))]
#[expect(clippy::unnecessary_wraps, reason = "the same call as the live view's")]
fn show(_: &Daemon, _: Duration) -> Result<Ending, Trouble> {
    complain("top: this program was built without it; ls and stats say the same");
    Ok(Ending::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_comes_after_the_word() {
        assert_eq!(interval("top"), Ok(INTERVAL));
        assert_eq!(interval("top 0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["top 0", "top soon", "top NaN", "top 1e9", "top 1 2"] {
            assert!(
                interval(wrong).unwrap_err().contains("from 0.1 to 3600"),
                "{wrong}"
            );
        }
    }
}
