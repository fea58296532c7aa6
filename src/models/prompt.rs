//! Prompts: constant, or a variable with its values.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// What a prompt is to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKind {
    /// Words.
    Freetext,
    /// A character, named by its uuid.
    OcVtokenAdaptor,
    /// A style, named by its uuid.
    Elementum,
}

impl PromptKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Freetext, Self::OcVtokenAdaptor, Self::Elementum];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Freetext => "freetext",
            Self::OcVtokenAdaptor => "oc_vtoken_adaptor",
            Self::Elementum => "elementum",
        }
    }
}

/// A prompt with one value. Serializes as the front end writes it, without the keys that are not set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConstantPrompt {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: PromptKind,
    /// Words, or the uuid of a character or style; empty leaves the prompt out of the cell.
    pub value: String,
    /// 0 to 10.
    #[serde(serialize_with = "weight_in_json")]
    pub weight: f64,
    /// What people call it; a character or style has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A picture of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub img_url: Option<String>,
    /// As the front end gave it; what is sent is always the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

impl ConstantPrompt {
    fn new(kind: PromptKind, value: String, name: Option<String>) -> Self {
        Self { kind, value, weight: 1.0, name, img_url: None, uuid: None }
    }

    /// With another weight than 1; 0 to 10.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// With the address of a picture of it.
    #[must_use]
    pub fn img_url(mut self, img_url: impl Into<String>) -> Self {
        self.img_url = Some(img_url.into());
        self
    }
}

/// A prompt that is an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct VariablePrompt {
    /// What the front end says it is; each value has its own.
    pub kind: PromptKind,
    /// Unique among the axes of the task.
    pub variable_id: String,
    /// What people call the axis.
    pub variable_name: String,
    /// At least one.
    pub values: Vec<ConstantPrompt>,
}

/// One entry of a task's list of prompts. Serializes as the front end writes it; deserializing checks every rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Prompt {
    /// The same in every cell.
    Constant(ConstantPrompt),
    /// An axis.
    Variable(VariablePrompt),
}

impl Prompt {
    /// Words; empty leaves the prompt out of the cell.
    pub fn freetext(value: impl Into<String>) -> ConstantPrompt {
        ConstantPrompt::new(PromptKind::Freetext, value.into(), None)
    }

    /// A character: its uuid and its name.
    pub fn character(uuid: impl Into<String>, name: impl Into<String>) -> ConstantPrompt {
        ConstantPrompt::new(PromptKind::OcVtokenAdaptor, uuid.into(), Some(name.into()))
    }

    /// A style: its uuid and its name.
    pub fn style(uuid: impl Into<String>, name: impl Into<String>) -> ConstantPrompt {
        ConstantPrompt::new(PromptKind::Elementum, uuid.into(), Some(name.into()))
    }
}

impl From<ConstantPrompt> for Prompt {
    fn from(prompt: ConstantPrompt) -> Self {
        Self::Constant(prompt)
    }
}

impl From<VariablePrompt> for Prompt {
    fn from(prompt: VariablePrompt) -> Self {
        Self::Variable(prompt)
    }
}

impl Serialize for Prompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ConstantForm<'p> {
            is_variable: bool,
            #[serde(flatten)]
            prompt: &'p ConstantPrompt,
        }
        #[derive(Serialize)]
        struct VariableForm<'p> {
            #[serde(rename = "type")]
            kind: PromptKind,
            is_variable: bool,
            variable_id: &'p str,
            variable_name: &'p str,
            variable_values: &'p [ConstantPrompt],
        }
        match self {
            Self::Constant(prompt) => ConstantForm { is_variable: false, prompt }.serialize(serializer),
            Self::Variable(prompt) => VariableForm {
                kind: prompt.kind,
                is_variable: true,
                variable_id: &prompt.variable_id,
                variable_name: &prompt.variable_name,
                variable_values: &prompt.values,
            }
            .serialize(serializer),
        }
    }
}

/// JSON has no infinite number, and `serde_json` would write null in its place: as text it stays a fault that can be read.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn weight_in_json<S: Serializer>(weight: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if weight.is_finite() { serializer.serialize_f64(*weight) } else { serializer.serialize_str(&weight.to_string()) }
}
