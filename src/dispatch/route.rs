//! The table of the protocol: what a command means for a cluster, given what is known of its call. Pure: a
//! command and the state of its call's home go in, one [`Route`] comes out.
//!
//! A call whose home is lost moves with the next U, and only with a U. When a call changes (re-INVITE, UPDATE), the SIP
//! server has the SDP of both sides rewritten: by a U and an L, or by two U where it is a back-to-back user agent. An
//! RTPproxy that gets a U with both tags for a session that it does not have makes that session, from whichever side it
//! comes, and the answer completes it; so both sides learn ports of the new home and have sound again. An L alone
//! reaches one side: the other would go on sending to the dead member, so it is refused (E997) and the SIP server knows.
//! Nothing is to be copied from the old home: what a session is, is in the commands.

use crate::protocol::command::{Command, Verb};

/// The member that a call is bound to, as far as routing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The session table does not have the call-id.
    Unknown,
    /// Bound, and the member answers.
    Online {
        /// Whether the member takes new sessions.
        active: bool,
        /// Whether the call has been deleted and is only remembered for its other leg.
        ended: bool,
        /// Whether the member was chosen, but has not answered yet.
        tentative: bool,
    },
    /// Bound, and the member is silent or gone.
    Offline,
}

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the home, which alone can answer.
    Home,
    /// To the member chosen for a command of the same call that is still unanswered, or that had the call before; the
    /// commands of the call fail over together.
    Join,
    /// To a member yet to be chosen.
    Create,
    /// As `Create`; what the old home may still have of the call is deleted there when it is back.
    Move,
    /// All members are asked by `Q` who has the call, then the command goes there, or is a new call.
    Seek,
    /// The command itself goes to all members; one has the call.
    Ask,
    /// `0` at once; the home gets the delete when it is back.
    Later,
    /// The home is offline and nobody else can answer: E997.
    HomeLost,
    /// `20040107`, from us.
    Version,
    /// From what members have said, else asked of them.
    Capability,
    /// Sums of the newest heartbeats.
    Info,
    /// All members, summed.
    Statistics,
    /// All members; the table is emptied.
    DeleteAll,
}

/// Chooses the route of `command`, whose call's home is `home`.
#[must_use]
pub fn route(command: &Command<'_>, home: Home) -> Route {
    match command.verb {
        Verb::Version => Route::Version,
        Verb::Capability => Route::Capability,
        Verb::Info => Route::Info,
        Verb::Statistics => Route::Statistics,
        Verb::DeleteAll => Route::DeleteAll,
        Verb::Update => update(command.to_tag.is_some(), home),
        Verb::Delete => match home {
            Home::Unknown => Route::Ask,
            Home::Online { .. } => Route::Home,
            Home::Offline => Route::Later,
        },
        Verb::Lookup
        | Verb::Play
        | Verb::StopPlay
        | Verb::Record
        | Verb::StopRecord
        | Verb::Copy
        | Verb::Query => match home {
            Home::Unknown => Route::Ask,
            Home::Online { .. } => Route::Home,
            Home::Offline => Route::HomeLost,
        },
    }
}

fn update(has_to_tag: bool, home: Home) -> Route {
    match home {
        Home::Online { tentative: true, .. } => Route::Join,
        // A call that ended a moment ago does not hold a new one on a member that takes none.
        Home::Online {
            active: false,
            ended: true,
            ..
        } => Route::Create,
        // It is a new one of the same name: what it makes is to be undone when another member gets it in the end.
        Home::Online { ended: true, .. } if !has_to_tag => Route::Join,
        Home::Online { .. } => Route::Home,
        // Both sides' SDP is rewritten by a re-INVITE too, so a new home heals the call.
        Home::Offline => Route::Move,
        Home::Unknown if has_to_tag => Route::Seek,
        Home::Unknown => Route::Create,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::command::parse;

    const ONLINE: Home = Home::Online {
        active: true,
        ended: false,
        tentative: false,
    };
    const SUSPENDED: Home = Home::Online {
        active: false,
        ended: false,
        tentative: false,
    };
    const ENDED: Home = Home::Online {
        active: true,
        ended: true,
        tentative: false,
    };
    const ENDED_SUSPENDED: Home = Home::Online {
        active: false,
        ended: true,
        tentative: false,
    };
    const TENTATIVE: Home = Home::Online {
        active: true,
        ended: false,
        tentative: true,
    };

    /// The table of the protocol, a row a command, a column a home.
    #[test]
    fn the_table_of_the_protocol_holds() {
        use Route::{Ask, Create, Home as ToHome, HomeLost, Join, Later, Move, Seek};
        let homes = [
            Home::Unknown,
            ONLINE,
            SUSPENDED,
            ENDED,
            ENDED_SUSPENDED,
            TENTATIVE,
            Home::Offline,
        ];
        let table: &[(&str, [Route; 7])] = &[
            (
                "U c 1.2.3.4 5 f",
                [Create, ToHome, ToHome, Join, Create, Join, Move],
            ),
            (
                "U c 1.2.3.4 5 f t",
                [Seek, ToHome, ToHome, ToHome, Create, Join, Move],
            ),
            (
                "U c 1.2.3.4 5 f unix:/x tag",
                [Create, ToHome, ToHome, Join, Create, Join, Move],
            ),
            (
                "U c 1.2.3.4 5 f t unix:/x tag",
                [Seek, ToHome, ToHome, ToHome, Create, Join, Move],
            ),
            (
                "L c 1.2.3.4 5 f t",
                [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost],
            ),
            ("D c f t", [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, Later]),
            (
                "P c prompt 0 f t",
                [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost],
            ),
            ("S c f t", [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost]),
            ("R c f t", [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost]),
            ("N c f t", [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost]),
            (
                "C c target f t",
                [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost],
            ),
            ("Q c f t", [Ask, ToHome, ToHome, ToHome, ToHome, ToHome, HomeLost]),
            ("V", [Route::Version; 7]),
            ("VF 20050322", [Route::Capability; 7]),
            ("Ib", [Route::Info; 7]),
            ("G nsess_created", [Route::Statistics; 7]),
            ("X", [Route::DeleteAll; 7]),
        ];
        for (text, routes) in table {
            let command = parse(text.as_bytes()).unwrap();
            for (home, want) in homes.iter().zip(routes) {
                assert_eq!(route(&command, *home), *want, "{text} with {home:?}");
            }
        }
    }
}
