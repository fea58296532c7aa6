-- The grid as data: one slice of a task's cells, in pages, and what has changed of it. Part of the views, by the same rules (see
-- views.sql): it is replaced in place. It reads tables by the rights of who calls it.

create or replace function imagemill.axis_labels(axes jsonb, copies integer, axis text) returns text[]
language plpgsql immutable parallel safe
as $$
begin
    if axis is null then
        return array[null::text];
    elsif axis = 'copy' then
        return array(select format('copy %s', copy) from generate_series(1, copies) as copy);
    elsif axis !~ '^(0|[1-9][0-9]{0,3})$' or axes -> axis::integer is null then
        return null;
    end if;
    return array(
        select imagemill.value_label(value)
        from jsonb_array_elements(axes -> axis::integer -> 'values') with ordinality as given (value, number)
        order by number);
end
$$;
comment on function imagemill.axis_labels is 'What people read at each value of an axis, named by its number or as `copy`; null: there is no such axis.';

create or replace function imagemill.task_matrix(
    task          uuid,
    x_axis        text    default null,
    y_axis        text    default null,
    fixed         jsonb   default '{}',
    from_position bigint  default 0,
    page_size     integer default 1000,
    changed_since text    default null
) returns table (
    "position" bigint, x integer, y integer, x_label text, y_label text, cell integer, subtask_id uuid, status text,
    url text, file text, error_kind text, error text, rating smallint, seed bigint, attempt_count integer,
    updated_at timestamptz, "cursor" text)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    v_axes     jsonb;
    v_total    integer;
    v_deleted  boolean;
    v_axis     jsonb;
    v_names    text[] := array['copy'];
    v_name     text;
    v_value    jsonb;
    v_labels   text[];
    v_x_labels text[];
    v_y_labels text[];
    v_copies   integer;
    v_wide     bigint;
    v_high     bigint;
    v_x_stride integer := 0;
    v_y_stride integer := 0;
    v_base     integer := 0;
    v_stride   integer := 1;
    v_since    pg_snapshot;
    v_newest   bigint;
    v_known    text;
    v_faults   jsonb := '[]';
