//! What is counted: each counter once, with its name in the code, its name in listings and its meaning. Pure.

/// An enum of counters, and the table of their names and meanings in its order: a counter's value stands in an array
/// at the place `counter as usize`.
macro_rules! counters {
    ($(#[$doc:meta])* $kind:ident, $table:ident: $($variant:ident = $name:literal: $meaning:literal;)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind {
            $(#[doc = $meaning] $variant,)+
        }

        $(#[$doc])*
        ///
        /// Their names and meanings.
        pub const $table: &[(&str, &str)] = &[$(($name, $meaning)),+];
    };
}

counters! {
    /// The counters of a cluster.
    Total, CLUSTER_COUNTERS:
    Commands = "commands": "commands accepted from SIP servers";
    RefusedCommands = "refused_commands": "commands refused for their syntax";
    Repeated = "repeated": "repeated datagrams answered from the cache or joined to the command in flight";
    Failovers = "failovers": "new sessions that went to a further member";
    AskedAll = "asked_all": "commands for which every member was asked";
    SessionsBound = "sessions_bound": "call-ids bound";
    SessionsExpired = "sessions_expired": "bindings that aged out";
    SessionsUnbound = "sessions_unbound": "new sessions served without a binding because the table was full";
    LookUps = "look_ups": "calls looked up among those that other dispatchers have bound";
    LookUpsFound = "look_ups_found": "look-ups that found a member";
    LookUpsOvertaken = "look_ups_overtaken": "look-ups that were not answered in time";
    ClientsAccepted = "clients_accepted": "connections accepted";
    ClientsSlow = "clients_slow": "connections put aside because their command was not whole";
    ClientsClosed = "clients_closed": "connections closed for slowness, length or a full buffer";
    Notifications = "notifications": "disconnect notifications relayed";
    NotificationsDropped = "notifications_dropped": "disconnect notifications that could not be delivered";
}

counters! {
    /// The counters of a member.
    Count, MEMBER_COUNTERS:
    Commands = "commands": "commands sent, first transmissions only";
    Retransmissions = "retransmissions": "datagrams sent again";
    Replies = "replies": "replies taken";
    Errors = "errors": "replies that were errors";
    Timeouts = "timeouts": "commands that were not answered in time";
    Refused = "refused": "commands that the member's socket refused";
    LateReplies = "late_replies": "replies that came after their command was over";
    SpoofedReplies = "spoofed_replies": "replies with an unknown cookie or from a wrong address";
    GarbageReplies = "garbage_replies": "replies that could not be one";
    Sessions = "sessions": "call-ids bound to it";
    Undone = "undone": "sessions deleted there because another member was faster";
    Probes = "probes": "health probes sent";
    ProbesFailed = "probes_failed": "health probes unanswered or refused";
    WentOffline = "went_offline": "changes from online to offline";
    WentOnline = "went_online": "changes from offline to online";
}
