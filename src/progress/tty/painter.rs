//! Lines on the terminal: a frame that is redrawn in place, and lines above it that stay.
//!
//! - What a redraw needs is one write, so that no half of a frame is ever seen, and nobody who is killed leaves the
//!   terminal in another mode.
//! - The frame stays on the lines it stood on, however the window was made narrower meanwhile: a terminal that wraps its
//!   lines again ([`Reflow`]) has moved it, so the lines of the old frame are counted as they stand now.
//! - A frame never wraps, even where the terminal takes a character for wider than we do.
//!
//! Does not clear what was scrolled away while the window became lower: no terminal lets a program do that. A terminal that
//! tells its new width late, and wraps wide characters though it is told not to (tmux does both), keeps some lines of the
//! frame that was drawn in between.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::frame::{Line, Look, Size};
use crate::cli::report::story;
use crate::config::Reflow;

/// Redraws per second, at most.
pub(in crate::progress) const FRAME_RATE: u8 = 10;
/// The window of a terminal that does not tell.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// What follows is shown at once, where the terminal knows that; and the end of it.
const AT_ONCE: [&str; 2] = ["\u{1b}[?2026h", "\u{1b}[?2026l"];
/// Lines are cut instead of wrapped; and wrapped again.
const CUT: [&str; 2] = ["\u{1b}[?7l", "\u{1b}[?7h"];
/// Clears the line. Who clears its rest only, leaves it as long as it was for a terminal that wraps it again.
const CLEAR: &str = "\u{1b}[2K";
/// Goes to the next line.
const DOWN: &str = "\u{1b}[B";

/// Draws on standard error.
#[derive(Debug)]
pub(in crate::progress) struct Painter {
    /// The lines of the frame as they stand, and the window's columns when they were drawn.
    drawn: Vec<Line>,
    columns: usize,
    /// Lines that stay, not drawn yet.
    pending: String,
    colour: bool,
    reflow: Reflow,
}

impl Painter {
    /// Nothing is drawn yet.
    pub(in crate::progress) fn new(colour: bool, reflow: Reflow) -> Self {
        Self { drawn: Vec::new(), columns: 0, pending: String::new(), colour, reflow }
    }

    /// A line that stays, with the next frame.
    pub(in crate::progress) fn say(&mut self, line: &Line) {
        self.pending.push_str(&self.styled(line));
        self.pending.push('\n');
    }

    /// Draws a frame below all that was said.
    pub(in crate::progress) fn draw(&mut self, lines: Vec<Line>, size: Size) {
        let bytes = self.paint(lines, size);
        if !bytes.is_empty() {
            story(&bytes);
        }
    }

    /// Takes the frame away; what was said stays.
    pub(in crate::progress) fn clear(&mut self) {
        self.draw(Vec::new(), Self::size());
    }

    /// The window's size now.
    pub(in crate::progress) fn size() -> Size {
        match rustix::termios::tcgetwinsize(std::io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => USUAL,
        }
    }

    /// What brings the terminal from the last frame to this one; nothing where they are the same.
    fn paint(&mut self, lines: Vec<Line>, size: Size) -> String {
        let resized = !self.drawn.is_empty() && size.columns != self.columns;
        if self.pending.is_empty() && !resized && lines == self.drawn {
            return String::new();
        }
        let mut out = AT_ONCE[0].to_owned();
        let above: usize = match self.reflow {
            Reflow::Wraps if resized => self.drawn.iter().map(|line| rows(&line.text, size.columns)).sum(),
            _ => self.drawn.len(),
        };
        let up = if above > 0 { format!("\r\u{1b}[{above}A") } else { String::new() };
        out.push_str(&up);
        // In a window of the same size lines are written over each other: nothing goes blank in between.
        let over = self.pending.is_empty() && !resized && lines.len() >= self.drawn.len();
        if !over {
            // Line by line: who clears the whole screen at once moves what stood there into the terminal's history.
            out.push_str(&[CLEAR, DOWN].concat().repeat(above));
            out.push_str(&up);
            out.push_str(&std::mem::take(&mut self.pending));
        }
        out.push_str(CUT[0]);
        for (at, line) in lines.iter().enumerate() {
            if over && self.drawn.get(at).is_some_and(|old| old.text.width() > line.text.width()) {
                out.push_str(CLEAR);
            }
            out.push_str(&self.styled(line));
            out.push('\n');
        }
        out.push_str(CUT[1]);
        out.push_str(AT_ONCE[1]);
        self.drawn = lines;
        self.columns = size.columns;
        out
    }

