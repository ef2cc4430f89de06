//! How the live view looks: which columns a width has room for, and the lines. Pure.

use core::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::picture::{Cluster, Member, Picture};

/// Load from which a member is shown as busy, and as full, in percent.
const BUSY: f64 = 70.0;
const FULL: f64 = 90.0;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Looks {
    colours: bool,
    blocks: bool,
}

impl Looks {
    /// Colours or none; block characters, or those of ASCII.
    pub(super) fn new(colours: bool, blocks: bool) -> Self {
        Self { colours, blocks }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// Trouble.
    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn condition(self, member: &Member) -> Style {
        match member.condition() {
            "online" => self.colour(Color::Green),
            "offline" => self.bad(),
            _ => self.colour(Color::Yellow),
        }
    }

    fn load(self, percent: f64) -> Style {
        match percent {
            _ if percent >= FULL => self.bad(),
            _ if percent >= BUSY => self.colour(Color::Yellow),
            _ => self.colour(Color::Green),
        }
    }
}

/// What is read once.
pub(super) fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// Widths of the columns; 0 is a column that there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    name: usize,
    address: usize,
    bar: usize,
    weight: usize,
    commands: usize,
    reason: usize,
}

const CONDITION: usize = 9;
const PERCENT: usize = 4;
const SESSIONS: usize = 11;
const RATE: usize = 7;
const DELAY: usize = 8;

impl Columns {
    /// What fits: at 80 the name, a bar and the figures that change; more as there is room.
    pub(super) fn for_width(width: usize) -> Self {
        let mut columns = Self {
            name: 18,
            address: 0,
            bar: 0,
            weight: 0,
            commands: 0,
            reason: 0,
        };
        let mut left = width.saturating_sub(columns.name + CONDITION + PERCENT + SESSIONS + RATE + DELAY + 5);
        // In the order of what is missed most; each with the blank before it.
        for (column, wanted) in [
            (&mut columns.bar, 10),
            (&mut columns.weight, 6),
            (&mut columns.address, 22),
            (&mut columns.commands, RATE),
            (&mut columns.reason, 24),
        ] {
            if left <= wanted {
                break;
            }
            *column = wanted;
            left -= wanted + 1;
        }
        let of_name = left.min(14);
        columns.name += of_name;
        if columns.reason > 0 {
            columns.reason += left - of_name;
        }
        columns
    }

    /// The line above the members.
    pub(super) fn heads(self) -> Line<'static> {
        let mut row = Row::default();
        row.left(self.name, "  MEMBER", Style::new());
        row.left(self.address, "ADDRESS", Style::new());
        row.left(CONDITION, "STATE", Style::new());
        row.left(self.bar, "LOAD", Style::new());
        row.right(PERCENT, if self.bar > 0 { "" } else { "LOAD" }, Style::new());
        row.right(SESSIONS, "SESSIONS", Style::new());
        row.right(self.weight, "WEIGHT", Style::new());
        row.right(RATE, "CALLS/S", Style::new());
        row.right(self.commands, "CMDS/S", Style::new());
        row.right(DELAY, "DELAY", Style::new());
        row.left(self.reason, "REASON", Style::new());
        row.line().style(Style::new().add_modifier(Modifier::REVERSED))
    }
}

/// Cells of one line, each of its width, with a blank between two.
#[derive(Default)]
struct Row {
    spans: Vec<Span<'static>>,
}

impl Row {
    fn left(&mut self, width: usize, text: &str, style: Style) {
        self.cell(width, format!("{:<width$}", cut(text, width)), style);
    }

    fn right(&mut self, width: usize, text: &str, style: Style) {
        self.cell(width, format!("{:>width$}", cut(text, width)), style);
    }

    fn cell(&mut self, width: usize, text: String, style: Style) {
        if width == 0 {
            return;
        }
        if !self.spans.is_empty() {
            self.spans.push(Span::raw(" "));
        }
        self.spans.push(Span::styled(text, style));
    }

    fn line(self) -> Line<'static> {
        Line::from(self.spans)
    }
}

/// `text` in at most so many characters; one that is longer ends in a dot for each that is meant.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}{}", &".."[..width.min(2)])
}

