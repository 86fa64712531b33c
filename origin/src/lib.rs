//! The commit that a program is built from, for its `--version`.
//!
//! This is a macro and not a build script, because cargo builds everything of a package again when its build script has
//! run again: after each commit, the library and every test. A macro has only the file built again that calls it.
//!
//! The result is the same on every machine: no clock, no path, and the same length of the hash in any clone.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro::TokenStream;

/// Digits of the hash that are kept.
const COMMIT_DIGITS: usize = 12;

/// Variables that take precedence over git, for builds outside of a clone.
const COMMIT: &str = "TENANTRY_COMMIT";
const DATE: &str = "TENANTRY_COMMIT_DATE";
/// The commit's date in seconds since 1970, by the convention of reproducible builds.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Expands to `(commit, date)`, two `&'static str`: the first twelve digits of the hash, and a day as `2026-11-26` in
/// UTC. Each comes from the environment (`TENANTRY_COMMIT`, `TENANTRY_COMMIT_DATE` or `SOURCE_DATE_EPOCH`), or else
/// from git. Without either it is empty.
#[proc_macro]
pub fn origin(_: TokenStream) -> TokenStream {
    let checkout = Checkout::of_package();
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let commit = set(COMMIT).or_else(|| checkout.as_ref()?.ask(&["rev-parse", "HEAD"])).unwrap_or_default();
    let commit = commit.get(..COMMIT_DIGITS).unwrap_or(&commit);
    let date = set(DATE)
        .or_else(|| day(&set(EPOCH)?))
        .or_else(|| {
            day(&checkout.as_ref()?.ask(&["show", "-s", "--format=%ct", &format!("{commit}^{{commit}}")])?)
        })
        .unwrap_or_default();
    // The compiler notes variables and files that these read. When one changes, cargo has the caller built again.
    let variables = [COMMIT, DATE, EPOCH].map(|name| format!("option_env!({name:?})")).join(", ");
    let files = checkout.map(|checkout| checkout.files()).unwrap_or_default();
    let files: String =
        files.iter().map(|file| format!("const _: &[u8] = include_bytes!({file:?});")).collect();
    let text = format!("{{ const _: [Option<&str>; 3] = [{variables}]; {files} ({commit:?}, {date:?}) }}");
    // This text can always be parsed; if not, the compiler says so at the macro's call.
    text.parse().unwrap_or_default()
}

/// A working copy of the repository.
struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// That of the package being built. A repository that the sources merely lie in is another one.
    fn of_package() -> Option<Self> {
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
        root.join(".git").exists().then_some(Self { root })
    }

    /// What git answers, without the line's end. `None` if it fails or is not there.
    fn ask(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("git").current_dir(&self.root).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
    }

    /// The files of which one changes when another commit is checked out: the head, the reference that it names, the
    /// file of packed references, and the head's log, which also tells of a reference that was only packed before.
    fn files(&self) -> Vec<String> {
        let reference = self.ask(&["symbolic-ref", "-q", "HEAD"]);
        let names = ["HEAD", "packed-refs", "logs/HEAD"].into_iter().chain(reference.as_deref());
        let paths = names.filter_map(|name| self.ask(&["rev-parse", "--git-path", name]));
        let paths = paths.map(|path| self.root.join(Path::new(&path)));
        paths.filter(|path| path.is_file()).filter_map(|path| path.to_str().map(str::to_owned)).collect()
    }
}

/// The day in UTC of a time in seconds since 1970, as `2026-11-26`.
fn day(seconds: &str) -> Option<String> {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = seconds.trim().parse::<u64>().ok()? / 86_400;
    // Years that begin in March have the leap day at their end. 1970-01-01 is the day 719,468 after 0000-03-01.
    let days = days.checked_add(719_468)?;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            ("0", "1970-01-01"),
            ("68169600", "1972-02-29"),
            ("951782399", "2000-02-28"),
            ("951782400", "2000-02-29"),
            ("951868800", "2000-03-01"),
            ("1795651200", "2026-11-26"),
            ("1798761599", "2026-12-31"),
            ("4107542400", "2100-03-01"),
            (" 0\n", "1970-01-01"),
        ] {
            assert_eq!(day(seconds).as_deref(), Some(expected), "{seconds}");
        }
        for wrong in ["", "-1", "today", "99999999999999999999"] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }
}
