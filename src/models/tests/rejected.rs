//! Every rule on one part of a task, broken.

#![allow(clippy::needless_pass_by_value, reason = "tables of `json!` read better without `&`")]

use super::*;

/// `small`, with one key set.
pub(super) fn with(key: &str, value: Value) -> Value {
    let mut task = small();
    task[key] = value;
    task
}

fn with_prompt(prompt: Value) -> Value {
    with("prompts", json!([prompt]))
}

/// With one key set, or taken out.
fn changed(mut object: Value, key: &str, value: Value) -> Value {
    let map = object.as_object_mut().unwrap();
    if value == "absent" {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value);
    }
    object
}

pub(super) fn with_variable(key: &str, value: Value) -> Value {
    let prompt = json!({
        "type": "freetext", "is_variable": true, "variable_id": "0", "variable_name": "light",
        "variable_values": [{ "type": "freetext", "value": "backlit" }],
    });
    with_prompt(changed(prompt, key, value))
}

fn with_value(value: Value) -> Value {
    let none = json!({ "type": "freetext", "value": "" });
    with_variable("variable_values", json!([none, value]))
}

pub(super) fn setting(name: &str, value: Value) -> Value {
    with(name, json!({ "type": name, "value": value }))
}

pub(super) fn axis(name: &str, values: Value) -> Value {
    with(name, json!({ "is_variable": true, "variable_id": "9", "variable_name": name, "variable_values": values }))
}

#[track_caller]
pub(super) fn rejects(task: &Value, expected: &[&str]) {
    let faults = TaskDefinition::from_json(task, &TaskLimits::default()).expect_err(&format!("accepted: {task}"));
    assert_eq!(paths(&faults), expected, "{faults}");
    assert!(!faults.to_string().contains('\n'), "{faults}");
}

/// In a whole task, and as prompts alone.
#[track_caller]
fn rejects_prompt(task: &Value, path: &str) {
    rejects(task, &[path]);
    let faults = validate_prompts(&task["prompts"]).unwrap_err();
    assert_eq!(paths(&faults), [path]);
}

#[test]
fn what_is_wrong_with_the_task_itself() {
    let long = "n".repeat(256);
    let table = [
        (json!([]), "task"),
        (with("name", json!(" \t")), "name"),
        (with("name", json!("")), "name"),
        (with("name", json!(long)), "name"),
        (with("name", json!(7)), "name"),
        (with("name", json!("a\0b")), "name"),
        (with("priority", json!(0)), "priority"),
        (with("priority", json!(9)), "priority"),
        (with("priority", json!(1.5)), "priority"),
        (with("priority", json!("1")), "priority"),
        (with("make_api_queue", json!("test")), "make_api_queue"),
        (with("make_api_queue", json!(1)), "make_api_queue"),
        (with("idempotency_key", json!("")), "idempotency_key"),
        (with("idempotency_key", json!(long)), "idempotency_key"),
        (with("idempotency_key", json!(7)), "idempotency_key"),
        (with("Ratio", json!("1:1")), "Ratio"),
        (with("a\nb", json!(1)), "[\"a\\nb\"]"),
        (json!({ "prompts": small()["prompts"] }), "name"),
        (json!({ "name": "n" }), "prompts"),
    ];
    for (task, path) in table {
        rejects(&task, &[path]);
    }
}

#[test]
fn what_is_wrong_with_the_list_of_prompts() {
    for prompts in [json!([]), json!({}), json!(null)] {
        rejects(&with("prompts", prompts), &["prompts"]);
    }
    rejects(&with_prompt(json!("rain")), &["prompts[0]"]);
    rejects(&with_value(json!("rain")), &["prompts[0].variable_values[1]"]);
}

#[test]
fn what_is_wrong_with_a_constant_prompt_alone_or_as_a_value() {
    let table = [
        ("type", json!("absent")),
        ("type", json!("Freetext")),
        ("value", json!("absent")),
        ("value", json!(null)),
        ("value", json!(7)),
        ("value", json!("\0")),
        ("weight", json!(-0.1)),
        ("weight", json!(10.01)),
        ("weight", json!("1")),
        ("weight", json!(null)),
        ("name", json!(1)),
        ("img_url", json!(1)),
        ("uuid", json!(1)),
        ("wieght", json!(1)),
        ("is_variable", json!("no")),
    ];
    for (key, value) in table {
        let prompt = changed(json!({ "type": "freetext", "value": "x" }), key, value);
        rejects_prompt(&with_prompt(prompt.clone()), &format!("prompts[0].{key}"));
        let path = format!("prompts[0].variable_values[1].{key}");
        rejects_prompt(&with_value(prompt), &path);
    }
    for kind in ["oc_vtoken_adaptor", "elementum"] {
        for name in ["absent", "", " "] {
            let prompt = json!({ "type": kind, "value": "6f1c" });
            let prompt = changed(prompt, "name", json!(name));
            rejects_prompt(&with_prompt(prompt.clone()), "prompts[0].name");
            rejects_prompt(&with_value(prompt), "prompts[0].variable_values[1].name");
        }
    }
    let values = json!({ "type": "freetext", "value": "", "variable_values": [] });
    rejects_prompt(&with_prompt(values), "prompts[0].variable_values");
    for (key, value) in [("is_variable", json!(true)), ("variable_id", json!("3"))] {
        let prompt = changed(json!({ "type": "freetext", "value": "x" }), key, value);
        let path = format!("prompts[0].variable_values[1].{key}");
        rejects_prompt(&with_value(prompt), &path);
    }
}

