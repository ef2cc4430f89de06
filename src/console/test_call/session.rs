//! The story of one test call: a session is made, both parties speak, the session is deleted whatever happens.

use core::net::{IpAddr, Ipv4Addr};
use std::hash::{BuildHasher as _, RandomState};

use super::control::{Control, Failure};
use super::interrupt::Interrupt;
use super::media::{self, Party};
use super::survey::{Member, Place};
use super::tally::Flow;
use super::verdict::{self, Answer, Counted, Fault, Heard};

/// Whom the call goes through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The control socket of a cluster, or of a member.
    pub(crate) place: &'a Place,
    /// The member, where it is asked itself.
    pub(crate) member: Option<&'a Member>,
    /// Where the parties are to be.
    pub(crate) from: Option<IpAddr>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Good,
    Fault(Fault),
    /// The control socket does not answer as one.
    Unreachable(Failure),
    Interrupted,
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Report {
    /// What happened, a line each.
    pub(crate) lines: Vec<String>,
    pub(crate) outcome: Outcome,
    /// Who served it, where a cluster was asked.
    pub(crate) served_by: Option<String>,
}

/// A tag of the caller's and of the callee's.
const TAGS: [&str; 2] = ["test-caller", "test-callee"];

/// Makes a call. `locate` says which member serves a call-id.
pub(crate) fn call(
    target: Target<'_>,
    interrupt: &Interrupt,
    locate: &mut dyn FnMut(&str) -> Option<String>,
) -> Report {
    let nonce = nonce();
    let control = Control::new(
        target.place,
        target.member.and_then(|member| member.source),
        nonce,
        interrupt,
    );
    let mut story = Story {
        target,
        control: &control,
        interrupt,
        id: format!("rtp_cluster_client-test-{nonce:016x}"),
        nonce,
        lines: Vec::new(),
        served_by: None,
        is_open: false,
    };
    let ending = story.tell(locate);
    story.close();
    let outcome = match ending {
        Ok(()) => Outcome::Good,
        Err(End::Fault(fault)) => Outcome::Fault(fault),
        Err(End::Failure(Failure::Interrupted)) => Outcome::Interrupted,
        Err(End::Failure(failure)) => Outcome::Unreachable(failure),
    };
    let Story { lines, served_by, .. } = story;
    Report {
        lines,
        outcome,
        served_by,
    }
}

impl Report {
    /// Of a call that nobody would answer.
    pub(crate) fn unreachable(failure: Failure) -> Self {
        Self {
            lines: Vec::new(),
            outcome: match failure {
                Failure::Interrupted => Outcome::Interrupted,
                failure => Outcome::Unreachable(failure),
            },
            served_by: None,
        }
    }
}

/// Names a call, or some commands; no two of them alike.
pub(crate) fn nonce() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

enum End {
    Fault(Fault),
    Failure(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Story<'a> {
    target: Target<'a>,
    control: &'a Control<'a>,
    interrupt: &'a Interrupt,
    id: String,
    nonce: u64,
    lines: Vec<String>,
    served_by: Option<String>,
    /// There may be a session to delete.
    is_open: bool,
}

/// A port that was given, at the address that came with it.
#[derive(Clone, Copy)]
struct Given {
    port: u16,
    address: IpAddr,
}

impl Story<'_> {
    fn tell(&mut self, locate: &mut dyn FnMut(&str) -> Option<String>) -> Result<(), End> {
        let peer = self.control.peer()?.map(|peer| peer.ip());
        let mut from = match (self.target.from, peer) {
            (Some(from), _) => from,
            (None, Some(peer)) => towards(peer)?,
            (None, None) => Ipv4Addr::LOCALHOST.into(),
        };
        let mut parties = self.parties(from)?;
        let mut first = self.open("U", &parties[0], TAGS[0], peer)?;
        let mut sent_to = self.announced(first.address, from);
        if self.target.from.is_none() {
            // Now that it is known where the media go, so is where they leave from.
            let better = towards(sent_to)?;
            if better != from {
                from = better;
                parties = self.parties(from)?;
                first = self.open("U", &parties[0], TAGS[0], peer)?;
                sent_to = self.announced(first.address, from);
            }
        }
        let both = format!("{} {}", TAGS[0], TAGS[1]);
        let second = self.open("L", &parties[1], &both, peer)?;
        self.served_by = locate(&self.id);
        if let Some(name) = &self.served_by {
            self.lines.push(format!("served by {name}"));
        }
        if sent_to.is_ipv6() != from.is_ipv6() {
            return Err(Fault::Family(sent_to).into());
        }
        let ports = [second.port, first.port];
        let mut heard = Heard {
            from,
            announced: sent_to,
            is_wan: sent_to != first.address,
            flows: self.talk(&parties, ports, sent_to)?,
            better: None,
            counted: None,
        };
        if !heard.flows.iter().all(|flow| flow.arrived > 0) {
            let command = format!("Q {} {} {}", self.id, TAGS[0], TAGS[1]);
            heard.counted = self
                .control
                .ask(&command)
                .ok()
                .and_then(|(reply, _)| verdict::counted(&reply));
            if let Some(Counted { received, relayed }) = heard.counted {
                self.lines.push(format!(
                    "it has counted {received} packets received, {relayed} relayed"
                ));
            }
            heard.better = self.elsewhere(&parties, ports, [Some(first.address), peer], sent_to)?;
        }
        let heard = verdict::judge(heard).map_err(End::Fault)?;
        self.lines.extend(verdict::remark(&heard));
        Ok(())
    }

