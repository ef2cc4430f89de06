//! The house rules as tests: what a reader of the source, the manual, the samples and the README may rely on.
//!
//! | module | holds |
//! |---|---|
//! | `arrows` | each room uses those below it, as the tour's table says, and no two files import each other |
//! | `house` | the shape of the source: pure files do no I/O, the tour names each thread, nothing names this machine |
//! | `manual` | the man pages name what the programs have, and nothing else |
//! | `limits` | they tell each limit as it is |
//! | `model` | `tests/README.md` names the test that holds each kind of fault, and the test exists |
//! | `samples` | configurations that are shown somewhere load, the corpus is whole |
//! | `readme` | commands that are shown somewhere exist |

#[cfg(test)]
#[path = "rules/arrows.rs"]
mod arrows;
#[cfg(test)]
#[path = "rules/code.rs"]
mod code;
#[cfg(test)]
#[path = "rules/files.rs"]
mod files;
#[cfg(test)]
#[path = "rules/house.rs"]
mod house;
#[cfg(test)]
#[path = "rules/limits.rs"]
mod limits;
#[cfg(test)]
#[path = "rules/manual.rs"]
mod manual;
#[cfg(test)]
#[path = "rules/mdoc.rs"]
mod mdoc;
#[cfg(test)]
#[path = "rules/model.rs"]
mod model;
#[cfg(test)]
#[path = "rules/readme.rs"]
mod readme;
#[cfg(test)]
#[path = "rules/samples.rs"]
mod samples;
#[cfg(test)]
#[path = "rules/shell.rs"]
mod shell;
