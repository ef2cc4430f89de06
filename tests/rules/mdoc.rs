//! A man page as these rules see it: its lists, with what each item is and what is said of it.

use super::files;

/// A page.
pub(crate) struct Page {
    pub(crate) file: &'static str,
    /// The source.
    pub(crate) text: String,
    pub(crate) items: Vec<Item>,
}

/// An item of a list.
#[derive(Debug)]
pub(crate) struct Item {
    /// The section, and the subsection where there is one.
    pub(crate) section: String,
    pub(crate) subsection: String,
    /// The macro that its head begins with: `Fl` for a flag, `Ic` for a command or an element.
    pub(crate) kind: String,
    /// Its head as a reader sees it, without blanks: `-s,--socketSOCK`.
    pub(crate) head: String,
    /// What is said of it before any list within it begins and after it ends, in one line.
    pub(crate) body: String,
    /// The item whose list it stands in.
    pub(crate) parent: Option<usize>,
}

impl Page {
    pub(crate) fn read(file: &'static str) -> Self {
        let text = files::read(file);
        let items = items(&text);
        Self { file, text, items }
    }

    /// The items of a section whose head begins with the macro `kind`.
    pub(crate) fn of<'a>(&'a self, section: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items
            .iter()
            .filter(move |item| item.section == section && item.kind == kind)
    }

    /// The text of the page in one line.
    pub(crate) fn words(&self) -> String {
        squeezed(&self.text.lines().map(plain).collect::<Vec<_>>().join(" "))
    }

    /// Its blocks of literal text.
    pub(crate) fn literals(&self) -> Vec<String> {
        let blocks = self.text.split(".Bd -literal").skip(1);
        blocks
            .filter_map(|block| {
                let (_, block) = block.split_once('\n')?;
                let (block, _) = block.split_once("\n.Ed")?;
                Some(block.replace("\\e", "\\"))
            })
            .collect()
    }
}

fn items(text: &str) -> Vec<Item> {
    let (mut section, mut subsection) = (String::new(), String::new());
    let mut items: Vec<Item> = Vec::new();
    // Of each open list, the item that is being described.
    let mut open: Vec<Option<usize>> = Vec::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            ".Sh" => (section, subsection) = (rest.to_owned(), String::new()),
            ".Ss" => rest.clone_into(&mut subsection),
            ".Bl" => open.push(None),
            ".El" => {
                open.pop();
            }
            ".It" => {
                let parent = open.iter().rev().skip(1).find_map(|item| *item);
                if let Some(described) = open.last_mut() {
                    *described = Some(items.len());
                }
                let kind = rest.split(' ').next().unwrap_or_default();
                items.push(Item {
                    section: section.clone(),
                    subsection: subsection.clone(),
                    kind: kind.to_owned(),
                    head: plain(rest).replace([' ', '"'], ""),
                    body: String::new(),
                    parent,
                });
            }
            _ => {
                let described = open.last().copied().flatten();
                if let Some(item) = described.and_then(|at| items.get_mut(at)) {
                    item.body = squeezed(&format!("{} {}", item.body, plain(line)));
                }
            }
        }
    }
    items
}

/// A line without its markup: `.Op Fl s Ar SOCK` is `[ -s SOCK ]`.
fn plain(line: &str) -> String {
    let is_macro = line.starts_with('.');
    let line = line.trim_start_matches('.');
    let known = |word: &str| is_macro || word.len() == 2;
    let mut out: Vec<String> = Vec::new();
    let (mut is_flag, mut closing) = (false, 0);
    for word in line.split(' ') {
        match word {
            "Op" => {
                out.push("[".into());
                closing += 1;
            }
            "Oo" => out.push("[".into()),
            "Oc" => out.push("]".into()),
            "Fl" if known(word) => is_flag = true,
            "Ar" | "Bl" | "Bd" | "Cm" | "Dv" | "Ed" | "Em" | "Ev" | "Ic" | "Li" | "Ns" | "Nm" | "Pa"
            | "Pc" | "Po" | "Pp" | "Pq" | "Ql" | "Sx" | "Ta" | "Va" | "Xr" => {}
            word => {
                let word = word.replace("\\&", "").replace("\\:", "");
                let is_delimiter = matches!(&*word, "," | "|" | "." | ":" | "");
                if is_delimiter {
                    out.push(word);
                } else if is_flag {
                    out.push(format!("-{word}"));
                } else {
                    out.push(word);
                }
                // `Fl v | Fl x`, but `Fl d , f` too: a delimiter does not end it, a word does.
                is_flag &= is_delimiter;
            }
        }
    }
    out.extend((0..closing).map(|_| "]".to_owned()));
    out.join(" ")
}

/// One blank between words, none before a delimiter.
fn squeezed(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() && !matches!(word, "." | "," | ";" | ":" | ")") {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[test]
fn heads_read_as_they_are_printed() {
    let head = |line: &str| plain(line).replace(' ', "");
    assert_eq!(
        head("Fl o , Fl -socket-owner Ar USER Ns Op : Ns Ar GROUP"),
        "-o,--socket-ownerUSER[:GROUP]"
    );
    assert_eq!(
        head("Ic ls Oo Fl v | Fl -json Oc Op Ar CLUSTER"),
        "ls[-v|--json][CLUSTER]"
    );
    assert_eq!(squeezed(&plain(".Pa /run/x .")), "/run/x.");
    let items = items(".Sh A\n.Bl -tag\n.It Ic a\nOne\n.Bl -tag\n.It Cm b\ntwo\n.El\nthree\n.It Ic c\n.El");
    let seen: Vec<_> = items
        .iter()
        .map(|item| (&*item.head, &*item.body, item.parent))
        .collect();
    assert_eq!(
        seen,
        [("a", "One three", None), ("b", "two", Some(0)), ("c", "", None)]
    );
}
