//! The checks of the fuzz targets, without a fuzzer: over the corpora, and over what chance makes of them.

#![allow(unreachable_pub, reason = "a program has no callers")]

#[cfg(test)]
#[path = "checks"]
mod checks {
    pub mod admin;
    pub mod command;
    pub mod configuration;
    pub mod kept;
    pub mod notification;
    pub mod reply;
    pub mod state;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rtp_cluster::dispatch::random::Rng;

    use super::checks;

    /// What becomes of each sample.
    const MUTATIONS: u64 = 200;

    /// Every file below a folder of `tests/corpus`, and each line of it alone.
    fn samples(folder: &str) -> Vec<Vec<u8>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus")
            .join(folder);
        let mut all = Vec::new();
        if path.is_dir() {
            for entry in fs::read_dir(&path).expect("a folder") {
                let name = entry.expect("an entry").file_name();
                all.extend(samples(&format!("{folder}/{}", name.to_string_lossy())));
            }
            return all;
        }
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        all.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        all.push(bytes);
        all
    }

    /// The sample with some bytes changed, taken away, doubled or put elsewhere.
    fn mutated(sample: &[u8], chance: &mut Rng) -> Vec<u8> {
        let mut bytes = sample.to_vec();
        for _ in 0..=chance.below(4) {
            let place = |chance: &mut Rng, bytes: &Vec<u8>| {
                usize::try_from(chance.below(bytes.len() as u64 + 1)).expect("a place")
            };
            let (from, to) = (place(chance, &bytes), place(chance, &bytes));
            match chance.below(4) {
                0 => bytes.insert(from, u8::try_from(chance.below(256)).expect("a byte")),
                1 => drop(bytes.drain(from.min(to)..from.max(to))),
                2 if bytes.len() < 100_000 => {
                    let part = bytes[from.min(to)..from.max(to)].to_vec();
                    bytes.splice(from..from, part);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte ^= 1 << chance.below(8);
                    }
                }
            }
        }
        bytes
    }

    fn replay(folders: &[&str], check: fn(&[u8])) {
        let mut chance = Rng::from_seed(1);
        check(b"");
        for sample in folders.iter().flat_map(|folder| samples(folder)) {
            check(&sample);
            for _ in 0..MUTATIONS {
                check(&mutated(&sample, &mut chance));
            }
        }
    }

    #[test]
    fn commands() {
        replay(&["commands.txt", "conversation.txt"], checks::command::check);
    }

    #[test]
    fn lines_of_kept_connections() {
        replay(&["commands.txt", "conversation.txt"], checks::kept::check);
    }

    #[test]
    fn replies() {
        replay(&["commands.txt", "conversation.txt"], checks::reply::check);
    }

    #[test]
    fn lines_of_administrators() {
        replay(&["admin.txt"], checks::admin::check);
    }

    #[test]
    fn notifications() {
        replay(&["notifications.txt"], checks::notification::check);
    }

    #[test]
    fn configurations() {
        replay(&["config"], checks::configuration::check);
    }

    #[test]
    fn state_files() {
        replay(&["state"], checks::state::check);
    }
}
