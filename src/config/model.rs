//! What a configuration says, as values that can only be built right. Pure: no file, no socket, no clock.
//! `parse` makes these out of XML and out of the admin interface's `key=value` lists; the rest of the program
//! takes them as given.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

/// Port of an RTPproxy control socket when an address names none.
pub const DEFAULT_PORT: u16 = 22222;
/// Longest path of a UNIX socket, in bytes (`sun_path` less its NUL).
pub const SOCKET_PATH_MAX: usize = 107;

/// A name of a cluster or a member: 1 to 255 bytes, no white space, comma, `=`, control or invisible character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes `text` if it can be a name.
    pub fn new(text: &str) -> Option<Self> {
        // XML cannot carry the last two: a name taken over the admin interface must survive a `save`.
        let good = |c: char| {
            !c.is_whitespace()
                && !c.is_control()
                && !is_invisible(c)
                && !matches!(c, ',' | '=' | '\u{fffe}' | '\u{ffff}')
        };
        ((1..=255).contains(&text.len()) && text.chars().all(good)).then(|| Self(text.into()))
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `c` shows nothing, or turns what stands around it: two names that look alike would be two.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// How a control socket is spoken to. The same six serve our own sockets and those of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// UNIX stream socket, one command a connection.
    Unix,
    /// UNIX stream socket, a kept connection.
    Cunix,
    /// UDP over IPv4, with cookies.
    Udp,
    /// UDP over IPv6, with cookies.
    Udp6,
    /// TCP over IPv4, a kept connection.
    Tcp,
    /// TCP over IPv6, a kept connection.
    Tcp6,
}

impl Protocol {
    /// All of them, in the order in which they are listed to a user.
    pub const ALL: [Self; 6] = [
        Self::Unix,
        Self::Cunix,
        Self::Udp,
        Self::Udp6,
        Self::Tcp,
        Self::Tcp6,
    ];

    /// The name in a configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "UNIX",
            Self::Cunix => "CUNIX",
            Self::Udp => "UDP",
            Self::Udp6 => "UDP6",
            Self::Tcp => "TCP",
            Self::Tcp6 => "TCP6",
        }
    }

    /// The protocol of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether the address is a path of this machine.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Unix | Self::Cunix)
    }

    /// Whether commands are datagrams: they carry cookies, may be lost, and are sent again.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::Udp6)
    }

    /// Whether the same address is the same socket with `other`: UNIX and CUNIX are the same to the system.
    pub const fn same_socket(self, other: Self) -> bool {
        self.is_local() == other.is_local()
            && self.is_datagram() == other.is_datagram()
            && self.is_v6() == other.is_v6()
    }

    /// Whether the address family is IPv6.
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::Udp6 | Self::Tcp6)
    }
}

/// Where a control socket is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Absolute or relative path, at most [`SOCKET_PATH_MAX`] bytes.
    Path(PathBuf),
    /// A literal address and port.
    Ip(SocketAddr),
    /// A host name, resolved at start and when a link is made anew, and a port.
    Host(Arc<str>, u16),
}

impl fmt::Display for Address {
    /// The form that a configuration and `modify … add` take: a path, `host:port`, `[v6]:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// An address for media, at most one of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Family {
    /// For media over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For media over IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Family {
    /// Whether there is none at all.
    pub const fn is_none(self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Itself where it is not empty.
    pub fn some(self) -> Option<Self> {
        (!self.is_none()).then_some(self)
    }

    /// The address for media over IPv6, or over IPv4.
    pub fn of(self, v6: bool) -> Option<IpAddr> {
        if v6 {
            self.v6.map(IpAddr::V6)
        } else {
            self.v4.map(IpAddr::V4)
        }
    }

    /// All that there are, IPv4 before IPv6.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        [self.of(false), self.of(true)].into_iter().flatten()
    }

    /// Takes `address`; says whether its family had none before.
    #[must_use]
    pub fn add(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.replace(v4).is_none(),
            IpAddr::V6(v6) => self.v6.replace(v6).is_none(),
        }
    }
}

impl<T: Into<IpAddr>> From<T> for Family {
    fn from(address: T) -> Self {
        match address.into() {
            IpAddr::V4(v4) => Self {
                v4: Some(v4),
                v6: None,
            },
            IpAddr::V6(v6) => Self {
                v4: None,
                v6: Some(v6),
            },
        }
    }
}

impl fmt::Display for Family {
    /// As an element of a file has it: both with a blank between them, nothing where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} {v6}"),
            (Some(v4), None) => write!(f, "{v4}"),
            (None, Some(v6)) => write!(f, "{v6}"),
            (None, None) => Ok(()),
        }
    }
}

