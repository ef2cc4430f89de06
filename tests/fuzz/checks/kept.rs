//! What a kept connection brings, in whatever pieces it arrives: the same lines, none of them longer than a command.

use rtp_cluster::protocol::command::COMMAND_MAX;
use rtp_cluster::protocol::framing::{Line, line};

/// The lines, and whether the last one was too long.
fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut buffer, mut all) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match line(&buffer) {
                Line::Whole(length) => {
                    assert!(length <= COMMAND_MAX + 1);
                    all.push(buffer.drain(..length).collect());
                }
                Line::More => break assert!(buffer.len() <= COMMAND_MAX),
                Line::TooLong => return (all, true),
            }
        }
    }
    (all, false)
}

pub fn check(bytes: &[u8]) {
    let size = bytes.first().copied().unwrap_or_default();
    let whole = lines([bytes].into_iter());
    assert_eq!(lines(bytes.chunks(usize::from(size).max(1))), whole);
    let length: usize = whole.0.iter().map(Vec::len).sum();
    assert_eq!(whole.0.concat(), bytes[..length]);
}
