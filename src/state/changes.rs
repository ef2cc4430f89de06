//! What operators have changed and not saved, as a file of its own, `changes`, beside the segments. Pure.
//!
//! ```text
//! rtp_cluster changes 1 CHECKSUM
//! LENGTH LENGTH LENGTH
//! the configuration file, the configuration that runs, what is being drained of it
//! ```
//!
//! The checksum is CRC-32 over all that follows its line: it tells damage, not intent, since whoever may write here may
//! as well write the configuration file. The configuration file is there whole and not by a digest: where somebody has
//! edited it meanwhile, it takes what it held before to say which changes are undone.
//!
//! What is being drained is apart from the rest because no configuration says it, and since it may be in the way of
//! what stays: a member that was given another name stands beside itself until its calls are over.

use std::io::Write as _;
use std::path::Path;

use crate::config::model::{Config, Name, Status};
use crate::config::{self, check_cluster_fits, check_member_fits};

const TITLE: &[u8] = b"rtp_cluster changes 1 ";

/// What runs, where that is not what the configuration file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// What the configuration file held when it was last read or written.
    pub file: Vec<u8>,
    /// What runs and stays.
    pub running: Config,
    /// What leaves: clusters that stay with their DRAINING members alone, and clusters that are being deleted.
    pub leaving: Config,
}

impl Changes {
    /// `None` where there is nothing to keep: the file says it all.
    pub fn of(path: &Path, file: &[u8], running: Config, leaving: Config) -> Option<Self> {
        let is_said = config::parse(path, file).is_ok_and(|parsed| parsed.config == running);
        (!is_said || !leaving.clusters.is_empty()).then(|| Self {
            file: file.to_vec(),
            running,
            leaving,
        })
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut leaving = self.leaving.clone();
        let members = leaving
            .clusters
            .iter_mut()
            .flat_map(|cluster| &mut cluster.members);
        members.for_each(|member| member.status = Status::Suspended);
        let (running, leaving) = (config::write(&self.running), config::write(&leaving));
        let parts: [&[u8]; 3] = [&self.file, running.as_bytes(), leaving.as_bytes()];
        let [file, running, leaving] = parts.map(<[u8]>::len);
        let body = [
            &*format!("{file} {running} {leaving}\n").into_bytes(),
            &parts.concat(),
        ]
        .concat();
        let mut bytes = TITLE.to_vec();
        // Writing to memory does not fail.
        let _ = writeln!(bytes, "{:08x}", crc32fast::hash(&body));
        bytes.extend(body);
        bytes
    }

    /// Reads what [`Changes::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, body) = line(bytes.strip_prefix(TITLE)?)?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(body) {
            return None;
        }
        let (lengths, mut rest) = line(body)?;
        let mut parts = lengths.split(' ').map(|length| {
            let (part, behind) = rest.split_at_checked(length.parse().ok()?)?;
            rest = behind;
            Some(part)
        });
        let [file, running, leaving] = [parts.next()??, parts.next()??, parts.next()??];
        let parse = |text| config::parse(Path::new("changes"), text).ok();
        Some(Self {
            file: file.to_vec(),
            running: parse(running)?.config,
            leaving: parse(leaving)?.config,
        })
    }

    /// All that ran, DRAINING members among the others, and the names of the clusters that are being deleted.
    pub fn all(self) -> (Config, Vec<Name>) {
        let mut all = self.running;
        let mut deleted = Vec::new();
        for mut leaving in self.leaving.clusters {
            let members = leaving.members.iter_mut();
            members.for_each(|member| member.status = Status::Draining);
            if let Some(stays) = all
                .clusters
                .iter_mut()
                .find(|cluster| cluster.name == leaving.name)
            {
                for member in leaving.members {
                    // One that is in the way of another has been replaced by it.
                    if check_member_fits(stays, &member).is_ok() {
                        stays.members.push(member);
                    }
                }
            } else if check_cluster_fits(&all.clusters, &leaving).is_ok() {
                deleted.push(leaving.name.clone());
                all.clusters.push(leaving);
            }
        }
        (all, deleted)
    }
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((core::str::from_utf8(line).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const FILE: &str = "<rtp_cluster_config><rtp_cluster><name>C1</name><protocol>UNIX</protocol>\
        <address>/run/c1.sock</address>MEMBERS</rtp_cluster></rtp_cluster_config>";

    fn config(members: &[(&str, u16)]) -> Config {
        let member = |(name, port): &(&str, u16)| {
            format!(
                "<rtpproxy><name>{name}</name><protocol>UDP</protocol><address>10.0.0.1:{port}</address>\
                 <weight>1</weight><capacity>1</capacity></rtpproxy>"
            )
        };
        let members: String = members.iter().map(member).collect();
        let text = FILE.replace("MEMBERS", &members);
        parse(Path::new("f"), text.as_bytes()).unwrap().config
    }

    fn changes() -> Changes {
        Changes {
            file: b"a file \xff".to_vec(),
            running: config(&[("A", 1), ("B", 2)]),
            leaving: config(&[("C", 3)]),
        }
    }

    #[test]
    fn what_was_changed_comes_back_with_what_drains_draining() {
        let known = Changes::decode(&changes().encode()).unwrap();
        assert_eq!(known.file, b"a file \xff");
        assert_eq!(known.running, changes().running);
        let (all, deleted) = known.all();
        let members = all.clusters[0].members.iter();
        let found: Vec<_> = members
            .map(|member| (member.name.as_str(), member.status))
            .collect();
        assert_eq!(
            found,
            [
                ("A", Status::Active),
                ("B", Status::Active),
                ("C", Status::Draining)
            ]
        );
        assert_eq!(deleted, []);
    }

    #[test]
    fn a_cluster_that_is_being_deleted_is_known_as_such() {
        let changes = Changes {
            running: Config::default(),
            ..changes()
        };
        let (all, deleted) = changes.all();
        assert_eq!(deleted, [Name::new("C1").unwrap()]);
        assert_eq!(all.clusters.len(), 1);
    }

    #[test]
    fn a_file_that_says_it_all_leaves_nothing_to_keep() {
        let text = FILE.replace("MEMBERS", "");
        let of = |running, leaving| Changes::of(Path::new("f"), text.as_bytes(), running, leaving);
        assert_eq!(of(config(&[]), Config::default()), None);
        assert!(of(config(&[("A", 1)]), Config::default()).is_some());
        assert!(of(config(&[]), config(&[("A", 1)])).is_some());
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = changes().encode();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert_eq!(Changes::decode(&damaged), None, "at {place}");
            assert_eq!(Changes::decode(&bytes[..place]), None, "cut at {place}");
        }
    }
}
