//! The commands that touch files: `check`, `diff` and `save`. Part of the rim.
//!
//! A save is whole or has not happened: the new text goes to a file beside the old one, reaches the disk, and takes
//! the old one's name; before that the old text is kept under `.bak` in the same way.

use core::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::render_json;
use super::reply::Reply;
use crate::admin::operator::Operator;
use crate::config;

/// Rights of a file that did not exist: it says where control sockets are, which is nobody else's business.
const NEW_MODE: u32 = 0o640;

/// `check FILE`: every fault, or its warnings and `OK`.
pub(super) fn check(path: &Path) -> Reply {
    match config::load(path) {
        Ok((parsed, _)) => {
            let members: usize = parsed
                .config
                .clusters
                .iter()
                .map(|cluster| cluster.members.len())
                .sum();
            let warnings = parsed.warnings.iter().map(|warning| format!("{warning}\n"));
            let found = format!(
                "{} clusters and {members} RTP proxies\n",
                parsed.config.clusters.len()
            );
            Reply::text(warnings.chain([found]).collect::<String>())
        }
        Err(faults) => Reply::error(faults),
    }
}

/// `diff`: a line each for what the running state has that the file has not, and the reverse.
pub(super) fn diff(operator: &dyn Operator, json: bool) -> Reply {
    match config::load(&operator.file().0) {
        Ok((parsed, _)) => {
            let lines = config::diff(&operator.running(), &parsed.config);
            Reply::text(if json {
                render_json::lines(&lines)
            } else {
                lines.join("\n")
            })
        }
        Err(faults) => Reply::error(faults),
    }
}

/// `save [--force] [FILE]`. The error is the reply that refuses it.
pub(super) fn save(operator: &dyn Operator, file: Option<PathBuf>, force: bool) -> Result<Reply, Reply> {
    let (own, known) = operator.file();
    let named = file.unwrap_or_else(|| own.clone());
    // A link stays one: what it points to is replaced.
    let path = fs::canonicalize(&named).unwrap_or_else(|_| named.clone());
    let is_own = path == fs::canonicalize(&own).unwrap_or(own);
    let written = [path.clone(), beside(&path, ".bak"), beside(&path, ".new")];
    for ours in operator.own_files() {
        if written.iter().any(|path| is_same_file(path, &ours)) {
            return Err(Reply::error(format!(
                "{}: the daemon's own {} would be written over: want another file",
                named.display(),
                ours.display()
            )));
        }
    }
    let failed = |what: &str, error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; the user that rtp_cluster runs as must be able to write there"
            }
            _ => "",
        };
        Reply::error(format!("{}: {what}: {error}{remedy}", named.display()))
    };

    let old = read(&path).map_err(|error| failed("cannot read what is there", error))?;
    if !force {
        refuse_to_overwrite(
            operator,
            &named,
            old.as_ref().map(|(text, _)| &**text),
            is_own.then_some(&*known),
        )?;
    }
    let running = operator.running();
    let text = config::write(&running).into_bytes();
    // What cannot be read back must not take the place of what can.
    match config::parse(&path, &text) {
        Ok(parsed) if parsed.config == running => {}
        Ok(_) => {
            return Err(Reply::error(
                "save: what was to be written reads as something else; nothing is changed",
            ));
        }
        Err(faults) => {
            let why = "save: what was to be written does not load; nothing is changed";
            return Err(Reply::error(why).with(faults.to_string()));
        }
    }

    let mut notes = String::new();
    let rights = old.as_ref().map(|(_, rights)| *rights);
    if let Some((old, rights)) = &old {
        let backup = beside(&path, ".bak");
        notes += &replace(&backup, old, Some(*rights))
            .map_err(|error| failed("cannot keep the old file beside it", error))?;
    }
    notes += &replace(&path, &text, rights).map_err(|error| failed("cannot write", error))?;
    if is_own {
        operator.saved(text);
    }
    let members: usize = running.clusters.iter().map(|cluster| cluster.members.len()).sum();
    let clusters = running.clusters.len();
    Ok(Reply::text(format!(
        "{notes}Saved {clusters} clusters and {members} RTP proxies to {}\n",
        named.display()
    )))
}

