//! The grid.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn planned(task: &TaskInput) -> Plan {
    let limits = TaskLimits::default();
    plan(&task.validate(&limits).unwrap(), &limits).unwrap()
}

#[test]
fn no_axis_is_one_cell() {
    let plan = planned(&TaskInput::new("n").prompt(Prompt::freetext("x")).seed(9));
    let cells: Vec<Cell> = plan.cells(&mut rng()).collect();
    let expected = Cell {
        cell: 0,
        variable_indices: vec![],
        copy: 0,
        lane: "prod",
        seed: 9,
        ratio: "1:1".to_owned(),
        width: 1024,
        height: 1024,
        use_polish: false,
        is_lumina: false,
        lumina_model_name: None,
        lumina_cfg: None,
        lumina_step: None,
    };
    assert_eq!(cells, [expected]);
    assert_eq!(plan.cell(1, &mut rng()), None);
    assert_eq!(plan.cell(-1, &mut rng()), None);
}

#[test]
fn every_setting_takes_the_value_of_its_own_axis() {
    let plan = planned(
        &TaskInput::new("n")
            .variable_prompt("p", [Prompt::freetext("a"), Prompt::freetext("b")])
            .ratio(["1:1", "2:3"])
            .seed([5, 6])
            .use_polish([false, true])
            .lumina_model_name(["m0", "m1"])
            .lumina_cfg([1.0, 2.0])
            .is_lumina(true)
            .lumina_step(12),
    );
    assert_eq!(plan.total_images, 64);
    let kinds: Vec<&str> = plan.axes.iter().map(|axis| axis.kind.as_str()).collect();
    let order = ["prompt", "ratio", "seed", "use_polish", "lumina_model_name", "lumina_cfg"];
    assert_eq!(kinds, order);
    for cell in plan.cells(&mut rng()) {
        let at = |axis: usize| cell.variable_indices[axis];
        let expected = Cell {
            variable_indices: (0..6).rev().map(|bit| cell.cell >> bit & 1).collect(),
            ratio: ["1:1", "2:3"][at(1) as usize].to_owned(),
            width: [1024, 840][at(1) as usize],
            height: [1024, 1256][at(1) as usize],
            seed: 5 + i64::from(at(2)),
            use_polish: at(3) == 1,
            lumina_model_name: Some(format!("m{}", at(4))),
            lumina_cfg: Some(1.0 + f64::from(at(5))),
            is_lumina: true,
            lumina_step: Some(12),
            lane: "ops",
            copy: 0,
            cell: cell.cell,
        };
        assert_eq!(cell, expected);
    }
}

#[test]
fn a_cell_goes_to_the_lane_of_its_task_or_its_own() {
    let task = TaskInput::new("n").prompt(Prompt::freetext("x")).is_lumina([false, true]);
    let lanes = |task: &TaskInput| -> Vec<&str> { planned(task).cells(&mut rng()).map(|cell| cell.lane).collect() };
    assert_eq!(lanes(&task), ["prod", "ops"]);
    assert_eq!(lanes(&task.clone().lane("")), ["prod", "ops"]);
    assert_eq!(lanes(&task.lane("dev")), ["dev", "dev"]);
}

