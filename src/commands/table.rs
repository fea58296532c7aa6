//! Tables as people read them: aligned columns under a header, no lines. Nothing is cut, but where a terminal has no room.

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

use super::terminal::cut;

/// Columns between two of a table.
const GAP: u16 = 2;

/// The last column is shortened to no less than this, if others can go.
const LEAST: u16 = 10;

/// A table as text, without a line break at its end. Whatever a cell holds, a row stays a line.
pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    built(header, rows).trim_fmt()
}

/// The same where no line may be longer than a terminal that is so wide: its last column is shortened, and where that does not suffice
/// columns go, those that are named first before the others.
pub(super) fn fitted<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
    goes: &[&str],
    columns: Option<u16>,
) -> String {
    let mut table = built(header, rows);
    let Some(columns) = columns else { return table.trim_fmt() };
    let widths = table.column_max_content_widths();
    let Some((last, others)) = widths.split_last() else { return table.trim_fmt() };
    let mut gone: Vec<&str> = Vec::new();
    let taken = |gone: &[&str]| -> u16 {
        let shown = others.iter().zip(header).filter(|(_, name)| !gone.contains(name));
        shown.map(|(width, _)| width.saturating_add(GAP)).fold(0, u16::saturating_add)
    };
    for name in goes {
        if taken(&gone).saturating_add(LEAST.min(*last)) <= columns {
            break;
        }
        gone.push(name);
    }
    let left = columns.saturating_sub(taken(&gone)).max(1);
    for (number, column) in table.column_iter_mut().enumerate() {
        let constraint = match header.get(number) {
            Some(name) if gone.contains(name) => ColumnConstraint::Hidden,
            _ if number == others.len() && *last > left => ColumnConstraint::Absolute(Width::Fixed(left)),
            _ => ColumnConstraint::ContentWidth,
        };
        column.set_constraint(constraint);
    }
    if let Some(column) = table.column_mut(others.len()) {
        column.set_padding((0, 0));
    }
    for row in table.row_iter_mut() {
        row.max_height(1);
    }
    let mut names = Row::from(header.to_vec());
    names.max_height(1);
    table.set_header(names);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    let lines = table.trim_fmt();
    lines.lines().map(|line| cut(line, columns)).collect::<Vec<_>>().join("\n")
}

fn built<const COLUMNS: usize>(header: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| cell.replace(char::is_control, " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::*;

    fn at(columns: Option<u16>) -> String {
        let row = |name: &str| ["018f0000".to_owned(), "tester".to_owned(), "12/3,024".to_owned(), name.to_owned()];
        let rows =
            [row("a study of lanterns in fog"), row("\u{6c34}\u{706b}\u{571f}\u{6c34}\u{706b}\u{571f}\u{6c34}\u{706b}\u{571f}")];
        fitted(["TASK", "OWNER", "ENDED", "NAME"], rows, &["OWNER", "ENDED"], columns)
    }

    #[test]
    fn a_table_is_cut_on_a_terminal_alone_and_fits_it() {
        assert!(at(None).contains("a study of lanterns in fog"));
        assert_eq!(at(Some(60)), at(None));
        for columns in 1..60 {
            let text = at(Some(columns));
            assert_eq!(text.lines().count(), 3, "{columns}: {text}");
            assert!(text.lines().all(|line| line.width() <= columns.into()), "{columns}: {text}");
        }
        let text = at(Some(40));
        assert!(text.contains("OWNER") && text.contains("a study of\u{2026}"), "{text}");
        // An owner goes before a name has less than ten columns.
        let text = at(Some(32));
        assert!(!text.contains("OWNER") && text.contains("ENDED") && text.contains("12/3,024"), "{text}");
    }
}
