//! What is wrong, from what was measured, in words that say what to do. Pure.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::tally::Flow;

/// What was heard of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Where both parties are.
    pub(crate) from: IpAddr,
    /// Where they sent to.
    pub(crate) announced: IpAddr,
    /// Whether that is a `wan_address`.
    pub(crate) is_wan: bool,
    /// From the caller to the callee, and the reverse.
    pub(crate) flows: [Flow; 2],
    /// Another address of the member, through which everything came.
    pub(crate) better: Option<IpAddr>,
    /// What the member itself has counted.
    pub(crate) counted: Option<Counted>,
}

/// The reply to a `Q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets from both parties.
    pub(crate) received: u64,
    /// Packets sent on.
    pub(crate) relayed: u64,
}

/// Reads it: `60 50 50 100 0`, the time to live, packets of each party, those sent on and those dropped.
pub(crate) fn counted(reply: &str) -> Option<Counted> {
    let numbers: Result<Vec<u64>, _> = reply.split(' ').map(str::parse).collect();
    match numbers.ok()?.as_slice() {
        [_, one, other, relayed, _] => Some(Counted {
            received: one.saturating_add(*other),
            relayed: *relayed,
        }),
        _ => None,
    }
}

/// What a U or an L was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A port, with its address where it has one.
    Port(u16, Option<IpAddr>),
    /// `0`: no such session.
    None,
    /// `E…`
    Error(u16),
    /// Nothing that an RTPproxy says.
    Nonsense,
}

/// Reads it.
pub(crate) fn answer(reply: &str) -> Answer {
    if let Some(code) = reply.strip_prefix('E').and_then(|code| code.parse().ok()) {
        return Answer::Error(code);
    }
    let mut words = reply.split_whitespace();
    match (words.next().map(str::parse::<u16>), words.next().map(str::parse)) {
        (Some(Ok(0)), _) => Answer::None,
        (Some(Ok(port)), None) => Answer::Port(port, None),
        (Some(Ok(port)), Some(Ok(address))) => Answer::Port(port, Some(address)),
        _ => Answer::Nonsense,
    }
}

/// Why a call is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A command was answered with an error. The flag says whether the member was asked for its `lan_address`.
    Refused(&'static str, u16, bool),
    /// A command was answered with this.
    Nonsense(&'static str, String),
    /// The session was gone when the callee answered.
    Forgotten,
    /// Media did not flow as they should.
    Media(Box<Heard>),
    /// No party can be at that address.
    From(IpAddr, String),
    /// It announces an address of the other family.
    Family(IpAddr),
}

/// The fault of a call that was made, if there is one.
pub(crate) fn judge(heard: Heard) -> Result<Heard, Fault> {
    if heard.flows.iter().all(Flow::is_good) {
        Ok(heard)
    } else {
        Err(Fault::Media(Box::new(heard)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(command, code, lan) => {
                write!(f, "the {command} was refused with E{code}: {}", meaning(*code))?;
                if *lan && *code == 72 {
                    f.write_str("; or lan_address is none of its own addresses")?;
                }
                Ok(())
            }
            Self::Nonsense(command, reply) => write!(
                f,
                "the {command} was answered with \"{reply}\", which no RTPproxy says: what listens there?"
            ),
            Self::Forgotten => f.write_str(
                "the session was gone when the callee answered: was the RTPproxy restarted, or has it a short -T or -W?",
            ),
            Self::From(address, error) => write!(
                f,
                "no party can be at {address} ({error}): want --from with an address of this machine"
            ),
            Self::Family(address) => write!(
                f,
                "{address} is announced, of the other family than the parties' address: give both families in \
                 wan_address, or test with --from an address of that family"
            ),
            Self::Media(heard) => heard.fmt(f),
        }
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            announced,
            is_wan,
            flows: [there, back],
            better,
            counted,
        } = self;
        if let Some(error) = there.error.as_ref().or(back.error.as_ref())
            && there.arrived + back.arrived == 0
        {
            return write!(
                f,
                "packets to {announced} cannot be sent ({error}): no route there, or a firewall of this machine"
            );
        }
        match (there.arrived, back.arrived) {
            (0, 0) => f.write_str("it answers, but relays nothing: ")?,
            (0, _) => f.write_str("one way only, the callee hears nothing: ")?,
            (_, 0) => f.write_str("one way only, the caller hears nothing: ")?,
            _ => {
                let lost = there.lost().max(back.lost());
                return write!(
                    f,
                    "{lost} % of the packets are lost: a line or a machine that is overloaded, or a firewall that \
                     limits rates"
                );
            }
        }
        match (better, counted) {
            (Some(better), _) if *is_wan => write!(
                f,
                "the wrong address is announced, or one that does not work from here: wan_address is {announced}, and \
                 media flow through {better}; correct it, or test from outside with --from"
            ),
            (Some(better), _) => write!(
                f,
                "the wrong address is announced: the RTPproxy says {announced}, and media flow through {better}; set \
                 <wan_address>{better}</wan_address>, or start it with -l {better}"
            ),
            (None, Some(counted)) if counted.received == 0 => write!(
                f,
                "no packet reached it: a firewall drops UDP from {from} to its ports at {announced}, or that is not \
                 its address ({}); let its port range through",
                if *is_wan {
                    "see wan_address"
                } else {
                    "see its -l, and wan_address"
                }
            ),
            (None, Some(counted)) if counted.relayed > 0 => write!(
                f,
                "it received {} packets and sent {} on, which do not arrive: a firewall between drops UDP from \
                 {announced} to {from}",
                counted.received, counted.relayed
            ),
            (None, _) => write!(
                f,
                "a firewall between {from} and {announced} drops UDP, or the announced address is wrong"
            ),
        }
    }
}

/// What an error means to who looks after the RTPproxies.
fn meaning(code: u16) -> &'static str {
    match code {
        71 | 72 => {
            "no ports left; widen the port range of the RTPproxy (-m, -M), look for calls that never end, or add members"
        }
        81..=89 => "its machine is out of memory or descriptors",
        98 => "it is overloaded; add members",
        99 => "it is shutting down",
        997 => "no member answers; rtp_cluster_client ls -v says why",
        998 => "all members are at their capacity, and the limit is hard; add capacity",
        999 => "no ACTIVE member is online; rtp_cluster_client ls -v says why",
        1..=19 => "it does not understand the command; is it an RTPproxy of version 2 or newer?",
        31..=37 => "it does not take the address; does it serve that family (-l, -6)?",
        _ => "its log says more",
    }
}