    fn parties(&self, from: IpAddr) -> Result<[Party; 2], End> {
        let party = |source| {
            Party::at(from, source).map_err(|error| End::Fault(Fault::From(from, error.to_string())))
        };
        Ok([party(self.nonce)?, party(!self.nonce)?])
    }

    /// A U or an L for this party.
    fn open(
        &mut self,
        letter: &'static str,
        party: &Party,
        tags: &str,
        peer: Option<IpAddr>,
    ) -> Result<Given, End> {
        let address = party.address();
        let v6 = address.is_ipv6();
        let lan = self
            .target
            .member
            .and_then(|member| Member::of_family(&member.lan, v6));
        let family = if v6 { "6" } else { "" };
        let local = match lan {
            Some(lan) if lan.is_ipv6() => format!("L[{lan}]"),
            Some(lan) => format!("L{lan}"),
            None => String::new(),
        };
        let command = format!(
            "{letter}{family}{local} {} {} {} {tags}",
            self.id,
            address.ip(),
            address.port()
        );
        // A reply that is lost has made a session as well.
        self.is_open = true;
        let asked = self.control.ask(&command);
        // Where there was nobody to make one, there is none.
        if letter == "U" && matches!(asked, Err(Failure::Name(_) | Failure::Connect(_))) {
            self.is_open = false;
        }
        if matches!(asked, Err(Failure::Silent(_))) {
            self.control.hurry();
        }
        let (reply, delay) = asked?;
        self.lines.push(format!(
            "{letter} for {address}: {reply} after {:.1} ms",
            delay.as_secs_f64() * 1e3
        ));
        match verdict::answer(&reply) {
            Answer::Port(port, address) => {
                let unspecified = |address: &IpAddr| address.is_unspecified();
                let address = address.filter(|address| !unspecified(address)).or(peer);
                Ok(Given {
                    port,
                    address: address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
                })
            }
            Answer::None if letter == "L" => Err(Fault::Forgotten.into()),
            Answer::Error(code) => Err(Fault::Refused(letter, code, lan.is_some()).into()),
            Answer::None | Answer::Nonsense => Err(Fault::Nonsense(letter, reply).into()),
        }
    }

    /// Where a SIP server would tell the parties to send: the cluster has replaced the address already.
    fn announced(&self, given: IpAddr, from: IpAddr) -> IpAddr {
        let wan = self
            .target
            .member
            .and_then(|member| Member::of_family(&member.wan, from.is_ipv6()));
        wan.unwrap_or(given)
    }

    fn talk(
        &mut self,
        [one, other]: &[Party; 2],
        ports: [u16; 2],
        address: IpAddr,
    ) -> Result<[Flow; 2], End> {
        let to = ports.map(|port| (address, port).into());
        let flows = media::talk([one, other], to, self.interrupt).ok_or(Failure::Interrupted)?;
        for (way, flow) in ["caller to callee", "callee to caller"].into_iter().zip(&flows) {
            let delay = if flow.arrived > 0 {
                format!(
                    ", delay {:.1} ms, at most {:.1} ms",
                    flow.mean.as_secs_f64() * 1e3,
                    flow.worst.as_secs_f64() * 1e3
                )
            } else {
                String::new()
            };
            self.lines.push(format!(
                "{way} through {address}: {} of {} packets, loss {} %{delay}",
                flow.arrived,
                flow.sent,
                flow.lost()
            ));
        }
        Ok(flows)
    }

    /// Another address at which media flow.
    fn elsewhere(
        &mut self,
        parties: &[Party; 2],
        ports: [u16; 2],
        addresses: [Option<IpAddr>; 2],
        tried: IpAddr,
    ) -> Result<Option<IpAddr>, End> {
        let mut tried = vec![tried];
        let here = parties[0].address();
        for address in addresses.into_iter().flatten() {
            if tried.contains(&address) || address.is_ipv6() != here.is_ipv6() {
                continue;
            }
            tried.push(address);
            let flows = self.talk(parties, ports, address)?;
            if flows.iter().all(Flow::is_good) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Deletes the session, if there may be one.
    fn close(&mut self) {
        if !self.is_open {
            return;
        }
        let command = format!("D {} {}", self.id, TAGS[0]);
        let deleted = self.interrupt.ignored(|| self.control.ask(&command));
        match deleted {
            // Where the U was refused, there was none.
            Ok((reply, _)) if reply == "0" || reply == "E50" => {}
            Ok((reply, _)) => self.lines.push(format!(
                "the session could not be deleted: {reply}; it ends by itself"
            )),
            Err(failure) => self.lines.push(format!(
                "the session could not be deleted: {failure}; it ends by itself"
            )),
        }
    }
}

fn towards(address: IpAddr) -> Result<IpAddr, End> {
    media::address_towards(address).map_err(|error| {
        let heard = Heard {
            from: address,
            announced: address,
            is_wan: false,
            flows: [0, 1].map(|_| Flow {
                error: Some(error.to_string()),
                ..Flow::default()
            }),
            better: None,
            counted: None,
        };
        Fault::Media(Box::new(heard)).into()
    })
}
