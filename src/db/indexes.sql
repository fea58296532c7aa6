-- Indexes of tables that a live fleet works on. Each statement stands for itself and is run outside a transaction, with
-- `concurrently` put in, so that nobody waits for it: only where the index is missing (or, for `drop`, there), and an index
-- that an init-db which was cut short left invalid is made again.
--
-- What is there is told by its name: a changed definition needs a new name. No semicolon but at a statement's end.

-- Each of these has a twin: unique_job_id the primary key, the others an index of a later apalis migration.
drop index apalis.unique_job_id;
drop index apalis.lidx;
drop index apalis.wtidx;
drop index apalis.lsidx;

-- The next that is due of a lane. Without the id: the cells of a task are due at one moment, and equal entries are one list of rows;
-- and no claim, which takes a group's jobs in the order of their ids too, is tempted to look for them here.
create index imagemill_jobs_due on apalis.jobs (job_type, (metadata -> 'lane'), run_at)
    where status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'alone';
drop index apalis.imagemill_jobs_pending;

-- The same of one group: a call that runs one task's cells among a million others.
create index imagemill_jobs_pending_of_group on apalis.jobs (job_type, (metadata -> 'group'), run_at, id)
    where status = 'Pending' and job_type like 'imagemill.%';

-- The claim takes cells with an open attempt before any other.
create index imagemill_jobs_resumed on apalis.jobs (job_type, (metadata -> 'lane'), run_at, id)
    where status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume' and not metadata ? 'alone';

-- The claim of what may have ended its workers; and whether there is any.
create index imagemill_jobs_solitary on apalis.jobs (job_type, run_at, id)
    where status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'solitary';

-- What a worker holds: counted by its beat, put back by its rescuer, asked for by the foreign key when its row goes. In place of
-- apalis's own, in which every finished job stands as well. And by the time of its claim: a claim counts what is in flight from the
-- oldest that still runs on, and does not walk over what has ended.
create index imagemill_jobs_held on apalis.jobs (lock_by, lock_at) where lock_by is not null;
drop index apalis.idx_apalis_jobs_lock_by;
drop index apalis.imagemill_jobs_lock_by;
drop index apalis.imagemill_jobs_running;

-- The claim of cells that nobody has begun: each task's oldest first, by lane. And which tasks have any.
create index imagemill_jobs_pending_by_group on apalis.jobs (job_type, (metadata -> 'lane'), (metadata -> 'group'), run_at, id)
    where status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'alone';

-- Cells of which it is not known whether they were paid for: where the sweep looks for ids that came late.
create index imagemill_subtasks_unknown on imagemill.subtasks (task_id) where error_kind = 'unknown_submit';

-- Failed cells, for the view of failures. Written when a cell fails, and by no step of a cell that does not: error_kind is null all
-- the way, and changes only with completed_at, which is in an index already.
create index subtasks_failed on imagemill.subtasks (task_id, error_kind, completed_at) where error_kind is not null;

-- The attempts of the last minutes, for the rate of a lane. A summary of a few bytes for each 128 pages, on a column that never
-- changes: an insert touches it once in some thousand rows.
create index attempts_submitted_at on imagemill.attempts using brin (submitted_at);

-- Few are open at any time, and the index of one open attempt a cell has them all. Two partial indexes of the same rows made a
-- settle pay for both.
drop index imagemill.attempts_open_by_lane;

-- Open tasks that submit nothing after a time, by that time: whoever looks what is overdue finds the next of them first.
create index tasks_not_after on imagemill.tasks (not_after) where not_after is not null and completed_at is null;