/// A remark on a call that is good: media came from elsewhere than was announced.
pub(crate) fn remark(heard: &Heard) -> Option<String> {
    let sources = heard.flows.iter().filter_map(|flow| flow.source);
    let other = sources
        .map(|source: SocketAddr| source.ip())
        .find(|source| *source != heard.announced)?;
    Some(format!(
        "media come from {other}, {} is announced: telephones behind a strict firewall will not hear them",
        heard.announced
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn flow(arrived: usize) -> Flow {
        Flow {
            sent: 50,
            arrived,
            source: (arrived > 0).then(|| "10.0.0.4:35000".parse().unwrap()),
            ..Flow::default()
        }
    }

    fn heard(there: usize, back: usize) -> Heard {
        Heard {
            from: ip("10.0.0.9"),
            announced: ip("10.0.0.4"),
            is_wan: false,
            flows: [flow(there), flow(back)],
            better: None,
            counted: None,
        }
    }

    fn words(heard: Heard) -> String {
        judge(heard).unwrap_err().to_string()
    }

    #[test]
    fn replies_are_read_as_a_sip_server_reads_them() {
        assert_eq!(
            answer("35000 10.0.0.4"),
            Answer::Port(35000, Some(ip("10.0.0.4")))
        );
        assert_eq!(answer("35000 ::1 6"), Answer::Port(35000, Some(ip("::1"))));
        assert_eq!(answer("35000"), Answer::Port(35000, None));
        assert_eq!(answer("0"), Answer::None);
        assert_eq!(answer("E71"), Answer::Error(71));
        for nonsense in ["", "HTTP/1.1 400", "35000 here", "99999 10.0.0.4"] {
            assert_eq!(answer(nonsense), Answer::Nonsense, "{nonsense}");
        }
        let both = Counted {
            received: 75,
            relayed: 70,
        };
        assert_eq!(counted("60 50 25 70 5"), Some(both));
        assert_eq!((counted("E50"), counted("60 1 2")), (None, None));
    }

    #[test]
    fn a_call_is_good_when_both_hear() {
        assert_eq!(judge(heard(50, 50)), Ok(heard(50, 50)));
        assert_eq!(judge(heard(49, 50)), Ok(heard(49, 50)));
        assert_eq!(remark(&heard(50, 50)), None);
        let elsewhere = Heard {
            announced: ip("203.0.113.4"),
            ..heard(50, 50)
        };
        assert!(
            remark(&elsewhere)
                .unwrap()
                .starts_with("media come from 10.0.0.4, 203.0.113.4 is")
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        assert!(words(heard(40, 50)).starts_with("20 % of the packets are lost"));
        assert!(words(heard(0, 50)).starts_with("one way only, the callee hears nothing: a firewall"));
        assert!(words(heard(50, 0)).starts_with("one way only, the caller hears nothing: a firewall"));
        assert!(
            words(heard(0, 0))
                .starts_with("it answers, but relays nothing: a firewall between 10.0.0.9 and 10.0.0.4")
        );
        let wan = Heard {
            announced: ip("203.0.113.4"),
            is_wan: true,
            better: Some(ip("10.0.0.4")),
            ..heard(0, 0)
        };
        assert!(words(wan.clone()).contains("wan_address is 203.0.113.4, and media flow through 10.0.0.4"));
        let own = Heard { is_wan: false, ..wan };
        assert!(words(own).contains("set <wan_address>10.0.0.4</wan_address>"));
        let counts = |received, relayed| {
            words(Heard {
                counted: Some(Counted { received, relayed }),
                ..heard(0, 0)
            })
        };
        assert!(counts(0, 0).contains("no packet reached it"), "{}", counts(0, 0));
        assert!(counts(100, 100).contains("received 100 packets and sent 100 on"));
        let mut unsent = heard(0, 0);
        unsent.flows[0].error = Some("Network is unreachable".to_owned());
        assert!(words(unsent).starts_with("packets to 10.0.0.4 cannot be sent (Network is unreachable)"));
    }

    #[test]
    fn errors_are_explained() {
        let refused = |code, lan| Fault::Refused("U", code, lan).to_string();
        assert!(refused(71, false).starts_with("the U was refused with E71: no ports left; "));
        assert!(refused(72, true).ends_with("lan_address is none of its own addresses"));
        assert!(refused(999, false).contains("no ACTIVE member is online"));
        assert!(refused(60, false).ends_with("its log says more"));
    }
}