#[test]
fn what_is_wrong_with_a_variable_prompt() {
    let table = [
        ("variable_id", json!("absent")),
        ("variable_id", json!("")),
        ("variable_id", json!(0)),
        ("variable_name", json!("absent")),
        ("variable_name", json!(" ")),
        ("variable_values", json!("absent")),
        ("variable_values", json!(null)),
        ("variable_values", json!([])),
        ("variable_values", json!("x")),
        ("type", json!("light")),
        ("weight", json!(11)),
        ("value", json!(1)),
    ];
    for (key, value) in table {
        rejects_prompt(&with_variable(key, value), &format!("prompts[0].{key}"));
    }
}

#[test]
fn what_is_wrong_with_settings() {
    let table = [
        ("ratio", json!(null), json!(169)),
        ("ratio", json!("16/9"), json!("0:1")),
        ("ratio", json!("100:1"), json!(null)),
        ("seed", json!(-1), json!("7")),
        ("seed", json!(2_147_483_648_i64), json!(1.5)),
        ("seed", json!(u64::MAX), json!(true)),
        ("use_polish", json!(null), json!("true")),
        ("use_polish", json!(0), json!(null)),
        ("is_lumina", json!(null), json!(1)),
        ("lumina_model_name", json!(7), json!("a\0b")),
        ("lumina_cfg", json!(0.09), json!(10.1)),
        ("lumina_cfg", json!("5.5"), json!(0)),
        ("lumina_step", json!(0), json!(51)),
        ("lumina_step", json!(1.5), json!("30")),
    ];
    for (name, constant, value) in table {
        let path = format!("{name}.value");
        rejects(&setting(name, constant.clone()), &[&path]);
        let faults = validate_setting(name, &json!({ "value": constant })).unwrap_err();
        assert_eq!(paths(&faults), [path]);
        let path = format!("{name}.variable_values[0]");
        rejects(&axis(name, json!([value])), &[&path]);
    }
    for batch_size in [json!(0), json!(17), json!(null), json!("2"), json!(1.5)] {
        rejects(&setting("batch_size", batch_size), &["batch_size.value"]);
    }
    rejects(&axis("batch_size", json!([1, 2])), &["batch_size.is_variable"]);
    for name in ["ratio", "use_polish", "is_lumina", "batch_size"] {
        rejects(&with(name, json!(null)), &[name]);
    }
}

#[test]
fn what_is_wrong_with_the_form_of_a_setting() {
    let table = [
        (json!(7), "seed"),
        (json!({}), "seed.value"),
        (json!({ "value": 7, "type": "ratio" }), "seed.type"),
        (json!({ "value": 7, "format": 7 }), "seed.format"),
        (json!({ "value": 7, "weight": 1 }), "seed.weight"),
        (json!({ "value": 7, "is_variable": null }), "seed.is_variable"),
        (json!({ "value": 7, "variable_values": [7] }), "seed.variable_values"),
        (json!({ "is_variable": true, "variable_name": "s", "variable_values": [7] }), "seed.variable_id"),
        (json!({ "is_variable": true, "variable_id": "s", "variable_values": [7] }), "seed.variable_name"),
        (json!({ "is_variable": true, "variable_id": "s", "variable_name": "s" }), "seed.variable_values"),
        (json!({ "is_variable": true, "variable_id": "s", "variable_name": "s", "variable_values": [] }), "seed.variable_values"),
    ];
    for (seed, path) in table {
        rejects(&with("seed", seed.clone()), &[path]);
        let faults = validate_setting("seed", &seed).unwrap_err();
        assert_eq!(paths(&faults), [path]);
        let faults = validate_settings(&json!({ "seed": seed })).unwrap_err();
        assert_eq!(paths(&faults), [path]);
    }
    let faults = validate_setting("colour", &json!({ "value": "red" })).unwrap_err();
    assert_eq!(paths(&faults), ["colour"]);
    let faults = validate_settings(&json!({ "colour": 1 })).unwrap_err();
    assert_eq!(paths(&faults), ["colour"]);
}
