-- The repeatable step after apalis's migrations. It may run at any time beside live workers: what is already as it
-- should be is not touched, so that nothing is locked.

-- Each of these has a twin: unique_job_id the primary key, the others an index of a later apalis migration.
drop index if exists apalis.unique_job_id, apalis.lidx, apalis.wtidx, apalis.lsidx;

-- What is there is told by its name: a changed definition needs a new name.
do $$
begin
    -- The claim of cells that nobody has begun, oldest first, by lane.
    if to_regclass('apalis.imagemill_jobs_pending') is null then
        create index imagemill_jobs_pending on apalis.jobs (job_type, (metadata -> 'lane'), run_at, id)
            where status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'alone';
    end if;
    -- The same of one group: a call that runs one task's cells among a million others.
    if to_regclass('apalis.imagemill_jobs_pending_of_group') is null then
        create index imagemill_jobs_pending_of_group on apalis.jobs (job_type, (metadata -> 'group'), run_at, id)
            where status = 'Pending' and job_type like 'imagemill.%';
    end if;
    -- The claim takes cells with an open attempt before any other.
    if to_regclass('apalis.imagemill_jobs_resumed') is null then
        create index imagemill_jobs_resumed on apalis.jobs (job_type, (metadata -> 'lane'), run_at, id)
            where status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume' and not metadata ? 'alone';
    end if;
    -- What a worker holds: counted by its beat, put back by its rescuer.
    if to_regclass('apalis.imagemill_jobs_running') is null then
        create index imagemill_jobs_running on apalis.jobs (lock_by)
            where status = 'Running' and job_type like 'imagemill.%';
    end if;
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
