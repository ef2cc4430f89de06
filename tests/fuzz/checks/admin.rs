//! What administrators type, in whatever pieces it arrives: the same lines, and each is a command or refused.

use rtp_cluster::admin::grammar::parse;
use rtp_cluster::admin::lines::{Line, Lines};

fn lines(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<Line> {
    let mut lines = Lines::default();
    let mut all = Vec::new();
    for piece in pieces {
        lines.push(piece.as_ref());
        while lines.has_line() {
            all.extend(lines.next_line());
        }
        assert!(lines.next_line().is_none());
    }
    all
}

pub fn check(bytes: &[u8]) {
    let size = bytes.first().copied().unwrap_or_default();
    let all = lines([bytes].into_iter());
    assert_eq!(lines(bytes.chunks(usize::from(size).max(1))), all);
    for line in all {
        if let Line::Text(text) = line {
            let _ = parse(&text);
        }
    }
}