    fn styled(&self, line: &Line) -> String {
        let code = match line.look {
            _ if !self.colour => "",
            Look::Step => "",
            Look::Header => "1",
            Look::Cached => "34",
            Look::Failed => "31",
            Look::Attention => "33",
            Look::Detail => "2",
        };
        if code.is_empty() { line.text.clone() } else { format!("\u{1b}[{code}m{}\u{1b}[0m", line.text) }
    }
}

/// Lines of the screen that a text takes in a window of so many columns.
fn rows(text: &str, columns: usize) -> usize {
    let (mut rows, mut used) = (1, 0);
    for width in text.chars().map(|c| c.width().unwrap_or(0)) {
        if used + width > columns && used > 0 {
            rows += 1;
            used = 0;
        }
        used += width;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), look: Look::Step }
    }

    /// What is written, with its control sequences readable and those of every frame left out.
    fn painted(painter: &mut Painter, lines: &[&str], columns: usize) -> String {
        let bytes = painter.paint(lines.iter().map(|text| line(text)).collect(), Size { columns, rows: 24 });
        if bytes.is_empty() {
            return bytes;
        }
        let inner = bytes.strip_prefix(AT_ONCE[0]).and_then(|rest| rest.strip_suffix(AT_ONCE[1])).expect("one frame");
        let inner = inner.replace(&[CLEAR, DOWN].concat(), "#").replace(CLEAR, "_");
        inner.replace(CUT[0], "{").replace(CUT[1], "}").replace('\u{1b}', "^").replace('\r', "<").replace('\n', "|")
    }

    #[test]
    fn a_frame_is_written_over_the_last_one() {
        let mut painter = Painter::new(false, Reflow::Wraps);
        assert_eq!(painted(&mut painter, &["head", "a step"], 10), "{head|a step|}");
        assert_eq!(painted(&mut painter, &["head", "a step"], 10), "", "nothing changed, nothing is written");
        assert_eq!(painted(&mut painter, &["head", "0123456789"], 10), "<^[2A{head|0123456789|}");
        assert_eq!(painted(&mut painter, &["head", "a"], 10), "<^[2A{head|_a|}");
        assert_eq!(painted(&mut painter, &["head"], 10), "<^[2A##<^[2A{head|}");
        painter.say(&line("said, and wider than the window"));
        assert_eq!(painted(&mut painter, &["head"], 10), "<^[1A#<^[1Asaid, and wider than the window|{head|}");
        assert_eq!(painted(&mut painter, &[], 10), "<^[1A#<^[1A{}");
        assert_eq!(painted(&mut painter, &[], 10), "");
    }

    #[test]
    fn a_frame_that_the_terminal_wrapped_again_is_found() {
        let wide = ["[+] Building 1.0s", " => a step that is long", " => 構建成功構建成功"];
        for (reflow, columns, above) in
            [(Reflow::Wraps, 10, 2 + 3 + 2), (Reflow::Wraps, 200, 3), (Reflow::Cuts, 10, 3), (Reflow::Wraps, 24, 3)]
        {
            let mut painter = Painter::new(false, reflow);
            painted(&mut painter, &wide, 40);
            let written = painted(&mut painter, &["head"], columns);
            let up = format!("<^[{above}A");
            assert_eq!(written, format!("{up}{}{up}{{head|}}", "#".repeat(above)), "{reflow:?} {columns}");
        }
    }

    #[test]
    fn a_wide_character_does_not_stand_on_two_lines() {
        assert_eq!(rows("", 10), 1);
        assert_eq!(rows("0123456789", 10), 1);
        assert_eq!(rows("0123456789a", 10), 2);
        assert_eq!(rows("012345678構", 10), 2);
        assert_eq!(rows("構構構", 5), 2);
        assert_eq!(rows("構", 1), 1);
    }

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        let failed = Line { text: "x".to_owned(), look: Look::Failed };
        assert_eq!(Painter::new(true, Reflow::Wraps).styled(&failed), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Painter::new(false, Reflow::Wraps).styled(&failed), "x");
    }
}
