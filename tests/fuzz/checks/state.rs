//! What a file of the state directory holds, whoever wrote it.

use rtp_cluster::state::encode::{Found, HEADER, is_header, read, write};

pub fn check(bytes: &[u8]) {
    let mut rest = if is_header(bytes) { &bytes[HEADER..] } else { bytes };
    while !rest.is_empty() {
        let length = match read(rest, true) {
            Found::Record(record, length) => {
                let mut again = Vec::new();
                assert!(write(&record, &mut again), "what was read can be written");
                assert_eq!(read(&again, true), Found::Record(record, again.len()));
                length
            }
            Found::Unknown(length) | Found::Damage(length) => length,
            Found::More => panic!("there is no more"),
        };
        assert!(length > 0 && length <= rest.len(), "it goes on, and not too far");
        rest = &rest[length..];
    }
}
