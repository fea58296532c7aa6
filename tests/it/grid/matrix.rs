//! The grid as data: `task_matrix`, in the library and as SQL.

use imagemill::{
    crud::grid::MatrixCell,
    models::{MatrixAxis, MatrixQuery, Prompt, TaskInput},
    services::{
        error::ServiceError,
        grid_service::task_matrix,
        task_service::{self, plan_task},
    },
};
use sqlx::Connection as _;
use uuid::Uuid;

use super::ended_task;
use crate::support::World;

async fn ask(world: &World, task: Uuid, query: &MatrixQuery) -> Vec<MatrixCell> {
    task_matrix(&world.context, &world.actor, task, query).await.expect("the slice")
}

/// Two equal styles and another, two ratios, two copies.
fn input() -> TaskInput {
    let styles = ["ink", "ink", "pastel"].map(Prompt::freetext);
    TaskInput::new("a grid").variable_prompt("style", styles).ratio(["1:1", "2:3"]).batch_size(2)
}

#[tokio::test]
async fn a_slice_has_each_cell_in_its_place_and_equal_values_stay_apart() {
    let world = World::new().await;
    let limits = &world.context.settings.limits;
    let definition = input().validate(&limits.into()).unwrap();
    let plan = imagemill::models::plan(&definition, &limits.into()).unwrap();
    assert_eq!(plan_task(limits, &definition).unwrap().total_images, 12);
    let task = ended_task(&world, input()).await;
    for copy in 0..2 {
        let query = MatrixQuery {
            x_axis: Some(MatrixAxis::Axis(0)),
            y_axis: Some(MatrixAxis::Axis(1)),
            fixed: [(MatrixAxis::Copy, copy)].into(),
            ..MatrixQuery::default()
        };
        let cells = ask(&world, task, &query).await;
        assert_eq!(cells.iter().map(|cell| cell.position).collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
        for cell in &cells {
            assert_eq!(Some(cell.cell), plan.ordinal(&[cell.x, cell.y], copy as i32), "{cell:?}");
        }
        let labels: Vec<_> =
            cells.iter().map(|cell| (cell.x_label.as_deref().unwrap(), cell.y_label.as_deref().unwrap())).collect();
        assert_eq!(labels[..4], [("ink", "1:1"), ("ink", "1:1"), ("pastel", "1:1"), ("ink", "2:3")]);
    }
    // Cell 5: the second style, the first ratio, the second copy.
    let copies =
        MatrixQuery { y_axis: Some(MatrixAxis::Copy), fixed: [(MatrixAxis::Axis(0), 1)].into(), ..MatrixQuery::default() };
    let cells = ask(&world, task, &copies).await;
    assert_eq!(
        cells.iter().map(|cell| (cell.cell, cell.y_label.clone().unwrap())).collect::<Vec<_>>(),
        [(4, "copy 1".to_owned()), (5, "copy 2".to_owned())]
    );
    assert_eq!(
        (cells[0].url.as_deref(), cells[0].file.as_deref()),
        (Some("https://images.example/4.png"), Some("kept #1/a picture.png"))
    );
    let failed = &cells[1];
    assert_eq!((failed.status.to_string().as_str(), failed.error_kind.as_deref()), ("failed", Some("refused")));
    assert!(failed.error.as_deref().is_some_and(|error| error.contains("refused")) && failed.url.is_none());
}

#[tokio::test]
async fn pages_together_are_the_slice_and_a_task_without_axes_is_one_cell() {
    let world = World::new().await;
    let task = ended_task(&world, input()).await;
    let whole = MatrixQuery { x_axis: Some(MatrixAxis::Axis(0)), y_axis: Some(MatrixAxis::Copy), ..MatrixQuery::default() };
    let all = ask(&world, task, &whole).await;
    assert_eq!(all.len(), 6);
    let mut paged = Vec::new();
    for page in 0..4 {
        paged.extend(ask(&world, task, &MatrixQuery { from_position: page * 2, page_size: 2, ..whole.clone() }).await);
    }
    assert_eq!(
        paged.iter().map(|cell| cell.subtask_id).collect::<Vec<_>>(),
        all.iter().map(|cell| cell.subtask_id).collect::<Vec<_>>()
    );

    let single = ended_task(&world, TaskInput::new("one").prompt(Prompt::freetext("one"))).await;
    let cells = ask(&world, single, &MatrixQuery::default()).await;
    assert_eq!(cells.len(), 1);
    assert_eq!((cells[0].x, cells[0].y, cells[0].cell, &cells[0].x_label), (0, 0, 0, &None));
    let missing = task_matrix(&world.context, &world.actor, Uuid::nil(), &MatrixQuery::default()).await;
    assert!(matches!(missing, Err(ServiceError::NotFound { what: "task", .. })), "{missing:?}");
}

/// A transaction that ends after the cursor was taken wrote a time before it: its changes are told all the same.
#[tokio::test]
async fn changes_since_a_cursor_are_told_once_whoever_commits_when() {
    let world = World::new().await;
    let task = ended_task(&world, input()).await;
    let query = MatrixQuery { x_axis: Some(MatrixAxis::Axis(0)), y_axis: Some(MatrixAxis::Axis(1)), ..MatrixQuery::default() };
    let mut writer = world.pool().acquire().await.unwrap();
    let mut late = writer.begin().await.unwrap();
    let rate = "update imagemill.subtasks set rating = 4, updated_at = now() where cell = $1";
    sqlx::query(rate).bind(0).execute(&mut *late).await.unwrap();
    let cursor = ask(&world, task, &query).await[0].cursor.clone();
    sqlx::query(rate).bind(2).execute(world.pool()).await.unwrap();
    let since = |cursor: &str| MatrixQuery { changed_since: Some(cursor.to_owned()), ..query.clone() };
    let changed = ask(&world, task, &since(&cursor)).await;
    assert_eq!(changed.iter().map(|cell| cell.cell).collect::<Vec<_>>(), [2], "what is not committed is not there");
    let next = changed[0].cursor.clone();
    late.commit().await.unwrap();
    let changed = ask(&world, task, &since(&next)).await;
    assert_eq!(changed.iter().map(|cell| (cell.cell, cell.rating)).collect::<Vec<_>>(), [(0, Some(4))]);
    assert_eq!(ask(&world, task, &since(&changed[0].cursor)).await, [], "nothing is told twice");
    let both = ask(&world, task, &since(&cursor)).await;
    assert_eq!(both.iter().map(|cell| cell.cell).collect::<Vec<_>>(), [0, 2], "an old cursor tells all since it");
}

#[tokio::test]
async fn every_fault_of_a_query_is_told_at_once() {
    let world = World::new().await;
    let definition = input().validate(&(&world.context.settings.limits).into()).unwrap();
    let task = task_service::create_task(&world.context, &world.actor, &definition).await.unwrap().id;
    let query = MatrixQuery {
        x_axis: Some(MatrixAxis::Axis(2)),
        y_axis: Some(MatrixAxis::Axis(1)),
        fixed: [(MatrixAxis::Axis(0), 3), (MatrixAxis::Axis(1), 0), (MatrixAxis::Axis(9), 0), (MatrixAxis::Copy, 2)].into(),
        from_position: -1,
        page_size: 0,
        changed_since: Some("yesterday".to_owned()),
    };
    let refused = task_matrix(&world.context, &world.actor, task, &query).await;
    let Err(ServiceError::Input(faults)) = refused else { panic!("{refused:?}") };
    let paths: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["x_axis", "fixed.0", "fixed.1", "fixed.9", "fixed.copy", "from_position", "page_size", "changed_since"]);
    assert_eq!(faults.0[0].message, "\"2\" is no axis; there are 0, 1, copy");
    assert_eq!(faults.0[1].message, "3 is no index of its values, 0 to 2");
    for (statement, said) in [
        (
            "select * from imagemill.task_matrix($1, '-1', 'colour')",
            "x_axis: \"-1\" is no axis; there are 0, 1, copy; y_axis: \"colour\"",
        ),
        ("select * from imagemill.task_matrix($1, '0', '0')", "y_axis: \"0\" is x_axis already"),
        ("select * from imagemill.task_matrix($1, fixed => '[0]')", "fixed: must be an object"),
        ("select * from imagemill.task_matrix($1, fixed => '{\"0\": 1.5, \"copy\": null}')", "fixed.0: 1.5 is no index"),
    ] {
        let error = sqlx::query(statement).bind(task).fetch_all(world.pool()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{statement}: {error}");
    }
}

/// A slice is found by the cells' key: its plan reads no other cells.
#[tokio::test]
async fn a_page_of_a_large_task_reads_its_own_cells_alone() {
    let world = World::new().await;
    let values = |name: &str| (0..100).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>();
    let task =
        ended_task(&world, TaskInput::new("large").variable_prompt("a", values("a")).variable_prompt("b", values("b"))).await;
    sqlx::query("analyze imagemill.subtasks").execute(world.pool()).await.unwrap();
    let mut connection = world.pool().acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let read =
        "select (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_xact_user_tables where relname = 'subtasks'";
    let query = MatrixQuery {
        x_axis: Some(MatrixAxis::Axis(0)),
        y_axis: Some(MatrixAxis::Axis(1)),
        page_size: 100,
        from_position: 5_000,
        ..MatrixQuery::default()
    };
    // What this session has read before is not told apart from what its transaction reads.
    let before: i64 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await.unwrap();
    let cells = imagemill::crud::grid::task_matrix(&mut transaction, task, &query).await.unwrap();
    assert_eq!(cells.len(), 100);
    assert_eq!((cells[0].cell, cells[1].cell), (50, 150), "row 50, columns 0 and 1");
    let rows: i64 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await.unwrap();
    assert!((100..=1_000).contains(&(rows - before)), "{} cells were read for a page of 100", rows - before);
}
