//! Tables, sizes and ages as Docker prints them.

/// Rows of text in columns, three spaces apart, with a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// The width that every column but the last has at least.
    least: usize,
}

impl Table {
    /// A table with a heading.
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()], least: 0 }
    }

    /// A table of rows, the heading first.
    pub(crate) fn of(rows: Vec<Vec<String>>) -> Self {
        Self { rows, least: 0 }
    }

    /// The same table as wide as Docker's: no column is narrower than ten characters.
    #[must_use]
    pub(crate) fn docker(self) -> Self {
        self.at_least(10)
    }

    /// The same table with no column narrower than this.
    #[must_use]
    pub(crate) fn at_least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The whole table.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == columns;
                out.push_str(cell);
                if !last {
                    let pad = (widths[column] + 3).max(self.least) - cell.chars().count();
                    out.extend(std::iter::repeat_n(' ', pad));
                }
            }
            while out.ends_with(' ') {
                out.pop();
            }
            out.push('\n');
        }
        out
    }
}

/// A size in decimal units with three significant digits: `4.26MB`.
pub(crate) fn size(bytes: u64) -> String {
    rounded_size(bytes, 3)
}

/// A size in decimal units with so many significant digits.
pub(super) fn rounded_size(bytes: u64, significant: usize) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let before = if value >= 100.0 { 3 } else { 1 + usize::from(value >= 10.0) };
    let digits = if unit == 0 { 0 } else { significant - before };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// A size in binary units with four significant digits: `7.586MiB`.
pub(super) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if value >= 1000.0 || unit == 0 => 0,
        _ if value >= 100.0 => 1,
        _ if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// A span of seconds in Docker's words: `5 seconds`, `About an hour`, `3 weeks`.
pub(super) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a time was, seen from `now`; `N/A` for an unknown one.
pub(super) fn ago(then: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    match then {
        Some(then) => format!("{} ago", duration((now.as_second() - then.as_second()).max(0))),
        None => "N/A".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_261_550, "4.26MB"),
            (77_800_000, "77.8MB"),
            (123_456_789, "123MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!([rounded_size(1_982_256, 4), rounded_size(12, 4)], ["1.982MB", "12B"]);
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (7_954_432, "7.586MiB"), (25_222_639_616, "23.49GiB"), (1 << 30, "1GiB")]
        {
            assert_eq!(binary_size(bytes), text);
        }
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3000, "50 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (200_000, "2 days"),
            (2_000_000, "3 weeks"),
            (10_000_000, "3 months"),
            (100_000_000, "3 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", "SIZE"]);
        table.row(["a-long-name".to_owned(), "1B".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME          SIZE\na-long-name   1B\nb\n");
        let mut table = Table::new(["TAG", "SIZE"]).docker();
        table.row(["1".to_owned(), "1B".to_owned()]);
        assert_eq!(table.render(), "TAG       SIZE\n1         1B\n");
    }
}