/// Refuses when the file holds what nobody here has read. `known` is what our own file held when it was last read;
/// `None` for another file.
fn refuse_to_overwrite(
    operator: &dyn Operator,
    path: &Path,
    old: Option<&[u8]>,
    known: Option<&[u8]>,
) -> Result<(), Reply> {
    let why = match (old, known) {
        (None, None) => return Ok(()),
        (Some(old), Some(known)) if old == known => return Ok(()),
        (None, Some(_)) => "is gone since it was read",
        (Some(_), Some(_)) => "has changed since it was read",
        (Some(_), None) => "exists",
    };
    let refusal = Reply::error(format!(
        "{}: {why}: want save --force to write it all the same",
        path.display()
    ));
    Err(match old.map(|old| config::parse(path, old)) {
        None => refusal,
        Some(Ok(parsed)) => refusal.with(config::diff(&operator.running(), &parsed.config).join("\n")),
        Some(Err(faults)) => refusal.with(faults.to_string()),
    })
}

/// Owner, group and mode.
#[derive(Clone, Copy)]
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// What is there, if anything is.
fn read(path: &Path) -> io::Result<Option<(Vec<u8>, Rights)>> {
    // Non-blocking, so that a fifo in the place of the file is refused and not waited for.
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    // One byte more tells a file that is too large, also one that grows while it is read.
    let limit = u64::try_from(config::FILE_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    if text.len() > config::FILE_MAX {
        return Err(io::Error::other(format!(
            "larger than {} bytes",
            config::FILE_MAX
        )));
    }
    Ok(Some((
        text,
        Rights {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode() & 0o7777,
        },
    )))
}

/// Puts `text` under the name `path` in one step. Gives notes for the user, each a line.
fn replace(path: &Path, text: &[u8], rights: Option<Rights>) -> io::Result<String> {
    let new = beside(path, ".new");
    // Of a save that was cut short by the end of the process.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = fill(&new, path, text, rights).and_then(|notes| fs::rename(&new, path).map(|()| notes));
    if written.is_err() {
        // The disk may be full: half a file helps nobody. That this fails too changes nothing about the error.
        let _ = fs::remove_file(&new);
    }
    let notes = written?;
    // The name is only safe when its directory is.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(notes)
}

fn fill(new: &Path, path: &Path, text: &[u8], rights: Option<Rights>) -> io::Result<String> {
    // Nobody but us until it has its owner and mode.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    let mut mode = NEW_MODE;
    let mut notes = String::new();
    if let Some(rights) = rights {
        mode = rights.mode;
        notes = give(&file, path, rights, &mut mode)?;
    }
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(notes)
}

/// Gives the file to whom the old one belonged. Only root may give files away: without that right the file is ours
/// from now on, which is told, and a group that is not the old one gets the rights of everybody.
fn give(file: &File, path: &Path, rights: Rights, mode: &mut u32) -> io::Result<String> {
    let meta = file.metadata()?;
    let mut notes = String::new();
    if meta.gid() != rights.gid
        && let Err(error) = fchown(file, None, Some(rights.gid))
    {
        *mode = (*mode & !0o070) | ((*mode & 0o007) << 3);
        let _ = writeln!(
            notes,
            "{}: cannot keep its group {}: {error}",
            path.display(),
            rights.gid
        );
    }
    if meta.uid() != rights.uid
        && let Err(error) = fchown(file, Some(rights.uid), None)
    {
        let _ = writeln!(
            notes,
            "{}: cannot keep its owner {}: {error}",
            path.display(),
            rights.uid
        );
    }
    Ok(notes)
}

/// Whether both name one file, or the same that is not there yet.
fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}

