//! Questions to a name server and its answers, as bytes and back. Pure.

use core::net::IpAddr;
use core::time::Duration;

use domain::base::iana::Rcode;
use domain::base::name::FlattenInto;
use domain::base::{Message, MessageBuilder, Name, Rtype, ToName};
use domain::rdata::{A, Aaaa, Srv};

/// Bytes of an answer over UDP at most: as long as no other size has been agreed on.
pub const DATAGRAM_MAX: usize = 512;
/// Records of an answer that are looked at.
const RECORDS_MAX: usize = 1_024;

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its addresses of IPv4.
    A,
    /// Its addresses of IPv6.
    Aaaa,
    /// The targets of a service.
    Srv,
}

impl Kind {
    const fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
            Self::Srv => Rtype::SRV,
        }
    }
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address of the name.
    Address(IpAddr),
    /// A target of a service.
    Target(Target),
}

/// As an SRV record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The lowest is used first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name, with the last dot.
    pub host: String,
}

/// What a name server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// May be none: the name is there, and has nothing of that kind.
    pub records: Vec<Record>,
    /// How long it may be believed; the shortest of all records.
    pub ttl: Duration,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// They belong to another question, or to nothing.
    Foreign,
    /// The answer was too long for a datagram.
    Cut,
    /// There is no such name.
    NoName,
    /// The name server could not, or said nonsense.
    Failed(String),
}

/// A question as bytes.
///
/// # Errors
/// When `name` can be none of the DNS.
pub fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn core::fmt::Display| format!("{name}: {error}");
    let owner = Name::<Vec<u8>>::vec_from_str(name).map_err(|error| wrong(&error))?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message
        .push((owner, kind.rtype()))
        .map_err(|error| wrong(&error))?;
    Ok(message.finish())
}

