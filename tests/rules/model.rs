//! The table of `tests/README.md` tells of each row what holds it, and every test that it names is there.

use super::files;

const TABLE: &str = "tests/README.md";

#[test]
fn every_test_that_the_table_names_is_there() {
    let table = files::read(TABLE);
    let mut named = 0;
    for name in table.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.split_once("::") else {
            continue;
        };
        named += 1;
        assert!(
            has_test(&files::read(&format!("tests/integration/{module}.rs")), test),
            "{TABLE}: {name} is not there"
        );
    }
    assert!(named > 40, "only {named} tests are named");
}

/// Whether `source` has this function right after `#[test]`, an `#[ignore]` between them aside.
fn has_test(source: &str, name: &str) -> bool {
    source.split("#[test]").skip(1).any(|rest| {
        let head = rest.lines().map(str::trim);
        let first = head
            .into_iter()
            .find(|line| !line.is_empty() && !line.starts_with("#["));
        first.is_some_and(|line| line.starts_with(&format!("fn {name}(")))
    })
}

#[test]
fn every_row_is_there_once_and_says_what_holds_it() {
    let table = files::read(TABLE);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (letter, count) in [('A', 19), ('B', 15), ('C', 11), ('D', 15), ('E', 13)] {
        for number in 1..=count {
            let row = format!("{letter}{number}");
            assert_eq!(
                rows.iter().filter(|cells| cells[0] == row).count(),
                1,
                "{TABLE}: {row}"
            );
        }
    }
    for cells in rows {
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "{TABLE}: {cells:?}"
        );
    }
}

#[test]
fn a_name_that_is_no_test_is_not_taken_for_one() {
    let source = "#[test]\n#[ignore = \"later\"]\nfn a_story() {}\nfn helper() {}";
    assert!(has_test(source, "a_story"));
    assert!(!has_test(source, "helper") && !has_test(source, "a_sto"));
}
