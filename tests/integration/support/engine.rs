//! An RTPproxy without media: commands in, replies out, sessions counted as the real one counts them. No socket, no
//! clock. The fakes of the tests and of the bench answer with it; `conformance.rs` holds it to the real RTPproxy.

use std::collections::HashMap;

/// Sessions by call-id, and the counters that a heartbeat reads.
#[derive(Debug)]
pub struct Engine {
    address: String,
    calls: HashMap<Box<[u8]>, Vec<Session>>,
    created: u64,
    active: u64,
    ports: u16,
}

/// One media stream of a call.
#[derive(Debug)]
struct Session {
    tag: Box<[u8]>,
    port: u16,
    strong: bool,
    weak: [bool; 2],
}

/// Which party of a session a command speaks for: the one whose tag made it, or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Callee,
}

/// Statistics that the engine keeps; every other name of an RTPproxy is answered with 0.
const OTHER_STATISTICS: [&str; 6] = [
    "nsess_timeout",
    "nsess_complete",
    "npkts_rcvd",
    "npkts_relayed",
    "ncmds_rcvd",
    "ncmds_errs",
];

impl Engine {
    /// An engine whose replies name `address`, so that a caller can tell members apart.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            calls: HashMap::new(),
            created: 0,
            active: 0,
            ports: 10_000,
        }
    }

    /// Sessions alive now.
    pub fn active(&self) -> u64 {
        self.active
    }

    /// Sessions made since the start.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Whether any session of this call is alive.
    pub fn has(&self, call_id: &str) -> bool {
        self.calls.contains_key(call_id.as_bytes())
    }

    /// Forgets everything, as a restart does.
    pub fn restart(&mut self) {
        *self = Self::new(&self.address);
    }

    /// Runs one command (without cookie or line end) and appends its reply, line end included.
    pub fn answer(&mut self, command: &[u8], reply: &mut Vec<u8>) {
        let mut words: Vec<&[u8]> = Vec::with_capacity(8);
        words.extend(command.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()));
        let result = match words.first() {
            None => Err(5),
            Some(verb) => self.run(verb[0].to_ascii_uppercase(), &verb[1..], &words[1..], reply),
        };
        if let Err(code) = result {
            reply.extend_from_slice(format!("E{code}").as_bytes());
        }
        if reply.last() != Some(&b'\n') {
            reply.push(b'\n');
        }
    }

    fn run(&mut self, letter: u8, mods: &[u8], words: &[&[u8]], reply: &mut Vec<u8>) -> Result<(), u8> {
        let parts: Vec<&[&[u8]]> = words.split(|w| *w == b"&&").collect();
        if parts.len() > 1 && !matches!(letter, b'U' | b'L' | b'Q') {
            return Err(3);
        }
        let words = parts[0];
        match (letter, words.len()) {
            (b'V', 0) if mods.is_empty() => reply.extend_from_slice(b"20040107"),
            (b'V', 1) if mods.eq_ignore_ascii_case(b"F") => {
                let known = words[0].len() == 8 && words[0].starts_with(b"20");
                reply.push(if known { b'1' } else { b'0' });
            }
            (b'I', 0) => self.information(mods, reply),
            (b'G', _) => self.statistics(mods, words, reply)?,
            (b'X', 0) => {
                self.calls.clear();
                self.active = 0;
                reply.push(b'0');
            }
            (b'U' | b'L', 4..=8) => self.update(letter, mods, words, &parts[1..], reply)?,
            (b'D', 2 | 3) => {
                self.delete(mods, words)?;
                reply.push(b'0');
            }
            (b'Q', 2..) => {
                self.find(words[0], words[1], words.get(2).copied()).ok_or(50)?;
                if mods.eq_ignore_ascii_case(b"v") {
                    reply.extend_from_slice(b"ttl=60 npkts_ina=0 npkts_ino=0 nrelayed=0 ndropped=0");
                } else {
                    reply.extend_from_slice(b"60 0 0 0 0");
                }
            }
            (b'P', 4 | 5) => self.known(words[0], words[3], words.get(4).copied(), reply)?,
            (b'S' | b'R' | b'N', 2 | 3) => self.known(words[0], words[1], words.get(2).copied(), reply)?,
            (b'C', 3 | 4) => self.known(words[0], words[2], words.get(3).copied(), reply)?,
            (b'V' | b'I' | b'X' | b'U' | b'L' | b'D' | b'Q' | b'P' | b'S' | b'R' | b'N' | b'C', _) => {
                return Err(1);
            }
            _ => return Err(0),
        }
        Ok(())
    }

    fn information(&self, mods: &[u8], reply: &mut Vec<u8>) {
        let text = format!(
            "sessions created: {}\nactive sessions: {}\nactive streams: {}\npackets received: 0\npackets transmitted: 0\n",
            self.created,
            self.active,
            self.active * 2
        );
        reply.extend_from_slice(text.as_bytes());
        if mods.iter().any(|m| m.eq_ignore_ascii_case(&b'l')) {
            reply.extend_from_slice(b"average load: 0.000000\n");
        }
    }

    fn statistics(&self, mods: &[u8], names: &[&[u8]], reply: &mut Vec<u8>) -> Result<(), u8> {
        let mut values = Vec::new();
        for name in names {
            let name = std::str::from_utf8(name).map_err(|_| 68)?;
            let value = match name {
                "nsess_created" => self.created,
                "nsess_destroyed" => self.created - self.active,
                name if OTHER_STATISTICS.contains(&name) => 0,
                _ => return Err(68),
            };
            let verbose = mods.eq_ignore_ascii_case(b"v");
            values.push(if verbose {
                format!("{name}={value}")
            } else {
                value.to_string()
            });
        }
        reply.extend_from_slice(values.join(" ").as_bytes());
        Ok(())
    }

    fn update(
        &mut self,
        letter: u8,
        mods: &[u8],
        words: &[&[u8]],
        more: &[&[&[u8]]],
        reply: &mut Vec<u8>,
    ) -> Result<(), u8> {
        let (call_id, from) = (words[0], words[3]);
        let to = (words.len() == 5 || words.len() == 7).then(|| words[4]);
        let weak = mods.iter().any(|m| m.eq_ignore_ascii_case(&b'w'));
        let at = match (self.find(call_id, from, to), letter) {
            (Some(at), _) => at,
            (None, b'L') => {
                reply.push(b'0');
                return Ok(());
            }
            (None, _) => self.create(call_id, from),
        };
        let (index, side) = at;
        let session = &mut self.calls.get_mut(call_id).ok_or(50)?[index];
        // An RTPproxy counts the weak hold of a party under the other one's number.
        match (weak, (letter, side)) {
            (false, _) => session.strong = true,
            (true, (b'U', Side::Caller) | (b'L', Side::Callee)) => session.weak[1] = true,
            (true, _) => session.weak[0] = true,
        }
        // U speaks for its from-tag and is given the port of that party; L is given the other's.
        let own = (letter == b'U') == (side == Side::Caller);
        let port = session.port;
        self.print_port(if own { port } else { port + 2 }, reply);
        for part in more {
            match part.first().map(|verb| verb[0].to_ascii_uppercase()) {
                Some(b'L') if to.is_some() => {
                    reply.extend_from_slice(b" && ");
                    self.print_port(if own { port + 2 } else { port }, reply);
                }
                Some(b'D') => self.delete(&part[0][1..], &[call_id, from])?,
                _ => return Err(3),
            }
        }
        Ok(())
    }

    fn print_port(&self, port: u16, reply: &mut Vec<u8>) {
        reply.extend_from_slice(port.to_string().as_bytes());
        reply.push(b' ');
        reply.extend_from_slice(self.address.as_bytes());
        if self.address.contains(':') {
            reply.extend_from_slice(b" 6");
        }
    }

    fn create(&mut self, call_id: &[u8], tag: &[u8]) -> (usize, Side) {
        self.created += 1;
        self.active += 1;
        self.ports = if self.ports >= 65_000 {
            10_000
        } else {
            self.ports + 4
        };
        let session = Session {
            tag: tag.into(),
            port: self.ports,
            strong: false,
            weak: [false; 2],
        };
        let sessions = self
            .calls
            .entry(call_id.into())
            .or_insert_with(|| Vec::with_capacity(1));
        sessions.push(session);
        (sessions.len() - 1, Side::Caller)
    }

    fn find(&self, call_id: &[u8], from: &[u8], to: Option<&[u8]>) -> Option<(usize, Side)> {
        let sessions = self.calls.get(call_id)?;
        let of = |tag: &[u8]| sessions.iter().position(|s| *s.tag == *tag);
        of(from)
            .map(|i| (i, Side::Caller))
            .or_else(|| of(to?).map(|i| (i, Side::Callee)))
    }

    fn known(&self, call_id: &[u8], from: &[u8], to: Option<&[u8]>, reply: &mut Vec<u8>) -> Result<(), u8> {
        self.find(call_id, from, to).ok_or(50)?;
        reply.push(b'0');
        Ok(())
    }

    /// A tag without `;N` means all streams of that tag.
    fn delete(&mut self, mods: &[u8], words: &[&[u8]]) -> Result<(), u8> {
        let weak = mods.eq_ignore_ascii_case(b"w");
        let (call_id, from, to) = (words[0], words[1], words.get(2).copied());
        let sessions = self.calls.get_mut(call_id).ok_or(50)?;
        let before = sessions.len();
        let mut found = false;
        sessions.retain_mut(|session| {
            let is = |tag: &[u8]| {
                *session.tag == *tag
                    || session
                        .tag
                        .strip_prefix(tag)
                        .is_some_and(|rest| rest.starts_with(b";"))
            };
            let side = match (is(from), to.is_some_and(is)) {
                (true, _) => 0,
                (_, true) => 1,
                _ => return true,
            };
            found = true;
            if weak {
                session.weak[side] = false;
            } else {
                session.strong = false;
            }
            session.strong || session.weak != [false; 2]
        });
        self.active -= (before - sessions.len()) as u64;
        if sessions.is_empty() {
            self.calls.remove(call_id);
        }
        if found { Ok(()) } else { Err(50) }
    }
}