/// The name of a file beside `path`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Place};
    use super::*;

    /// A fake server that has read `rtp_cluster.xml` in a place of its own, as its own `save` writes it.
    fn running() -> (Place, PathBuf, Fake) {
        let (place, fake) = (Place::new(), Fake::of_the_manual());
        let path = place.path("rtp_cluster.xml");
        let text = config::write(&fake.running()).into_bytes();
        fs::write(&path, &text).unwrap();
        *fake.file.lock() = (path.clone(), text);
        (place, path, fake)
    }

    fn sent(reply: Result<Reply, Reply>) -> String {
        let mut out = Vec::new();
        reply.unwrap_or_else(|refused| refused).write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    /// What is in the directory, in order.
    fn names(place: &Place) -> Vec<String> {
        let entries = fs::read_dir(place.path("")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_saved_over_what_the_daemon_writes_itself() {
        let (place, _, mut fake) = running();
        let (pid, log) = (place.path("pid"), place.path("conf.bak"));
        fake.own_files = vec![pid.clone(), log.clone()];
        fs::write(&pid, "1\n").unwrap();
        let link = place.path("link");
        std::os::unix::fs::symlink(&pid, &link).unwrap();
        let before = names(&place);
        for path in [pid.clone(), link, place.path("conf")] {
            let said = sent(save(&fake, Some(path), true));
            assert!(
                said.contains("ERROR: ") && said.contains("the daemon's own"),
                "{said}"
            );
        }
        assert_eq!(fs::read_to_string(&pid).unwrap(), "1\n");
        assert_eq!(names(&place), before);
    }

    #[test]
    fn what_runs_is_written_and_the_old_file_is_kept() {
        let (place, path, fake) = running();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let old = fs::read(&path).unwrap();
        fake.suspend("Supercluster#1", "RTPPROXY2").unwrap();
        fake.delete_member("Supercluster#2", "RTPPROXY4", false).unwrap();
        let reply = format!("Saved 2 clusters and 3 RTP proxies to {}\nOK\n", path.display());
        assert_eq!(sent(save(&fake, None, false)), reply);
        let (parsed, text) = config::load(&path).unwrap();
        assert_eq!(parsed.config, fake.running());
        assert_eq!(
            fake.file.lock().1,
            text,
            "the server knows what the file holds now"
        );
        assert_eq!(fs::read(place.path("rtp_cluster.xml.bak")).unwrap(), old);
        assert_eq!(
            (mode(&path), mode(&place.path("rtp_cluster.xml.bak"))),
            (0o604, 0o604)
        );
        assert_eq!(names(&place), ["rtp_cluster.xml", "rtp_cluster.xml.bak"]);
        // And again, over the copy of the last time.
        assert_eq!(sent(save(&fake, None, false)), reply);
        assert_eq!(fs::read(place.path("rtp_cluster.xml.bak")).unwrap(), text);
    }

    #[test]
    fn a_file_that_has_changed_is_overwritten_by_force_only() {
        let (place, path, fake) = running();
        let edited = String::from_utf8(fs::read(&path).unwrap())
            .unwrap()
            .replace(">2500<", ">2600<");
        fs::write(&path, &edited).unwrap();
        let refusal = sent(save(&fake, None, false));
        let (difference, error) = refusal.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(
            error,
            format!(
                "ERROR: {}: has changed since it was read: want save --force to write it all the same",
                path.display()
            )
        );
        assert!(
            difference.contains("2500") && difference.contains("2600"),
            "{difference}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        assert_eq!(names(&place), ["rtp_cluster.xml"]);
        assert!(sent(save(&fake, None, true)).ends_with("OK\n"));
        assert_eq!(config::load(&path).unwrap().0.config, fake.running());
        assert_eq!(
            fs::read_to_string(place.path("rtp_cluster.xml.bak")).unwrap(),
            edited
        );
    }

    #[test]
    fn a_file_that_is_broken_or_gone_is_overwritten_by_force_only() {
        let (_place, path, fake) = running();
        fs::write(&path, "<rtp_cluster_config>").unwrap();
        let refusal = sent(save(&fake, None, false));
        assert!(
            refusal.starts_with(&format!("{}:1:", path.display())),
            "{refusal}"
        );
        assert!(
            refusal.contains("\nERROR: ") && refusal.contains("has changed since it was read"),
            "{refusal}"
        );
        fs::remove_file(&path).unwrap();
        assert!(sent(save(&fake, None, false)).contains("is gone since it was read"));
        assert!(!path.exists());
        assert!(sent(save(&fake, None, true)).ends_with("OK\n"));
        assert_eq!(mode(&path), NEW_MODE);
    }

    #[test]
    fn another_file_is_written_when_there_is_none() {
        let (place, path, fake) = running();
        let before = fs::read(&path).unwrap();
        let other = place.path("copy.xml");
        fake.suspend("Supercluster#1", "RTPPROXY2").unwrap();
        assert!(sent(save(&fake, Some(other.clone()), false)).ends_with("OK\n"));
        assert_eq!(config::load(&other).unwrap().0.config, fake.running());
        assert_eq!(
            (fs::read(&path).unwrap(), fake.file.lock().1.clone()),
            (before.clone(), before)
        );
        assert!(sent(save(&fake, Some(other.clone()), false)).contains(": exists: want save --force"));
        assert!(sent(save(&fake, Some(other), true)).ends_with("OK\n"));
    }

    #[test]
    fn a_link_stays_a_link() {
        let (place, path, fake) = running();
        let link = place.path("link.xml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fake.file.lock().0 = link.clone();
        fake.suspend("Supercluster#1", "RTPPROXY2").unwrap();
        assert!(sent(save(&fake, None, false)).ends_with("OK\n"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(config::load(&path).unwrap().0.config, fake.running());
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let (place, path, fake) = running();
        let nowhere = place.path("none").join("x.xml");
        let refusal = sent(save(&fake, Some(nowhere.clone()), false));
        assert!(
            refusal.starts_with(&format!("ERROR: {}: cannot write: ", nowhere.display())),
            "{refusal}"
        );
        // A directory in the place of the copy: the old file cannot be kept, so it is not replaced.
        let before = fs::read(&path).unwrap();
        fs::create_dir(place.path("rtp_cluster.xml.bak")).unwrap();
        fake.suspend("Supercluster#1", "RTPPROXY2").unwrap();
        let refusal = sent(save(&fake, None, false));
        assert!(
            refusal.contains(": cannot keep the old file beside it: "),
            "{refusal}"
        );
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(names(&place), ["rtp_cluster.xml", "rtp_cluster.xml.bak"]);
        let directory = place.path("");
        assert!(sent(save(&fake, Some(directory), true)).contains("no regular file"));
    }

    #[test]
    fn the_remains_of_a_save_that_was_cut_short_do_no_harm() {
        let (place, _, fake) = running();
        fs::write(place.path("rtp_cluster.xml.new"), "half").unwrap();
        assert!(sent(save(&fake, None, false)).ends_with("OK\n"));
        assert_eq!(names(&place), ["rtp_cluster.xml", "rtp_cluster.xml.bak"]);
    }

    #[test]
    fn check_and_diff_say_what_they_find() {
        let (place, path, fake) = running();
        assert_eq!(sent(Ok(check(&path))), "2 clusters and 4 RTP proxies\nOK\n");
        assert_eq!(sent(Ok(diff(&fake, false))), "OK\n");
        fake.suspend("Supercluster#1", "RTPPROXY2").unwrap();
        let difference = sent(Ok(diff(&fake, false)));
        assert!(
            difference.contains("RTPPROXY2") && difference.ends_with("\nOK\n"),
            "{difference}"
        );
        let missing = place.path("missing.xml");
        assert!(sent(Ok(check(&missing))).starts_with(&format!("ERROR: {}: ", missing.display())));
        fs::write(
            &path,
            "<rtp_cluster_config><rtp_cluster/><nonsense/></rtp_cluster_config>",
        )
        .unwrap();
        let faults = sent(Ok(check(&path)));
        let (above, error) = faults.trim_end().rsplit_once('\n').unwrap();
        assert!(
            error.starts_with(&format!("ERROR: {}:1:", path.display())),
            "{faults}"
        );
        assert!(
            above
                .lines()
                .all(|line| line.starts_with(&format!("{}:1:", path.display()))),
            "{faults}"
        );
        assert!(sent(Ok(diff(&fake, false))).contains("\nERROR: "));
    }
}
