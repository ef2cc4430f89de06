//! The picture on a terminal, and the keys. Part of the rim.

use core::time::Duration;
use std::io;
use std::time::Instant;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::text::{Line, Text};
use ratatui::{DefaultTerminal, Frame};

use super::super::Ending;
use super::super::daemon::{Daemon, Trouble};
use super::layout::{self, Looks};
use super::picture::{Member, Picture, cluster_names};
use crate::rim;

/// What the last line says.
const KEYS: &str = "q quit   arrows, page keys: choose a member, for its details";
/// Members that a page key moves.
const PAGE: isize = 10;

/// What is on the screen.
#[derive(Default)]
struct View {
    picture: Picture,
    /// When the picture was taken; `None` before the first.
    taken: Option<Instant>,
    /// Why there is no newer one.
    trouble: Option<String>,
    /// Chosen among all members, in their order; `None` until a key chooses.
    chosen: Option<usize>,
    /// Lines above the first one that is shown.
    scrolled: usize,
    style: Looks,
}

/// Shows the clusters anew each `interval` until a key ends it.
pub(super) fn run(daemon: &mut Daemon, interval: Duration) -> Result<Ending, Trouble> {
    let terminal = ratatui::try_init().map_err(Trouble::Streams)?;
    let ending = watch(terminal, daemon, interval);
    // The terminal is the user's again, whatever happened.
    ratatui::restore();
    ending.map_err(Trouble::Streams).map(|()| Ending::Good)
}

fn watch(mut terminal: DefaultTerminal, daemon: &mut Daemon, interval: Duration) -> io::Result<()> {
    let mut view = View {
        style: looks(),
        ..View::default()
    };
    let mut next = rim::now();
    loop {
        let now = rim::now();
        if now >= next {
            view.look(now, daemon);
            next = rim::now() + interval;
        }
        terminal.draw(|frame| draw(frame, &mut view))?;
        if event::poll(next.saturating_duration_since(rim::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => view.choose(1),
                KeyCode::Up | KeyCode::Char('k') => view.choose(-1),
                KeyCode::PageDown | KeyCode::Char(' ') => view.choose(PAGE),
                KeyCode::PageUp => view.choose(-PAGE),
                KeyCode::Home => view.choose(isize::MIN),
                KeyCode::End => view.choose(isize::MAX),
                _ => {}
            }
        }
    }
}

/// What the terminal can show, by the variables that say so: `NO_COLOR`, and the character set of the locale.
fn looks() -> Looks {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    let is_utf8 = |locale: String| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    };
    Looks::new(set("NO_COLOR").is_none(), locale.is_some_and(is_utf8))
}

impl View {
    /// Moves the choice by so many members, as far as there are.
    fn choose(&mut self, by: isize) {
        let members: usize = self
            .picture
            .clusters
            .iter()
            .map(|cluster| cluster.members.len())
            .sum();
        let Some(last) = members.checked_sub(1) else {
            return;
        };
        let from = match self.chosen {
            Some(chosen) => chosen.saturating_add_signed(by),
            None if by > 0 && by != isize::MAX => 0,
            None => last.saturating_add_signed(by.saturating_add(1)),
        };
        self.chosen = Some(from.min(last));
    }

    /// The chosen member, if it is still there.
    fn chosen(&self) -> Option<&Member> {
        let mut members = self.picture.clusters.iter().flat_map(|cluster| &cluster.members);
        members.nth(self.chosen?)
    }

    /// Takes a new picture, or says why there is none: the old one stays.
    fn look(&mut self, now: Instant, daemon: &mut Daemon) {
        match replies(daemon) {
            Ok((ls, members, stats)) => {
                let earlier = self
                    .taken
                    .map(|taken| (&self.picture, now.saturating_duration_since(taken)));
                self.picture = Picture::of(&ls, &members, &stats, earlier);
                self.taken = Some(now);
                self.trouble = None;
            }
            Err(trouble) => self.trouble = Some(trouble.to_string()),
        }
    }
}

/// `ls -v`, `ls -v CLUSTER` for each, `stats`.
fn replies(daemon: &mut Daemon) -> Result<(String, Vec<String>, String), Trouble> {
    if daemon.has_ended() {
        daemon.reconnect()?;
    }
    let ls = reply(daemon, "ls -v")?;
    let mut members = Vec::new();
    for name in cluster_names(&ls) {
        members.push(reply(daemon, &format!("ls -v -- {name}"))?);
    }
    Ok((ls, members, reply(daemon, "stats")?))
}