/// What the administrator wants of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// Takes new sessions.
    #[default]
    Active,
    /// Serves its sessions, takes no new ones.
    Suspended,
    /// As suspended, and leaves the cluster when its sessions are over. Never in a file.
    Draining,
}

impl Status {
    /// As `ls` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Draining => "DRAINING",
        }
    }
}

/// One RTPproxy of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique in its cluster.
    pub name: Name,
    /// How its control socket is spoken to.
    pub protocol: Protocol,
    /// Where its control socket is.
    pub address: Address,
    /// Share of new sessions, 0 to 65535; 0 is standby.
    pub weight: u16,
    /// Sessions that it should carry at most, 1 to 2³¹ − 1.
    pub capacity: u32,
    /// `Active` or `Suspended`.
    pub status: Status,
    /// Replaces the address of its family in its replies.
    pub wan_address: Family,
    /// Goes to it as the local address of each U and L of its family.
    pub lan_address: Family,
    /// Source address of our commands to it.
    pub cmd_out_address: Option<IpAddr>,
    /// The pool whose name has led to it. Never in a file.
    pub found_by: Option<Name>,
}

impl Member {
    /// Where its control socket is. Protocols that lead to the same one are the same here.
    pub fn socket(&self) -> String {
        let kind = match self.protocol {
            Protocol::Unix | Protocol::Cunix => "unix",
            Protocol::Udp | Protocol::Udp6 => "udp",
            Protocol::Tcp | Protocol::Tcp6 => "tcp",
        };
        format!("{kind}:{}", self.address)
    }

    /// What other dispatchers know it by: one that got another name or address is another RTPproxy.
    pub fn identity(&self) -> String {
        format!("{} {}", self.name, self.socket())
    }

    /// An active member, everything else as it is when a file does not say it.
    pub fn new(name: Name, protocol: Protocol, address: Address, weight: u16, capacity: u32) -> Self {
        Self {
            name,
            protocol,
            address,
            weight,
            capacity,
            status: Status::default(),
            wan_address: Family::default(),
            lan_address: Family::default(),
            cmd_out_address: None,
            found_by: None,
        }
    }

    /// As [`Cluster::blank`].
    pub(super) fn blank() -> Self {
        Self::new(
            Name("".into()),
            Protocol::Unix,
            Address::Path(PathBuf::new()),
            0,
            1,
        )
    }
}

/// Members that are found by a name of the DNS: one for each address that it has, or each target of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Unique among the pools of its cluster; the names of its members begin with it.
    pub name: Name,
    /// `Udp` or `Tcp` for addresses of both families, `Udp6` or `Tcp6` for those of IPv6 alone.
    pub protocol: Protocol,
    /// The name.
    pub address: Sought,
    /// Share of new sessions of each member; an SRV record's own wins.
    pub weight: u16,
    /// Sessions that each should carry at most.
    pub capacity: u32,
    /// Who is asked, where that is not a name server of the system.
    pub resolver: Option<SocketAddr>,
}

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sought {
    /// The A and AAAA records of a host, which all have this port.
    Host(Arc<str>, u16),
    /// The SRV records of a service, such as `_rtpproxy._udp.example.org`.
    Service(Arc<str>),
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Service(name) => f.write_str(name),
        }
    }
}

impl Pool {
    /// As [`Cluster::blank`].
    pub(super) fn blank() -> Self {
        Self {
            name: Name("".into()),
            protocol: Protocol::Udp,
            address: Sought::Service("".into()),
            weight: 100,
            capacity: 2_500,
            resolver: None,
        }
    }
}

/// What happens when every member is at its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CapacityLimit {
    /// The least overloaded member takes the session.
    #[default]
    Soft,
    /// The session is refused with E998.
    Hard,
}

/// How a member is chosen for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Random, in proportion to `weight × (1 − load)`.
    #[default]
    Weighted,
    /// The lowest `load ÷ weight`.
    LeastLoaded,
    /// Weighted rendezvous hashing of the call-id.
    Hash,
}

/// When a new session goes to the next best member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// The longest that one attempt but the last may take; 10 ms to 3 s.
    pub timeout: Duration,
    /// All attempts, the first among them; 1 to 16.
    pub attempts: u32,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(250),
            attempts: 4,
        }
    }
}

