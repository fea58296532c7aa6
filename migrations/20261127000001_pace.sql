-- What the moment of a lane's next submit was reckoned by: so a claim knows when the rate was changed since, and reckons anew.

alter table imagemill.lane_states
    add column submit_step  double precision,
    add column submit_slack double precision;
comment on column imagemill.lane_states.submit_step  is 'Seconds between two submits when next_submit_at was written; null: not known, and next_submit_at holds as it is.';
comment on column imagemill.lane_states.submit_slack is 'Seconds by which a submit might leave before its time then.';
