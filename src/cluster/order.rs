//! What other threads want of a cluster's loop, as messages. `W` is what belongs to that loop alone.

use crate::dispatch::outbox::LookUp;
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

/// Looks calls up that other dispatchers may have bound; what it finds comes as a message, if it comes.
#[derive(Default)]
pub struct Finder(Option<Box<dyn Fn(LookUp) + Send>>);

impl Finder {
    /// One that looks up so.
    pub fn new(look_up: impl Fn(LookUp) + Send + 'static) -> Self {
        Self(Some(Box::new(look_up)))
    }

    /// Has these calls looked up.
    pub fn ask(&self, look_ups: impl Iterator<Item = LookUp>) {
        for look_up in look_ups {
            if let Some(find) = &self.0 {
                find(look_up);
            }
        }
    }
}

impl core::fmt::Debug for Finder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Finder").field(&self.0.is_some()).finish()
    }
}