/// How members are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Between two probes of an online member; 100 ms to 1 h.
    pub interval: Duration,
    /// How long a probe may take; 10 ms to 60 s.
    pub timeout: Duration,
    /// Failed probes in a row that take a member offline; 1 to 100.
    pub fall: u32,
    /// Answered probes in a row that bring it back; 1 to 100.
    pub rise: u32,
    /// Between two probes of an offline member; 100 ms to 1 h.
    pub retry: Duration,
    /// Over how long the share of a member that came back grows to the whole; 0 to 1 h.
    pub slow_start: Duration,
}

impl Default for Health {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            interval: second,
            timeout: second,
            fall: 2,
            rise: 1,
            retry: 2 * second,
            slow_start: Duration::ZERO,
        }
    }
}

/// Bounds of the session table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// Bound call-ids at most; 1 to 100,000,000.
    pub max: u32,
    /// A binding ages out so long after its last command; 1 s to 30 days.
    pub expire: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max: 1_000_000,
            expire: Duration::from_secs(12 * 3600),
        }
    }
}

/// Owner and mode of a socket; what is `None` stays as the command line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketRights {
    /// User that owns it.
    pub user: Option<String>,
    /// Group that owns it.
    pub group: Option<String>,
    /// Permission bits, at most `0o777`.
    pub mode: Option<u32>,
}

/// What a command gets when no member is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoMembers {
    /// E999.
    #[default]
    Error,
    /// The connection is closed, a datagram dropped.
    Silent,
}

/// What becomes of a notification socket of the SIP server that is reached over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyTcp {
    /// It goes to the member as it is.
    #[default]
    Pass,
    /// The member tells the relay, which tells the SIP server.
    Relay,
}

/// The relay of media time-outs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisconnectNotify {
    /// Where members reach us over TCP.
    pub inbound_address: SocketAddr,
    /// Beginning of the paths of the SIP server's sockets that are relayed to.
    pub dest_socket_prefix: String,
    /// After how long offline the SIP server is told of each session of a member; `None` is never.
    pub on_member_loss: Option<Duration>,
    /// What becomes of notification sockets over TCP.
    pub tcp: NotifyTcp,
}

/// What keys begin with where a file does not say it.
pub const STORE_PREFIX: &str = "rtp_cluster:";

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Unique in the file.
    pub name: Name,
    /// How SIP servers speak to it.
    pub protocol: Protocol,
    /// Where SIP servers reach it; no two clusters share one.
    pub address: Address,
    /// What happens at capacity.
    pub capacity_limit: CapacityLimit,
    /// The relay of media time-outs, where it is wanted.
    pub disconnect_notify: Option<DisconnectNotify>,
    /// How a member is chosen.
    pub policy: Policy,
    /// When the next member is tried.
    pub failover: Failover,
    /// How members are probed.
    pub health: Health,
    /// Bounds of the session table.
    pub sessions: Sessions,
    /// Where dispatchers share what they have bound, as a URL.
    pub store: Option<String>,
    /// What its keys begin with.
    pub store_prefix: String,
    /// Owner and mode of its control socket.
    pub socket: SocketRights,
    /// What a command gets when nobody is online.
    pub no_members: NoMembers,
    /// In the order of the file; may be empty.
    pub members: Vec<Member>,
    /// Likewise.
    pub pools: Vec<Pool>,
}

impl Cluster {
    /// A cluster without members, everything else as it is when a file does not say it.
    pub fn new(name: Name, protocol: Protocol, address: Address) -> Self {
        Self {
            name,
            protocol,
            address,
            capacity_limit: CapacityLimit::default(),
            disconnect_notify: None,
            policy: Policy::default(),
            failover: Failover::default(),
            health: Health::default(),
            sessions: Sessions::default(),
            store: None,
            store_prefix: STORE_PREFIX.to_owned(),
            socket: SocketRights::default(),
            no_members: NoMembers::default(),
            members: Vec::new(),
            pools: Vec::new(),
        }
    }

    /// What the rows of the table read into. Leaves this room only when all that must be said has been.
    pub(super) fn blank() -> Self {
        let Member {
            name,
            protocol,
            address,
            ..
        } = Member::blank();
        Self::new(name, protocol, address)
    }

    /// The relay to read into.
    pub(super) fn notify(&mut self) -> &mut DisconnectNotify {
        self.disconnect_notify.get_or_insert_with(|| DisconnectNotify {
            inbound_address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            dest_socket_prefix: String::new(),
            on_member_loss: None,
            tcp: NotifyTcp::default(),
        })
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// In the order of the file.
    pub clusters: Vec<Cluster>,
}
