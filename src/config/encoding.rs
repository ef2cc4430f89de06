//! The bytes of a file to text: UTF-8, and what else the parser of the Python rtp_cluster reads, ISO-8859-1, US-ASCII
//! and UTF-16 that begins with a byte order mark. Everything behind this is UTF-8.

use std::borrow::Cow;

use super::fault::{Position, quoted};

/// Where the declaration must name an encoding: a longer one is none.
const DECLARATION_MAX: usize = 256;

/// The text of a file, without a byte order mark.
///
/// # Errors
/// Where it cannot be read, and what would be right.
pub(super) fn decoded(bytes: &[u8]) -> Result<Cow<'_, str>, (Position, String)> {
    if let Some(units) = bytes.strip_prefix(b"\xff\xfe") {
        return utf_16(units, u16::from_le_bytes);
    }
    if let Some(units) = bytes.strip_prefix(b"\xfe\xff") {
        return utf_16(units, u16::from_be_bytes);
    }
    if let Some(text) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return utf_8(text);
    }
    let declared = bytes.get(..DECLARATION_MAX).unwrap_or(bytes);
    // Every encoding that can be declared without a byte order mark begins as ASCII.
    let Some((name, at)) = declaration(&String::from_utf8_lossy(declared)) else {
        return utf_8(bytes);
    };
    match &*name.to_ascii_uppercase() {
        "UTF-8" => utf_8(bytes),
        "ISO-8859-1" | "LATIN1" => Ok(bytes.iter().map(|&byte| char::from(byte)).collect()),
        "US-ASCII" | "ASCII" if bytes.is_ascii() => utf_8(bytes),
        "US-ASCII" | "ASCII" => {
            let good = bytes.split(|byte| !byte.is_ascii()).next().unwrap_or_default();
            Err(bad_byte(bytes, good.len(), "US-ASCII"))
        }
        "UTF-16" => Err((
            at,
            "encoding \"UTF-16\": want a byte order mark before it".to_owned(),
        )),
        _ => Err((
            at,
            format!(
                "encoding {}: want UTF-8, UTF-16, ISO-8859-1 or US-ASCII",
                quoted(&name)
            ),
        )),
    }
}

fn utf_8(bytes: &[u8]) -> Result<Cow<'_, str>, (Position, String)> {
    let text = str::from_utf8(bytes).map_err(|error| bad_byte(bytes, error.valid_up_to(), "UTF-8"))?;
    Ok(Cow::Borrowed(text))
}

fn bad_byte(bytes: &[u8], at: usize, encoding: &str) -> (Position, String) {
    let (good, bad) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let byte = bad.first().copied().unwrap_or_default();
    let what = format!(
        "byte 0x{byte:02x} is not {encoding}: want the file in {encoding}, or its encoding in the first line"
    );
    (end_of(&String::from_utf8_lossy(good)), what)
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'static, str>, (Position, String)> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match decoded {
            Ok(c) => text.push(c),
            Err(error) => {
                let half = error.unpaired_surrogate();
                return Err((
                    end_of(&text),
                    format!("0x{half:04x} alone is not UTF-16: want the other half of its pair"),
                ));
            }
        }
    }
    if !rest.is_empty() {
        return Err((
            end_of(&text),
            "the file ends within a character of UTF-16".to_owned(),
        ));
    }
    match declaration(&text) {
        Some((name, at)) if !name.eq_ignore_ascii_case("UTF-16") => Err((
            at,
            format!("encoding {}: want UTF-16, as the file begins", quoted(&name)),
        )),
        _ => Ok(Cow::Owned(text)),
    }
}

/// The place behind `text`.
fn end_of(text: &str) -> Position {
    Position {
        line: text.matches('\n').count() + 1,
        column: text.rsplit('\n').next().unwrap_or("").chars().count() + 1,
    }
}

/// The encoding that the XML declaration at the beginning of `text` names, and where it does.
fn declaration(text: &str) -> Option<(String, Position)> {
    let (declaration, _) = text.strip_prefix("<?xml")?.split_once("?>")?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let value = value.get(1..)?;
    let before = text.len() - text.split_once("?>")?.1.len() - "?>".len() - value.len();
    let (name, _) = value.split_once(quote)?;
    Some((name.to_owned(), end_of(text.get(..before)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(&str, &[u8]); 4] = [
        ("ISO-8859-1", b"\xf6"),
        ("iso-8859-1", b"\xf6"),
        ("Latin1", b"\xf6"),
        ("UTF-8", b"\xc3\xb6"),
    ];

    #[test]
    fn a_file_is_read_as_it_says_that_it_is_encoded() {
        for (name, umlaut) in NAMES {
            let start = format!("<?xml version='1.0' encoding = '{name}'?><!-- ");
            let text = [start.as_bytes(), umlaut, b" -->"].concat();
            assert_eq!(decoded(&text).unwrap(), format!("{start}ö -->"));
        }
        assert_eq!(decoded(b"\xef\xbb\xbf<a/>").unwrap(), "<a/>");
        let ascii = b"<?xml version=\"1.0\" encoding=\"US-ASCII\"?><a/>";
        assert_eq!(decoded(ascii).unwrap().as_bytes(), ascii);
    }

    #[test]
    fn utf_16_is_read_either_way_round() {
        let text = "<?xml version=\"1.0\" encoding=\"utf-16\"?>\n<!-- ö 𝄞 -->";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decoded(&[b"\xff\xfe", &little[..]].concat()).unwrap(), text);
        assert_eq!(decoded(&[b"\xfe\xff", &big[..]].concat()).unwrap(), text);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let told = |bytes: &[u8]| {
            let (at, what) = decoded(bytes).unwrap_err();
            format!("{}:{}: {what}", at.line, at.column)
        };
        for (bytes, want) in [
            (
                &b"<?xml version=\"1.0\" encoding=\"KOI8-R\"?><a/>"[..],
                "1:31: encoding \"KOI8-R\": want UTF-8, UTF-16, ISO-8859-1 or US-ASCII",
            ),
            (
                b"<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>",
                "1:31: encoding \"UTF-16\": want a byte order mark before it",
            ),
            (
                b"<?xml version=\"1.0\" encoding=\"ASCII\"?>\n<a>\xf6",
                "2:4: byte 0xf6 is not US-ASCII: want the file in US-ASCII, or its encoding in the first line",
            ),
            (
                b"<a>\n\xf6",
                "2:1: byte 0xf6 is not UTF-8: want the file in UTF-8, or its encoding in the first line",
            ),
            (
                b"\xff\xfe<\0\n\0\x00\xd8<\0",
                "2:1: 0xd800 alone is not UTF-16: want the other half of its pair",
            ),
            (
                b"\xfe\xff\0<\0",
                "1:2: the file ends within a character of UTF-16",
            ),
        ] {
            assert_eq!(told(bytes), want);
        }
    }
}
