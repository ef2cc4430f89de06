//! Everything that decides, in one thread, with a simulated clock and network and one seed: it thinks of stories that
//! nobody has told. `README.md` says how it is run.

#![allow(unreachable_pub, reason = "a program has no callers")]

#[cfg(test)]
mod books;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod chance;
#[cfg(test)]
mod chaos;
#[cfg(test)]
#[path = "../integration/support/engine.rs"]
#[expect(dead_code, reason = "other tests ask it more")]
mod engine;
#[cfg(test)]
mod prober;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::world::World;

    /// Steps of one run from one seed.
    const STEPS: u64 = 40_000;
    /// Worlds of an ordinary test run, besides the seeds that have failed.
    const FRESH: usize = 40;

    fn number(name: &str) -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text}: want a number")),
        )
    }

    /// Runs a world; gives the time that has passed in it.
    fn run(seed: u64, steps: u64, restarts: bool) -> Duration {
        let mut world = World::new(seed, restarts);
        while world.step < steps {
            world.turn();
        }
        world.now
    }

    /// Worlds one after the other; says how fast time passes in them.
    fn run_all(seeds: impl Iterator<Item = u64>, steps: u64, restarts: bool) {
        let start = rtp_cluster::rim::now();
        let mut simulated = Duration::ZERO;
        let mut worlds = 0;
        for seed in seeds {
            simulated += run(seed, steps, restarts);
            worlds += 1;
        }
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let hours = simulated.as_secs_f64() / 3600.0;
        println!(
            "{worlds} worlds, {hours:.1} simulated hours, {:.1} in a minute",
            hours / minutes
        );
    }

    /// The seeds of a list, one at the beginning of each line.
    fn listed(list: &str) -> impl Iterator<Item = u64> {
        list.lines()
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
    }

    #[test]
    fn seeds_that_have_failed_fail_no_more() {
        if number("SEED").is_some() || number("HOURS").is_some() {
            return;
        }
        run_all(listed(include_str!("seeds.txt")), STEPS, false);
        run_all(listed(include_str!("restarts.txt")), STEPS, true);
    }

    #[test]
    fn nothing_is_lost_whatever_happens() {
        if number("RESTARTS").is_none() {
            live(false);
        }
    }

    #[test]
    fn nothing_is_lost_when_the_daemon_is_killed() {
        if number("RESTARTS").is_some() || number("SEED").is_none() {
            live(true);
        }
    }

    fn live(restarts: bool) {
        if let Some(seed) = number("SEED") {
            let steps = number("STEPS").unwrap_or(STEPS);
            println!("{:?} simulated", run(seed, steps, restarts));
            return;
        }
        // An ordinary run has the same worlds each time, so that it fails for what was changed; HOURS looks for new ones.
        let first = number("FIRST").unwrap_or_else(|| match number("HOURS") {
            Some(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970")
                .as_secs(),
            None => 1,
        });
        let steps = number("STEPS").unwrap_or(STEPS);
        if let Some(hours) = number("HOURS") {
            let start = rtp_cluster::rim::now();
            let until = Duration::from_secs(3600 * hours);
            for seed in (first..).step_by(50) {
                if start.elapsed() > until {
                    return;
                }
                run_all(seed..seed + 50, steps, restarts);
            }
        }
        let open = if restarts { "" } else { include_str!("open.txt") };
        let open: Vec<u64> = listed(open).collect();
        let worlds = (first..).filter(|seed| !open.contains(seed));
        let count = number("SEEDS").and_then(|seeds| usize::try_from(seeds).ok());
        run_all(worlds.take(count.unwrap_or(FRESH)), steps, restarts);
    }
}
