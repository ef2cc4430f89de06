//! The picture on a terminal, and the keys. Part of the rim.

use core::time::Duration;
use std::io;
use std::time::Instant;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Text};
use ratatui::{DefaultTerminal, Frame};

use super::super::daemon::{Daemon, Trouble};
use super::super::signal_thread::set_full_screen;
use super::super::{Ending, batch};
use super::layout::{self, Looks};
use super::look_thread::{self, Look, Looker};
use super::picture::{Member, Picture};
use crate::rim;

/// What the last line says.
const KEYS: &str = "q quit   arrows, page keys: choose a member   Enter: all about it, and back";
/// Between two looks at the keys while a picture is on its way.
const TICK: Duration = Duration::from_millis(50);
/// How long the first picture is waited for before there is one without it.
const FIRST: Duration = Duration::from_millis(200);
/// Members that a page key moves.
const PAGE: isize = 10;

/// What is on the screen.
#[derive(Default)]
struct View {
    picture: Picture,
    /// When the picture was taken; `None` before the first.
    taken: Option<Instant>,
    /// Why there is no newer one, and since when.
    trouble: Option<String>,
    /// Chosen among all members, in their order; `None` until a key chooses.
    chosen: Option<usize>,
    /// It has the screen for itself.
    is_open: bool,
    /// Lines above the first one that is shown.
    scrolled: usize,
    style: Looks,
}

/// Shows the clusters anew each `interval` until a key ends it.
pub(super) fn run(daemon: &Daemon, interval: Duration) -> Result<Ending, Trouble> {
    let looker = Looker::start(daemon)?;
    set_full_screen(true);
    let ending = ratatui::try_init().and_then(|terminal| watch(terminal, looker, interval));
    // The terminal is the user's again, whatever happened.
    ratatui::restore();
    set_full_screen(false);
    ending.map_err(Trouble::Streams).map(|()| Ending::Good)
}

/// The same until Ctrl-C, for a terminal that can do nothing but print: each picture stands below the last one.
pub(super) fn print(daemon: &Daemon, interval: Duration) -> Result<Ending, Trouble> {
    /// Columns of a terminal that does not say how many it has.
    const WIDTH: usize = 80;

    let mut asked = daemon.another(look_thread::PATIENCE)?;
    let mut view = View::default();
    loop {
        view.take(rim::now(), look_thread::look(&mut asked));
        batch::say(&plain(&view, WIDTH))?;
        if daemon.pause(interval) {
            return Ok(Ending::Good);
        }
    }
}

/// The picture as lines of text.
fn plain(view: &View, width: usize) -> String {
    let columns = layout::Columns::for_width(width);
    let (body, _) = layout::body(&view.picture, columns, None, view.style);
    let mut lines = vec![layout::summary(&view.picture, view.style), columns.heads()];
    lines.extend(body);
    lines.extend(view.trouble.as_deref().map(Line::raw));
    lines.push(Line::default());
    let mut text = String::new();
    for line in lines {
        text.push_str(line.to_string().trim_end());
        text.push('\n');
    }
    text
}

