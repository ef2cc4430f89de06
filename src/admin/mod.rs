//! The operator's side: a line protocol on UNIX sockets. A line walks [`lines`] (framing, bounds), [`grammar`]
//! (which [`command`], with which values, by the table in [`commands`]), [`apply`] (what it does to the server, seen
//! as an [`operator::Operator`]), [`render`] (the listings) and leaves as a [`reply`], or part by part as a [`listing`],
//! or as it happens ([`following`]). [`places`] says who may come in and who gives way.
//!
//! All of these are pure but [`save`], which writes the configuration file, [`following`], which reads a queue, and the
//! files of the rim: [`admin_thread`], the connections that it serves, the descriptors that it keeps back. Commands are applied one after another by that one
//! thread, so an `OK` that one client has read is seen by the next `ls` of any other.

pub mod admin_thread;
pub mod apply;
pub mod command;
pub mod commands;
mod connection;
mod following;
pub mod grammar;
mod limits;
pub mod lines;
pub mod listing;
pub mod operator;
pub mod places;
pub mod render;
pub mod render_json;
pub mod render_news;
pub mod render_prometheus;
pub mod reply;
mod reserve;
mod save;
pub mod select;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
