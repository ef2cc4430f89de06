//! News for whoever listens: each listener has a bounded queue of its own, and who tells never waits for one. A
//! listener that does not take its news loses what comes when its queue is full, and can tell how many.

use core::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TryIter, bounded};
use parking_lot::Mutex;

/// News that wait for one listener. What is said of a hundred calls a second for some seconds.
pub const QUEUE_MAX: usize = 1_024;
/// Listeners of one feed: as many as there are admin connections.
pub const LISTENERS_MAX: usize = 64;

/// Says that there are news. Called by whoever tells, so it must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Where news are told.
pub struct Feed<T> {
    listeners: Mutex<Vec<Listener<T>>>,
    /// Whether there are any, to be read without the lock.
    heard: AtomicBool,
}

struct Listener<T> {
    queue: Sender<T>,
    lost: Arc<AtomicU64>,
    wants: Box<dyn Fn(&T) -> bool + Send>,
    wake: Wake,
}

/// The listener's end; dropped, it listens no more.
#[derive(Debug)]
pub struct Subscription<T> {
    queue: Receiver<T>,
    lost: Arc<AtomicU64>,
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self {
            listeners: Mutex::new(Vec::new()),
            heard: AtomicBool::new(false),
        }
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

impl<T: Clone> Feed<T> {
    /// Whether anybody may listen: what is told costs this one comparison where nobody does.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Listens from now on to what is wanted; `wake` is called when there is some. `None` where too many listen
    /// already.
    pub fn listen(&self, wants: impl Fn(&T) -> bool + Send + 'static, wake: Wake) -> Option<Subscription<T>> {
        let (sender, queue) = bounded(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut listeners = self.listeners.lock();
        if listeners.len() >= LISTENERS_MAX {
            return None;
        }
        listeners.push(Listener {
            queue: sender,
            lost: Arc::clone(&lost),
            wants: Box::new(wants),
            wake,
        });
        self.heard.store(true, Ordering::Relaxed);
        Some(Subscription { queue, lost })
    }

    /// How many listen.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.lock().len()
    }

    /// Tells everybody who wants it.
    pub fn tell(&self, news: &T) {
        if !self.is_heard() {
            return;
        }
        let mut woken: Vec<Wake> = Vec::new();
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| {
            let hears = listener.hears(news);
            if hears == Some(true) {
                woken.push(Arc::clone(&listener.wake));
            }
            hears.is_some()
        });
        self.heard.store(!listeners.is_empty(), Ordering::Relaxed);
        drop(listeners);
        // Not under the lock: waking is a system call.
        for wake in woken {
            wake();
        }
    }
}

impl<T: Clone> Listener<T> {
    /// Whether this was news for it; `None` when it is no longer there.
    fn hears(&self, news: &T) -> Option<bool> {
        // One that left is seen by who shares the count of what it lost.
        if Arc::strong_count(&self.lost) == 1 {
            return None;
        }
        if !(self.wants)(news) {
            return Some(false);
        }
        if self.queue.try_send(news.clone()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Some(true)
    }
}

impl<T> Subscription<T> {
    /// What has been told and not been taken.
    pub fn news(&self) -> TryIter<'_, T> {
        self.queue.try_iter()
    }

    /// How many were lost since this was last asked: those that were told when the queue was full.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Whether nothing is there to be taken.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.lost.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn counted() -> (Wake, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&count);
        let wake = move || {
            counts.fetch_add(1, Ordering::Relaxed);
        };
        (Arc::new(wake), count)
    }

    #[test]
    fn each_listener_gets_what_it_wants_and_is_woken_for_it() {
        let feed = Feed::default();
        let (wake, woken) = counted();
        let even = feed.listen(|n: &u32| n.is_multiple_of(2), wake).unwrap();
        let all = feed.listen(|_| true, counted().0).unwrap();
        for n in 0..5 {
            feed.tell(&n);
        }
        assert_eq!(even.news().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(all.news().count(), 5);
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        assert!(even.is_empty());
    }

    #[test]
    fn who_does_not_take_its_news_loses_them_and_knows_how_many() {
        let feed = Feed::default();
        let lazy = feed.listen(|_| true, counted().0).unwrap();
        for n in 0..QUEUE_MAX + 7 {
            feed.tell(&n);
        }
        assert_eq!(lazy.news().last(), Some(QUEUE_MAX - 1));
        assert!(!lazy.is_empty());
        assert_eq!((lazy.lost(), lazy.lost()), (7, 0));
    }

    #[test]
    fn when_the_last_listener_has_left_nobody_is_told() {
        let feed = Feed::default();
        let gone = feed.listen(|_| false, counted().0).unwrap();
        assert!(feed.is_heard());
        drop(gone);
        feed.tell(&1);
        assert!(!feed.is_heard());
        let many: Vec<_> = (0..LISTENERS_MAX)
            .map(|_| feed.listen(|_| true, counted().0).unwrap())
            .collect();
        assert!(feed.listen(|_| true, counted().0).is_none());
        drop(many);
    }
}
