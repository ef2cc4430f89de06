//! What happens, as values that can be told to whoever watches. Pure.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::VecDeque;

use crate::config::model::{Name, Policy};

/// Bytes kept of a command or a reply. SIP servers' are a few hundred.
pub const TEXT_MAX: usize = 512;
/// Commands kept that came out badly.
pub const RECENT_MAX: usize = 256;
/// A command that took longer than this is kept.
pub const SLOW: Duration = Duration::from_millis(100);

/// A change that an operator would want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When: time since the epoch of UNIX.
    pub at: Duration,
    /// Of what.
    pub subject: Subject,
    /// What it was before, where it was something.
    pub old: Option<Cow<'static, str>>,
    /// What it is now: `offline`, `DRAINING`, `gone`, `loaded`.
    pub new: Cow<'static, str>,
    /// Why, in one line.
    pub why: String,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A member.
    Member {
        /// Of this cluster.
        cluster: Name,
        /// By name.
        member: Name,
        /// Where it is.
        address: String,
    },
    /// A cluster.
    Cluster(Name),
    /// The configuration, read again.
    Configuration,
    /// The process, taken over from another or by another.
    Daemon,
}

/// A step of one command on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When: time since the epoch of UNIX.
    pub at: Duration,
    /// Of this call.
    pub call_id: Vec<u8>,
    /// Which step.
    pub step: Step,
    /// Who sent the command.
    pub client: String,
    /// Who is asked or answers.
    pub member: Option<Name>,
    /// Which attempt that is, from 1.
    pub attempt: Option<u8>,
    /// Since the command was sent to the member, or came from the client where the client is answered.
    pub delay: Option<Duration>,
    /// Why this happens: `chosen by weight`, `bound`, `failed over after 250 ms`, `asked all`, `undone`.
    pub why: Cow<'static, str>,
    /// The command that is answered, where the step is kept for later.
    pub command: Option<Vec<u8>>,
    /// The command or the reply, without cookie and line end, at most [`TEXT_MAX`] of it.
    pub text: Vec<u8>,
    /// Whether the call is over with this.
    pub ends_call: bool,
}

/// Steps of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Came from a client.
    Received,
    /// Went to a member.
    Sent,
    /// Came from a member.
    Replied,
    /// A member has not answered in time.
    Unanswered,
    /// Went to the client.
    Answered,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Sent => "sent",
            Self::Replied => "replied",
            Self::Unanswered => "unanswered",
            Self::Answered => "answered",
        })
    }
}

/// Why a command goes to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the home of the call.
    Bound,
    /// It has turned out to be the home of the call.
    Found,
    /// It was chosen for a new call.
    Chosen(Policy),
    /// Another command of the call is on its way there.
    Joined,
    /// Who was tried before has not answered for so many milliseconds, or refused.
    FailedOver {
        /// Since the attempt before began.
        millis: u32,
    },
    /// It is asked whether it has the call, since the hash of the call-id names it.
    Hash,
    /// All are asked.
    AskedAll,
    /// What it has made is not wanted.
    Undone,
    /// It was away when this came.
    Kept,
}

impl Why {
    /// In words.
    pub fn words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Bound => "bound",
            Self::Found => "bound: it was asked and has the call",
            Self::Chosen(Policy::Weighted) => "chosen by weight",
            Self::Chosen(Policy::LeastLoaded) => "chosen as least loaded",
            Self::Chosen(Policy::Hash) => "chosen by hash",
            Self::Joined => "another command of the call went there",
            Self::FailedOver { millis } => return Cow::Owned(format!("failed over after {millis} ms")),
            Self::Hash => "asked: the hash names it",
            Self::AskedAll => "asked all",
            Self::Undone => "undone",
            Self::Kept => "kept until it was back",
        })
    }
}

impl Traced {
    /// Whether it is kept for `trace … last`: an answer that is an error, or took long.
    pub fn is_noteworthy(&self) -> bool {
        self.step == Step::Answered
            && (self.text.starts_with(b"E") || self.delay.is_some_and(|delay| delay > SLOW))
    }
}

/// The last commands that came out badly, oldest first.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Traced>);

impl Recent {
    /// Keeps a step if it is one to be kept, in place of the oldest.
    pub fn keep(&mut self, step: Traced) {
        if step.is_noteworthy() {
            if self.0.len() >= RECENT_MAX {
                self.0.pop_front();
            }
            self.0.push_back(step);
        }
    }

    /// All that are kept.
    pub fn steps(&self) -> impl Iterator<Item = &Traced> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &[u8], delay: Duration) -> Traced {
        Traced {
            at: Duration::ZERO,
            call_id: b"c".to_vec(),
            step: Step::Answered,
            client: "k".into(),
            member: None,
            attempt: None,
            delay: Some(delay),
            why: "bound".into(),
            command: None,
            text: text.to_vec(),
            ends_call: false,
        }
    }

    #[test]
    fn errors_and_slow_commands_are_kept_and_the_oldest_leaves() {
        let mut recent = Recent::default();
        recent.keep(answered(b"0", SLOW));
        let sent = Traced {
            step: Step::Sent,
            ..answered(b"E50", SLOW)
        };
        recent.keep(sent);
        assert_eq!(recent.steps().count(), 0);
        recent.keep(answered(b"0", SLOW + Duration::from_millis(1)));
        for _ in 0..RECENT_MAX {
            recent.keep(answered(b"E50", Duration::ZERO));
        }
        assert_eq!(recent.steps().count(), RECENT_MAX);
        assert!(recent.steps().all(|step| step.text == b"E50"));
    }
}
