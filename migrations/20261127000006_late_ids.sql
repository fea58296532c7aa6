-- An attempt that a person had said was not billed turns out to have been taken: its cell counts it again.
create function imagemill.count_attempts(cells uuid[]) returns void
language sql
as $$
    -- Locked in the order of their ids, as everybody does.
    with locked as materialized (
        select id from imagemill.subtasks where id = any (cells) order by id for update
    )
    update imagemill.subtasks set attempt_count = attempt_count + 1, updated_at = now() where id in (select id from locked);
$$;
comment on function imagemill.count_attempts is 'For an attempt that was left out of attempt_count, and was taken by the upstream after all: one more a cell.';