/// A reply as a whole. That of a cluster that has just gone is an error, which lists nothing.
fn reply(daemon: &mut Daemon, command: &str) -> Result<String, Trouble> {
    let mut reply = String::new();
    daemon.ask(command.as_bytes(), |line, _| {
        reply.push_str(&String::from_utf8_lossy(line));
        Ok(())
    })?;
    Ok(reply)
}

fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let [head, heads, body, detail, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let looks = view.style;
    let columns = layout::Columns::for_width(usize::from(head.width));
    frame.render_widget(layout::summary(&view.picture, looks), head);
    frame.render_widget(columns.heads(), heads);

    let (lines, at) = layout::body(&view.picture, columns, view.chosen, looks);
    let room = usize::from(body.height);
    if let Some(at) = at {
        // The line above it may be that of its cluster.
        view.scrolled = view
            .scrolled
            .min(at.saturating_sub(1))
            .max((at + 1).saturating_sub(room));
    }
    view.scrolled = view.scrolled.min(lines.len().saturating_sub(room));
    let shown: Vec<Line<'_>> = lines.into_iter().skip(view.scrolled).take(room).collect();
    frame.render_widget(Text::from(shown), body);

    let told = match (&view.trouble, view.chosen()) {
        (Some(trouble), _) => Line::styled(trouble.as_str(), looks.bad()),
        (None, Some(member)) => layout::detail(member),
        (None, None) => Line::default(),
    };
    frame.render_widget(told, detail);
    frame.render_widget(Line::styled(KEYS, layout::faint()), foot);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::admin::admin_thread::{self, AdminDoor};
    use crate::admin::fake::{Fake, Place};

    /// The lines of a screen of that width.
    fn screen(view: &mut View, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 9)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer
            .content()
            .iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect();
        cells
            .chunks(usize::from(width))
            .map(|line| line.concat().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn every_member_stands_below_its_cluster() {
        let place = Place::new();
        let path = place.path("admin");
        let listener = UnixListener::bind(&path).unwrap();
        let doors = vec![AdminDoor {
            listener,
            read_only: true,
        }];
        let handle = admin_thread::start(doors, Arc::new(Fake::of_the_manual())).unwrap();
        let mut daemon = Daemon::connect(&path, None).unwrap();
        let mut view = View::default();
        let now = rim::now();
        view.look(now, &mut daemon);
        view.look(now + Duration::from_secs(1), &mut daemon);
        let lines = screen(&mut view, 80);
        assert_eq!(
            lines[0],
            "rtp_cluster   2 of 4 online   6 calls   0.0 calls/s   0.0 commands/s   up 1h 0m"
        );
        assert!(
            lines[1].starts_with("  MEMBER ") && lines[1].ends_with(" DELAY"),
            "{lines:#?}"
        );
        assert_eq!(
            lines[2],
            "Supercluster#1  /var/run/rtpproxy.sock   2/2 online   3 calls   0.0/s"
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(&lines[3]),
            words("RTPPROXY1 online 0% 0/2500 100 0.0 0.31ms")
        );
        assert!(lines[5].starts_with("Supercluster#2 "), "{lines:#?}");
        assert_eq!(lines[8], KEYS);
        assert_eq!(lines[7], "");

        // A choice brings the details, and what is chosen is on the screen.
        view.choose(isize::MAX);
        let chosen = screen(&mut view, 80);
        assert!(chosen[6].starts_with("> RTPPROXY4 "), "{chosen:#?}");
        assert_eq!(
            chosen[7],
            "RTPPROXY4 (127.0.0.1:22225) ACTIVE, 0 bound here: 2 probes unanswered, since 90"
        );
        view.choose(-PAGE);
        assert!(screen(&mut view, 80)[3].starts_with("> RTPPROXY1 "));
        // With room there is more.
        let wide = screen(&mut view, 160);
        let member = "> RTPPROXY1 127.0.0.1:22222 online 0% 0/2500 100 0.0 0.0 0.31ms answers, since 90 s";
        assert_eq!(words(&wide[3]), words(member));

        // Without the daemon the last picture stays, and a line says why.
        handle.stop();
        view.look(now + Duration::from_secs(2), &mut daemon);
        let later = screen(&mut view, 160);
        assert_eq!(later[..7], wide[..7]);
        assert!(
            later[7].starts_with("cannot connect to ") && later[7].contains(&*path.display().to_string()),
            "{later:#?}"
        );
        // A small terminal is no reason to fall over.
        for width in [1, 7, 40] {
            screen(&mut view, width);
        }
    }
}