/// The answer to [`question`] in `bytes`.
///
/// # Errors
/// Why it is none.
pub fn read(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Result<Answer, Wrong> {
    let message = Message::from_octets(bytes).map_err(|_| Wrong::Foreign)?;
    let header = message.header();
    let asked = Name::<Vec<u8>>::vec_from_str(name).map_err(|_| Wrong::Foreign)?;
    let is_ours = |question: domain::base::Question<_>| {
        question.qtype() == kind.rtype() && asked.name_eq(question.qname())
    };
    if header.id() != id || !header.qr() || !message.sole_question().is_ok_and(is_ours) {
        return Err(Wrong::Foreign);
    }
    if header.tc() {
        return Err(Wrong::Cut);
    }
    match header.rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Err(Wrong::NoName),
        code => return Err(Wrong::Failed(format!("the name server says {code}"))),
    }
    let nonsense = |_| Wrong::Failed("the name server's answer is damaged".to_owned());
    let owner = message
        .canonical_name()
        .ok_or_else(|| Wrong::Failed("its aliases lead to no end".to_owned()))?;
    let mut records = Vec::new();
    let mut ttl = Duration::MAX;
    for record in message.answer().map_err(nonsense)?.take(RECORDS_MAX) {
        let record = record.map_err(nonsense)?;
        ttl = ttl.min(record.ttl().into_duration());
        if !record.owner().name_eq(&owner) || record.rtype() != kind.rtype() {
            continue;
        }
        records.extend(match kind {
            Kind::A => record
                .to_record::<A>()
                .map_err(nonsense)?
                .map(|record| Record::Address(record.data().addr().into())),
            Kind::Aaaa => record
                .to_record::<Aaaa>()
                .map_err(nonsense)?
                .map(|record| Record::Address(record.data().addr().into())),
            Kind::Srv => record.to_record::<Srv<_>>().map_err(nonsense)?.map(|record| {
                let data = record.data();
                let host: Name<Vec<u8>> = data.target().flatten_into();
                Record::Target(Target {
                    priority: data.priority(),
                    weight: data.weight(),
                    port: data.port(),
                    host: host.fmt_with_dot().to_string(),
                })
            }),
        });
    }
    Ok(Answer { records, ttl })
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use domain::base::Ttl;
    use domain::base::iana::Class;
    use domain::rdata::Cname;

    use super::*;

    type Named = Name<Vec<u8>>;

    fn name(text: &str) -> Named {
        Named::vec_from_str(text).unwrap()
    }

    /// An answer to `media.test`: `records` are appended by `fill`.
    fn answer(
        kind: Kind,
        code: Rcode,
        fill: impl FnOnce(&mut domain::base::message_builder::AnswerBuilder<Vec<u8>>),
    ) -> Vec<u8> {
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(7);
        message.header_mut().set_qr(true);
        message.header_mut().set_rcode(code);
        let mut message = message.question();
        message.push((name("media.test."), kind.rtype())).unwrap();
        let mut message = message.answer();
        fill(&mut message);
        message.finish()
    }

    fn address(n: u8) -> A {
        A::new(Ipv4Addr::new(10, 0, 0, n))
    }

    #[test]
    fn addresses_are_read_through_aliases_with_the_shortest_time() {
        let bytes = answer(Kind::A, Rcode::NOERROR, |message| {
            let alias = Cname::new(name("a.test."));
            message
                .push((name("MEDIA.test."), Class::IN, Ttl::from_secs(30), alias))
                .unwrap();
            for n in [1, 2] {
                message
                    .push((name("a.test."), Class::IN, Ttl::from_secs(60), address(n)))
                    .unwrap();
            }
            // Something that nobody asked for.
            message
                .push((name("b.test."), Class::IN, Ttl::from_secs(60), address(3)))
                .unwrap();
        });
        let found = read(&bytes, 7, "media.test.", Kind::A).unwrap();
        let addresses = [1, 2].map(|n| Record::Address(Ipv4Addr::new(10, 0, 0, n).into()));
        assert_eq!(found.records, addresses);
        assert_eq!(found.ttl, Duration::from_secs(30));
    }

    #[test]
    fn services_and_the_other_family_are_read() {
        let ttl = Ttl::from_secs(5);
        let bytes = answer(Kind::Aaaa, Rcode::NOERROR, |message| {
            let aaaa = Aaaa::new(Ipv6Addr::LOCALHOST);
            message.push((name("media.test."), Class::IN, ttl, aaaa)).unwrap();
        });
        let found = read(&bytes, 7, "media.test.", Kind::Aaaa).unwrap();
        assert_eq!(found.records, [Record::Address(Ipv6Addr::LOCALHOST.into())]);
        let bytes = answer(Kind::Srv, Rcode::NOERROR, |message| {
            let srv = Srv::new(10, 20, 22222, name("h1.test."));
            message.push((name("media.test."), Class::IN, ttl, srv)).unwrap();
        });
        let target = Target {
            priority: 10,
            weight: 20,
            port: 22222,
            host: "h1.test.".to_owned(),
        };
        let found = read(&bytes, 7, "media.test.", Kind::Srv).unwrap();
        assert_eq!(found.records, [Record::Target(target)]);
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let of = |code| answer(Kind::A, code, |_| ());
        let said = |bytes: &[u8], id, kind| read(bytes, id, "media.test.", kind).map(|found| found.records);
        assert_eq!(said(&of(Rcode::NOERROR), 7, Kind::A), Ok(Vec::new()));
        assert_eq!(said(&of(Rcode::NXDOMAIN), 7, Kind::A), Err(Wrong::NoName));
        assert_eq!(
            said(&of(Rcode::SERVFAIL), 7, Kind::A),
            Err(Wrong::Failed("the name server says SERVFAIL".to_owned()))
        );
        for (bytes, id, kind) in [
            (of(Rcode::NOERROR), 8, Kind::A),
            (of(Rcode::NOERROR), 7, Kind::Srv),
            (question(7, "media.test.", Kind::A).unwrap(), 7, Kind::A),
            (b"nonsense".to_vec(), 7, Kind::A),
        ] {
            assert_eq!(said(&bytes, id, kind), Err(Wrong::Foreign));
        }
        assert_eq!(
            read(&of(Rcode::NOERROR), 7, "other.test.", Kind::A),
            Err(Wrong::Foreign)
        );
        let mut cut = of(Rcode::NOERROR);
        cut[2] |= 2;
        assert_eq!(said(&cut, 7, Kind::A), Err(Wrong::Cut));
        assert!(question(7, "a..b", Kind::A).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let whole = answer(Kind::A, Rcode::NOERROR, |message| {
                message.push((name("media.test."), Class::IN, Ttl::from_secs(60), address(1))).unwrap();
            });
            for (n, byte) in bytes.iter().enumerate() {
                let mut damaged = whole.clone();
                let place = n % damaged.len();
                damaged[place] ^= byte;
                let _ = read(&damaged, 7, "media.test.", Kind::A);
            }
            let _ = read(&bytes, 7, "media.test.", Kind::Srv);
        }
    }
}
