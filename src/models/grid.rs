//! The grid: the cartesian product of the axes, and the copies of each combination.

use rand::Rng;

use super::{Axis, Faults, Setting, Settings, TaskDefinition, TaskLimits, axis, copy_seed, random_seed, reader::Reader};

/// One picture to be made, with everything that is fixed when its task is created.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// From 0, copies counted; unique in its task.
    pub cell: i32,
    /// One value index per axis, in axis order.
    pub variable_indices: Vec<i32>,
    /// From 0; which of the copies of its combination.
    pub copy: i32,
    /// Never empty.
    pub lane: &'static str,
    /// The one that is sent, 1..=2147483647.
    pub seed: i64,
    /// As it was given.
    pub ratio: String,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// Whether the upstream rewrites the prompts.
    pub use_polish: bool,
    /// Whether lumina makes it.
    pub is_lumina: bool,
    /// Kept, and sent only with lumina; so are the next two.
    pub lumina_model_name: Option<String>,
    /// Guidance scale.
    pub lumina_cfg: Option<f64>,
    /// Number of steps.
    pub lumina_step: Option<i32>,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In axis order.
    pub axes: Vec<Axis>,
    /// Cells, copies counted.
    pub total_images: i32,
    settings: Settings,
    lane: Option<&'static str>,
    prompt_axes: usize,
}

/// Expands a task.
///
/// # Errors
/// Every limit that the grid is over, each with the number.
pub fn plan(definition: &TaskDefinition, limits: &TaskLimits) -> Result<Plan, Faults> {
    let mut reader = Reader::of_sites(definition.axis_sites());
    reader.limits(limits, definition.settings().batch_size as usize);
    let axes = axis::axes(definition);
    let settings = definition.settings().clone();
    let total_images = axes
        .iter()
        // No overflow where the limits hold; where they do not, the number is never seen.
        .fold(settings.batch_size, |product, axis| product.saturating_mul(axis.values.len() as i32));
    reader.finish(Some(Plan {
        total_images,
        prompt_axes: axes.iter().filter(|axis| axis.kind == "prompt").count(),
        axes,
        settings,
        lane: definition.lane(),
    }))
}

impl Plan {
    /// All cells in the order of their ordinals: the last axis varies fastest, copies are neighbours. `rng` draws a seed
    /// for each cell whose setting is null or 0.
    pub fn cells<'p, R: Rng>(&'p self, rng: &'p mut R) -> impl ExactSizeIterator<Item = Cell> + use<'p, R> {
        (0..self.total_images).map(|ordinal| self.build(ordinal, rng))
    }

    /// One cell by its ordinal; none outside the grid.
    pub fn cell(&self, ordinal: i32, rng: &mut impl Rng) -> Option<Cell> {
        let inside = (0..self.total_images).contains(&ordinal);
        inside.then(|| self.build(ordinal, rng))
    }

    /// The indices and the copy of a cell; none outside the grid.
    pub fn position(&self, ordinal: i32) -> Option<(Vec<i32>, i32)> {
        let inside = (0..self.total_images).contains(&ordinal);
        inside.then(|| self.place(ordinal))
    }

    /// The ordinal of a cell; none where there is no such cell.
    pub fn ordinal(&self, variable_indices: &[i32], copy: i32) -> Option<i32> {
        let copies = self.settings.batch_size;
        if variable_indices.len() != self.axes.len() || !(0..copies).contains(&copy) {
            return None;
        }
        let mut combination = 0;
        for (axis, index) in self.axes.iter().zip(variable_indices) {
            let length = axis.values.len() as i32;
            if !(0..length).contains(index) {
                return None;
            }
            combination = combination * length + index;
        }
        Some(combination * copies + copy)
    }

    /// Whether the seed of a cell with these indices is drawn, and not given.
    pub fn draws_seed(&self, variable_indices: &[i32]) -> bool {
        let mut values = SettingValues { indices: variable_indices.iter().skip(self.prompt_axes) };
        values.next(&self.settings.ratio);
        matches!(values.next(&self.settings.seed), None | Some(0))
    }

    fn place(&self, ordinal: i32) -> (Vec<i32>, i32) {
        let copies = self.settings.batch_size;
        let mut rest = ordinal / copies;
        let mut indices = vec![0; self.axes.len()];
        for (index, axis) in indices.iter_mut().zip(&self.axes).rev() {
            let length = axis.values.len() as i32;
            *index = rest % length;
            rest /= length;
        }
        (indices, ordinal % copies)
    }

    fn build(&self, ordinal: i32, rng: &mut impl Rng) -> Cell {
        let (variable_indices, copy) = self.place(ordinal);
        let mut values = SettingValues { indices: variable_indices.iter().skip(self.prompt_axes) };
        // In axis order: each setting that is an axis takes the next index.
        let ratio = values.next(&self.settings.ratio);
        let seed = *values.next(&self.settings.seed);
        let use_polish = *values.next(&self.settings.use_polish);
        let is_lumina = *values.next(&self.settings.is_lumina);
        let lumina_model_name = values.next(&self.settings.lumina_model_name).clone();
        let lumina_cfg = *values.next(&self.settings.lumina_cfg);
        let lumina_step = *values.next(&self.settings.lumina_step);
        Cell {
            cell: ordinal,
            copy,
            lane: self.lane.unwrap_or(if is_lumina { "ops" } else { "prod" }),
            seed: match seed {
                None | Some(0) => random_seed(rng),
                Some(seed) => copy_seed(seed, copy),
            },
            ratio: ratio.as_str().to_owned(),
            width: ratio.width(),
            height: ratio.height(),
            use_polish,
            is_lumina,
            lumina_model_name,
            lumina_cfg,
            lumina_step,
            variable_indices,
        }
    }
}

struct SettingValues<I> {
    indices: I,
}

impl<'i, I: Iterator<Item = &'i i32>> SettingValues<I> {
    fn next<'s, T>(&mut self, setting: &'s Setting<T>) -> &'s T {
        match setting {
            Setting::Constant(value) => value,
            // `place` gives one index per axis, each below the length of its list, which is not empty.
            Setting::Variable { values, .. } => {
                let index = self.indices.next().copied().unwrap_or_default();
                &values[index as usize]
            }
        }
    }
}
