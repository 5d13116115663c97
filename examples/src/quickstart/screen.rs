use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use super::picture::{Picture, Row, number};

/// How many of the latest messages stand below the table.
const MESSAGES: usize = 8;
/// How often a line about the fleet is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// Fits the usual 80 columns.
const WIDTH: usize = 79;

/// Where the scenario is shown: a table redrawn in place, or lines.
pub struct Screen {
    out: Box<dyn Write + Send>,
    /// Lines drawn that the next drawing replaces; none on what is no terminal.
    drawn: Option<usize>,
    messages: VecDeque<String>,
    next_line: Duration,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Screen {
    /// Standard output: a table if it is a terminal, otherwise lines.
    #[must_use]
    pub fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { drawn: terminal.then_some(0), ..Self::lines(io::stdout()) }
    }

    /// Lines, to anywhere.
    #[must_use]
    pub fn lines(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), drawn: None, messages: VecDeque::new(), next_line: Duration::ZERO }
    }

    /// Reports something that happened.
    pub(super) fn say(&mut self, elapsed: Duration, message: impl fmt::Display) -> io::Result<()> {
        let line = format!("{:>6.1} s  {message}", elapsed.as_secs_f64());
        if self.drawn.is_none() {
            return writeln!(self.out, "{line}");
        }
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(line);
        Ok(())
    }

    /// Shows the fleet.
    pub(super) fn show(&mut self, picture: &Picture) -> io::Result<()> {
        let Some(drawn) = self.drawn else {
            if picture.elapsed >= self.next_line {
                self.next_line = picture.elapsed + LINE_INTERVAL;
                writeln!(self.out, "{:>6.1} s  {}", picture.elapsed.as_secs_f64(), summary(picture))?;
            }
            return Ok(());
        };
        let lines = table(picture, self.messages.make_contiguous());
        // Up to where the last drawing began, and clear from there to the end of the screen.
        let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
        write!(self.out, "{up}\r\x1b[J")?;
        for line in &lines {
            writeln!(self.out, "{line}")?;
        }
        self.drawn = Some(lines.len());
        self.out.flush()
    }
}

/// Cuts a line that would wrap: the next drawing counts lines.
fn cut(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}

fn table(picture: &Picture, messages: &[String]) -> Vec<String> {
    let mut lines = vec![
        format!("{:>6.1} s  {}", picture.elapsed.as_secs_f64(), totals(picture)),
        String::new(),
        format!("  {:<22} {:<6} {:<19} {:>8} {:>9}", "shard", "owner", "stage", "records", "lag"),
    ];
    for row in &picture.rows {
        let owner = row.owner.as_deref().unwrap_or("-");
        let lag = row.behind.map_or("-".to_owned(), |behind| format!("{} ms", behind.as_millis()));
        lines.push(format!(
            "  {:<22} {owner:<6} {:<19} {:>8} {lag:>9}",
            row.shard.as_str(),
            row.stage,
            row.records
        ));
    }
    lines.push(String::new());
    lines.extend(messages.iter().cloned());
    lines.iter().map(|line| cut(line)).collect()
}

fn totals(picture: &Picture) -> String {
    let totals = picture.totals;
    format!(
        "put {}, delivered {}, awaited {}, duplicates {}",
        totals.put, totals.delivered, totals.awaited, totals.duplicates
    )
}

/// The fleet in one line.
fn summary(picture: &Picture) -> String {
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in &picture.rows {
        let group = match &row.owner {
            _ if row.ended => "ended".to_owned(),
            Some(owner) => owner.clone(),
            None => "free".to_owned(),
        };
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((group, vec![row])),
        }
    }
    groups.sort_by(|(a, _), (b, _)| a.cmp(b));
    let groups = groups.iter().map(|(name, rows)| {
        let shards: Vec<_> = rows.iter().map(|row| number(&row.shard)).collect();
        format!("{name}: {}", shards.join(" "))
    });
    format!("{} | {}", totals(picture), groups.collect::<Vec<_>>().join(", "))
}
