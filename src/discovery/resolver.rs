//! Asks name servers, one after another, as the system's own resolver does, but with services and times to live. Part of
//! the rim: it blocks, so it is only called in a thread that looks names up.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Instant;

use super::found::{Found, MEMBERS_MAX};
use super::message::{Answer, DATAGRAM_MAX, Kind, Record, Target, Wrong, question, read};
use crate::config::model::{Pool, Protocol, Sought};
use crate::rim::{idle, now};

/// Targets of a service that are looked up at most, the best first: one more than there may be members, to tell of it.
const TARGETS_MAX: usize = MEMBERS_MAX + 1;
/// What the system's name servers are written down in.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where it may ask for more.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 5;

/// What the name of a pool leads to.
///
/// # Errors
/// Why that is not known; also where it leads to nothing at all.
pub fn look_up(pool: &Pool) -> Result<Found, String> {
    let servers = Servers::of(pool);
    let found = match &pool.address {
        Sought::Host(host, port) => {
            let (addresses, ttl) = servers.addresses(host, pool.protocol)?;
            Found::of_host(pool, *port, addresses, ttl)
        }
        Sought::Service(name) => {
            let (targets, mut ttl) = servers.targets(name)?;
            let mut all = Vec::new();
            for target in targets {
                let (addresses, its) = servers
                    .addresses(&target.host, pool.protocol)
                    .map_err(|error| format!("{}: {error}", target.host))?;
                ttl = ttl.min(its);
                all.push((target, addresses));
            }
            Found::of_service(pool, &all, ttl)
        }
    };
    if found.places.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(found)
}

/// Whom to ask, and how.
struct Servers {
    at: Vec<SocketAddr>,
    /// What may stand behind a name that is not whole.
    search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Servers {
    /// The pool's own one, or those of the system as they are now.
    fn of(pool: &Pool) -> Self {
        let text = fs::read(RESOLV_CONF).unwrap_or_default();
        let (system, _) = resolv_conf::Config::parse_with_errors(&text);
        let timeout = Duration::from_secs(system.timeout.into());
        let common = Self {
            at: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: timeout.clamp(Duration::from_secs(1), TIMEOUT_MAX),
            attempts: system.attempts.clamp(1, ATTEMPTS_MAX),
        };
        if let Some(resolver) = pool.resolver {
            return Self {
                at: vec![resolver],
                ..common
            };
        }
        let at = system.get_nameservers_or_local();
        Self {
            at: at
                .iter()
                .map(|server| SocketAddr::new(server.into(), 53))
                .collect(),
            search: system.get_last_search_or_domain().cloned().collect(),
            dots: system.ndots as usize,
            ..common
        }
    }

    /// What `name` may stand for, in the order in which it is tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let whole = format!("{name}.");
        let searched = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        let mut all: Vec<String> = searched.collect();
        let is_first = name.matches('.').count() >= self.dots;
        all.insert(if is_first { 0 } else { all.len() }, whole);
        all
    }

    /// The addresses of a host, of those families that `protocol` has.
    fn addresses(&self, host: &str, protocol: Protocol) -> Result<(Vec<IpAddr>, Duration), String> {
        let kinds = if protocol.is_v6() {
            &[Kind::Aaaa][..]
        } else {
            &[Kind::A, Kind::Aaaa]
        };
        let (records, ttl) = self.records(host, kinds)?;
        let addresses = records.into_iter().filter_map(|record| match record {
            Record::Address(address) => Some(address),
            Record::Target(_) => None,
        });
        Ok((addresses.collect(), ttl))
    }

    fn targets(&self, service: &str) -> Result<(Vec<Target>, Duration), String> {
        let (records, ttl) = self.records(service, &[Kind::Srv])?;
        let targets = records.into_iter().filter_map(|record| match record {
            // A root for a target says that there is none.
            Record::Target(target) => (target.host != ".").then_some(target),
            Record::Address(_) => None,
        });
        let mut targets: Vec<Target> = targets.collect();
        targets.sort_by_key(|target| target.priority);
        targets.truncate(TARGETS_MAX);
        Ok((targets, ttl))
    }

