//! The packets of a test call: RTP with 20 ms of G.711 A-law, in which the call and the way are written, so that what
//! arrives from elsewhere is told from ours. Pure.

/// A header of RTP without extensions and contributing sources.
const HEADER: usize = 12;
/// 20 ms of 8,000 samples a second.
const SAMPLES: usize = 160;
/// A whole packet.
pub(crate) const LENGTH: usize = HEADER + SAMPLES;
/// Version 2, nothing else.
const VERSION: u8 = 0x80;
/// G.711 A-law, by RFC 3551.
const PCMA: u8 = 8;
/// A silent sample of it.
const SILENCE: u8 = 0xd5;

/// Packet `number` of the stream that `source` names.
pub(crate) fn packet(source: u64, number: u16) -> [u8; LENGTH] {
    let mut packet = [SILENCE; LENGTH];
    let stamp = u32::from(number).wrapping_mul(160);
    let header = [&[VERSION, PCMA][..], &number.to_be_bytes(), &stamp.to_be_bytes()];
    // The source of RTP has four bytes, which a relay that re-packetizes may change; all eight stand in the samples.
    let source = source.to_be_bytes();
    let short = source.iter().take(4);
    let bytes = header.into_iter().flatten().chain(short).chain(&source);
    for (place, byte) in packet.iter_mut().zip(bytes) {
        *place = *byte;
    }
    packet
}

/// The number of a packet of the stream that `source` names; `None` for anything else.
pub(crate) fn number(source: u64, packet: &[u8]) -> Option<u16> {
    let number = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    (packet == self::packet(source, number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_rtp_and_known_again() {
        let sent = packet(0x0102_0304_0506_0708, 0x1234);
        assert_eq!(sent[..12], [0x80, 8, 0x12, 0x34, 0, 0x0b, 0x60, 0x80, 1, 2, 3, 4]);
        assert_eq!(sent.len(), 172);
        assert_eq!(number(0x0102_0304_0506_0708, &sent), Some(0x1234));
        assert_eq!(number(0x0102_0304_0506_0709, &sent), None);
        assert_eq!(number(1, b""), None);
        let mut changed = sent;
        changed[100] = 0;
        assert_eq!(number(0x0102_0304_0506_0708, &changed), None);
    }
}
