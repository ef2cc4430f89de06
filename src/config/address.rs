//! Where a control socket is: `/path`, `host:port`, `[v6]:port`. What a text means depends on the protocol, so
//! both are read together.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use super::fields::{Want, Whole, wrong};
use super::model::{Address, DEFAULT_PORT, Protocol, SOCKET_PATH_MAX, Sought};

/// What an address is, of whatever protocol.
pub(super) const ADDRESS: &str = "a path, host:port or [IPv6]:port, as the protocol asks";

/// Bytes of a host name, by RFC 1035.
const HOST_MAX: usize = 253;
/// Bytes between two dots of it.
const LABEL_MAX: usize = 63;

/// Reads the address of a control socket. The port is 22222 where the text has none.
///
/// # Errors
/// One line with the value and what would be right: `address "10.0.0.4:0": want a port from 1 to 65535`.
pub fn address(protocol: Protocol, text: &str) -> Result<Address, String> {
    read(protocol, text).map_err(|want| wrong("address", text, &want))
}

/// As [`address`], but answers what would be right alone.
pub(super) fn read(protocol: Protocol, text: &str) -> Result<Address, Want> {
    let text = text.trim();
    if protocol.is_local() {
        path(text).map(Address::Path)
    } else if protocol.is_v6() {
        v6(protocol, text)
    } else {
        v4(protocol, text)
    }
}

/// What an address of `protocol` is.
pub(super) fn wanted(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unix | Protocol::Cunix => "the path of a socket",
        Protocol::Udp | Protocol::Tcp => "IPv4:port or host:port",
        Protocol::Udp6 | Protocol::Tcp6 => "[IPv6]:port or host:port",
    }
}

fn path(text: &str) -> Result<PathBuf, Want> {
    let scheme = text
        .split_once(':')
        .and_then(|(scheme, _)| Protocol::from_name(scheme));
    if text.is_empty() {
        Err(wanted(Protocol::Unix).to_owned())
    } else if scheme.is_some() {
        Err("the path alone, the protocol has an element of its own".to_owned())
    } else if text.len() > SOCKET_PATH_MAX {
        Err(format!(
            "a path of at most {SOCKET_PATH_MAX} bytes (it has {})",
            text.len()
        ))
    } else if text.contains(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        Err("a path without control characters".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

fn v4(protocol: Protocol, text: &str) -> Result<Address, Want> {
    let wanted = || wanted(protocol).to_owned();
    let (host, number) = match text.rsplit_once(':') {
        None => (text, DEFAULT_PORT),
        Some((host, number)) => {
            // Two colons or a bracket: an IPv6 address, whatever else may be wrong with it.
            if host.contains([':', '[']) {
                return Err(format!("{}, or protocol {}", wanted(), other_family(protocol)));
            }
            (host, port(number)?)
        }
    };
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Ip((ip, number).into()));
    }
    if is_host(host) {
        Ok(Address::Host(host.into(), number))
    } else {
        Err(wanted())
    }
}

fn v6(protocol: Protocol, text: &str) -> Result<Address, Want> {
    let wanted = || wanted(protocol).to_owned();
    if text.starts_with('[') {
        let (inside, rest) = text.split_once(']').ok_or_else(wanted)?;
        let number = match rest.strip_prefix(':') {
            Some(number) => port(number)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return Err(wanted()),
        };
        // Read together with a port: that form may have a scope (`[fe80::1%2]:22222`).
        let address: SocketAddrV6 = format!("{inside}]:{number}").parse().map_err(|_| wanted())?;
        return Ok(Address::Ip(SocketAddr::V6(address)));
    }
    let Some((host, number)) = text.rsplit_once(':') else {
        return v6_host(protocol, text, DEFAULT_PORT);
    };
    if !host.contains(':') {
        return v6_host(protocol, host, port(number)?);
    }
    // Without brackets. The Python rtp_cluster takes what follows the last colon for a port; where it could as
    // well be the end of the address nobody but the author knows.
    let whole = text.parse::<Ipv6Addr>();
    let parted = host.parse::<Ipv6Addr>().ok().zip(port(number).ok());
    match (whole, parted) {
        (Ok(ip), None) => Ok(Address::Ip((ip, DEFAULT_PORT).into())),
        (Err(_), Some(address)) => Ok(Address::Ip(address.into())),
        (Ok(_), Some(_)) => Err(format!("brackets, [{host}]:{number} or [{text}]:{DEFAULT_PORT}")),
        (Err(_), None) => Err(wanted()),
    }
}

fn v6_host(protocol: Protocol, host: &str, number: u16) -> Result<Address, Want> {
    if host.parse::<Ipv4Addr>().is_ok() {
        return Err(format!(
            "{}, or protocol {}",
            wanted(protocol),
            other_family(protocol)
        ));
    }
    if is_host(host) {
        Ok(Address::Host(host.into(), number))
    } else {
        Err(wanted(protocol).to_owned())
    }
}

/// The protocol that takes the addresses which `protocol` does not.
fn other_family(protocol: Protocol) -> &'static str {
    let other = match protocol {
        Protocol::Udp => Protocol::Udp6,
        Protocol::Udp6 => Protocol::Udp,
        Protocol::Tcp => Protocol::Tcp6,
        Protocol::Tcp6 => Protocol::Tcp,
        local @ (Protocol::Unix | Protocol::Cunix) => local,
    };
    other.as_str()
}

