-- What a person reads.

create function imagemill.expanded_prompts(prompts jsonb, variable_indices integer[]) returns jsonb
language sql immutable parallel safe
as $$
    -- A variable prompt takes its value at the index of its axis; axes of prompts come first, in list order.
    with listed as (
        select prompt, position,
               case when coalesce((prompt ->> 'is_variable')::boolean, false)
                    then (sum(coalesce((prompt ->> 'is_variable')::boolean, false)::int) over (order by position))::int
               end as axis
        from jsonb_array_elements(prompts) with ordinality as given (prompt, position)
    ), chosen as (
        select position,
               case when axis is null then prompt
                    else prompt -> 'variable_values' -> variable_indices[axis]
               end as prompt
        from listed
    )
    -- An empty value leaves the prompt out of the cell.
    select coalesce(jsonb_agg(prompt order by position) filter (where prompt ->> 'value' <> ''), '[]')
    from chosen
$$;
comment on function imagemill.expanded_prompts is 'A cell''s prompts, from its task''s prompts and its own indices.';

create view imagemill.task_overview as
select t.id, t.name, u.username as owner, t.status, t.round, t.priority, t.lane, t.total_images,
       c.completed_subtasks, c.failed_subtasks, c.cancelled_subtasks,
       c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks as processed_images,
       (100 * (c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks)::bigint / t.total_images)::integer as progress,
       t.created_at, t.started_at, t.completed_at
from imagemill.tasks t
join imagemill.task_counts c on c.task_id = t.id
join imagemill.users u on u.id = t.user_id
where not t.is_deleted;
comment on view imagemill.task_overview is 'Each task with its counts; progress is the floor of percent.';

create function imagemill.readable_payload(payload bytea) returns text
language plpgsql immutable parallel safe
as $$
begin
    return convert_from(payload, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
    -- One broken payload must not break the view that shows it.
    return encode(payload, 'hex');
end
$$;
comment on function imagemill.readable_payload is 'A job''s payload as text; hex when it is not text.';