#[test]
fn seeds_are_counted_up_or_drawn() {
    let seeds = |task: TaskInput| -> Vec<i64> {
        let task = task.prompt(Prompt::freetext("x"));
        planned(&task).cells(&mut rng()).map(|cell| cell.seed).collect()
    };
    let given = TaskInput::new("n").seed([7, i32::MAX]).batch_size(3);
    assert_eq!(seeds(given), [7, 8, 9, MAX_SEED, 1, 2]);
    let drawn = seeds(TaskInput::new("n").seed([None, Some(0)]).batch_size(16));
    let distinct: std::collections::BTreeSet<i64> = drawn.iter().copied().collect();
    assert_eq!(distinct.len(), 32, "one for each cell: {drawn:?}");
    let left_out = seeds(TaskInput::new("n").batch_size(16));
    assert_eq!(left_out, drawn[..16], "the same generator draws the same seeds");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_grid_is_the_product_in_order(
        prompts in prop::collection::vec(1_usize..6, 0..3),
        ratios in 0_usize..4,
        steps in 0_usize..4,
        seeds in prop::collection::vec(0_i64..=MAX_SEED, 0..4),
        copies in 1_i32..=16,
    ) {
        let mut task = TaskInput::new("n").prompt(Prompt::freetext("x")).batch_size(copies);
        let mut lengths = prompts.clone();
        for (number, length) in prompts.iter().enumerate() {
            let values = (0..*length).map(|value| Prompt::freetext(value.to_string()));
            task = task.variable_prompt(number.to_string(), values);
        }
        if ratios > 0 {
            task = task.ratio(vec!["1:1"; ratios]);
            lengths.push(ratios);
        }
        if !seeds.is_empty() {
            task = task.seed(seeds.clone());
            lengths.push(seeds.len());
        }
        if steps > 0 {
            task = task.lumina_step(vec![30; steps]);
            lengths.push(steps);
        }
        let plan = planned(&task);
        let cells: Vec<Cell> = plan.cells(&mut rng()).collect();
        let product = lengths.iter().product::<usize>() * copies as usize;
        prop_assert_eq!(cells.len(), product);
        prop_assert_eq!(plan.total_images as usize, product);

        // Written as nested loops would: the last axis fastest, and within it the copies.
        let mut expected: Vec<Vec<i32>> = vec![vec![]];
        for length in lengths.iter().copied().chain([copies as usize]) {
            expected = expected
                .iter()
                .flat_map(|outer| (0..length as i32).map(move |index| [outer.as_slice(), &[index]].concat()))
                .collect();
        }
        for (ordinal, (cell, expected)) in cells.iter().zip(&expected).enumerate() {
            let position = [cell.variable_indices.as_slice(), &[cell.copy]].concat();
            prop_assert_eq!(&position, expected);
            prop_assert_eq!(cell.cell, ordinal as i32);
            prop_assert_eq!(plan.ordinal(&cell.variable_indices, cell.copy), Some(cell.cell));
            let back = (cell.variable_indices.clone(), cell.copy);
            prop_assert_eq!(plan.position(cell.cell), Some(back));
            prop_assert!((1..=MAX_SEED).contains(&cell.seed));
        }
        prop_assert_eq!(plan.position(plan.total_images), None);
        let last = cells.last().unwrap();
        prop_assert_eq!(plan.ordinal(&last.variable_indices, copies), None);
        let beyond: Vec<i32> = lengths.iter().map(|length| *length as i32).collect();
        if !beyond.is_empty() {
            prop_assert_eq!(plan.ordinal(&beyond, 0), None);
            prop_assert_eq!(plan.ordinal(&[], 0), None);
        }
    }

    #[test]
    fn seeds_stay_in_range(seed in 1..=MAX_SEED, copy in 0_i32..16) {
        let copied = copy_seed(seed, copy);
        prop_assert!((1..=MAX_SEED).contains(&copied));
        prop_assert_eq!((copied - seed - i64::from(copy)).rem_euclid(MAX_SEED), 0);
    }

    #[test]
    fn every_ratio_keeps_its_area(across in 1_u32..400, down in 1_u32..400) {
        if let Ok(ratio) = Ratio::parse(&format!("{across}:{down}")) {
            let (width, height) = (f64::from(ratio.width()), f64::from(ratio.height()));
            prop_assert_eq!((ratio.width() % 8, ratio.height() % 8), (0, 0));
            // Each side is at most 4 pixels from where it would be.
            let exact = 1024.0 * (f64::from(across) / f64::from(down)).sqrt();
            prop_assert!((width - exact).abs() <= 4.0 + 1e-9);
            prop_assert!((height - 1_048_576.0 / exact).abs() <= 4.0 + 1e-9);
        } else {
            prop_assert!(across > 15 * down || down > 15 * across);
        }
    }
}
