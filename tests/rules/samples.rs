//! Configurations that are shown somewhere load, and the sample says all that can be said.

use std::path::Path;

use rtp_cluster::config::model::Policy;
use rtp_cluster::config::{self, ELEMENTS, Parsed};

use super::mdoc::Page;
use super::{files, readme};

const SAMPLE: &str = "etc/rtp_cluster.xml";

/// Loads `text` without fault and without warning.
fn load(place: &str, text: &str) -> Parsed {
    let parsed = config::parse(Path::new(place), text.as_bytes())
        .unwrap_or_else(|faults| panic!("{}", faults.explain()));
    assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
    parsed
}

#[test]
fn the_sample_loads_with_and_without_its_comments() {
    let text = files::read(SAMPLE);
    let as_it_is = load(SAMPLE, &text).config;
    let all = load(SAMPLE, &uncommented(&text)).config;
    let (Some(short), Some(long)) = (as_it_is.clusters.first(), all.clusters.first()) else {
        panic!("{SAMPLE}: no cluster")
    };
    // What the comments show is what holds anyway, as they say.
    assert_eq!(
        (short.failover, short.health, short.sessions, short.no_members),
        (long.failover, long.health, long.sessions, long.no_members)
    );
    assert!(long.disconnect_notify.is_some());
    assert!(long.members.len() > short.members.len());
}

#[test]
fn the_sample_shows_every_element_and_attribute() {
    let text = files::read(SAMPLE);
    for element in ELEMENTS {
        assert!(
            text.contains(&format!("<{}", element.name)),
            "{SAMPLE}: no <{}>",
            element.name
        );
        for attribute in element.attributes {
            let name = attribute.name;
            assert!(
                text.split(&format!("<{}", element.name)).skip(1).any(|rest| {
                    let tag = rest.split('>').next().unwrap_or_default();
                    tag.contains(&format!(" {name}=\""))
                }),
                "{SAMPLE}: no <{} {name}=…>",
                element.name
            );
        }
    }
}

/// `text` with the elements that stand in comments as elements: from the first line that begins with `<` on.
fn uncommented(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("<!--") {
        let (comment, after) = comment.split_once("-->").expect("comments end");
        out.push_str(before);
        let lines = comment.lines().skip(1);
        let elements: Vec<&str> = lines
            .skip_while(|line| !line.trim_start().starts_with('<'))
            .collect();
        out.push_str(&elements.join("\n"));
        rest = after;
    }
    out + rest
}

#[test]
fn every_configuration_that_is_shown_loads() {
    let page = Page::read("man/rtp_cluster.xml.5");
    let shown = page.literals().into_iter().map(|block| (page.file, block));
    let readme = readme::blocks(&files::read("README.md"));
    let shown = shown.chain(readme.into_iter().map(|(_, block)| ("README.md", block)));
    let mut whole = 0;
    for (place, block) in shown {
        let Some(start) = block.find('<') else { continue };
        let xml = block.get(start..).unwrap_or_default();
        if xml.contains("<rtp_cluster_config>") {
            whole += 1;
            load(place, xml);
        } else if ELEMENTS
            .iter()
            .any(|element| xml.starts_with(&format!("<{}", element.name)))
        {
            load(place, &wrapped(xml));
        }
    }
    assert!(whole >= 3, "only {whole} whole configurations were found");
}

/// A part of a file as a whole one.
fn wrapped(part: &str) -> String {
    let cluster = "<name>C</name><protocol>UNIX</protocol><address>/c</address>";
    let part = if part.starts_with("<rtp_cluster>") {
        part.to_owned()
    } else {
        format!("<rtp_cluster>{cluster}{part}</rtp_cluster>")
    };
    format!("<rtp_cluster_config>{part}</rtp_cluster_config>")
}

#[test]
fn the_file_of_a_pair_of_hosts_loads() {
    let file = "packaging/ha/rtp_cluster.xml";
    let clusters = load(file, &files::read(file)).config.clusters;
    assert!(clusters.iter().all(|cluster| cluster.policy == Policy::Hash));
}

#[test]
fn each_bad_configuration_of_the_corpus_has_its_errors() {
    let corpus: Vec<String> = files::tracked()
        .into_iter()
        .filter(|file| file.starts_with("tests/corpus/config/"))
        .collect();
    let other = |file: &str, from: &str, to: &str| file.strip_suffix(from).map(|stem| format!("{stem}{to}"));
    let mut bad = 0;
    for file in &corpus {
        if file.contains("/bad/")
            && let Some(errors) = other(file, ".xml", ".errors")
        {
            bad += 1;
            assert!(corpus.contains(&errors), "{file}: no {errors}");
            assert!(!files::read(&errors).trim().is_empty(), "{errors} is empty");
        }
        let sample = other(file, ".errors", ".xml").or(other(file, ".warnings", ".xml"));
        assert!(
            sample.is_none_or(|sample| corpus.contains(&sample)),
            "{file}: no sample"
        );
    }
    assert!(bad > 10, "only {bad} bad configurations");
}
