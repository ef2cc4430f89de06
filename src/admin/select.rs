//! Which members `ls CLUSTER` shows, and in which order. Pure.

use core::cmp::Ordering;

use super::render::utilization;
use crate::dispatch::view::MemberView;

/// All members in the order of the configuration, unless told otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those that are online (`true`) or offline.
    pub online: Option<bool>,
    /// By this.
    pub sort: Option<SortKey>,
}

/// What members are sorted by. What is not known comes last; members that are alike stay as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Sessions over capacity, the fullest first.
    Load,
    /// From A to Z.
    Name,
    /// Average delay, the slowest first.
    Delay,
    /// Its own sessions, the most first.
    Sessions,
}

impl SortKey {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Load, Self::Name, Self::Delay, Self::Sessions];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Name => "name",
            Self::Delay => "delay",
            Self::Sessions => "sessions",
        }
    }

    fn compare(self, a: &MemberView, b: &MemberView) -> Ordering {
        let sessions = |view: &MemberView| view.active_sessions.filter(|_| view.online);
        match self {
            // `None` is less than any number, so the greatest first has it last.
            Self::Load => utilization(b)
                .partial_cmp(&utilization(a))
                .unwrap_or(Ordering::Equal),
            Self::Name => a.member.name.as_str().cmp(b.member.name.as_str()),
            Self::Delay => b.delay.cmp(&a.delay),
            Self::Sessions => sessions(b).cmp(&sessions(a)),
        }
    }
}

impl Selection {
    /// Whether it is all there is.
    pub fn is_all(self) -> bool {
        self == Self::default()
    }

    /// Whether a member is shown.
    pub fn shows(self, view: &MemberView) -> bool {
        self.online.is_none_or(|online| online == view.online)
    }

    /// Puts members in their order.
    pub fn sort(self, members: &mut [MemberView]) {
        if let Some(key) = self.sort {
            members.sort_by(|a, b| key.compare(a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::admin::fake::member;

    #[test]
    fn the_fullest_slowest_and_busiest_come_first_and_the_unknown_last() {
        let made = |name: &str, sessions, capacity, delay| {
            let mut view = member(name, 1, 1, capacity);
            (view.active_sessions, view.delay) = (sessions, delay);
            view
        };
        let ms = Duration::from_millis;
        let mut members = vec![
            made("unknown", None, 10, None),
            made("big", Some(50), 1_000, Some(ms(3))),
            made("full", Some(9), 10, Some(ms(1))),
            made("empty", Some(0), 10, Some(ms(2))),
            made("offline", Some(99), 100, None),
        ];
        members[4].online = false;
        for (sort, want) in [
            (SortKey::Load, ["full", "big", "empty", "unknown", "offline"]),
            (SortKey::Name, ["big", "empty", "full", "offline", "unknown"]),
            (SortKey::Delay, ["big", "empty", "full", "unknown", "offline"]),
            (SortKey::Sessions, ["big", "full", "empty", "unknown", "offline"]),
        ] {
            let mut sorted = members.clone();
            let selection = Selection {
                sort: Some(sort),
                ..Selection::default()
            };
            selection.sort(&mut sorted);
            let names: Vec<_> = sorted.iter().map(|view| view.member.name.as_str()).collect();
            assert_eq!(names, want, "{sort:?}");
        }
    }
}
