//! What a simulator is told: at its start, and live through its control.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Behaviour, Span};

/// How a simulator behaves. Everything but `port` can be changed while it runs.
///
/// A submit's behaviour is, in this order: its place in `script`, the first of `rules` that fits, a draw from `rates`,
/// else [`Behaviour::Success`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorOptions {
    /// Loopback port to listen on; 0 takes one that is free.
    pub port: u16,
    /// The token that submits and polls must carry; none means that none is asked for. Never shown.
    #[serde(skip_serializing)]
    pub token: Option<SecretString>,
    /// Tokens that are refused, submits and polls alike, each with its status: named by the first 8 hex digits of their SHA-256.
    pub refused_tokens: BTreeMap<String, u16>,
    /// Seed of every random choice. A submit's choices depend on it and on the arrival number alone.
    pub seed: u64,
    /// Name of the header that carries the submit's request id.
    pub request_id_header: String,
    /// Time from a submit's arrival to its answer, in milliseconds. It is accepted on arrival.
    pub submit_latency: Span,
    /// Time from a poll's arrival to its answer, in milliseconds.
    pub poll_latency: Span,
    /// Polls that say `PENDING` before a job can end. Drawn when the submit is accepted.
    pub pending_polls: Span,
    /// Time before a job can end, in milliseconds. Both this and `pending_polls` must have passed.
    pub duration: Span,
    /// Behaviour by arrival number of the submit, the first being 1. Every POST counts, refused ones too.
    pub script: BTreeMap<u64, Behaviour>,
    /// Behaviour by what the submit says.
    pub rules: Vec<Rule>,
    /// Behaviour by chance.
    pub rates: Vec<Rate>,
    /// The answers to accepted submits wait until this is false again. They are in the ledger while they wait.
    pub hold_submits: bool,
    /// The answers to polls wait until this is false again.
    pub hold_polls: bool,
    /// Longer side of the pictures, in pixels.
    pub picture_side: u32,
    /// Status with which every picture is refused; none means that pictures are handed out.
    pub picture_status: Option<u16>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            port: 0,
            token: None,
            refused_tokens: BTreeMap::new(),
            seed: 0,
            request_id_header: "x-imagemill-request".to_owned(),
            submit_latency: Span::default(),
            poll_latency: Span::default(),
            pending_polls: Span::fixed(1),
            duration: Span::default(),
            script: BTreeMap::new(),
            rules: Vec::new(),
            rates: Vec::new(),
            hold_submits: false,
            hold_polls: false,
            picture_side: 128,
            picture_status: None,
        }
    }
}

/// A behaviour for submits that say something in particular. What is not named fits everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Pattern of the request id, `*` standing for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Part of the value of the first `rawPrompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The body's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// What happens.
    pub behaviour: Behaviour,
    /// How many submits it is for; none means all that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// How many submits it has been applied to.
    #[serde(default)]
    pub used: u64,
}

impl Rule {
    /// A rule that fits every submit; narrow it by setting its fields.
    pub fn new(behaviour: Behaviour) -> Self {
        Self { request_id: None, prompt: None, seed: None, behaviour, times: None, used: 0 }
    }

    /// Whether it is for this submit.
    pub(super) fn fits(&self, request_id: Option<&str>, body: &Value) -> bool {
        self.times.is_none_or(|times| self.used < times)
            && self.request_id.as_deref().is_none_or(|pattern| request_id.is_some_and(|id| glob(pattern, id)))
            && self.prompt.as_deref().is_none_or(|part| first_prompt(body).is_some_and(|value| value.contains(part)))
            && self.seed.is_none_or(|seed| body.get("seed").and_then(Value::as_i64) == Some(seed))
    }
}

/// A behaviour by chance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What happens.
    pub behaviour: Behaviour,
    /// To which share of the submits, 0 to 1.
    pub probability: f64,
}

/// What is wrong with options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A key or a value that cannot be read.
    #[error("the options cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A value out of its bounds.
    #[error("{0}")]
    Invalid(String),
}

impl SimulatorOptions {
    /// Checks what types alone do not.
    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        let mut behaviours = self
            .script
            .values()
            .chain(self.rules.iter().map(|rule| &rule.behaviour))
            .chain(self.rates.iter().map(|rate| &rate.behaviour));
        if let Some(fault) = behaviours.find_map(Behaviour::fault) {
            return Err(OptionsError::Invalid(fault));
        }
        if let Some(rate) = self.rates.iter().find(|rate| !(0.0..=1.0).contains(&rate.probability)) {
            return Err(OptionsError::Invalid(format!("the probability {} is not from 0 to 1", rate.probability)));
        }
        let sum: f64 = self.rates.iter().map(|rate| rate.probability).sum();
        // Ten times 0.1 is a little more than 1 in binary.
        if sum > 1.0 + 1e-9 {
            return Err(OptionsError::Invalid(format!("the probabilities sum to {sum}, which is more than 1")));
        }
        if !(16..=4096).contains(&self.picture_side) {
            return Err(OptionsError::Invalid(format!("picture_side is {}, not from 16 to 4096", self.picture_side)));
        }
        if let Some((token, status)) = self.refused_tokens.iter().find(|(_, status)| !(400..=499).contains(*status)) {
            return Err(OptionsError::Invalid(format!(
                "refused_tokens: `{status}` of {token} is not a status code from 400 to 499"
            )));
        }
        if let Some(status) = self.picture_status.filter(|status| !(200..=599).contains(status)) {
            return Err(OptionsError::Invalid(format!("picture_status `{status}` is not a status code from 200 to 599")));
        }
        Ok(())
    }

    /// These options with the keys of `patch` replaced, each as a whole.
    pub(super) fn patched(&self, patch: Map<String, Value>) -> Result<Self, OptionsError> {
        let names_token = patch.contains_key("token");
        let mut value = serde_json::to_value(self)?;
        if let Some(object) = value.as_object_mut() {
            object.extend(patch);
        }
        let mut next: Self = serde_json::from_value(value)?;
        // The token is not written out, so it is not there to be read back.
        if !names_token {
            next.token.clone_from(&self.token);
        }
        Ok(next)
    }
}

/// The value of the first `rawPrompt` of a submit's body.
pub(super) fn first_prompt(body: &Value) -> Option<&str> {
    body.get("rawPrompt")?.get(0)?.get("value")?.as_str()
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    while let Some((part, rest)) = pattern.split_once('*') {
        let Some(place) = text.find(part) else {
            return false;
        };
        text = &text[place + part.len()..];
        pattern = rest;
    }
    text.ends_with(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text() {
        for (pattern, text, fits) in [
            ("a/1", "a/1", true),
            ("a/1", "a/12", false),
            ("*/2", "a/2", true),
            ("*/2", "a/2/1", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let rate = |probability| Rate { behaviour: Behaviour::Timeout, probability };
        let mut options = SimulatorOptions { rates: vec![rate(0.6), rate(0.6)], ..SimulatorOptions::default() };
        assert!(options.validate().unwrap_err().to_string().contains("1.2"));
        options.rates = vec![rate(-0.1)];
        assert!(options.validate().unwrap_err().to_string().contains("-0.1"));
        options.rates = vec![rate(0.1); 10];
        assert!(options.validate().is_ok());
        options.script.insert(1, Behaviour::status(42));
        assert!(options.validate().unwrap_err().to_string().contains("42"));
    }
}
