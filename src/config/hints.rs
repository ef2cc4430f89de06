//! What was probably meant: the nearest name that is known. Pure.

use super::elements::{ELEMENTS, Element, children, find};

/// What to say of an element that is unknown in `parent`.
pub(super) fn unknown_element(parent: &Element, name: &str) -> String {
    let start = format!("unknown element <{name}>");
    if parent.attributes.iter().any(|attribute| attribute.name == name) {
        return format!("{start}: want an attribute, <{} {name}=\"…\"/>", parent.name);
    }
    if let Some(known) = ELEMENTS.iter().find(|element| element.name == name) {
        let place = if known.parent.is_empty() {
            "outermost".to_owned()
        } else {
            format!("in <{}>", known.parent)
        };
        return format!("<{name}> does not belong in <{}>: want it {place}", parent.name);
    }
    let known: Vec<_> = children(parent.name).map(|element| element.name).collect();
    match nearest(name, &known) {
        Some(near) => format!("{start}: did you mean <{near}>?"),
        None if known.is_empty() => format!("{start}: want no element in <{}>", parent.name),
        None => format!("{start}: want <{}>", known.join(">, <")),
    }
}

/// What to say of an attribute that `element` does not have.
pub(super) fn unknown_attribute(element: &Element, name: &str) -> String {
    let start = format!("<{}> has no attribute {name}", element.name);
    if find(element.name, name).is_some() {
        return format!("{start}: want an element, <{name}>…</{name}>");
    }
    let known: Vec<_> = element
        .attributes
        .iter()
        .map(|attribute| attribute.name)
        .collect();
    match nearest(name, &known) {
        Some(near) => format!("{start}: did you mean {near}?"),
        None if known.is_empty() => format!("{start}: want none"),
        None => format!("{start}: want {}", known.join(", ")),
    }
}

/// Longest word that is compared; the cost grows with the square.
const WORD_MAX: usize = 64;

/// The word of `known` that `word` was probably meant to be: at most a third of it is different.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let far = |candidate: &&&str| distance(&word, candidate);
    let near = known.iter().min_by_key(far)?;
    (distance(&word, near) <= near.len().div_ceil(3)).then_some(*near)
}

/// Insertions, deletions and replacements that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    // A row of the usual table: how far the beginning of `a` so far is from each beginning of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (n, x) in a.chars().enumerate() {
        let mut left = n + 1;
        let mut next = vec![left];
        for ((y, &diagonal), &above) in b.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.pop().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::elements::{CLUSTER, ROOT};
    use super::*;

    #[test]
    fn the_distance_of_words() {
        for (a, b, far) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("wieght", "weight", 2),
        ] {
            assert_eq!(distance(a, b), far);
            assert_eq!(distance(b, a), far);
        }
    }

    #[test]
    fn a_slip_is_answered_with_the_word_that_was_meant() {
        let known = ["name", "weight", "capacity", "wan_address", "lan_address"];
        for (slip, meant) in [
            ("wieght", "weight"),
            ("WEIGHT", "weight"),
            ("wanaddress", "wan_address"),
        ] {
            assert_eq!(nearest(slip, &known), Some(meant));
        }
        assert_eq!(nearest("priority", &known), None);
        assert_eq!(nearest(&"weight".repeat(1_000), &known), None);
        assert_eq!(nearest("weight", &[]), None);
    }

    #[test]
    fn what_stands_in_the_wrong_place_is_sent_to_the_right_one() {
        let element = |parent, name| find(parent, name).unwrap();
        let (cluster, health) = (element(ROOT, CLUSTER), element(CLUSTER, "health"));
        assert_eq!(
            unknown_element(cluster, "weight"),
            "<weight> does not belong in <rtp_cluster>: want it in <rtpproxy>"
        );
        assert_eq!(
            unknown_element(health, "fall"),
            "unknown element <fall>: want an attribute, <health fall=\"…\"/>"
        );
        assert_eq!(
            unknown_element(health, "x"),
            "unknown element <x>: want no element in <health>"
        );
        assert_eq!(
            unknown_attribute(cluster, "name"),
            "<rtp_cluster> has no attribute name: want an element, <name>…</name>"
        );
        assert_eq!(
            unknown_attribute(health, "intervall"),
            "<health> has no attribute intervall: did you mean interval?"
        );
        assert_eq!(
            unknown_attribute(cluster, "id"),
            "<rtp_cluster> has no attribute id: want none"
        );
    }
}
