-- People, tasks and cells: what is asked for, and how far it is.

create table imagemill.users (
    id            uuid        not null,
    username      text        not null,
    password_hash text,
    roles         text[]      not null,
    is_active     boolean     not null default true,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_username_not_blank check (btrim(username) <> ''),
    constraint users_username_length check (length(username) <= 255),
    constraint users_roles_known check (roles <@ array['guest', 'user', 'pro_user', 'manager', 'admin'])
);
create unique index users_username_key on imagemill.users (lower(username));
comment on table  imagemill.users               is 'Who may do what. Workers act as the user `system`, which cannot log in.';
comment on column imagemill.users.id            is 'UUIDv7.';
comment on column imagemill.users.username      is 'Unique whatever its case.';
comment on column imagemill.users.password_hash is 'argon2id in PHC form; null: cannot log in.';
comment on column imagemill.users.roles         is 'guest, user, pro_user, manager, admin; permissions are their union.';
comment on column imagemill.users.is_active     is 'An inactive user may do nothing.';

create table imagemill.lanes (
    lane                 text        not null,
    max_in_flight        integer     not null,
    submits_per_second   double precision,
    burst                integer     not null default 1,
    ramp_start           integer,
    ramp_step            integer,
    ramp_interval        interval,
    ramp_idle_reset      interval,
    polls_per_second     double precision,
    max_job_time         interval    not null default interval '5 minutes',
    current_rate         double precision,
    max_submits_per_day  bigint,
    updated_at           timestamptz not null default now(),
    constraint lanes_pkey primary key (lane),
    constraint lanes_max_in_flight_not_negative check (max_in_flight >= 0),
    constraint lanes_submits_per_second_positive check (submits_per_second > 0),
    constraint lanes_burst_positive check (burst >= 1),
    constraint lanes_ramp_whole check (num_nulls(ramp_start, ramp_step, ramp_interval) in (0, 3)),
    constraint lanes_polls_per_second_positive check (polls_per_second > 0),
    constraint lanes_current_rate_positive check (current_rate > 0),
    constraint lanes_max_submits_per_day_not_negative check (max_submits_per_day >= 0)
);
comment on table  imagemill.lanes                     is 'What the fleet shares of each way into the upstream; changed live.';
comment on column imagemill.lanes.lane                is 'prod, ops or dev; the input key is make_api_queue.';
comment on column imagemill.lanes.max_in_flight       is 'Cells in flight over all workers.';
comment on column imagemill.lanes.submits_per_second  is 'Submits a second over all workers; null: no limit.';
comment on column imagemill.lanes.burst               is 'Submits that may come at once.';
comment on column imagemill.lanes.ramp_start          is 'Places in flight when the lane starts cold; null: no ramp.';
comment on column imagemill.lanes.ramp_step           is 'Places added every ramp_interval.';
comment on column imagemill.lanes.ramp_interval       is 'How often ramp_step is added.';
comment on column imagemill.lanes.ramp_idle_reset     is 'A lane that was idle for so long starts cold again.';
comment on column imagemill.lanes.polls_per_second    is 'Polls a second over all workers; null: no limit.';
comment on column imagemill.lanes.max_job_time        is 'An attempt that was given up counts as in flight for so long.';
comment on column imagemill.lanes.current_rate        is 'Submits a second after repeated 429; null: submits_per_second.';
comment on column imagemill.lanes.max_submits_per_day is 'Budget of a day (UTC); null: none.';
insert into imagemill.lanes (lane, max_in_flight, ramp_start, ramp_step, ramp_interval, ramp_idle_reset) values
    ('prod', 40, null, null, null, null),
    ('ops',  20, 5, 5, interval '30 seconds', interval '5 minutes'),
    ('dev',   4, null, null, null, null);

