//! The terminal: whether it takes colours, and a screen of its own that is given back whatever happens.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Stdout, Write},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    },
};
use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Whether what is written there may have colours: on a terminal, where `NO_COLOR` is not set.
pub(super) fn has_colours(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of the terminal that this is; none: it is no terminal, and nothing has to fit.
pub(super) fn width(output: &impl AsFd) -> Option<u16> {
    tcgetwinsize(output).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
}

/// As much of a line as so many columns hold; what is cut ends in an ellipsis.
pub(super) fn cut(line: &str, columns: u16) -> Cow<'_, str> {
    if line.width() <= columns.into() {
        return Cow::Borrowed(line);
    }
    let mut left = usize::from(columns).saturating_sub(1);
    let fits = |letter: &char| {
        let needed = letter.width().unwrap_or_default();
        let fits = needed <= left;
        left = if fits { left - needed } else { 0 };
        fits
    };
    let shown: String = line.chars().take_while(fits).collect();
    Cow::Owned(format!("{}\u{2026}", shown.trim_end()))
}

/// Whether a screen is held just now, also for the panic's hook.
static HELD: Mutex<bool> = Mutex::new(false);

/// The alternate screen, without echo. Dropping it gives the terminal back as it was; so does a panic, before it is told of.
pub(super) struct Screen(Stdout);

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        let mut out = io::stdout();
        terminal::enable_raw_mode()?;
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let screen = Self(io::stdout());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        // From here on it is given back by the drop.
        execute!(out, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Shows these lines, as many and as much of each as there is room for. A line may hold colours.
    pub(super) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        queue!(self.0, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for (row, line) in (0..height).zip(lines) {
            let shown = cut(&line.text, width);
            let (before, after) = line.colour.map_or(("", ""), |colour| (colour, "\u{1b}[0m"));
            queue!(self.0, MoveTo(0, row), Print(format_args!("{before}{shown}{after}")), Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < usize::from(height) {
            queue!(self.0, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        queue!(self.0, EndSynchronizedUpdate)?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, whoever comes first.
fn give_back() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut *held) {
        // A terminal that is gone wants nothing back.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// A line, and how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Without colours.
    pub(super) text: String,
    /// An escape sequence that is ended with the line.
    pub(super) colour: Option<&'static str>,
}

/// Bold, for headings.
pub(super) const BOLD: &str = "\u{1b}[1m";
/// For what went wrong or stands still.
pub(super) const RED: &str = "\u{1b}[31m";
/// For what is of less interest.
pub(super) const DIM: &str = "\u{1b}[2m";

impl Line {
    /// A line.
    pub(super) fn new(text: impl Into<String>, colour: Option<&'static str>) -> Self {
        Self { text: text.into(), colour }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(cut("a line", 6), "a line");
        assert_eq!(cut("a line", 5), "a li\u{2026}");
        assert_eq!(cut("a line", 3), "a\u{2026}");
        // Each of these takes two.
        assert_eq!(cut("\u{6c34}\u{706b}\u{571f}", 5), "\u{6c34}\u{706b}\u{2026}");
        assert_eq!(cut("\u{6c34}\u{706b}\u{571f}", 4), "\u{6c34}\u{2026}");
        assert_eq!(cut("a", 0), "\u{2026}");
    }
}
