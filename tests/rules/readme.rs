//! What the README and the man pages tell a user to type exists.

use super::mdoc::Page;
use super::{files, shell};

const README: &str = "README.md";

/// The fenced blocks of a Markdown text: language, contents.
pub(crate) fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.trim().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, contents)), None) => {
                contents.push_str(line);
                contents.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{README}: a block that does not end");
    blocks
}

/// The pieces of inline code, outside of blocks.
fn inline(text: &str) -> Vec<String> {
    let outside: String = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_is_taken() {
    let text = files::read(README);
    let mut count = 0;
    for (language, script) in blocks(&text) {
        if matches!(&*language, "sh" | "console") {
            for words in shell::commands(&script) {
                shell::assert_taken(README, &words);
                count += 1;
            }
        }
    }
    for code in inline(&text) {
        for words in shell::commands(&code) {
            // A program that is named and not run.
            if words.len() > 1 {
                shell::assert_taken(README, &words);
                count += 1;
            }
        }
    }
    assert!(count > 15, "only {count} commands were found");
}

#[test]
fn every_command_of_the_man_pages_is_taken() {
    let mut count = 0;
    for file in [
        "man/rtp_cluster.8",
        "man/rtp_cluster_client.8",
        "man/rtp_cluster_status.8",
        "man/rtp_cluster.xml.5",
    ] {
        for script in Page::read(file).literals() {
            for words in shell::commands(&script) {
                shell::assert_taken(file, &words);
                count += 1;
            }
        }
    }
    assert!(count > 10, "only {count} commands were found");
}

#[test]
fn every_file_bench_and_test_of_the_readme_is_there() {
    let text = files::read(README);
    let manifest = files::read("Cargo.toml");
    let code: Vec<String> = inline(&text)
        .into_iter()
        .chain(blocks(&text).into_iter().map(|(_, block)| block))
        .collect();
    for piece in &code {
        let words: Vec<&str> = piece.split_whitespace().collect();
        for pair in words.windows(2) {
            if let ["--bench" | "--test", name] = pair {
                assert!(
                    manifest.contains(&format!("name = \"{name}\"")),
                    "{README}: {piece}: no {name}"
                );
            }
        }
        for word in words {
            let is_ours = ["src/", "tests/", "etc/", "man/", "packaging/"]
                .iter()
                .any(|room| word.starts_with(room));
            if is_ours && !word.contains(['*', '…']) {
                assert!(files::exists(word), "{README}: {word} is not there");
            }
        }
    }
}

#[test]
fn every_link_within_the_readme_leads_somewhere() {
    let text = files::read(README);
    let anchors: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|head| {
            let head = head.trim_start_matches('#').trim().to_lowercase();
            head.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect();
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if let Some(anchor) = target.strip_prefix('#') {
            assert!(anchors.iter().any(|known| known == anchor), "{README}: #{anchor}");
        } else if !target.contains("://") {
            assert!(files::exists(target), "{README}: {target}");
        }
    }
}
