//! The terminal: whether it takes colours, and a screen of its own that is given back whatever happens.

use std::{
    io::{self, IsTerminal, Stdout, Write},
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

/// Whether what is written there may have colours: on a terminal, where `NO_COLOR` is not set.
pub(super) fn has_colours(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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
            let shown: String = line.text.chars().take(width.into()).collect();
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
