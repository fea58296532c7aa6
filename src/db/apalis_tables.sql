-- The repeatable step after apalis's migrations, in one transaction. It may run at any time beside live workers: what is
-- already as it should be is not touched, so that nothing is locked. Indexes stand in indexes.sql.

do $$
begin
    -- Our queues notify once a statement from the statement itself; apalis's trigger would do it once a row.
    if not exists (select from pg_trigger
                   where tgrelid = 'apalis.jobs'::regclass and tgname = 'notify_workers'
                     and pg_get_triggerdef(oid) like '%imagemill.%') then
        drop trigger if exists notify_workers on apalis.jobs;
        create trigger notify_workers after insert on apalis.jobs
            for each row when (new.job_type not like 'imagemill.%')
            execute function apalis.notify_new_jobs();
    end if;
    -- Here and not in a migration, since it leans on apalis's columns: it is taken away before apalis's migrations run.
    if to_regclass('imagemill.jobs') is null then
        create view imagemill.jobs as
        select j.id, j.job_type as queue, j.status, j.attempts as claim, j.run_at, j.lock_by as worker,
               j.lock_at as claimed_at, j.done_at, j.idempotency_key as key, j.metadata -> 'lane' as lane,
               j.metadata -> 'group' as "group", j.metadata -> 'owner' as owner, j.metadata ? 'resume' as resume,
               imagemill.readable_payload(j.job) as payload, j.last_result
        from apalis.jobs j
        where j.job_type like 'imagemill.%';
        comment on view imagemill.jobs is 'imagemill''s rows of apalis.jobs in readable form.';
    end if;
end
$$;

-- A vacuum of the jobs in time. Each claim and each settle leaves a dead row and dead entries in the indexes that the next claim
-- walks, and pruning leaves the rest: with a day's million finished jobs in the table PostgreSQL's default would wait for 200,000.
-- No fillfactor: a change of a job's state is in an index, so none can be a HOT update, and room would only be wasted (35.8 MB
-- for 28.6 after 60,000 cells). What somebody has set by hand stays; where all is set nothing is locked.
do $$
declare
    missing text;
begin
    select string_agg(format('%s = %s', name, value), ', ') into missing
    from (values ('autovacuum_vacuum_scale_factor', '0.02'), ('autovacuum_vacuum_threshold', '5000'),
                 ('autovacuum_analyze_scale_factor', '0.02'), ('autovacuum_analyze_threshold', '5000')) as wanted (name, value)
    where not exists (select from pg_class, unnest(reloptions) as option
                      where pg_class.oid = 'apalis.jobs'::regclass and split_part(option, '=', 1) = wanted.name);
    if missing is not null then
        execute format('alter table apalis.jobs set (%s)', missing);
    end if;
end
$$;