fn watch(mut terminal: DefaultTerminal, mut looker: Looker, interval: Duration) -> io::Result<()> {
    let mut view = View {
        style: looks(),
        ..View::default()
    };
    let begun = rim::now();
    let mut next = begun;
    loop {
        let now = rim::now();
        if let Some(look) = looker.told() {
            view.take(now, look);
        }
        if now >= next {
            looker.ask();
            next = now + interval;
        }
        let has_news = view.taken.is_some() || view.trouble.is_some();
        if has_news || now >= begun + FIRST {
            terminal.draw(|frame| draw(frame, &mut view))?;
        }
        let mut wait = next.saturating_duration_since(rim::now());
        if looker.looks() {
            wait = wait.min(TICK);
        }
        if event::poll(wait)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match key.code {
                KeyCode::Esc if view.is_open => view.is_open = false,
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(()),
                KeyCode::Enter => view.open(),
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

    /// Shows everything about the chosen member, the first where none is, or goes back.
    fn open(&mut self) {
        if self.chosen.is_none() {
            self.choose(1);
        }
        self.is_open = !self.is_open && self.chosen().is_some();
    }

    /// The chosen member, if it is still there.
    fn chosen(&self) -> Option<&Member> {
        let mut members = self.picture.clusters.iter().flat_map(|cluster| &cluster.members);
        members.nth(self.chosen?)
    }

    /// Takes a new picture, or says why there is none: the old one stays.
    fn take(&mut self, now: Instant, look: Look) {
        let ago = self.taken.map(|taken| now.saturating_duration_since(taken));
        match look {
            Ok(replies) => {
                let earlier = ago.map(|ago| (&self.picture, ago));
                self.picture = Picture::of(&replies, earlier);
                self.taken = Some(now);
                self.trouble = None;
            }
            Err(trouble) => {
                let age = ago.map(|ago| format!("; this is from {} s ago", ago.as_secs()));
                self.trouble = Some(trouble + &age.unwrap_or_default());
            }
        }
    }
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
    draw_foot(frame, view, detail, foot);
    if let Some(member) = view.chosen().filter(|_| view.is_open) {
        frame.render_widget(layout::member_head(member, looks), heads);
        frame.render_widget(Text::from(layout::member(member, looks)), body);
        return;
    }
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
}

/// What the columns have no room for, and the keys.
fn draw_foot(frame: &mut Frame<'_>, view: &View, detail: Rect, foot: Rect) {
    let looks = view.style;
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
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::admin::admin_thread::{self, AdminDoor};
    use crate::admin::fake::{Fake, Place};

    use look_thread::look;

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
        view.take(now, look(&mut daemon));
        view.take(now + Duration::from_secs(1), look(&mut daemon));
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

        // One member alone, with what it has counted.
        view.open();
        let member = screen(&mut view, 80);
        assert!(
            member[1].starts_with("RTPPROXY1   online   counted"),
            "{member:#?}"
        );
        let row = |at: usize| words(&member[at]);
        assert_eq!(row(2), words("name RTPPROXY1 commands 7 0.0"));
        assert!(
            member[7].starts_with("RTPPROXY1 (127.0.0.1:22222) ACTIVE"),
            "{member:#?}"
        );
        assert!(
            layout::member(view.chosen().unwrap(), view.style)
                .iter()
                .any(|line| line.to_string() == "00:00:01.500 E51 after 0.312 ms"),
        );
        view.open();
        assert_eq!(screen(&mut view, 160), wide);

        // Without the daemon the last picture stays, and a line says why.
        handle.stop();
        // A test beside us that starts a process holds copies of its sockets from its fork to its exec.
        while !daemon.has_ended() || UnixStream::connect(&path).is_ok() {
            std::thread::yield_now();
        }
        view.take(now + Duration::from_secs(4), look(&mut daemon));
        let later = screen(&mut view, 160);
        assert_eq!(later[..7], wide[..7]);
        assert!(
            later[7].starts_with("cannot connect to ") && later[7].contains(&*path.display().to_string()),
            "{later:#?}"
        );
        view.take(
            now + Duration::from_secs(9),
            Err("the daemon does not answer".to_owned()),
        );
        assert_eq!(
            screen(&mut view, 80)[7],
            "the daemon does not answer; this is from 8 s ago"
        );
        // The same as text, for a terminal that is none.
        let text = plain(&view, 80);
        assert!(
            text.contains("\nSupercluster#1  /var/run/rtpproxy.sock") && text.contains("\n  RTPPROXY1"),
            "{text}"
        );
        assert!(
            text.ends_with("\nthe daemon does not answer; this is from 8 s ago\n\n"),
            "{text}"
        );
        assert!(text.is_ascii(), "{text}");
        // A small terminal is no reason to fall over.
        for width in [1, 7, 40] {
            screen(&mut view, width);
        }
    }
}
