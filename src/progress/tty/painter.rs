//! Lines on the terminal: a frame that is redrawn in place by indicatif, and lines above it that stay.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::frame::{Line, Look, Size};
use crate::cli::report::story;

/// Redraws per second, at most.
pub(super) const FRAME_RATE: u8 = 10;
/// The window of a terminal that does not tell.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Draws on standard error.
#[derive(Debug)]
pub(super) struct Painter {
    bars: MultiProgress,
    frame: Option<ProgressBar>,
    /// Lines that stay, not drawn yet.
    pending: String,
    colour: bool,
}

impl Painter {
    /// Nothing is drawn yet.
    pub(super) fn new(colour: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAME_RATE));
        Self { bars, frame: None, pending: String::new(), colour }
    }

    /// A line that stays, with the next frame.
    pub(super) fn say(&mut self, line: &Line) {
        self.pending.push_str(&self.styled(line));
        self.pending.push('\n');
    }

    /// Draws a frame below all that was said.
    pub(super) fn draw(&mut self, lines: &[Line]) {
        self.flush();
        if lines.is_empty() {
            self.clear();
            return;
        }
        let text: Vec<String> = lines.iter().map(|line| self.styled(line)).collect();
        let frame = self.frame.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template is valid");
            self.bars.add(ProgressBar::new_spinner().with_style(style))
        });
        frame.set_message(text.join("\n"));
    }

    /// Takes the frame away; what was said stays.
    pub(super) fn clear(&mut self) {
        if let Some(frame) = self.frame.take() {
            frame.finish_and_clear();
        }
        self.flush();
    }

    /// The window's size now.
    pub(super) fn size() -> Size {
        match rustix::termios::tcgetwinsize(std::io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => USUAL,
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let text = std::mem::take(&mut self.pending);
            self.bars.suspend(|| story(&text));
        }
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
