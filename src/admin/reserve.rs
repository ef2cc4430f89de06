//! Descriptors that are kept back, so that the administrator is let in when clients have taken all others. Part of the
//! rim.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

/// Descriptors kept back. A few, since between giving one up and accepting another thread may be faster.
const KEPT_BACK: usize = 4;

/// Descriptors that mean nothing but themselves.
#[derive(Debug)]
pub(super) struct Reserve {
    /// What each of them is a second name of.
    of: OwnedFd,
    kept: Vec<OwnedFd>,
}

impl Reserve {
    /// Descriptors that refer to what `of` does.
    ///
    /// # Errors
    /// When the system has not that many.
    pub(super) fn new(of: impl AsFd) -> io::Result<Self> {
        let another = || fcntl_dupfd_cloexec(&of, 0);
        Ok(Self {
            kept: (0..KEPT_BACK).map(|_| another()).collect::<Result<_, _>>()?,
            of: another()?,
        })
    }

    /// Gives one up, to be taken at once. Says whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.kept.pop().is_some()
    }

    /// Closes `used`. While the reserve is not whole its number stays with us: nobody else can take it.
    pub(super) fn close(&mut self, used: impl Into<OwnedFd>) {
        let mut used = used.into();
        if self.kept.len() < KEPT_BACK && dup3(&self.of, &mut used, DupFlags::CLOEXEC).is_ok() {
            self.kept.push(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_closed_fills_the_reserve_up_before_anybody_else_may_have_it() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut reserve = Reserve::new(&ours).unwrap();
        assert!((0..KEPT_BACK).all(|_| reserve.give_up()));
        assert!(!reserve.give_up());
        let (used, mut other) = UnixStream::pair().unwrap();
        let number = used.as_raw_fd();
        reserve.close(used);
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "it is closed");
        assert_eq!(reserve.kept[0].as_raw_fd(), number);
        assert!(reserve.give_up());
        for _ in 0..=KEPT_BACK {
            let (used, _) = UnixStream::pair().unwrap();
            reserve.close(used);
        }
        assert_eq!(reserve.kept.len(), KEPT_BACK);
    }
}
