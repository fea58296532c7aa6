//! Which cell stands where on which sheet.

use std::ops::Range;

use crate::services::grid_service::Grid;

/// Pixels of a sheet's side at most: many viewers show no larger picture.
const LONGEST_SIDE: usize = 16_000;
/// Pixels of a sheet at most, so that it fits into memory.
const MOST_PIXELS: usize = 64_000_000;

/// Pixels of a picture's longer side; of a few, and of one alone, which is looked at by itself.
const SIDE: usize = 160;
const SIDE_OF_FEW: usize = 320;
const SIDE_OF_ONE: usize = 640;
/// Pictures that are few.
const FEW: usize = 4;
/// Pixels of the space around a picture.
pub(super) const GAP: usize = 8;
/// Pixels above the first row and before the first column.
pub(super) const TOP: usize = 84;
const LEFT: usize = 176;

/// Columns where one axis, or none, leaves the choice.
const FLOW_COLUMNS: usize = 8;

/// An axis: its name, its labels, and by how many ordinals its next value is away.
#[derive(Debug)]
struct Dimension {
    name: String,
    labels: Vec<String>,
    stride: usize,
}

/// The places of the cells.
#[derive(Debug)]
pub(super) struct Layout {
    dimensions: Vec<Dimension>,
    across: Option<usize>,
    /// Outermost first.
    down: Vec<usize>,
    cells: usize,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Pixels of a picture's longer side.
    pub(super) side: usize,
}

