//! The body of a submit, as the upstream wants it.

use serde_json::{Value, json};

use super::{Cell, ConstantPrompt, Prompt, PromptKind};

/// The style that switches lumina on.
const LUMINA_UUID: &str = "b5edccfe-46a2-4a14-a8ff-f4d430343805";

/// A cell whose indices do not fit the prompts of its task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// More variable prompts than indices.
    #[error("the cell has no index for axis {axis}")]
    MissingIndex {
        /// Number of the axis.
        axis: usize,
    },
    /// No such value.
    #[error("the cell has index {index} on axis {axis}, which has {values} values")]
    OutOfRange {
        /// Number of the axis.
        axis: usize,
        /// What the cell says.
        index: i32,
        /// How many values there are.
        values: usize,
    },
}

/// What of a cell goes into its body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestCell<'c> {
    /// One value index per axis, in axis order; the prompts' axes come first.
    pub variable_indices: &'c [i32],
    /// 1..=2147483647.
    pub seed: i64,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// Whether the upstream rewrites the prompts.
    pub use_polish: bool,
    /// Whether lumina makes it; without, the next three are not sent.
    pub is_lumina: bool,
    /// Checkpoint; blank is as good as none.
    pub lumina_model_name: Option<&'c str>,
    /// Guidance scale.
    pub lumina_cfg: Option<f64>,
    /// Number of steps.
    pub lumina_step: Option<i32>,
}

impl<'c> From<&'c Cell> for RequestCell<'c> {
    fn from(cell: &'c Cell) -> Self {
        Self {
            variable_indices: &cell.variable_indices,
            seed: cell.seed,
            width: cell.width,
            height: cell.height,
            use_polish: cell.use_polish,
            is_lumina: cell.is_lumina,
            lumina_model_name: cell.lumina_model_name.as_deref(),
            lumina_cfg: cell.lumina_cfg,
            lumina_step: cell.lumina_step,
        }
    }
}

/// The prompts of one cell, in task order; those with an empty value are left out.
///
/// # Errors
/// Indices that do not fit: a picture of something else must not be paid for.
pub fn expanded_prompts(prompts: &[Prompt], variable_indices: &[i32]) -> Result<Vec<Value>, ExpandError> {
    let mut indices = variable_indices.iter();
    let mut next_axis = 0;
    let mut expanded = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let constant = match prompt {
            Prompt::Constant(constant) => constant,
            Prompt::Variable(variable) => {
                let axis = next_axis;
                next_axis += 1;
                let missing = ExpandError::MissingIndex { axis };
                let index = *indices.next().ok_or(missing)?;
                usize::try_from(index).ok().and_then(|place| variable.values.get(place)).ok_or(ExpandError::OutOfRange {
                    axis,
                    index,
                    values: variable.values.len(),
                })?
            }
        };
        if !constant.value.is_empty() {
            expanded.push(expanded_prompt(constant));
        }
    }
    Ok(expanded)
}

/// Whether cells of these two lists of prompts may have a body in common: nothing that is in every cell of one is in no cell of
/// the other. A quick look, before cells are compared one by one.
pub fn may_share_cells(left: &[Prompt], right: &[Prompt]) -> bool {
    fits_in(left, right) && fits_in(right, left)
}

fn fits_in(prompts: &[Prompt], others: &[Prompt]) -> bool {
    let known: Vec<Value> = others.iter().flat_map(values).map(expanded_prompt).collect();
    prompts
        .iter()
        .all(|prompt| values(prompt).iter().any(|value| value.value.is_empty() || known.contains(&expanded_prompt(value))))
}

fn values(prompt: &Prompt) -> &[ConstantPrompt] {
    match prompt {
        Prompt::Constant(constant) => std::slice::from_ref(constant),
        Prompt::Variable(variable) => &variable.values,
    }
}

/// The whole body of the submit of one cell.
///
/// # Errors
/// As [`expanded_prompts`].
pub fn request_body(prompts: &[Prompt], cell: &RequestCell<'_>) -> Result<Value, ExpandError> {
    let mut raw_prompt = expanded_prompts(prompts, cell.variable_indices)?;
    if cell.is_lumina {
        raw_prompt.push(expanded_prompt(&Prompt::style(LUMINA_UUID, "lumina1")));
    }
    let mut body = json!({
        "storyId": "",
        "jobType": "universal",
        "width": cell.width,
        "height": cell.height,
        "rawPrompt": raw_prompt,
        "seed": cell.seed,
        "meta": { "entrance": "PICTURE,PURE" },
        "context_model_series": null,
        "negative_freetext": "",
        "advanced_translator": cell.use_polish,
    });
    if cell.is_lumina {
        let model_name = cell.lumina_model_name.filter(|name| !name.trim().is_empty());
        let arguments: serde_json::Map<String, Value> = [
            ("ckpt_name", model_name.map(Value::from)),
            ("cfg", cell.lumina_cfg.map(Value::from)),
            ("steps", cell.lumina_step.map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
        if !arguments.is_empty() {
            body["client_args"] = Value::Object(arguments);
        }
    }
    Ok(body)
}

fn expanded_prompt(prompt: &ConstantPrompt) -> Value {
    match prompt.kind {
        PromptKind::Freetext => json!({
            "type": prompt.kind,
            "value": prompt.value,
            "weight": prompt.weight,
        }),
        PromptKind::OcVtokenAdaptor | PromptKind::Elementum => json!({
            "type": prompt.kind,
            "value": prompt.value,
            "weight": prompt.weight,
            "name": prompt.name,
            "img_url": prompt.img_url,
            "uuid": prompt.value,
            "domain": "",
            "parent": "",
            "label": null,
            "sort_index": 0,
            "status": "IN_USE",
            "polymorphi_values": {},
            "sub_type": null,
        }),
    }
}