create table imagemill.tasks (
    id                  uuid        not null,
    user_id             uuid        not null,
    name                text        not null,
    status              text        not null default 'pending',
    round               integer     not null default 1,
    priority            smallint    not null default 1,
    lane                text,
    idempotency_key     text,
    input_sha256        text        not null,
    prompts             jsonb       not null,
    settings            jsonb       not null,
    axes                jsonb       not null,
    total_images        integer     not null,
    max_submits         bigint,
    not_before          timestamptz,
    not_after           timestamptz,
    cancel_requested_at timestamptz,
    is_deleted          boolean     not null default false,
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    constraint tasks_pkey primary key (id),
    constraint tasks_user_id_fkey foreign key (user_id) references imagemill.users (id),
    constraint tasks_lane_fkey foreign key (lane) references imagemill.lanes (lane),
    constraint tasks_idempotency_key unique (user_id, idempotency_key),
    constraint tasks_name_length check (btrim(name) <> '' and length(name) <= 255),
    constraint tasks_status_known check (status in ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    constraint tasks_round_positive check (round >= 1),
    constraint tasks_priority_range check (priority between 1 and 8),
    constraint tasks_total_images_positive check (total_images >= 1),
    constraint tasks_max_submits_not_negative check (max_submits >= 0),
    constraint tasks_completed_at_with_end check ((completed_at is not null) = (status in ('completed', 'failed', 'cancelled')))
);
create index tasks_user_id_created_at on imagemill.tasks (user_id, created_at desc);
-- The sweep looks for open tasks; a list shows them first.
create index tasks_open on imagemill.tasks (created_at) where status in ('pending', 'processing');
comment on table  imagemill.tasks                     is 'One experiment: a grid of prompts and settings.';
comment on column imagemill.tasks.status              is 'pending, processing, completed, failed, cancelled.';
comment on column imagemill.tasks.round               is 'One run to its end; a retry begins the next.';
comment on column imagemill.tasks.priority            is '1 to 8: its weight among the tasks of its owner.';
comment on column imagemill.tasks.lane                is 'null: by cell (lumina cells go to ops, the others to prod).';
comment on column imagemill.tasks.idempotency_key     is 'Unique per user; a second create_task with it returns this task.';
comment on column imagemill.tasks.input_sha256        is 'Hash of the input, to tell a repeated call from another input under the same key.';
comment on column imagemill.tasks.prompts             is 'As given.';
comment on column imagemill.tasks.settings            is 'As given.';
comment on column imagemill.tasks.axes                is 'number, kind, variable_id, name, values.';
comment on column imagemill.tasks.total_images        is 'Cells.';
comment on column imagemill.tasks.max_submits         is 'Budget of submits; null: none.';
comment on column imagemill.tasks.not_before          is 'No submit before it.';
comment on column imagemill.tasks.not_after           is 'Pending cells are cancelled at it.';
comment on column imagemill.tasks.cancel_requested_at is 'When cancel was asked for in this round.';

create table imagemill.task_counts (
    task_id            uuid    not null,
    completed_subtasks integer not null default 0,
    failed_subtasks    integer not null default 0,
    cancelled_subtasks integer not null default 0,
    constraint task_counts_pkey primary key (task_id),
    constraint task_counts_task_id_fkey foreign key (task_id) references imagemill.tasks (id) on delete cascade,
    constraint task_counts_not_negative check (completed_subtasks >= 0 and failed_subtasks >= 0 and cancelled_subtasks >= 0)
) with (fillfactor = 50);
comment on table imagemill.task_counts is 'Ended cells by outcome. Apart from tasks, because it is written with each end of a cell and tasks is wide.';

create table imagemill.subtasks (
    id                  uuid        not null,
    task_id             uuid        not null,
    cell                integer     not null,
    variable_indices    integer[]   not null,
    copy                integer     not null,
    lane                text        not null,
    status              text        not null default 'pending',
    seed                bigint      not null,
    ratio               text        not null,
    width               integer     not null,
    height              integer     not null,
    use_polish          boolean     not null,
    is_lumina           boolean     not null,
    lumina_model_name   text,
    lumina_cfg          double precision,
    lumina_step         integer,
    attempt_count       integer     not null default 0,
    request_sha256      text,
    result              text,
    result_file         text,
    result_sha256       text,
    error_kind          text,
    error               text,
    rating              smallint,
    cancel_requested_at timestamptz,
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    constraint subtasks_pkey primary key (id),
    constraint subtasks_task_id_fkey foreign key (task_id) references imagemill.tasks (id) on delete cascade,
    constraint subtasks_cell_key unique (task_id, cell),
    constraint subtasks_cell_not_negative check (cell >= 0 and copy >= 0),
    constraint subtasks_status_known check (status in ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    constraint subtasks_seed_range check (seed between 1 and 2147483647),
    constraint subtasks_size_range check (width between 64 and 4096 and height between 64 and 4096),
    constraint subtasks_attempt_count_not_negative check (attempt_count >= 0),
    constraint subtasks_rating_range check (rating between 1 and 5),
    constraint subtasks_error_kind_known check (error_kind in ('rejected', 'refused', 'upstream_failure', 'upstream_timeout',
        'upstream_lost', 'poll_limit', 'unknown_submit', 'crash_loop', 'deadline', 'operator', 'internal')),
    constraint subtasks_failed_has_kind check ((status = 'failed') = (error_kind is not null)),
    constraint subtasks_completed_has_result check (status <> 'completed' or result is not null),
    constraint subtasks_completed_at_with_end check ((completed_at is not null) = (status in ('completed', 'failed', 'cancelled')))
) with (fillfactor = 70);
-- Is any cell of the task open? Asked by every sweep; empty for a finished task. It names completed_at and not status, which
-- says the same: a column of an index that changes with every step would keep each step from being a HOT update.
create index subtasks_open on imagemill.subtasks (task_id) where completed_at is null;
comment on table  imagemill.subtasks                  is 'One cell: one picture, one job.';
comment on column imagemill.subtasks.cell             is '0-based ordinal in the grid, copies counted.';
comment on column imagemill.subtasks.variable_indices is 'One 0-based value index per axis, in axis order.';
comment on column imagemill.subtasks.copy             is '0-based copy of its combination.';
comment on column imagemill.subtasks.lane             is 'The way into the upstream: a row of lanes, whose key is not checked 50,000 times a task.';
comment on column imagemill.subtasks.status           is 'pending: no attempt is open. processing: one is, whether or not a worker holds the job.';
comment on column imagemill.subtasks.seed             is 'The one really used, drawn at creation.';
comment on column imagemill.subtasks.attempt_count    is 'Attempts, without not_sent and turned_away.';
comment on column imagemill.subtasks.request_sha256   is 'Hash of the body that was last submitted.';
comment on column imagemill.subtasks.result           is 'URL of the picture.';
comment on column imagemill.subtasks.result_file      is 'Path below the results directory; null: not kept, see error.';
comment on column imagemill.subtasks.result_sha256    is 'Hash of the kept file.';
comment on column imagemill.subtasks.error_kind       is 'Why it failed, as a word that never changes meaning.';
comment on column imagemill.subtasks.error            is 'Why, in words: of a failed cell, of one that waits for its next try, or why the file was not kept.';
comment on column imagemill.subtasks.rating           is '1 to 5, or null.';

create table imagemill.remarks (
    id         uuid        not null,
    subtask_id uuid        not null,
    user_id    uuid        not null,
    text       text        not null,
    created_at timestamptz not null default now(),
    constraint remarks_pkey primary key (id),
    constraint remarks_subtask_id_fkey foreign key (subtask_id) references imagemill.subtasks (id) on delete cascade,
    constraint remarks_user_id_fkey foreign key (user_id) references imagemill.users (id),
    constraint remarks_text_not_blank check (btrim(text) <> '')
);
create index remarks_subtask_id on imagemill.remarks (subtask_id);
comment on table imagemill.remarks is 'What people say of a picture.';

create table imagemill.favourites (
    user_id    uuid        not null,
    task_id    uuid        not null,
    created_at timestamptz not null default now(),
    constraint favourites_pkey primary key (user_id, task_id),
    constraint favourites_user_id_fkey foreign key (user_id) references imagemill.users (id) on delete cascade,
    constraint favourites_task_id_fkey foreign key (task_id) references imagemill.tasks (id) on delete cascade
);
create index favourites_task_id on imagemill.favourites (task_id);
comment on table imagemill.favourites is 'The tasks a user keeps at hand.';