/// A part of the grid that fits into one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Layout {
    pub(super) fn of(grid: &Grid) -> Self {
        let mut labels: Vec<(String, Vec<String>)> =
            grid.head.axes.iter().map(|axis| (axis.name.clone(), axis.labels())).collect();
        if grid.copies() > 1 {
            labels.push(("copy".to_owned(), (1..=grid.copies()).map(|copy| format!("copy {copy}")).collect()));
        }
        Self::new(labels, grid.cells.len())
    }

    fn new(axes: Vec<(String, Vec<String>)>, cells: usize) -> Self {
        let mut dimensions: Vec<Dimension> =
            axes.into_iter().map(|(name, labels)| Dimension { name, labels, stride: 1 }).collect();
        let mut stride = 1;
        for dimension in dimensions.iter_mut().rev() {
            dimension.stride = stride;
            stride *= dimension.labels.len();
        }
        let mut by_length: Vec<usize> = (0..dimensions.len()).collect();
        by_length.sort_by_key(|index| std::cmp::Reverse(dimensions[*index].labels.len()));
        let (down, across) = match by_length[..] {
            [] | [_] => (Vec::new(), None),
            [longest, next, ..] => {
                let mut down: Vec<usize> = (0..dimensions.len()).filter(|index| ![longest, next].contains(index)).collect();
                down.push(longest);
                (down, Some(next))
            }
        };
        let length = |index: &usize| dimensions[*index].labels.len();
        let columns = across.as_ref().map_or(FLOW_COLUMNS.min(cells.max(1)), length);
        let rows = if across.is_some() { down.iter().map(length).product() } else { cells.div_ceil(columns) };
        let side = match cells {
            0 | 1 => SIDE_OF_ONE,
            2..=FEW => SIDE_OF_FEW,
            _ => SIDE,
        };
        Self { dimensions, across, down, cells, columns, rows, side }
    }

    /// The ordinal of the cell at a place.
    pub(super) fn cell(&self, row: usize, column: usize) -> Option<usize> {
        let Some(across) = self.across else {
            let cell = row * self.columns + column;
            return (cell < self.cells).then_some(cell);
        };
        let below: usize = self.row_values(row).map(|(index, value)| value * self.dimensions[index].stride).sum();
        Some(below + column * self.dimensions[across].stride)
    }

    /// What stands before a row: the innermost axis first. Nothing where the cells flow.
    pub(super) fn row_labels(&self, row: usize) -> Vec<&str> {
        self.row_values(row).map(|(index, value)| self.dimensions[index].labels[value].as_str()).collect()
    }

    /// What stands above a column.
    pub(super) fn column_label(&self, column: usize) -> &str {
        self.across.map_or("", |across| self.dimensions[across].labels[column].as_str())
    }

    /// The names of the axes, for the corner: across, then down, the innermost first. Nothing where the cells flow.
    pub(super) fn axis_names(&self) -> Option<(&str, Vec<&str>)> {
        let name = |index: usize| self.dimensions[index].name.as_str();
        self.across.map(|across| (name(across), self.down.iter().rev().map(|index| name(*index)).collect()))
    }

    /// What stands below a cell where no row and no column says it.
    pub(super) fn caption(&self, cell: usize) -> &str {
        match (self.across, self.dimensions.first()) {
            (None, Some(dimension)) => dimension.labels.get(cell).map_or("", String::as_str),
            _ => "",
        }
    }

    /// Pixels from one cell to the next.
    pub(super) fn pitch(&self) -> usize {
        self.side + GAP
    }

    /// Pixels before the first column.
    pub(super) fn left(&self) -> usize {
        if self.across.is_some() { LEFT } else { GAP }
    }

    /// The files, in reading order.
    pub(super) fn pages(&self) -> Vec<Page> {
        let columns = ((LONGEST_SIDE - self.left()) / self.pitch()).min(self.columns).max(1);
        let width = self.left() + columns * self.pitch();
        let height = LONGEST_SIDE.min(MOST_PIXELS / width);
        let rows = (height.saturating_sub(TOP) / self.pitch()).min(self.rows).max(1);
        let starts = |all: usize, step: usize| (0..all).step_by(step);
        starts(self.rows, rows)
            .flat_map(|row| starts(self.columns, columns).map(move |column| (row, column)))
            .map(|(row, column)| Page {
                rows: row..(row + rows).min(self.rows),
                columns: column..(column + columns).min(self.columns),
            })
            .collect()
    }

    fn row_values(&self, row: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = row;
        self.down.iter().rev().map(move |index| {
            let length = self.dimensions[*index].labels.len();
            let value = rest % length;
            rest /= length;
            (*index, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lengths: &[usize]) -> Layout {
        let labels = lengths
            .iter()
            .enumerate()
            .map(|(axis, length)| (format!("axis {axis}"), (0..*length).map(|value| format!("{axis}/{value}")).collect()));
        Layout::new(labels.collect(), lengths.iter().product())
    }

    #[test]
    fn every_cell_stands_in_one_place_of_one_page() {
        for lengths in [&[42, 24, 3][..], &[3, 4, 2, 5], &[7], &[], &[2, 2], &[100, 100, 5]] {
            let layout = layout(lengths);
            let mut seen: Vec<usize> = Vec::new();
            for page in layout.pages() {
                for row in page.rows {
                    seen.extend(page.columns.clone().filter_map(|column| layout.cell(row, column)));
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..lengths.iter().product()).collect::<Vec<usize>>(), "{lengths:?}");
        }
    }

    #[test]
    fn labels_are_those_of_the_cell() {
        let layout = layout(&[42, 24, 3]);
        assert_eq!((layout.columns, layout.rows), (24, 126));
        // Ratio 1, character 2, style 5.
        let cell = layout.cell(42 + 2, 5);
        assert_eq!(cell, Some((2 * 24 + 5) * 3 + 1));
        assert_eq!((layout.row_labels(44), layout.column_label(5)), (vec!["0/2", "2/1"], "1/5"));
        assert_eq!(layout.axis_names(), Some(("axis 1", vec!["axis 0", "axis 2"])));
    }

    #[test]
    fn no_sheet_is_larger_than_it_may_be() {
        for lengths in [&[100, 100, 5][..], &[42, 24, 3], &[50_000], &[2, 2], &[]] {
            let layout = layout(lengths);
            for page in layout.pages() {
                let (width, height) =
                    (layout.left() + page.columns.len() * layout.pitch(), TOP + page.rows.len() * layout.pitch());
                assert!(width <= LONGEST_SIDE && height <= LONGEST_SIDE && width * height <= MOST_PIXELS, "{width} x {height}");
            }
        }
    }
}
