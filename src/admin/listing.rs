//! `sessions`, written part by part: a table may hold a million calls, and whoever lists them may not read. Nothing is
//! kept of it but where it goes on, so calls that come and go meanwhile may be in it or not. Pure.

use super::operator::Operator;
use super::reply::Reply;
use super::{render, render_json};

/// A listing that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Of this cluster.
    pub cluster: String,
    /// Of this member alone.
    pub member: Option<String>,
    /// As one document.
    pub json: bool,
    /// How many calls it lists at most.
    pub limit: usize,
    /// How many it has listed.
    pub listed: usize,
    /// The part of the table that comes next; `None` before the first.
    pub next: Option<usize>,
}

impl Listing {
    /// Appends the next part. Says whether that was the last one, with the line that ends a reply.
    pub fn write_part(&mut self, operator: &dyn Operator, out: &mut Vec<u8>) -> bool {
        let first = self.next.is_none();
        let (from, left) = (self.next.unwrap_or(0), self.limit - self.listed);
        let part = match operator.sessions(&self.cluster, self.member.as_deref(), from, left) {
            Ok(part) => part,
            Err(refusal) => {
                // A document that was begun stays open: the error tells why.
                if self.json && !first {
                    out.push(b'\n');
                }
                Reply::error(refusal).write_to(out);
                return true;
            }
        };
        let begins = self.listed == 0;
        self.listed += part.listed.len();
        let is_last = part.next.is_none() || self.listed >= self.limit;
        let text = if self.json {
            render_json::sessions(&part, first, begins, is_last)
        } else {
            render::sessions(&part, first, is_last.then_some(self.listed))
        };
        out.extend_from_slice(text.as_bytes());
        if is_last {
            Reply::ok().write_to(out);
        }
        self.next = part.next;
        is_last
    }
}