/// The first line: all clusters together.
pub(super) fn summary(picture: &Picture, looks: Looks) -> Line<'static> {
    let clusters = &picture.clusters;
    let members = || clusters.iter().flat_map(|cluster| &cluster.members);
    let online = members().filter(|member| member.state == "online").count();
    let all = members().count();
    let bound: u64 = clusters
        .iter()
        .filter_map(|cluster| cluster.bound.parse::<u64>().ok())
        .sum();
    let sum = |of: fn(&Cluster) -> Option<f64>| {
        let known = clusters.iter().filter_map(of).reduce(|a, b| a + b);
        rate(known)
    };
    let state = if online == all { Style::new() } else { looks.bad() };
    let up = picture
        .uptime
        .map(|uptime| format!("   up {}", span(uptime)))
        .unwrap_or_default();
    Line::from(vec![
        Span::styled("rtp_cluster", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("   "),
        Span::styled(format!("{online} of {all} online"), state),
        Span::raw(format!(
            "   {bound} calls   {} calls/s   {} commands/s{up}",
            sum(|cluster| cluster.rates.calls),
            sum(|cluster| cluster.rates.commands),
        )),
    ])
}

/// `59s`, `12m`, `5h 3m`, `4d 5h`
fn span(time: Duration) -> String {
    let (minutes, hours, days) = (
        time.as_secs() / 60,
        time.as_secs() / 3_600,
        time.as_secs() / 86_400,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{}s", time.as_secs()),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// The lines of all clusters, and which of them is that of the chosen member.
pub(super) fn body(
    picture: &Picture,
    columns: Columns,
    chosen: Option<usize>,
    looks: Looks,
) -> (Vec<Line<'static>>, Option<usize>) {
    let (mut lines, mut at, mut number) = (Vec::new(), None, 0);
    for cluster in &picture.clusters {
        lines.push(cluster_line(cluster, looks));
        for member in &cluster.members {
            let is_chosen = chosen == Some(number);
            if is_chosen {
                at = Some(lines.len());
            }
            let line = member_line(member, columns, is_chosen, looks);
            lines.push(line);
            number += 1;
        }
    }
    (lines, at)
}

fn cluster_line(cluster: &Cluster, looks: Looks) -> Line<'static> {
    let online = cluster
        .members
        .iter()
        .filter(|member| member.state == "online")
        .count();
    let bold = looks.colour(Color::Cyan).add_modifier(Modifier::BOLD);
    let state = if cluster.state == "draining" {
        Span::styled("   DRAINING", looks.colour(Color::Yellow))
    } else {
        Span::raw("")
    };
    Line::from(vec![
        Span::styled(cluster.name.clone(), bold),
        Span::raw(format!("  {}", cluster.address)),
        Span::raw(format!(
            "   {online}/{} online   {} calls   {}/s",
            cluster.members.len(),
            cluster.bound,
            rate(cluster.rates.calls)
        )),
        state,
    ])
}

fn member_line(member: &Member, columns: Columns, is_chosen: bool, looks: Looks) -> Line<'static> {
    let plain = Style::new();
    let mut row = Row::default();
    let mark = if is_chosen { "> " } else { "  " };
    row.left(columns.name, &format!("{mark}{}", member.name), plain);
    row.left(columns.address, &member.address, plain);
    row.left(CONDITION, member.condition(), looks.condition(member));
    let load = member.load();
    let style = load.map_or(plain, |percent| looks.load(percent));
    row.left(
        columns.bar,
        &bar(load.unwrap_or_default(), columns.bar, looks.blocks),
        style,
    );
    let percent = load.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}%"));
    row.right(PERCENT, &percent, style);
    let sessions = if member.sessions == "UNKNOWN" {
        "-"
    } else {
        &*member.sessions
    };
    row.right(SESSIONS, &format!("{sessions}/{}", member.capacity), plain);
    row.right(columns.weight, &member.weight, plain);
    row.right(RATE, &rate(member.rates.calls), plain);
    row.right(columns.commands, &rate(member.rates.commands), plain);
    let delay = member.delay.strip_suffix(" ms").and_then(|ms| ms.parse().ok());
    row.right(DELAY, &delay.map_or_else(|| "-".to_owned(), milliseconds), plain);
    row.left(columns.reason, &member.reason, plain);
    let line = row.line();
    if is_chosen {
        line.style(Style::new().add_modifier(Modifier::BOLD))
    } else {
        line
    }
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn milliseconds(time: f64) -> String {
    if time < 100.0 {
        format!("{time:.2}ms")
    } else {
        format!("{time:.0}ms")
    }
}

