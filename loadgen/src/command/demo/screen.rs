//! The demo's live table: redrawn in place on a terminal, a line a second elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use console::{Term, measure_text_width, style, truncate_str};
use loadgen::sink::Snapshot;

use super::ROWS_MAX;
use crate::command::text::{bar, counted, grouped, per_second, rate, ratio};

/// What rates are taken over, so that they can be read.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How often a line is printed where nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Columns of a tenant's bar.
const BAR_WIDTH: usize = 30;

/// A moment of the demo.
pub(super) struct Scene {
    pub(super) elapsed: Duration,
    pub(super) duration: Duration,
    pub(super) acknowledged: u64,
    pub(super) answered: u64,
    pub(super) stored: Snapshot,
}

/// Draws scenes.
pub(super) struct Screen {
    term: Term,
    /// All tenants, in the order in which they are shown.
    tenants: Vec<String>,
    name_width: usize,
    /// Lines on the terminal that the next scene goes over.
    drawn: usize,
    plain_due: Duration,
    /// Series stored, tenant by tenant, at the last moments.
    past: VecDeque<(Duration, BTreeMap<String, u64>)>,
}

impl Screen {
    pub(super) fn new(tenants: &[String]) -> Self {
        let widest = tenants.iter().map(|name| measure_text_width(name)).max().unwrap_or_default();
        Self {
            term: Term::stdout(),
            tenants: tenants.to_vec(),
            name_width: widest.clamp(6, 40),
            drawn: 0,
            plain_due: PLAIN_INTERVAL,
            past: VecDeque::new(),
        }
    }

    pub(super) fn draw(&mut self, scene: &Scene) -> io::Result<()> {
        self.remember(scene);
        if self.term.is_term() {
            self.redraw(scene)
        } else if scene.elapsed >= self.plain_due {
            self.plain_due += PLAIN_INTERVAL;
            writeln!(io::stdout(), "{}", progress_line(scene))
        } else {
            Ok(())
        }
    }

    /// Takes the table off the terminal.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            self.term.clear_last_lines(std::mem::take(&mut self.drawn))?;
        } else if !self.term.is_term() {
            writeln!(io::stdout())?;
        }
        Ok(())
    }

    fn remember(&mut self, scene: &Scene) {
        let series =
            scene.stored.tenants.iter().map(|(name, count)| (name.clone(), count.stored.series)).collect();
        self.past.push_back((scene.elapsed, series));
        // One that is older than the window is kept, to measure from.
        while self.past.get(1).is_some_and(|(then, _)| *then + RATE_WINDOW <= scene.elapsed) {
            self.past.pop_front();
        }
    }

    /// All lines in one write, each over its predecessor, so that nothing flickers.
    fn redraw(&mut self, scene: &Scene) -> io::Result<()> {
        let (height, width) = self.term.size();
        let rows_max = usize::from(height).saturating_sub(8).clamp(3, ROWS_MAX);
        let mut lines = self.rows(scene, rows_max);
        lines.push(String::new());
        lines.push(progress_line(scene));
        let mut text = if self.drawn > 0 { format!("\x1b[{}A\r", self.drawn) } else { String::new() };
        for line in &lines {
            text.push_str(&truncate_str(line, usize::from(width), ""));
            text.push_str("\x1b[K\n");
        }
        // Fewer lines than before: wipe what is left of the old scene below.
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        self.term.write_str(&text)?;
        self.term.flush()
    }

    fn rows(&self, scene: &Scene, rows_max: usize) -> Vec<String> {
        let name_width = self.name_width;
        let counts = || self.tenants.iter().map(|name| (name, scene.stored.tenant(name)));
        let most = counts().map(|(_, count)| count.stored.samples).max().unwrap_or_default();
        let head =
            format!("{:name_width$}  {:>9}  {:>11}  {:>13}", "tenant", "requests", "series/s", "samples");
        let mut lines = vec![style(head).dim().to_string()];
        for (name, count) in counts().take(rows_max) {
            let samples = count.stored.samples;
            lines.push(format!(
                "{}  {:>9}  {:>11}  {:>13}  {}",
                console::pad_str(name, name_width, console::Alignment::Left, Some("…")),
                grouped(count.requests),
                rate(self.series_per_second(scene, name, count.stored.series)),
                grouped(samples),
                style(bar(ratio(samples, most), BAR_WIDTH)).cyan(),
            ));
        }
        if self.tenants.len() > rows_max {
            lines.push(style(format!("… and {} more", self.tenants.len() - rows_max)).dim().to_string());
        }
        lines
    }

    fn series_per_second(&self, scene: &Scene, tenant: &str, series: u64) -> f64 {
        let Some((then, past)) = self.past.front() else { return 0.0 };
        let before = past.get(tenant).copied().unwrap_or_default();
        per_second(series.saturating_sub(before), scene.elapsed.saturating_sub(*then))
    }
}

/// How far it is, and the sums.
fn progress_line(scene: &Scene) -> String {
    const WIDTH: usize = 20;
    let share = scene.elapsed.as_secs_f64() / scene.duration.as_secs_f64();
    let total = scene.stored.total();
    let failed = match scene.answered.saturating_sub(scene.acknowledged) {
        0 => String::new(),
        failed => format!(", {}", style(format!("{} failed", grouped(failed))).red()),
    };
    format!(
        "{:>4.1} s ▕{:WIDTH$}▏ {} in, {} out, {} stored{failed}",
        scene.elapsed.min(scene.duration).as_secs_f64(),
        bar(share, WIDTH),
        counted(scene.answered, "request"),
        grouped(total.requests),
        counted(total.stored.samples, "sample"),
    )
}

#[cfg(test)]
mod tests {
    use loadgen::account::Tally;
    use loadgen::sink::TenantCount;

    use super::*;

    fn scene(seconds: u64, big: u64, small: u64) -> Scene {
        let count = |series| TenantCount {
            requests: 7,
            stored: Tally { series, samples: series, ..Tally::default() },
            ..TenantCount::default()
        };
        let tenants = [("big".to_owned(), count(big)), ("small".to_owned(), count(small))].into();
        Scene {
            elapsed: Duration::from_secs(seconds),
            duration: Duration::from_secs(10),
            acknowledged: 5,
            answered: 6,
            stored: Snapshot { tenants, ..Snapshot::default() },
        }
    }

    #[test]
    fn rows_tell_rates_over_the_last_second() {
        let mut screen = Screen::new(&["big".to_owned(), "small".to_owned()]);
        for (second, big) in [(1, 1_000), (2, 3_000), (3, 9_000)] {
            screen.remember(&scene(second, big, 300));
        }
        let lines = screen.rows(&scene(3, 9_000, 300), 10);
        let plain: Vec<_> = lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert!(plain[1].starts_with("big    ") && plain[1].contains(" 6,000 "), "{plain:?}");
        assert!(plain[2].starts_with("small  ") && plain[2].contains(" 0.0 "), "{plain:?}");
        assert_eq!(screen.rows(&scene(3, 9_000, 300), 1).len(), 3);
    }

    #[test]
    fn the_line_tells_how_far_it_is_and_what_failed() {
        let line = progress_line(&scene(5, 1_000, 0));
        let plain = console::strip_ansi_codes(&line);
        assert_eq!(
            plain,
            " 5.0 s ▕██████████          ▏ 6 requests in, 14 out, 1,000 samples stored, 1 failed"
        );
    }
}