/// Reads a port.
pub(super) fn port(text: &str) -> Result<u16, Want> {
    let range = Whole {
        min: 1,
        max: u32::from(u16::MAX),
    };
    let number = range
        .read(text)
        .ok()
        .and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| "a port from 1 to 65535".to_owned())
}

/// Whether `text` can be a host name. One that ends in a number is a mistyped address.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or("");
    name.len() <= HOST_MAX && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// What is looked up for a pool.
pub(super) const SOUGHT: &str = "host:port, or the name of a service such as _rtpproxy._udp.example.org";

/// Reads what is looked up for a pool. The port of a host is 22222 where the text has none; that of a service is in its
/// records.
pub(super) fn sought(text: &str) -> Result<Sought, Want> {
    let text = text.trim();
    if text.starts_with('_') {
        return if is_host(text) {
            Ok(Sought::Service(text.into()))
        } else {
            Err(SOUGHT.to_owned())
        };
    }
    match v4(Protocol::Udp, text)? {
        Address::Host(host, port) => Ok(Sought::Host(host, port)),
        Address::Ip(_) | Address::Path(_) => Err(format!("{SOUGHT}; an address is a member, <rtpproxy>")),
    }
}

/// What the address of a name server is.
pub(super) const RESOLVER: &str = "the address of a name server, with or without a port";

/// Reads the address of a name server; its port is 53 where the text has none.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, Want> {
    let text = text.trim();
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let found = alone.or_else(|_| text.parse::<SocketAddr>()).ok();
    found
        .filter(|at| at.port() != 0)
        .ok_or_else(|| RESOLVER.to_owned())
}

/// What the address of the relay is.
pub(super) const INBOUND: &str = "an IPv4 address and a port, such as 192.0.2.1:12131";

