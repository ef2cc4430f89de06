//! Shell commands as they are shown in texts, and whether our programs would take them.

use std::ffi::OsString;

use rtp_cluster::admin::grammar;
use rtp_cluster::console::options::{self as client, Action};
use rtp_cluster::console::own;
use rtp_cluster::daemon::options as daemon;
use rtp_cluster::status::flags as status;

/// Programs of ours.
const OURS: [&str; 3] = ["rtp_cluster", "rtp_cluster_client", "rtp_cluster_status"];

/// The commands of `script` that run a program of ours, each a list of words. What is printed below a `$ ` prompt
/// is no command, so where there are prompts only their lines count.
pub(crate) fn commands(script: &str) -> Vec<Vec<String>> {
    let joined = script.replace("\\\n", " ");
    let has_prompts = joined.lines().any(|line| line.trim_start().starts_with("$ "));
    let lines = joined.lines().filter_map(|line| {
        let line = line.trim_start();
        match line.strip_prefix("$ ") {
            Some(command) => Some(command),
            None => (!has_prompts).then_some(line),
        }
    });
    lines
        .flat_map(words)
        .map(|words| {
            words
                .into_iter()
                .skip_while(|word| word == "sudo")
                .collect::<Vec<_>>()
        })
        .filter(|words| words.first().is_some_and(|program| OURS.contains(&base(program))))
        .collect()
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The commands of a line: quotes are taken off, redirections and comments left out.
fn words(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut is_redirection = false;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | '|' | '&' | ';' | '>' | '<' | '(' | ')') => {
                // `2>log`: the number is no word.
                let is_number = |word: &String| c == '>' && word.bytes().all(|b| b.is_ascii_digit());
                word = word.filter(|word| !is_number(word));
                if let Some(word) = word.take().filter(|_| !core::mem::take(&mut is_redirection))
                    && let Some(command) = commands.last_mut()
                {
                    command.push(word);
                }
                match c {
                    '|' | '&' | ';' | '(' | ')' => commands.push(Vec::new()),
                    '>' | '<' => is_redirection = true,
                    _ => {}
                }
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// Panics where one of our programs would refuse `words`. Names and files need not be there.
pub(crate) fn assert_taken(place: &str, words: &[String]) {
    let Some((program, arguments)) = words.split_first() else {
        return;
    };
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let shown = words.join(" ");
    if base(program) == "rtp_cluster" {
        if let Err(wrong) = daemon::parse(&arguments) {
            panic!("{place}: {shown}: {wrong}");
        }
        return;
    }
    if base(program) == "rtp_cluster_status" {
        if let Err(wrong) = status::parse(&arguments) {
            panic!("{place}: {shown}: {wrong}");
        }
        return;
    }
    match client::parse(arguments.into_iter()) {
        Err(wrong) => panic!("{place}: {shown}: {wrong}"),
        Ok(Action::Run(options)) => {
            let command = options.command.unwrap_or_default();
            // Its own commands the daemon knows nothing of.
            if own::find(&command).is_none()
                && let Err(refused) = grammar::parse(&command)
            {
                panic!("{place}: {shown}: {}", refused.verdict());
            }
        }
        Ok(Action::Show(_)) => {}
    }
}

#[test]
fn scripts_are_read_as_a_shell_does() {
    let script = "$ sudo rtp_cluster_client -s /a 'ls main' | head # it\nrtp_cluster: output\n\
                  $ rtp_cluster -d \\\n  -c x.xml && echo ok";
    assert_eq!(
        commands(script),
        [
            vec!["rtp_cluster_client", "-s", "/a", "ls main"],
            vec!["rtp_cluster", "-d", "-c", "x.xml"]
        ]
    );
    assert_eq!(
        commands("rtp_cluster -f 2>log &"),
        [["rtp_cluster", "-f"].map(str::to_owned).to_vec()]
    );
}
