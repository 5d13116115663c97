//! Where output goes, and the question before a write.

use std::fmt::Display;
use std::io::{BufRead, Write};

use serde::Serialize;

use crate::error::{CliError, CliErrorKind};

/// The terminal, or what stands for it in a test.
pub struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    input: Option<&'a mut dyn BufRead>,
    json: bool,
    clears: bool,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("json", &self.json).finish_non_exhaustive()
    }
}

impl<'a> Console<'a> {
    /// Creates a console. `input` is where a person answers; none if nobody is there to ask.
    pub fn new(
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
        input: Option<&'a mut dyn BufRead>,
        json: bool,
    ) -> Self {
        Self { out, err, input, json, clears: false }
    }

    /// Whether a live view clears the screen before it is shown again. Default no.
    #[must_use]
    pub const fn clearing(mut self, clears: bool) -> Self {
        self.clears = clears;
        self
    }

    /// Whether output is JSON.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Shows a report: as JSON, or as text for people.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn show(&mut self, report: &(impl Serialize + Display)) -> Result<(), CliError> {
        if self.json {
            let text = serde_json::to_string_pretty(report)
                .map_err(|error| CliError::new(CliErrorKind::Output, "no JSON").with_source(error))?;
            writeln!(self.out, "{text}")?;
        } else {
            writeln!(self.out, "{}", report.to_string().trim_end())?;
        }
        Ok(())
    }

    /// Shows one state of a live view: as a line of JSON, or on a cleared screen.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn show_again(&mut self, report: &(impl Serialize + Display), first: bool) -> Result<(), CliError> {
        if self.json {
            let text = serde_json::to_string(report)
                .map_err(|error| CliError::new(CliErrorKind::Output, "no JSON").with_source(error))?;
            writeln!(self.out, "{text}")?;
        } else {
            if self.clears {
                write!(self.out, "\x1b[2J\x1b[H")?;
            } else if !first {
                writeln!(self.out)?;
            }
            writeln!(self.out, "{}", report.to_string().trim_end())?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(&mut self, text: &str) -> Result<(), CliError> {
        write!(self.out, "{text}")?;
        Ok(())
    }

    /// Tells a person something beside the output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.err, "{text}")?;
        self.err.flush()?;
        Ok(())
    }

    /// Asks whether to go on. Only the typed word `yes` is a yes.
    ///
    /// # Errors
    /// If nobody is there to ask.
    pub fn confirm(&mut self) -> Result<bool, CliError> {
        let Some(input) = self.input.as_mut() else {
            return Err(CliError::new(
                CliErrorKind::Refused,
                "nothing was written: nobody is there to confirm it",
            )
            .with_hint(
                "add --yes to write without a question, or --dry-run to see only what would be written",
            ));
        };
        write!(self.err, "Type yes to write this: ")?;
        self.err.flush()?;
        let mut answer = String::new();
        input.read_line(&mut answer)?;
        Ok(answer.trim() == "yes")
    }
}

/// Rows of text under headings, aligned, two blanks between columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn headed<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width - cell.chars().count();
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', padding + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let mut columns = Columns::headed(["A", "LONG"]);
        columns.row(["wide cell".into(), "x".into()]);
        assert_eq!(columns.to_string(), "A          LONG\nwide cell  x\n");
    }

    #[test]
    fn only_the_word_yes_is_a_yes() {
        for (typed, agreed) in
            [("yes\n", true), (" yes \n", true), ("y\n", false), ("\n", false), ("", false)]
        {
            let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), typed.as_bytes());
            let mut console = Console::new(&mut out, &mut err, Some(&mut input), false);
            assert_eq!(console.confirm().unwrap(), agreed, "{typed:?}");
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let error = Console::new(&mut out, &mut err, None, false).confirm().unwrap_err();
        assert_eq!(error.kind(), CliErrorKind::Refused);
        assert!(error.hint().unwrap().contains("--yes"));
    }
}
