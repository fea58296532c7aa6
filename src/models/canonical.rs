//! Hashes of JSON that do not depend on how it was written.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::TaskDefinition;

/// Largest number up to which every whole `f64` is exact.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// SHA-256 in hex of all that a task asks for; of its input only the idempotency key is left out. What was left out and
/// what was written with its default are the same input.
pub fn input_sha256(definition: &TaskDefinition) -> String {
    let mut task = definition.to_json();
    if let Some(task) = task.as_object_mut() {
        task.remove("idempotency_key");
    }
    sha256(&task)
}

/// SHA-256 in hex of the body of a submit.
pub fn request_sha256(body: &Value) -> String {
    sha256(body)
}

/// The same of the body without its seed: what two random pictures of one combination have in common.
pub fn unseeded_sha256(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("seed");
    }
    sha256(&body)
}

fn sha256(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Keys sorted, no white space, whole numbers without a fraction: the same text before and after a `jsonb` column.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(value, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            // Sorted here: whether serde_json's own map is depends on a feature that any dependency may switch.
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < MAX_EXACT => {
                text.push_str(&(float as i64).to_string());
            }
            _ => text.push_str(&number.to_string()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_text_for_equal_values() {
        let mut text = String::new();
        write(&json!({"b": [1.0, -0.0, 0.8, null], "a\"": {"d": true, "c": "\u{e9}\n"}}), &mut text);
        assert_eq!(text, "{\"a\\\"\":{\"c\":\"\u{e9}\\n\",\"d\":true},\"b\":[1,0,0.8,null]}");
    }

    #[test]
    fn the_hash_is_sha256_of_that_text() {
        // printf '{"a":1}' | sha256sum
        assert_eq!(request_sha256(&json!({ "a": 1.0 })), "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862");
        assert_ne!(request_sha256(&json!([1, 2])), request_sha256(&json!([2, 1])));
    }
}
