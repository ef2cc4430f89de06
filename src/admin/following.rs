//! `watch` and `trace`: a reply that goes on as long as there are news. It takes them from a bounded queue as its
//! client reads; what does not fit into the queue meanwhile is lost, and counted.

use core::fmt::Debug;
use std::time::Instant;

use super::command::{Trace, TracedCalls, WAIT_MAX};
use super::operator::{Operator, Refusal};
use super::render::call_id_bytes;
use super::render_news::{self, News};
use super::reply::Reply;
use crate::rim::feed::{Subscription, Wake};

/// A reply in progress.
#[derive(Debug)]
pub(super) struct Following {
    source: Box<dyn Source>,
    json: bool,
    until: Instant,
    /// Lines that it may have still.
    left: u64,
    /// Whether it ends with a last piece of news.
    ends: bool,
}

/// Where lines come from.
trait Source: Debug + Send {
    /// The next line, and whether nothing comes behind it.
    fn next(&self, json: bool) -> Option<(String, bool)>;
    fn lost(&self) -> u64;
    fn is_empty(&self) -> bool;
}

impl<T: News + Debug + Send> Source for Subscription<T> {
    fn next(&self, json: bool) -> Option<(String, bool)> {
        let news = self.news().next()?;
        Some((if json { news.json() } else { news.text() }, news.is_last()))
    }

    fn lost(&self) -> u64 {
        Subscription::lost(self)
    }

    fn is_empty(&self) -> bool {
        Subscription::is_empty(self)
    }
}

impl Following {
    /// Begins to follow what happens.
    pub(super) fn watch(
        now: Instant,
        operator: &dyn Operator,
        json: bool,
        wake: Wake,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            source: Box::new(operator.watch(wake)?),
            json,
            until: now + WAIT_MAX,
            left: u64::MAX,
            ends: false,
        })
    }

    /// Begins to follow a call, or all of a cluster.
    pub(super) fn trace(
        now: Instant,
        operator: &dyn Operator,
        trace: &Trace,
        wake: Wake,
    ) -> Result<Self, Refusal> {
        let call_id = match &trace.calls {
            TracedCalls::One(call_id) => Some(call_id_bytes(call_id)),
            TracedCalls::All => None,
        };
        Ok(Self {
            ends: call_id.is_some(),
            source: Box::new(operator.trace(&trace.cluster, call_id, wake)?),
            json: trace.json,
            until: now + trace.limit,
            left: trace.lines,
        })
    }

    /// When it ends, whatever happens.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether [`Following::write`] has something to write.
    pub(super) fn has_news(&self) -> bool {
        !self.source.is_empty()
    }

    /// Appends what there is while `out` has less than `room` bytes. Says whether that was the end, with the line that
    /// ends a reply.
    pub(super) fn write(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) -> bool {
        let mut is_over = now >= self.until || self.left == 0;
        while !is_over && out.len() < room {
            let Some((line, is_last)) = self.source.next(self.json) else {
                // These came when the queue was full, so they came after all that was in it.
                let lost = self.source.lost();
                if lost > 0 {
                    out.extend_from_slice(render_news::lost(lost, self.json).as_bytes());
                }
                break;
            };
            out.extend_from_slice(line.as_bytes());
            self.left -= 1;
            is_over = self.left == 0 || (self.ends && is_last);
        }
        if is_over {
            Reply::ok().write_to(out);
        }
        is_over
    }
}