/// Reads the relay's address. Members are told its port over IPv4 only, so IPv6 would never be used. As with the
/// Python rtp_cluster `:12131` is every address; a name cannot be looked up here, but one is known.
pub(super) fn inbound(text: &str) -> Result<SocketAddr, Want> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':').ok_or(INBOUND)?;
    let host = match host {
        "" => Ipv4Addr::UNSPECIFIED,
        host if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST,
        host => host.parse().map_err(|_| INBOUND)?,
    };
    Ok((host, self::port(port)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` means over `protocol`, as it prints.
    fn shown(protocol: Protocol, text: &str) -> String {
        read(protocol, text)
            .unwrap_or_else(|want| panic!("{text:?}: want {want}"))
            .to_string()
    }

    fn refused(protocol: Protocol, text: &str) -> Want {
        read(protocol, text)
            .map(|address| panic!("{text:?} was taken as {address}"))
            .unwrap_err()
    }

    #[test]
    fn a_local_socket_has_a_path() {
        assert_eq!(
            shown(Protocol::Unix, " /var/run/rtpproxy.sock\n"),
            "/var/run/rtpproxy.sock"
        );
        assert_eq!(shown(Protocol::Cunix, "my socket:1,2"), "my socket:1,2");
        assert_eq!(shown(Protocol::Unix, &"p".repeat(107)).len(), 107);
        assert_eq!(
            refused(Protocol::Unix, &"p".repeat(108)),
            "a path of at most 107 bytes (it has 108)"
        );
        assert_eq!(
            refused(Protocol::Unix, &"é".repeat(54)),
            "a path of at most 107 bytes (it has 108)"
        );
        assert_eq!(refused(Protocol::Unix, ""), "the path of a socket");
        assert_eq!(
            refused(Protocol::Unix, "/a\nb"),
            "a path without control characters"
        );
        let scheme = "the path alone, the protocol has an element of its own";
        assert_eq!(refused(Protocol::Unix, "unix:/var/run/rtpproxy.sock"), scheme);
    }

    #[test]
    fn ipv4_has_an_address_or_a_name_and_a_port() {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            assert_eq!(shown(protocol, "127.0.0.1:22223"), "127.0.0.1:22223");
            assert_eq!(shown(protocol, "127.0.0.1"), "127.0.0.1:22222");
            assert_eq!(
                shown(protocol, "media-1.example.net:65535"),
                "media-1.example.net:65535"
            );
            assert_eq!(shown(protocol, "media1"), "media1:22222");
            for text in [
                "127.0.0.1:0",
                "127.0.0.1:65536",
                "127.0.0.1:",
                "127.0.0.1:-1",
                "h:http",
            ] {
                assert_eq!(refused(protocol, text), "a port from 1 to 65535", "{text:?}");
            }
            for text in [
                "",
                ":9",
                "256.0.0.1",
                "1.2.3",
                "a b",
                "a..b",
                "-a",
                "*",
                "/var/run/x",
                &"a".repeat(64),
            ] {
                assert_eq!(refused(protocol, text), "IPv4:port or host:port", "{text:?}");
            }
        }
    }

    #[test]
    fn an_address_of_the_other_family_names_the_protocol_that_takes_it() {
        let want = refused(Protocol::Udp, "[::1]:22222");
        assert_eq!(want, "IPv4:port or host:port, or protocol UDP6");
        assert_eq!(refused(Protocol::Udp, "::1"), want);
        assert_eq!(
            refused(Protocol::Tcp, "2001:db8::4"),
            "IPv4:port or host:port, or protocol TCP6"
        );
        assert_eq!(
            refused(Protocol::Udp6, "10.0.0.4:22222"),
            "[IPv6]:port or host:port, or protocol UDP"
        );
    }

    #[test]
    fn ipv6_is_read_with_and_without_brackets() {
        for (text, meaning) in [
            ("[::1]:32323", "[::1]:32323"),
            ("[::1]", "[::1]:22222"),
            ("::1", "[::1]:22222"),
            ("2001:db8::1", "[2001:db8::1]:22222"),
            ("2001:db8:0:0:0:0:0:1", "[2001:db8::1]:22222"),
            ("::1:22222", "[::1]:22222"),
            ("2001:db8:0:0:0:0:0:1:5060", "[2001:db8::1]:5060"),
            ("[fe80::1%2]:22222", "[fe80::1%2]:22222"),
            (":::9", "[::]:9"),
            ("localhost:32322", "localhost:32322"),
            ("localhost", "localhost:22222"),
        ] {
            assert_eq!(shown(Protocol::Udp6, text), meaning, "{text:?}");
            assert_eq!(shown(Protocol::Tcp6, text), meaning, "{text:?}");
        }
        for text in [
            "[::1",
            "[::1]x",
            "[::1]22222",
            "[localhost]:1",
            "[10.0.0.1]:1",
            "1:2:3",
            "[]:1",
            "1::2::3",
        ] {
            assert_eq!(
                refused(Protocol::Udp6, text),
                "[IPv6]:port or host:port",
                "{text:?}"
            );
        }
        assert_eq!(refused(Protocol::Udp6, "[::1]:0"), "a port from 1 to 65535");
    }

    #[test]
    fn ipv6_that_can_be_read_in_two_ways_is_refused_with_both() {
        let want = refused(Protocol::Udp6, "2001:db8::4:5060");
        assert_eq!(want, "brackets, [2001:db8::4]:5060 or [2001:db8::4:5060]:22222");
    }

    #[test]
    fn what_prints_reads_back_as_the_same() {
        for (protocol, text) in [
            (Protocol::Unix, "/a b"),
            (Protocol::Udp, "h"),
            (Protocol::Tcp6, "::1"),
            (Protocol::Udp, "1.2.3.4"),
        ] {
            let address = read(protocol, text).unwrap();
            assert_eq!(read(protocol, &address.to_string()).unwrap(), address);
        }
    }

    #[test]
    fn a_refusal_is_one_whole_line() {
        let line = address(Protocol::Udp, "10.0.0.4:0").unwrap_err();
        assert_eq!(line, "address \"10.0.0.4:0\": want a port from 1 to 65535");
        assert_eq!(
            address(Protocol::Unix, "").unwrap_err(),
            "address is empty: want the path of a socket"
        );
    }

    #[test]
    fn the_relay_has_an_ipv4_address_and_a_port() {
        assert_eq!(inbound("192.0.2.1:12131").unwrap().to_string(), "192.0.2.1:12131");
        assert_eq!(inbound(":12131").unwrap().to_string(), "0.0.0.0:12131");
        assert_eq!(inbound("LocalHost:1").unwrap().to_string(), "127.0.0.1:1");
        for text in [
            "",
            "192.0.2.1",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "[::1]:9",
            "media.example:9",
        ] {
            assert!(inbound(text).is_err(), "{text:?}");
        }
    }
}