    /// The records of those kinds of the first candidate that has any.
    fn records(&self, name: &str, kinds: &[Kind]) -> Result<(Vec<Record>, Duration), String> {
        'candidates: for candidate in self.candidates(name) {
            let (mut records, mut ttl) = (Vec::new(), Duration::MAX);
            for kind in kinds {
                match self.ask(&candidate, *kind) {
                    Ok(answer) => {
                        records.extend(answer.records);
                        ttl = ttl.min(answer.ttl);
                    }
                    Err(Wrong::NoName) => continue 'candidates,
                    Err(Wrong::Failed(why)) => return Err(why),
                    Err(Wrong::Foreign | Wrong::Cut) => return Err("no name server answers".to_owned()),
                }
            }
            if !records.is_empty() {
                return Ok((records, ttl));
            }
        }
        Err("there is no such name, or it has no such record".to_owned())
    }

    /// Asks one server after the other, all of them again as often as is wanted.
    fn ask(&self, name: &str, kind: Kind) -> Result<Answer, Wrong> {
        let mut last = Wrong::Failed("there is no name server".to_owned());
        for _ in 0..self.attempts {
            for server in &self.at {
                match self.ask_one(*server, name, kind) {
                    Err(Wrong::Failed(why)) => last = Wrong::Failed(why),
                    said => return said,
                }
            }
        }
        Err(last)
    }

    fn ask_one(&self, server: SocketAddr, name: &str, kind: Kind) -> Result<Answer, Wrong> {
        // Nobody guesses it, and the port that the system chooses.
        let [first, second, ..] = RandomState::new().hash_one(name).to_ne_bytes();
        let id = u16::from_ne_bytes([first, second]);
        let text = question(id, name, kind).map_err(Wrong::Failed)?;
        let failed = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
                _ => error.to_string(),
            };
            Wrong::Failed(format!("name server {server}: {why}"))
        };
        let until = now() + self.timeout;
        let said = over_udp(server, &text, until, |bytes| match read(bytes, id, name, kind) {
            Err(Wrong::Foreign) => None,
            said => Some(said),
        });
        match said.map_err(failed)? {
            Err(Wrong::Cut) => {
                let bytes = over_tcp(server, &text, self.timeout).map_err(failed)?;
                read(&bytes, id, name, kind)
            }
            said => said,
        }
    }
}

/// The first datagram from the server that `take` takes.
fn over_udp<T>(
    server: SocketAddr,
    question: &[u8],
    until: Instant,
    mut take: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let any: IpAddr = if server.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Only what comes from there is read.
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = idle(|| socket.recv(&mut buffer))?;
        if let Some(taken) = take(buffer.get(..length).unwrap_or_default()) {
            return Ok(taken);
        }
    }
}

/// The answer to a question that is too long for a datagram.
fn over_tcp(server: SocketAddr, question: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let until = now() + timeout;
    let mut stream = idle(|| TcpStream::connect_timeout(&server, timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    fill(&mut stream, &mut length, until)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(&mut stream, &mut answer, until)?;
    Ok(answer)
}

/// Reads as many bytes as there is room for, however slowly they come, by `until` at the latest.
fn fill(stream: &mut TcpStream, mut room: &mut [u8], until: Instant) -> io::Result<()> {
    while !room.is_empty() {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match idle(|| stream.read(room)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => room = room.get_mut(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(dots: usize, search: &[&str]) -> Servers {
        Servers {
            at: Vec::new(),
            search: search.iter().map(ToString::to_string).collect(),
            dots,
            timeout: Duration::from_secs(1),
            attempts: 1,
        }
    }

    #[test]
    fn a_name_that_is_not_whole_is_searched() {
        let search = ["default.svc.cluster.local", "cluster.local."];
        let few = servers(1, &search);
        assert_eq!(few.candidates("media."), ["media."]);
        assert_eq!(
            few.candidates("media"),
            [
                "media.default.svc.cluster.local.",
                "media.cluster.local.",
                "media."
            ]
        );
        assert_eq!(few.candidates("media.test")[0], "media.test.");
        assert_eq!(
            servers(5, &search).candidates("media.test").last().unwrap(),
            "media.test."
        );
    }
}
