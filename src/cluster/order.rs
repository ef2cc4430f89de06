//! What other threads want of a cluster's loop, as messages. `W` is what belongs to that loop alone.

use crate::dispatch::session::MemberId;
use crate::health::news::News;

/// Which of the times that a member has been given to the health thread: what that says of the one before, of another
/// RTPproxy perhaps, counts no more.
pub type Watch = u64;

/// What other threads want of a cluster's loop.
pub enum Order<W> {
    /// What the health thread has to say of a member.
    News(MemberId, Watch, News),
    /// Anything else.
    Do(Box<dyn FnOnce(&mut W) + Send>),
}

impl<W> core::fmt::Debug for Order<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::News(id, _, news) => f.debug_tuple("News").field(id).field(news).finish(),
            Self::Do(_) => f.write_str("Do"),
        }
    }
}