/// A bar of so many cells; with blocks to an eighth of one.
fn bar(percent: f64, width: usize, blocks: bool) -> String {
    const EIGHTHS: [&str; 8] = [
        "", "\u{258f}", "\u{258e}", "\u{258d}", "\u{258c}", "\u{258b}", "\u{258a}", "\u{2589}",
    ];
    let full = u32::try_from(width * 8).unwrap_or(u32::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the width"
    )]
    let mut eighths = (percent.clamp(0.0, 100.0) / 100.0 * f64::from(full)).round() as usize;
    if percent > 0.0 {
        // Little is not nothing.
        eighths = eighths.max(if blocks { 1 } else { 8 });
    }
    let (whole, part) = (eighths / 8, eighths % 8);
    if blocks {
        format!(
            "{}{}",
            "\u{2588}".repeat(whole),
            EIGHTHS.get(part).copied().unwrap_or_default()
        )
    } else {
        "#".repeat(whole)
    }
}

/// Everything about one member: what it is on the left, what it has counted on the right.
pub(super) fn member(member: &Member, looks: Looks) -> Vec<Line<'static>> {
    const FACT: usize = 20;
    const VALUE: usize = 22;
    const COUNTER: usize = 16;
    const COUNT: usize = 10;

    let (facts, counters) = (&member.facts, &member.counters);
    let rows = 0..facts.len().max(counters.len());
    let line = |at: usize| {
        let mut row = Row::default();
        let (name, value) = facts.get(at).map_or(("", ""), |(name, value)| (name, value));
        // The reason is told below, where there is room for it.
        let value = if name == "reason" { "see below" } else { value };
        row.left(FACT, name, faint());
        row.left(VALUE, value, Style::new());
        if let Some(counter) = counters.get(at) {
            let grows = counter.rate.is_some_and(|rate| rate > 0.0);
            let style = match (counter.is_bad, grows) {
                (true, true) => looks.bad(),
                (true, false) if counter.count > 0 => looks.colour(Color::Yellow),
                _ => Style::new(),
            };
            row.left(COUNTER, &counter.name, faint());
            row.right(COUNT, &counter.count.to_string(), style);
            row.right(RATE, &rate(counter.rate), style);
        }
        row.line()
    };
    let mut lines: Vec<Line<'static>> = rows.map(line).collect();
    if !member.errors.is_empty() {
        lines.push(Line::default());
        lines.push(Line::styled("failed, or took over 100 ms", faint()));
        lines.extend(member.errors.iter().cloned().map(Line::raw));
    }
    lines
}

/// The line above them.
pub(super) fn member_head(member: &Member, looks: Looks) -> Line<'static> {
    Line::from(vec![
        Span::styled(member.name.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("   "),
        Span::styled(member.condition().to_owned(), looks.condition(member)),
        Span::raw("   counted since the start of the daemon, and a second"),
    ])
}

/// What the columns have no room for.
pub(super) fn detail(member: &Member) -> Line<'_> {
    let Member {
        name,
        address,
        status,
        bound,
        reason,
        ..
    } = member;
    Line::raw(format!(
        "{name} ({address}) {status}, {bound} bound here: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_of_80_has_room_for_a_bar_and_what_changes() {
        for width in 0..300 {
            let columns = Columns::for_width(width);
            let line = columns.heads();
            assert!(
                width < 62 || line.width() <= width,
                "{width}: {} {columns:?}",
                line.width()
            );
        }
        let columns = Columns::for_width(80);
        assert!(columns.bar > 0 && columns.weight > 0, "{columns:?}");
        assert_eq!(columns.address, 0);
        assert!(Columns::for_width(200).reason > 0);
    }

    #[test]
    fn bars_grow_with_the_load_and_never_beyond_their_width() {
        assert_eq!(bar(0.0, 10, false), "");
        assert_eq!(bar(0.1, 10, false), "#");
        assert_eq!(bar(50.0, 10, false), "#####");
        assert_eq!(bar(900.0, 10, false), "##########");
        assert_eq!(bar(0.1, 10, true), "\u{258f}");
        assert_eq!(bar(25.0, 10, true), "\u{2588}\u{2588}\u{258c}");
        assert_eq!(bar(100.0, 10, true).chars().count(), 10);
    }

    #[test]
    fn long_texts_end_in_dots() {
        assert_eq!(cut("RTPPROXY1", 9), "RTPPROXY1");
        assert_eq!(cut("frankfurt-media-07", 10), "frankfur..");
        assert_eq!((cut("abc", 1), cut("abc", 0)), (".".to_owned(), String::new()));
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(
            [of(59), of(750), of(18_180), of(363_600)],
            ["59s", "12m", "5h 3m", "4d 5h"]
        );
    }
}
