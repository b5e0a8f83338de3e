//! One frame of the live view: pure, from what is running, the time and the size of the window to lines that fit.

use std::collections::BTreeMap;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::super::lines::seconds;
use super::bar::bar;
use super::live::{KEPT_LINES, Live, Running, Transfer};
use crate::cli::report::printable;
use crate::cli::table::size as human;

/// A line and how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::progress) struct Line {
    /// No wider than the window.
    pub(in crate::progress) text: String,
    /// Its colour, where there are colours.
    pub(in crate::progress) look: Look,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::progress) enum Look {
    /// How far the build is.
    Header,
    /// A step that runs or is done.
    Step,
    /// A step from the cache.
    Cached,
    /// A step that failed.
    Failed,
    /// A step that was stopped, something that is waited for.
    Attention,
    /// Details: output, transfers.
    Detail,
}

/// The window, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::progress) struct Size {
    /// Cells of a line.
    pub(in crate::progress) columns: usize,
    /// Lines.
    pub(in crate::progress) rows: usize,
}

/// Transfers shown of one step, or of all exports.
const TRANSFERS: usize = 4;
/// Narrower windows are treated like this one.
const NARROWEST: usize = 20;
/// From this width on there is room for bars, of so many cells.
const WIDE: usize = 80;
const BAR: usize = 22;

/// What is drawn at `now`, in nanoseconds of the build. Never taller than the window less the cursor's line.
pub(super) fn frame(live: &Live, now: u64, size: Size) -> Vec<Line> {
    let room = size.rows.saturating_sub(1).max(2);
    let mut lines = vec![header(live, now, size)];
    let steps: Vec<&Running> = live.steps.values().collect();
    let exports: Vec<Line> = transfers(&live.exports, " => ", TRANSFERS, size).collect();
    let details: Vec<Vec<Line>> = steps.iter().map(|step| state(step, size)).collect();
    // Every step gets its line first, then what it moves or waits for, then its output.
    let after_steps = room.saturating_sub(1 + steps.len());
    let fixed: usize = details.iter().map(Vec::len).sum::<usize>() + exports.len();
    let with_details = fixed <= after_steps;
    let talking = steps.iter().filter(|step| !step.last.is_empty()).count();
    let each = if with_details { (after_steps - fixed).checked_div(talking).unwrap_or(0).min(KEPT_LINES) } else { 0 };
    let all_fit = steps.len() < room;
    let shown = if all_fit { steps.len() } else { room - 2 };
    for (step, details) in steps.iter().zip(details).take(shown) {
        lines.push(with_time(&format!(" => {}", step.name), now.saturating_sub(step.since), Look::Step, size));
        if with_details {
            lines.extend(details);
        }
        let last = step.last.iter().skip(step.last.len().saturating_sub(each));
        lines.extend(last.map(|line| fitting(&format!(" => => {line}"), Look::Detail, size)));
    }
    if !all_fit {
        lines.push(fitting(&format!(" => and {} more", steps.len() - shown), Look::Step, size));
    }
    if with_details {
        lines.extend(exports);
    }
    lines
}

/// What moves, without a build around it: never taller than the window less the cursor's line.
pub(in crate::progress) fn moving(all: &BTreeMap<String, Transfer>, size: Size) -> Vec<Line> {
    let room = size.rows.saturating_sub(1).max(2);
    transfers(all, "", room - 1, size).collect()
}

/// The line that stays of a step that has ended.
pub(super) fn ended(name: &str, status: &str, took: u64, look: Look, size: Size) -> Line {
    let status = if status.is_empty() { String::new() } else { format!("{status} ") };
    with_time(&format!(" => {status}{name}"), took, look, size)
}

/// Text cut to the window's width.
pub(in crate::progress) fn fitting(text: &str, look: Look, size: Size) -> Line {
    Line { text: cut(text, size.columns.max(NARROWEST)), look }
}

fn header(live: &Live, now: u64, size: Size) -> Line {
    let steps = if live.total == 0 { String::new() } else { format!(" ({}/{})", live.ended, live.total) };
    let mut notes = Vec::new();
    if live.cached > 0 {
        notes.push(format!("{} cached", live.cached));
    }
    let waiting = live.steps.values().filter(|step| step.waiting.is_some()).count();
    let running = live.steps.len() - waiting;
    if running > 0 {
        notes.push(format!("{running} running"));
    }
    if waiting > 0 {
        notes.push(format!("{waiting} waiting"));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" {}", notes.join(", ")) };
    fitting(&format!("[+] Building {}{steps}{notes}", seconds(now)), Look::Header, size)
}

fn state(step: &Running, size: Size) -> Vec<Line> {
    let waiting = step.waiting.iter().map(|reason| fitting(&format!(" => => {reason}"), Look::Attention, size));
    waiting.chain(transfers(&step.transfers, " => => ", TRANSFERS, size)).collect()
}

fn transfers<'a>(
    all: &'a BTreeMap<String, Transfer>,
    prefix: &'a str,
    most: usize,
    size: Size,
) -> impl Iterator<Item = Line> + 'a {
    let shown = all.iter().take(most).map(move |(item, transfer)| {
        let total = transfer.total.map_or_else(String::new, |total| format!(" / {}", human(total)));
        let rate = transfer.rate().map_or_else(String::new, |rate| format!(" {}/s", human(rate)));
        let bar = match transfer.total {
            Some(total) if total > 0 && size.columns >= WIDE => format!(" {}", bar(transfer.current, total, BAR)),
            _ => String::new(),
        };
        let moved = format!("{bar} {}{total}{rate}", human(transfer.current));
        let name = printable(&item.replace(['\n', '\t'], " "));
        beside(&format!("{prefix}{name}"), &moved, Look::Detail, size)
    });
    let hidden = all.len().saturating_sub(most);
    shown.chain((hidden > 0).then(|| fitting(&format!("{prefix}and {hidden} more"), Look::Detail, size)))
}

fn with_time(text: &str, took: u64, look: Look, size: Size) -> Line {
    let time = format!(" {}", seconds(took));
    let text = cut(text, size.columns.max(NARROWEST).saturating_sub(time.width()));
    let gap = size.columns.max(NARROWEST).saturating_sub(text.width() + time.width());
    Line { text: format!("{text}{}{time}", " ".repeat(gap)), look }
}

/// Text that may be cut, and an end that may not.
fn beside(text: &str, end: &str, look: Look, size: Size) -> Line {
    let text = cut(text, size.columns.max(NARROWEST).saturating_sub(end.width()));
    fitting(&format!("{text}{end}"), look, size)
}

/// At most `columns` cells; what is left out is told by an ellipsis.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests;
