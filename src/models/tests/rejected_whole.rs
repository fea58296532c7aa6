//! Faults of the task as a whole: all at once, between axes, over the limits.

use super::{
    rejected::{axis, rejects, setting, with_variable},
    *,
};

#[test]
fn all_eleven_faults_are_answered_at_once() {
    rejects(
        &parsed(FAULTY),
        &[
            "name",
            "prompts[0].type",
            "prompts[1].value",
            "prompts[2].name",
            "prompts[3].variable_values",
            "prompts[4].weight",
            "prompts[5].variable_values",
            "ratio.variable_values[0]",
            "seed.value",
            "is_lumina.value",
            "colour",
        ],
    );
}

#[test]
fn the_text_of_faults_is_one_line_that_names_them_all() {
    let mut task = setting("seed", json!("a\nb"));
    task["prompts"][0]["weight"] = json!(11);
    let faults = TaskDefinition::from_json(&task, &TaskLimits::default()).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "prompts[0].weight: must be a number from 0 to 10, not 11; \
         seed.value: must be a whole number from 0 to 2147483647, not \"a\\nb\""
    );
}

#[test]
fn two_axes_with_one_variable_id() {
    let mut task = with_variable("variable_id", json!("9"));
    for name in ["ratio", "seed"] {
        let values = if name == "ratio" { json!(["1:1"]) } else { json!([1]) };
        task[name] = axis(name, values)[name].clone();
    }
    rejects(&task, &["ratio.variable_id", "seed.variable_id"]);
    let twice = json!([task["prompts"][0], task["prompts"][0]]);
    let faults = validate_prompts(&twice).unwrap_err();
    assert_eq!(faults.to_string(), "prompts[1].variable_id: \"9\" is the variable_id of prompts[0] already");
}

#[test]
fn over_the_limits_is_a_fault_with_the_number() {
    let limits = TaskLimits { max_axes: 2, max_values_per_axis: 3, max_cells: 20 };
    let of = |lengths: &[usize], batch_size: i32| {
        let mut task = TaskInput::new("n").batch_size(batch_size);
        for (number, length) in lengths.iter().enumerate() {
            let values = vec![Prompt::freetext("x"); *length];
            task = task.variable_prompt(number.to_string(), values);
        }
        let task = task.to_json();
        let faults = TaskDefinition::from_json(&task, &limits).map(|_| ());
        let unlimited = TaskLimits { max_axes: usize::MAX, max_values_per_axis: usize::MAX, max_cells: usize::MAX };
        // What was accepted under other limits is held to those of the plan.
        if let Ok(definition) = TaskDefinition::from_json(&task, &unlimited) {
            assert_eq!(plan(&definition, &limits).map(|_| ()), faults);
        }
        faults.map_or_else(|faults| faults.to_string(), |()| "accepted".to_owned())
    };
    assert_eq!(of(&[3, 3], 2), "accepted");
    assert_eq!(of(&[3, 3], 3), "cells: 27 cells are over the limit of 20");
    assert_eq!(of(&[1, 2, 1], 1), "axes: 3 axes are over the limit of 2");
    assert_eq!(of(&[1, 4], 1), "prompts[1].variable_values: 4 values are over the limit of 3");
    assert_eq!(
        of(&[10; 50], 1).split("; ").last().unwrap(),
        format!("cells: at least {} cells are over the limit of 20", u128::MAX)
    );
    // More than an i32 counts, whatever the configuration says.
    let huge = TaskLimits { max_cells: usize::MAX, ..TaskLimits::default() };
    let mut task = TaskInput::new("n");
    for name in 0..5 {
        task = task.variable_prompt(name.to_string(), vec![Prompt::freetext("x"); 100]);
    }
    assert_eq!(task.validate(&huge).unwrap_err().to_string(), "cells: 10000000000 cells are over the limit of 2147483647");
}

#[test]
fn what_rust_can_write_and_json_cannot() {
    let task = TaskInput::new("n")
        .prompt(Prompt::freetext("x").weight(f64::NAN))
        .prompt(Prompt::freetext("x").weight(f64::INFINITY))
        .lumina_cfg(f64::NAN)
        .ratio(7)
        .lane("test");
    let faults = task.validate(&TaskLimits::default()).unwrap_err();
    let expected = ["prompts[0].weight", "prompts[1].weight", "ratio.value", "lumina_cfg.value", "make_api_queue"];
    assert_eq!(paths(&faults), expected);
}
