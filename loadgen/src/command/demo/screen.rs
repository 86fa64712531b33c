//! The demo's live table: redrawn in place on a terminal, a line a second elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use console::{Term, style};
use loadgen::sink::TenantCount;

use super::ROWS_MAX;
use crate::command::text::{Table, counted, figure, grouped, per_second};

/// How often a line is printed where nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// A moment of the demo.
pub(super) struct Scene {
    pub(super) elapsed: Duration,
    pub(super) acknowledged: u64,
    pub(super) answered: u64,
    /// What is stored: of each row, and of all that is not shown, too.
    pub(super) rows: Vec<TenantCount>,
    pub(super) total: TenantCount,
}

/// Draws scenes.
pub(super) struct Screen {
    terminal: Term,
    /// What a row is.
    kind: &'static str,
    /// The names of the rows that are shown.
    names: Vec<String>,
    /// How many lines of the last scene are on the terminal.
    lines: usize,
    plain_due: Duration,
}

impl Screen {
    /// `kind` is what the rows with these names are.
    pub(super) fn new(kind: &'static str, names: &[String]) -> Self {
        let terminal = Term::stdout();
        let rows_max = usize::from(terminal.size().0).saturating_sub(8).clamp(3, ROWS_MAX);
        let names = names.iter().take(rows_max).cloned().collect();
        Self { terminal, kind, names, lines: 0, plain_due: PLAIN_INTERVAL }
    }

    pub(super) fn draw(&mut self, scene: &Scene) -> io::Result<()> {
        let seconds = scene.elapsed.as_secs_f64();
        if self.terminal.is_term() {
            self.clear()?;
            let text = format!("{}\n{seconds:4.1} s  {}", self.table(scene), sums(scene));
            self.lines = text.lines().count();
            self.terminal.write_line(&text)?;
        } else if scene.elapsed >= self.plain_due {
            self.plain_due += PLAIN_INTERVAL;
            writeln!(io::stdout(), "{seconds:4.1} s  {}", sums(scene))?;
        }
        Ok(())
    }

    /// Takes the table off the terminal.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear_last_lines(std::mem::take(&mut self.lines))
    }

    fn table(&self, scene: &Scene) -> Table {
        let mut table = Table::new([self.kind, "requests", "samples", "samples/s"]);
        for (name, count) in self.names.iter().zip(&scene.rows) {
            let samples = count.stored.samples;
            let rate = per_second(samples, scene.elapsed).round();
            table.row([name.clone(), grouped(count.requests), grouped(samples), figure(rate)]);
        }
        table
    }
}

fn sums(scene: &Scene) -> String {
    let total = &scene.total;
    let failed = match scene.answered.saturating_sub(scene.acknowledged) {
        0 => String::new(),
        failed => format!(", {}", style(format!("{} failed", grouped(failed))).red()),
    };
    format!(
        "{} in, {} out, {} stored{failed}",
        counted(scene.answered, "request"),
        grouped(total.requests),
        counted(total.stored.samples, "sample"),
    )
}
