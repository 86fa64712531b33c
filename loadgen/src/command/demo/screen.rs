//! The demo's live table: bars that are redrawn in place on a terminal, a line a second elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use console::{Term, style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadgen::duration::ms;
use loadgen::sink::Snapshot;

use super::ROWS_MAX;
use crate::command::text::{counted, figure, grouped};

/// How often a line is printed where nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

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
    /// None where nothing can be redrawn.
    bars: Option<MultiProgress>,
    /// The tenants that are shown.
    rows: Vec<(String, ProgressBar)>,
    progress: ProgressBar,
    plain_due: Duration,
}

impl Screen {
    pub(super) fn new(tenants: &[String]) -> anyhow::Result<Self> {
        let terminal = Term::stdout();
        let bars = terminal.is_term().then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        let bar = |template: &str| -> anyhow::Result<ProgressBar> {
            let bar = bars.as_ref().map_or_else(ProgressBar::hidden, |bars| bars.add(ProgressBar::new(1)));
            bar.set_style(ProgressStyle::with_template(template)?.progress_chars("█▉▊▋▌▍▎▏ "));
            Ok(bar)
        };
        let rows_max = usize::from(terminal.size().0).saturating_sub(8).clamp(3, ROWS_MAX);
        let head = bar("{msg:.dim}")?;
        head.set_message(format!(
            "{:20}  {:>9}  {:>11}  {:>13}",
            "tenant", "requests", "samples/s", "samples"
        ));
        let row = |name: &String| Ok((name.clone(), bar("{prefix:20!}  {msg}  {bar:30.cyan}")?));
        let rows = tenants.iter().take(rows_max).map(row).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, bar) in &rows {
            bar.set_prefix(name.clone());
        }
        if tenants.len() > rows_max {
            bar("{msg:.dim}")?.set_message(format!("… and {} more", tenants.len() - rows_max));
        }
        Ok(Self {
            rows, progress: bar("\n{elapsed:>4} ▕{bar:20}▏ {msg}")?, bars, plain_due: PLAIN_INTERVAL
        })
    }

    pub(super) fn draw(&mut self, scene: &Scene) -> io::Result<()> {
        if self.bars.is_none() && scene.elapsed >= self.plain_due {
            self.plain_due += PLAIN_INTERVAL;
            return writeln!(io::stdout(), "{:4.1} s  {}", scene.elapsed.as_secs_f64(), sums(scene));
        }
        let most = scene.stored.tenants.values().map(|count| count.stored.samples).max().unwrap_or_default();
        for (name, bar) in &self.rows {
            let count = scene.stored.tenant(name);
            bar.set_length(most.max(1));
            bar.set_position(count.stored.samples);
            let (requests, samples) = (grouped(count.requests), grouped(count.stored.samples));
            bar.set_message(format!("{requests:>9}  {:>11}  {samples:>13}", figure(bar.per_sec().round())));
        }
        self.progress.set_length(ms(scene.duration));
        self.progress.set_position(ms(scene.elapsed));
        self.progress.set_message(sums(scene));
        Ok(())
    }

    /// Takes the table off the terminal.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.bars.as_ref().map_or_else(|| writeln!(io::stdout()), MultiProgress::clear)
    }
}

fn sums(scene: &Scene) -> String {
    let total = scene.stored.total();
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
