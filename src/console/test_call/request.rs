//! `test CLUSTER [NAME] [--from IP]`, read. Pure.

use core::net::IpAddr;

/// What is tested, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The cluster, by its control socket where there is no member.
    pub(crate) cluster: String,
    /// This very member.
    pub(crate) member: Option<String>,
    /// The address of both parties; without one, that from which the media go to the member.
    pub(crate) from: Option<IpAddr>,
}

/// Reads the words behind the command's own.
///
/// # Errors
/// One line with the word and what would be right.
pub(crate) fn parse(line: &str) -> Result<Request, String> {
    let mut words = line.split_whitespace().skip(1);
    let (mut names, mut from) = (Vec::new(), None);
    while let Some(word) = words.next() {
        match word.strip_prefix("--from") {
            Some(value) => {
                let value = match value.strip_prefix('=') {
                    Some(value) => value,
                    None if value.is_empty() => words.next().unwrap_or_default(),
                    None => return Err(unknown(word)),
                };
                let address = value.parse().map_err(|_| {
                    format!("test: --from \"{value}\": want an address of this machine, IPv4 or IPv6")
                })?;
                from = Some(address);
            }
            None if word.starts_with('-') => return Err(unknown(word)),
            None => names.push(word.to_owned()),
        }
    }
    let mut names = names.into_iter();
    match (names.next(), names.next(), names.next()) {
        (Some(cluster), member, None) => Ok(Request {
            cluster,
            member,
            from,
        }),
        _ => Err("test: want test CLUSTER [NAME] [--from IP]".to_owned()),
    }
}

fn unknown(word: &str) -> String {
    format!("test: \"{word}\": want test CLUSTER [NAME] [--from IP]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_come_in_any_order() {
        let request = |member: Option<&str>, from: Option<&str>| Request {
            cluster: "C".to_owned(),
            member: member.map(str::to_owned),
            from: from.map(|from| from.parse().unwrap()),
        };
        assert_eq!(parse("test C"), Ok(request(None, None)));
        assert_eq!(parse("TEST C M --from ::1"), Ok(request(Some("M"), Some("::1"))));
        assert_eq!(
            parse("test --from=10.0.0.9 C"),
            Ok(request(None, Some("10.0.0.9")))
        );
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (line, named) in [
            ("test", "want test CLUSTER"),
            ("test C M X", "want test CLUSTER"),
            ("test C -x", "\"-x\""),
            ("test C --fromage", "\"--fromage\""),
            ("test C --from", "--from \"\""),
            ("test C --from here", "--from \"here\""),
        ] {
            let wrong = parse(line).unwrap_err();
            assert!(wrong.contains(named), "{line}: {wrong}");
        }
    }
}
