//! The media address of a U, an L and an `&& L`. Pure.

use core::net::Ipv6Addr;

use super::decimal;

/// Whether a media address is one that RTPproxy refuses (E37). What is too short or too long for an address is
/// not looked at there, and neither is it here; service names in place of a port depend on the member's system.
pub(crate) fn address_is_wrong(address: &[u8], port: &[u8], ipv6: bool) -> bool {
    let lengths = if ipv6 { 2..=45 } else { 7..=15 };
    // A program that has RTPproxy built in may name a queue of its own in place of an address.
    if !lengths.contains(&address.len()) || address.starts_with(b"RTQ:") {
        return false;
    }
    let sound = if ipv6 { is_ipv6(address) } else { is_ipv4(address) };
    !sound || is_below_zero(port)
}

/// Whether a port is a number below zero; `-0` is not.
fn is_below_zero(port: &[u8]) -> bool {
    let digits = port.strip_prefix(b"-");
    digits.and_then(decimal).is_some_and(|number| number > 0)
}

fn is_ipv6(address: &[u8]) -> bool {
    // A zone behind `%` is a name of the member's own.
    let zone = address
        .iter()
        .position(|byte| *byte == b'%')
        .unwrap_or(address.len());
    let address = address.get(..zone).unwrap_or_default();
    str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Whether inet_aton(3) takes it: one to four numbers, decimal, octal or hexadecimal; the last fills the rest.
fn is_ipv4(address: &[u8]) -> bool {
    let mut left = 4_u32;
    let mut last = 0_u64;
    for number in address.split(|byte| *byte == b'.') {
        if left == 0 || last > 0xff {
            return false;
        }
        let hexadecimal = number.strip_prefix(b"0x").or(number.strip_prefix(b"0X"));
        let (digits, base) = match (hexadecimal, number) {
            (Some(digits), _) => (digits, 16),
            (None, [b'0', _, ..]) => (number, 8),
            (None, _) => (number, 10),
        };
        let value = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
        let Some(value) = value.and_then(|text| u64::from_str_radix(text, base).ok()) else {
            return false;
        };
        last = value;
        left -= 1;
    }
    // The last number fills what the others have left.
    last < 1_u64 << (8 * (left + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_system_reads_them() {
        for good in [
            "1.2.3.4",
            "255.255.255.255",
            "0x7f.0.0.1",
            "127.000.1",
            "1.2.65535",
            "123456789",
        ] {
            assert!(is_ipv4(good.as_bytes()), "{good}");
        }
        for bad in [
            "1.2.3.256",
            "256.1.1.1",
            "1.2.65536",
            "1.2.3.4.5",
            "1..2.3",
            "1.2.3.",
            "+1.2.3.4",
            "1.2.3.08",
            "x",
        ] {
            assert!(!is_ipv4(bad.as_bytes()), "{bad}");
        }
        assert!(
            is_ipv6(b"fe80::1%eth0") && is_ipv6(b"::ffff:1.2.3.4") && !is_ipv6(b"1.2.3.4") && !is_ipv6(b":")
        );
    }
}
