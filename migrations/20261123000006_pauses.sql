-- What a pause needs to end by itself, and what a lane that was told to slow down remembers.

alter table imagemill.pauses
    add column strikes integer not null default 1 constraint pauses_strikes_positive check (strikes >= 1),
    add column call    text    not null default 'submit' constraint pauses_call_known check (call in ('submit', 'poll'));
comment on column imagemill.pauses.why      is 'In plain words: the HTTP status and the upstream''s message, or an operator''s reason; never a token.';
comment on column imagemill.pauses.since    is 'When it began to hold; of throttled and breaker: when it last did.';
comment on column imagemill.pauses.until    is 'When it ends by itself; null: when it is lifted. A row whose time is over holds nobody; it remembers its strikes until a submit succeeds.';
comment on column imagemill.pauses.probe_at is 'auth, payment: when one worker of the fleet may try again; whoever does moves it on by upstream.probe_interval.';
comment on column imagemill.pauses.strikes  is 'throttled, breaker: how often in a row without a success between; each doubles the time.';
comment on column imagemill.pauses.call     is 'What was refused. Of a poll: a poll that is answered lifts it; of a submit: a submit that is taken.';

alter table imagemill.lanes
    add column rate_adapts   boolean          not null default true,
    add column rate_floor    double precision not null default 0.1 constraint lanes_rate_floor_positive check (rate_floor > 0),
    add column rate_step     double precision not null default 0.5 constraint lanes_rate_step_positive check (rate_step > 0),
    add column rate_interval interval         not null default interval '10 seconds'
        constraint lanes_rate_interval_positive check (rate_interval > interval '0');
comment on column imagemill.lanes.current_rate  is 'Submits a second after repeated 429 or 503; null: submits_per_second. Set by workers while rate_adapts.';
comment on column imagemill.lanes.rate_adapts   is 'Whether workers change current_rate; false: it stays as it is.';
comment on column imagemill.lanes.rate_floor    is 'current_rate is never lowered below this many submits a second.';
comment on column imagemill.lanes.rate_step     is 'Submits a second that current_rate is raised by, every rate_interval in which submits were taken.';
comment on column imagemill.lanes.rate_interval is 'Least time between two raises, and between a throttling and the first of them.';

-- Apart from lanes, whose rows the claims lock.
create table imagemill.lane_health (
    lane            text        not null,
    errors_in_a_row integer     not null default 0,
    last_error      text,
    throttled_until timestamptz,
    rate_changed_at timestamptz,
    rate_why        text,
    constraint lane_health_pkey primary key (lane),
    constraint lane_health_lane_fkey foreign key (lane) references imagemill.lanes (lane) on delete cascade,
    constraint lane_health_errors_in_a_row_not_negative check (errors_in_a_row >= 0)
);
comment on table  imagemill.lane_health                 is 'What workers found out of each lane while it did not go well; no row: nothing.';
comment on column imagemill.lane_health.errors_in_a_row is 'Submits that met a transient error (no connection, a reset, a time-out, 5xx), one after another, of all workers.';
comment on column imagemill.lane_health.last_error      is 'The last of them.';
comment on column imagemill.lane_health.throttled_until is 'End of the last throttled pause: one that follows within a minute lowers the rate.';
comment on column imagemill.lane_health.rate_changed_at is 'When workers last changed the lane''s current_rate.';
comment on column imagemill.lane_health.rate_why        is 'Why, in plain words.';
