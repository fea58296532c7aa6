//! Tables as people read them: aligned columns under a header, no lines, nothing cut.

use comfy_table::{ContentArrangement, Table, presets};

/// A table as text, without a line break at its end. Whatever a cell holds, a row stays a line.
pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| cell.replace(char::is_control, " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