begin
    select t.axes, t.total_images, t.is_deleted into v_axes, v_total, v_deleted
    from imagemill.tasks t where t.id = task_matrix.task;
    if not found then
        raise no_data_found using message = format('there is no task %s', task_matrix.task);
    elsif v_deleted then
        raise no_data_found using message = format('task %1$s is deleted; `imagemill task restore %1$s` brings it back', task_matrix.task);
    end if;
    v_copies := v_total;
    for v_axis in select value from jsonb_array_elements(v_axes) loop
        v_copies := v_copies / jsonb_array_length(v_axis -> 'values');
    end loop;
    -- From the one that varies fastest.
    for number in reverse jsonb_array_length(v_axes) - 1 .. 0 loop
        v_names := v_names || number::text;
    end loop;
    v_known := (select string_agg(name, ', ' order by number desc) from unnest(v_names) with ordinality as known (name, number));

    -- Every fault at once.
    v_x_labels := imagemill.axis_labels(v_axes, v_copies, x_axis);
    v_y_labels := imagemill.axis_labels(v_axes, v_copies, y_axis);
    if v_x_labels is null then
        v_faults := v_faults || jsonb_build_object('path', 'x_axis', 'message', format('%s is no axis; there are %s', to_jsonb(x_axis), v_known));
    end if;
    if v_y_labels is null then
        v_faults := v_faults || jsonb_build_object('path', 'y_axis', 'message', format('%s is no axis; there are %s', to_jsonb(y_axis), v_known));
    elsif x_axis = y_axis then
        v_faults := v_faults || jsonb_build_object('path', 'y_axis', 'message', format('%s is x_axis already', to_jsonb(y_axis)));
    end if;
    if coalesce(jsonb_typeof(fixed), 'object') <> 'object' then
        v_faults := v_faults || jsonb_build_object('path', 'fixed', 'message', 'must be an object of axes and indices of their values');
    else
        for v_name, v_value in select key, value from jsonb_each(fixed) order by key loop
            v_labels := imagemill.axis_labels(v_axes, v_copies, v_name);
            if v_labels is null then
                v_faults := v_faults || jsonb_build_object('path', format('fixed.%s', v_name), 'message', format('is no axis; there are %s', v_known));
            elsif v_name in (x_axis, y_axis) then
                v_faults := v_faults || jsonb_build_object('path', format('fixed.%s', v_name), 'message', 'is an axis of the slice already');
            elsif v_value::text !~ '^[0-9]{1,9}$' or v_value::text::integer >= cardinality(v_labels) then
                v_faults := v_faults || jsonb_build_object('path', format('fixed.%s', v_name), 'message',
                    format('%s is no index of its values, 0 to %s', v_value, cardinality(v_labels) - 1));
            end if;
        end loop;
    end if;
    if coalesce(from_position, -1) < 0 then
        v_faults := v_faults || jsonb_build_object('path', 'from_position', 'message', 'must be 0 or more');
    end if;
    if coalesce(page_size, 0) not between 1 and 50000 then
        v_faults := v_faults || jsonb_build_object('path', 'page_size', 'message', 'must be 1 to 50000');
    end if;
    begin
        v_since := changed_since::pg_snapshot;
    exception when invalid_text_representation then
        v_faults := v_faults || jsonb_build_object('path', 'changed_since', 'message', 'is not a "cursor" of an earlier call');
    end;
    if v_faults <> '[]' then
        raise invalid_parameter_value using detail = v_faults::text, message = (
            select string_agg(format('%s: %s', fault ->> 'path', fault ->> 'message'), '; ' order by number)
            from jsonb_array_elements(v_faults) with ordinality as faults (fault, number));
    end if;

    -- A cell's ordinal: the last axis varies fastest, and copies are neighbours.
    foreach v_name in array v_names loop
        if v_name = x_axis then
            v_x_stride := v_stride;
        elsif v_name = y_axis then
            v_y_stride := v_stride;
        else
            v_base := v_base + v_stride * coalesce((fixed ->> v_name)::integer, 0);
        end if;
        v_stride := v_stride * cardinality(imagemill.axis_labels(v_axes, v_copies, v_name));
    end loop;
    v_wide := cardinality(v_x_labels);
    v_high := cardinality(v_y_labels);
    v_newest := greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_xact_id_if_assigned()::text::bigint + 1);

    return query
    select p.at, (p.at % v_wide)::integer, (p.at / v_wide)::integer,
           v_x_labels[p.at % v_wide + 1], v_y_labels[p.at / v_wide + 1],
           s.cell, s.id, s.status, s.result, s.result_file, s.error_kind, s.error, s.rating, s.seed, s.attempt_count, s.updated_at,
           pg_current_snapshot()::text
    from generate_series(from_position, least(v_wide * v_high, case when v_since is null then from_position + page_size else v_wide * v_high end) - 1) as p (at)
    -- Each cell by its key: `offset 0` keeps the planner, which cannot know how few they are, from reading the whole task.
    cross join lateral (
        select c.*, c.xmin from imagemill.subtasks c
        where c.task_id = task_matrix.task
          and c.cell = v_base + (p.at % v_wide)::integer * v_x_stride + (p.at / v_wide)::integer * v_y_stride
        offset 0) as s
    -- A row's own transaction tells whether the cursor's snapshot saw it; a time would not, since a transaction may end long after
    -- the time that it writes. xmin has no epoch: what can be seen is the last of its number before the newest.
    where v_since is null
       or not pg_visible_in_snapshot((v_newest - ((v_newest - s.xmin::text::bigint) & 4294967295))::text::xid8, v_since)
    order by p.at
    limit page_size;
end
$$;
comment on function imagemill.task_matrix is 'One slice of a task''s grid, row by row: x_axis and y_axis by number or `copy`, the others at fixed {"axis": value index}, else at their first value; without axes 1 x 1. A page begins at from_position. changed_since: only what has changed since the "cursor" of an earlier call; of several pages keep the first one''s.';
