//! The bar of a transfer. indicatif draws it, into a line of a frame instead of a terminal of its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// `cells` wide, brackets included; nothing where there is no room for a bar.
pub(super) fn bar(current: u64, total: u64, cells: usize) -> String {
    let Some(inside) = cells.checked_sub(2).filter(|inside| *inside >= 3) else { return String::new() };
    let Ok(style) = ProgressStyle::with_template(&format!("{{bar:{inside}}}")) else { return String::new() };
    let drawn = Drawn::default();
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::term_like(Box::new(drawn.clone())))
        .with_style(style.progress_chars("=> "))
        .with_position(current.min(total));
    bar.force_draw();
    let text = std::mem::take(&mut *drawn.text.lock().unwrap_or_else(PoisonError::into_inner));
    // Else it would draw its end.
    bar.set_draw_target(ProgressDrawTarget::hidden());
    format!("[{:<inside$.inside$}]", text.trim_end_matches(['\r', '\n']))
}

/// A terminal of one line.
#[derive(Clone, Debug, Default)]
struct Drawn {
    text: Arc<Mutex<String>>,
}

impl TermLike for Drawn {
    fn width(&self) -> u16 {
        u16::MAX
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_its_room_and_as_full_as_its_transfer() {
        for (current, total, cells, want) in [
            (0, 100, 12, "[          ]"),
            (50, 100, 12, "[=====>    ]"),
            (100, 100, 12, "[==========]"),
            // More came than was announced.
            (300, 100, 12, "[==========]"),
            (1, u64::MAX, 12, "[>         ]"),
            (1, 2, 4, ""),
            (1, 2, 0, ""),
        ] {
            assert_eq!(bar(current, total, cells), want, "{current} of {total} in {cells}");
        }
    }
}
