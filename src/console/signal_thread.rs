//! A signal that ends the client first gives the terminal back as it was found. A thread of its own waits for it,
//! since the main thread may be in the line editor, or in the middle of a picture.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::rim::{self, Thread};

/// What ends a command.
pub(super) const ENDING: &[i32] = &[SIGTERM, SIGHUP, SIGINT];
/// What ends a prompt.
pub(super) const LEAVING: &[i32] = &[SIGTERM, SIGHUP];

/// Whether the terminal shows its second screen, without a cursor.
static FULL_SCREEN: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "console")]
/// To be called when the live view has begun, and when it has ended.
pub(super) fn set_full_screen(is_so: bool) {
    FULL_SCREEN.store(is_so, Ordering::Release);
}

/// As long as it lives, these signals restore the terminal before they end the process.
#[derive(Debug)]
pub(super) struct Restore(Option<(Handle, Thread)>);

impl Restore {
    /// Where there is no terminal there is nothing to do.
    pub(super) fn on(signals: &[i32]) -> io::Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let found = tcgetattr(io::stdin())?;
        let mut signals = Signals::new(signals)?;
        let handle = signals.handle();
        let body = move || {
            let signal = rim::idle(|| signals.forever().next());
            if let Some(signal) = signal {
                restore(&found);
                // It does not return where the default is to end the process.
                let _ = emulate_default_handler(signal);
            }
        };
        Ok(Self(Some((handle, rim::spawn("signals", body)?))))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some((handle, thread)) = self.0.take() {
            handle.close();
            thread.join();
        }
    }
}

/// What fails here fails because the terminal is gone.
fn restore(found: &Termios) {
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, found);
    let mut out = io::stdout();
    if FULL_SCREEN.load(Ordering::Acquire) {
        // The first screen, and its cursor.
        let _ = out.write_all(b"\x1b[?1049l\x1b[?25h");
    } else if !super::is_dumb_terminal() {
        // What is pasted comes without brackets, as the line editor leaves it.
        let _ = out.write_all(b"\x1b[?2004l");
    }
    let _ = out.flush();
}
