//! The prompt: one command after another, with history and completion where the program was built with them. It
//! outlives the daemon: after a restart the next command finds the new one.

use std::io;

use std::os::unix::net::UnixStream;

use signal_hook::consts::SIGINT;

use super::daemon::{Daemon, Trouble};
use super::signal_thread::{self, Restore};
use super::{Ending, batch, carry_out, complain};

const PROMPT: &str = "rtp_cluster> ";

/// Runs commands until there are no more.
pub(super) fn run(daemon: Daemon) -> Result<Ending, Trouble> {
    let _restore = Restore::on(signal_thread::LEAVING).map_err(Trouble::Streams)?;
    // While a line is typed Ctrl-C is a key, of the line editor; while a reply is waited for it is a signal.
    let (interrupted, interrupt) = UnixStream::pair().map_err(Trouble::Streams)?;
    signal_hook::low_level::pipe::register(SIGINT, interrupt).map_err(Trouble::Streams)?;
    let daemon = daemon.interruptible(interrupted);
    let mut prompt = source::Prompt::new(daemon).map_err(Trouble::Streams)?;
    while let Some(text) = prompt.next().map_err(Trouble::Streams)? {
        // What is pasted may be several lines, of which each has a reply.
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !batch::is_no_command(line.as_bytes())) {
            if batch::is_quit(line.as_bytes()) {
                return Ok(Ending::Good);
            }
            match prompt.daemon(|daemon| ask(daemon, line)) {
                // The prompt itself can no longer be shown.
                Err(Trouble::Streams(error)) => return Err(Trouble::Streams(error)),
                Err(trouble) => {
                    complain(&trouble.to_string());
                    // The lines after it may have counted on it.
                    break;
                }
                Ok(()) => {}
            }
        }
    }
    Ok(Ending::Good)
}

/// One command. A connection that has ended since the last one is made anew before: never after, when it is not
/// known what became of the command.
fn ask(daemon: &mut Daemon, line: &str) -> Result<(), Trouble> {
    if daemon.has_given_up() {
        daemon.reconnect()?;
    } else if daemon.has_ended() {
        daemon.reconnect()?;
        complain("the daemon had closed the connection; this is a new one");
    }
    carry_out(daemon, line, false).map(drop)
}

#[cfg(feature = "console")]
mod source {
    use core::time::Duration;
    use std::path::PathBuf;

    use rustyline::completion::{Completer, Pair};
    use rustyline::error::ReadlineError;
    use rustyline::highlight::Highlighter;
    use rustyline::hint::Hinter;
    use rustyline::history::DefaultHistory;
    use rustyline::validate::Validator;
    use rustyline::{CompletionType, Config, Context, Editor, Helper};

    use super::super::completion::{self, Names};
    use super::super::shown::shown;
    use super::{Daemon, PROMPT, Trouble, io};

    /// Commands that are remembered from one prompt to the next.
    const HISTORY_MAX: usize = 1_000;
    /// How long Tab waits for names: as long as a hand pauses before the next key.
    const TAB: Duration = Duration::from_millis(500);

    /// A line editor whose completion asks the daemon.
    pub(super) struct Prompt {
        editor: Editor<Asking, DefaultHistory>,
        history: Option<PathBuf>,
    }

    struct Asking(Daemon);

    impl Completer for Asking {
        type Candidate = Pair;

        fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
            let line = line.get(..at).unwrap_or(line);
            let mut names = Live {
                daemon: &self.0,
                trouble: None,
            };
            let (start, found) = completion::complete(line, &mut names);
            let Some(trouble) = names.trouble.filter(|_| found.is_empty()) else {
                let pair = |found: String| Pair {
                    display: found.clone(),
                    replacement: found,
                };
                return Ok((start, found.into_iter().map(pair).collect()));
            };
            // Two candidates that change nothing are listed: so the editor shows why there are none.
            let unfinished = line.get(start..).unwrap_or_default();
            let told = [trouble.as_str(), ""].map(|display| Pair {
                display: display.to_owned(),
                replacement: unfinished.to_owned(),
            });
            Ok((start, told.into()))
        }
    }

    /// The names that completion offers, asked for when they are needed, over a connection of their own: one that is
    /// given up is not missed.
    struct Live<'a> {
        daemon: &'a Daemon,
        trouble: Option<String>,
    }

    impl Live<'_> {
        fn names(&mut self, command: &str) -> Vec<String> {
            let mut names = Vec::new();
            let asked = self.daemon.another(TAB).and_then(|mut daemon| {
                daemon.ask(command.as_bytes(), |line, _| {
                    let line = String::from_utf8_lossy(line);
                    // A name that a terminal would act upon is typed by nobody.
                    let name = line
                        .trim()
                        .strip_prefix("name = ")
                        .filter(|name| shown(name) == *name);
                    names.extend(name.map(str::to_owned));
                    Ok(())
                })
            });
            match asked {
                Ok(_) => return names,
                Err(Trouble::Late(..)) => self.trouble = Some("(the daemon does not answer)".to_owned()),
                Err(trouble) => self.trouble = Some(format!("({})", shown(&trouble.to_string()))),
            }
            Vec::new()
        }
    }

    impl Names for Live<'_> {
        fn clusters(&mut self) -> Vec<String> {
            self.names("ls")
        }

        fn members(&mut self, cluster: &str) -> Vec<String> {
            self.names(&format!("ls -- {cluster}"))
        }
    }

    impl Hinter for Asking {
        type Hint = String;
    }

    impl Highlighter for Asking {}
    impl Validator for Asking {}
    impl Helper for Asking {}

    impl Prompt {
        pub(super) fn new(daemon: Daemon) -> io::Result<Self> {
            let config = Config::builder()
                .max_history_size(HISTORY_MAX)
                .map_err(io::Error::other)?
                .completion_type(CompletionType::List)
                .completion_show_all_if_ambiguous(true)
                .auto_add_history(true);
            let mut editor = Editor::with_config(config.build()).map_err(io::Error::other)?;
            editor.set_helper(Some(Asking(daemon)));
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            let history = home.map(|home| PathBuf::from(home).join(".rtp_cluster_history"));
            if let Some(history) = &history {
                // The first time there is none.
                let _ = editor.load_history(history);
            }
            Ok(Self { editor, history })
        }

        /// The next line; `None` at the end.
        pub(super) fn next(&mut self) -> io::Result<Option<String>> {
            loop {
                match self.editor.readline(PROMPT) {
                    Ok(line) => return Ok(Some(line)),
                    // Ctrl-C gives up the line, not the conversation.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(ReadlineError::Io(error)) => return Err(error),
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }

        pub(super) fn daemon<T>(&mut self, with: impl FnOnce(&mut Daemon) -> T) -> T {
            #[expect(clippy::expect_used, reason = "set where the editor is made")]
            let helper = self.editor.helper_mut().expect("the editor has its helper");
            with(&mut helper.0)
        }
    }

    impl Drop for Prompt {
        fn drop(&mut self) {
            if let Some(history) = &self.history {
                // A home that cannot be written costs the history, nothing else.
                let _ = self.editor.save_history(history);
            }
        }
    }
}

#[cfg(not(feature = "console"))]
mod source {
    use super::{Daemon, PROMPT, io};

    /// Lines as the terminal gives them.
    pub(super) struct Prompt(Daemon);

    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the same calls as the line editor's"
    )]
    impl Prompt {
        pub(super) fn new(daemon: Daemon) -> io::Result<Self> {
            Ok(Self(daemon))
        }

        /// The next line; `None` at the end.
        pub(super) fn next(&mut self) -> io::Result<Option<String>> {
            use std::io::Write as _;

            let mut out = io::stdout().lock();
            write!(out, "{PROMPT}")?;
            out.flush()?;
            let mut line = String::new();
            Ok((io::stdin().read_line(&mut line)? > 0).then_some(line))
        }

        pub(super) fn daemon<T>(&mut self, with: impl FnOnce(&mut Daemon) -> T) -> T {
            with(&mut self.0)
        }
    }
}
