//! The packages as their users meet them: built from the tree, looked at by Debian's and Red Hat's own checkers,
//! installed, configured, upgraded, removed and purged on a plain Debian. What they need is installed by tests/run.sh;
//! they run as root, since packages are installed as root, but touch nothing outside the build and a directory of
//! temporary files.

#![allow(unreachable_pub, reason = "a program has no callers")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests measure with the clock, and are told apart by their names"
)]

#[cfg(test)]
mod booted;
#[cfg(test)]
mod built;
#[cfg(test)]
mod completion;
#[cfg(test)]
mod debian;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod rpm;
#[cfg(test)]
mod unit;

#[cfg(test)]
#[path = "../integration/support"]
mod support {
    #![allow(dead_code, reason = "the stories of the daemon use the rest")]

    pub mod client;
    pub mod member;
    pub mod place;
    pub mod process;
    pub mod real;
    pub mod wait;
    pub mod wire;
}
