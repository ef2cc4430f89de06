//! The picture on a terminal, and the keys. Part of the rim.

use core::time::Duration;
use std::io;
use std::time::Instant;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::super::Ending;
use super::super::daemon::{Daemon, Trouble};
use super::picture::{Picture, cluster_names};
use crate::sync;

/// Lines that a page key moves.
const PAGE: u16 = 10;

/// What is on the screen.
#[derive(Default)]
struct View {
    picture: Picture,
    /// When the picture was taken; `None` before the first.
    taken: Option<Instant>,
    /// Why there is no newer one.
    trouble: Option<String>,
    table: TableState,
}

/// Shows the clusters anew each `interval` until a key ends it.
pub(super) fn run(mut daemon: Daemon, interval: Duration) -> Result<Ending, Trouble> {
    let terminal = ratatui::try_init().map_err(Trouble::Streams)?;
    let ending = watch(terminal, &mut daemon, interval);
    // The terminal is the user's again, whatever happened.
    ratatui::restore();
    ending.map_err(Trouble::Streams).map(|()| Ending::Good)
}

fn watch(mut terminal: DefaultTerminal, daemon: &mut Daemon, interval: Duration) -> io::Result<()> {
    let mut view = View::default();
    let mut next = sync::now();
    loop {
        let now = sync::now();
        if now >= next {
            view.look(now, daemon);
            next = sync::now() + interval;
        }
        terminal.draw(|frame| draw(frame, &mut view))?;
        if event::poll(next.saturating_duration_since(sync::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => view.table.scroll_down_by(1),
                KeyCode::Up | KeyCode::Char('k') => view.table.scroll_up_by(1),
                KeyCode::PageDown | KeyCode::Char(' ') => view.table.scroll_down_by(PAGE),
                KeyCode::PageUp => view.table.scroll_up_by(PAGE),
                KeyCode::Home => view.table.select_first(),
                KeyCode::End => view.table.select_last(),
                _ => {}
            }
        }
    }
}

impl View {
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
    const HEADS: [&str; 11] = [
        "NAME", "ADDRESS", "STATE", "STATUS", "WEIGHT", "SESSIONS", "LOAD", "BOUND", "DELAY", "CMD/S",
        "REASON",
    ];
    let widths = [20, 22, 8, 10, 7, 15, 8, 9, 11, 9].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Min(20)]);

    let [table, foot] = Layout::vertical([Constraint::Min(2), Constraint::Length(1)]).areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let shown = Table::new(rows(&view.picture), widths)
        .header(Row::new(HEADS).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(bold);
    frame.render_stateful_widget(shown, table, &mut view.table);

    let foot_line = match &view.trouble {
        Some(trouble) => Line::styled(trouble.as_str(), Style::new().fg(Color::Red)),
        None => Line::from("q: quit   arrows, page keys: scroll"),
    };
    frame.render_widget(foot_line, foot);
}

fn rows(picture: &Picture) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for cluster in &picture.clusters {
        let blank = || Cell::from("");
        let cells = [
            Cell::from(&*cluster.name),
            Cell::from(&*cluster.address),
            blank(),
            blank(),
            blank(),
            blank(),
            blank(),
            Cell::from(&*cluster.bound),
            blank(),
            Cell::from(rate(cluster.rate)),
        ];
        rows.push(Row::new(cells).style(Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD)));
        for member in &cluster.members {
            let style = match (&*member.state, &*member.status) {
                ("online", "ACTIVE") => Style::new(),
                ("online", _) => Style::new().fg(Color::Yellow),
                _ => Style::new().fg(Color::Red),
            };
            let cells = [
                format!("  {}", member.name),
                member.address.clone(),
                member.state.clone(),
                member.status.clone(),
                member.weight.clone(),
                format!("{}/{}", member.sessions, member.capacity),
                member.utilization.clone(),
                member.bound.clone(),
                member.delay.clone(),
                rate(member.rate),
                member.reason.clone(),
            ];
            rows.push(Row::new(cells.map(Cell::from)).style(style));
        }
    }
    rows
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(String::new, |rate| format!("{rate:.1}"))
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
        let now = sync::now();
        view.look(now, &mut daemon);
        view.look(now + Duration::from_secs(1), &mut daemon);
        let lines = screen(&mut view, 150);
        assert!(
            lines[0].starts_with("NAME ") && lines[0].ends_with("REASON"),
            "{lines:#?}"
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(&lines[1]),
            ["Supercluster#1", "/var/run/rtpproxy.sock", "3", "0.0"]
        );
        let member =
            "RTPPROXY1 127.0.0.1:22222 online ACTIVE 100 0/2500 0.0% 0 0.312 ms 0.0 answers, since 90 s";
        assert_eq!(words(&lines[2]), words(member));
        assert!(
            lines[5].contains("RTPPROXY3") && lines[5].contains("offline"),
            "{lines:#?}"
        );
        assert_eq!(lines[8], "q: quit   arrows, page keys: scroll");

        // Without the daemon the last picture stays, and the foot says why.
        handle.stop();
        view.look(now + Duration::from_secs(2), &mut daemon);
        let later = screen(&mut view, 150);
        assert_eq!(later[..8], lines[..8]);
        assert!(
            later[8].starts_with("cannot connect to ") && later[8].contains(&*path.display().to_string()),
            "{later:#?}"
        );
        // A small terminal is no reason to fall over.
        for width in [1, 7, 40] {
            screen(&mut view, width);
        }
    }
}
