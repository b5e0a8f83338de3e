//! Columns as Go's `text/tabwriter` aligns them: every cell but the last of a row is as wide as the widest of its column.

/// Lines up rows; `gap` blanks follow the widest cell.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]], gap: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < N {
                out.extend(std::iter::repeat_n(' ', widths[column] + gap - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}
