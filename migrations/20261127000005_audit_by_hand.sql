-- What is changed by hand is in the audit, whatever it is: a lane's current_rate, and a pause that is taken away. What the engine does
-- says so (imagemill.engine, for its transaction), and writes rows of its own, with the reason.

create function imagemill.is_engine() returns boolean
language sql stable
as $$ select coalesce(current_setting('imagemill.engine', true), '') = 'on' $$;
comment on function imagemill.is_engine is 'Whether the engine acts in this transaction, and not a person.';

create or replace function imagemill.audit_lane() returns trigger
language plpgsql
as $$
declare
    ignored    text[] := case when imagemill.is_engine() then array['updated_at', 'current_rate'] else array['updated_at'] end;
    before_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - ignored end;
    after_row  jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - ignored end;
    changed    text[];
begin
    if tg_op = 'UPDATE' then
        select array_agg(key) into changed from jsonb_each(after_row) where before_row -> key is distinct from value;
        if changed is null then
            return null;
        end if;
        -- What changed, and nothing else.
        select jsonb_object_agg(key, value) into before_row from jsonb_each(before_row) where key = any (changed);
        select jsonb_object_agg(key, value) into after_row from jsonb_each(after_row) where key = any (changed);
    end if;
    insert into imagemill.audit (who, what, subject, old_value, new_value)
    values (imagemill.acting(), lower(tg_op) || '_lane', 'lane/' || coalesce(new.lane, old.lane), before_row, after_row);
    return null;
end
$$;
create or replace trigger audit_lane
    after update of lane, max_in_flight, submits_per_second, burst, ramp_start, ramp_step, ramp_interval, ramp_idle_reset,
                    polls_per_second, max_job_time, max_submits_per_day, rate_adapts, rate_floor, rate_step, rate_interval, current_rate
    on imagemill.lanes
    for each row execute function imagemill.audit_lane();

create or replace function imagemill.audit_pause() returns trigger
language plpgsql
as $$
begin
    if not imagemill.is_engine() then
        insert into imagemill.audit (who, what, subject, old_value, new_value)
        values (imagemill.acting(), case tg_op when 'DELETE' then 'resume_lane' else 'pause_lane' end,
                'lane/' || coalesce(new.lane, old.lane),
                case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end);
    end if;
    return null;
end
$$;
comment on function imagemill.audit_pause is 'Writes an operator''s pause, and the end by hand of any, into the audit.';
create or replace trigger audit_pause_ended after delete on imagemill.pauses
    for each row execute function imagemill.audit_pause();
