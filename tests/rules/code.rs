//! Rust as far as these rules need it: a file without its tests, its comments and what stands in its strings.

use std::collections::BTreeSet;

use super::files;

/// Sources that are no tests, with their code.
pub(crate) fn all() -> Vec<(String, String)> {
    let sources = files::sources();
    let tests: BTreeSet<String> = sources.iter().flat_map(|file| test_modules(file)).collect();
    sources
        .into_iter()
        .filter(|file| !tests.contains(file))
        .map(|file| {
            let code = without_tests(&bare(&files::read(&file)));
            (file, code)
        })
        .collect()
}

/// The files of modules that `file` declares for tests alone: a `mod NAME;` right after `#[cfg(test)]`.
fn test_modules(file: &str) -> Vec<String> {
    let text = files::read(file);
    let directory = match file.strip_suffix("/mod.rs").or(file.strip_suffix("/lib.rs")) {
        Some(directory) => directory,
        None => file.strip_suffix(".rs").unwrap_or(file),
    };
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let line = rest.trim_start().lines().next()?;
        line.strip_suffix(';')?
            .rsplit_once("mod ")
            .map(|(_, name)| name.to_owned())
    });
    declared.map(|name| format!("{directory}/{name}.rs")).collect()
}

/// The code before the tests at the foot of a file.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Where in the text we are.
enum Place {
    Code,
    LineComment,
    /// Within so many `/*`.
    BlockComment(u32),
    /// Until `"` and so many `#`; the flag says whether a backslash escapes.
    Text {
        hashes: usize,
        escapes: bool,
    },
}

/// `text` with blanks in place of its comments and of what stands in its strings and character literals.
pub(crate) fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut place = Place::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        let mut keep = false;
        match place {
            Place::Code => {
                keep = true;
                if rest.starts_with("//") {
                    place = Place::LineComment;
                    keep = false;
                } else if rest.starts_with("/*") {
                    (place, keep, length) = (Place::BlockComment(1), false, 2);
                } else if let Some((begin, hashes)) = raw_string(rest, out.chars().next_back()) {
                    length = begin;
                    place = Place::Text {
                        hashes,
                        escapes: false,
                    };
                } else if c == '"' {
                    place = Place::Text {
                        hashes: 0,
                        escapes: true,
                    };
                } else if let Some(literal) = character(rest) {
                    (keep, length) = (false, literal);
                }
            }
            Place::LineComment if c == '\n' => place = Place::Code,
            Place::BlockComment(depth) if rest.starts_with("*/") => {
                length = 2;
                place = if depth > 1 {
                    Place::BlockComment(depth - 1)
                } else {
                    Place::Code
                };
            }
            Place::BlockComment(depth) if rest.starts_with("/*") => {
                (place, length) = (Place::BlockComment(depth + 1), 2);
            }
            Place::Text { escapes: true, .. } if c == '\\' => {
                length += rest.chars().nth(1).map_or(0, char::len_utf8);
            }
            Place::Text { hashes, .. } if c == '"' && rest[1..].starts_with(&"#".repeat(hashes)) => {
                (place, keep, length) = (Place::Code, true, 1 + hashes);
            }
            Place::LineComment | Place::BlockComment(_) | Place::Text { .. } => {}
        }
        let (part, after) = rest.split_at(length);
        let blanks = part.chars().map(|c| if c == '\n' { '\n' } else { ' ' });
        if keep {
            out.push_str(part);
        } else {
            out.extend(blanks);
        }
        rest = after;
    }
    out
}

/// The length of `r#"` at the beginning of `text`, and how many `#` it has. `before` tells `r"` from `for"`.
fn raw_string(text: &str, before: Option<char>) -> Option<(usize, usize)> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b') {
        return None;
    }
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some((hashes + 2, hashes))
}

/// The length of the character literal at the beginning of `text`; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    let (_, first) = chars.next()?;
    let after = if first == '\\' {
        let (_, escaped) = chars.next()?;
        let (at, _) = chars.next()?;
        // `\u{7f}` and `\x7f` go on to the quote.
        if matches!(escaped, 'u' | 'x') {
            inside.find('\'')?
        } else {
            at
        }
    } else {
        chars.next()?.0
    };
    inside[after..].starts_with('\'').then_some(1 + after + 1)
}

#[test]
fn comments_and_strings_are_blank() {
    let text = "let a = \"// x\\\" y\"; // fs\nlet b = r#\"fs\"fs\"#; /* fs /* fs */ fs */ let c = '\"'; fn f<'a>() {}";
    let left = bare(text);
    assert_eq!(left.len(), text.len());
    assert!(
        !left.contains("fs") && !left.contains('x') && !left.contains('y'),
        "{left}"
    );
    for kept in ["let a = \"", "let b = r#\"", "let c =", "fn f<'a>() {}"] {
        assert!(left.contains(kept), "{left}");
    }
    assert!(!bare("b'\\'' // fs").contains("fs"));
}
