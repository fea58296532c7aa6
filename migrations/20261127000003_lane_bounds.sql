-- Numbers of a lane that no claim can reckon with stop every lane that is claimed with it: they are refused. What stands already is
-- brought to the nearest bound; a current_rate beyond them is taken away.

update imagemill.lanes
set max_in_flight      = least(max_in_flight, 1000000),
    burst              = least(burst, 1000000),
    submits_per_second = case when submits_per_second < 0.0001 then 0.0001 when submits_per_second > 1000000 then 1000000 else submits_per_second end,
    polls_per_second   = case when polls_per_second < 0.0001 then 0.0001 when polls_per_second > 1000000 then 1000000 else polls_per_second end,
    current_rate       = case when current_rate between 0.0001 and 1000000 then current_rate end,
    rate_floor         = case when rate_floor < 0.0001 then 0.0001 when rate_floor > 1000000 then 1000000 else rate_floor end,
    rate_step          = case when rate_step < 0.0001 then 0.0001 when rate_step > 1000000 then 1000000 else rate_step end,
    rate_interval      = least(rate_interval, interval '1 day'),
    max_job_time       = least(greatest(max_job_time, interval '0'), interval '7 days'),
    ramp_start         = case when ramp_start is not null then least(greatest(ramp_start, 1), 1000000) end,
    ramp_step          = case when ramp_step is not null then least(greatest(ramp_step, 1), 10000) end,
    ramp_interval      = case when ramp_interval is not null then least(greatest(ramp_interval, interval '1 ms'), interval '1 day') end,
    ramp_idle_reset    = case when ramp_idle_reset is not null then least(greatest(ramp_idle_reset, interval '0'), interval '366 days') end
where not (max_in_flight <= 1000000 and burst <= 1000000
           and coalesce(submits_per_second, 1) between 0.0001 and 1000000 and coalesce(polls_per_second, 1) between 0.0001 and 1000000
           and coalesce(current_rate, 1) between 0.0001 and 1000000 and rate_floor between 0.0001 and 1000000
           and rate_step between 0.0001 and 1000000 and rate_interval <= interval '1 day'
           and max_job_time between interval '0' and interval '7 days'
           and coalesce(ramp_start, 1) between 1 and 1000000 and coalesce(ramp_step, 1) between 1 and 10000
           and coalesce(ramp_interval, interval '1 s') between interval '1 ms' and interval '1 day'
           and coalesce(ramp_idle_reset, interval '0') between interval '0' and interval '366 days');

-- NaN is above every number here.
alter table imagemill.lanes
    add constraint lanes_max_in_flight_bounded check (max_in_flight <= 1000000),
    add constraint lanes_burst_bounded check (burst <= 1000000),
    add constraint lanes_submits_per_second_bounded check (submits_per_second between 0.0001 and 1000000),
    add constraint lanes_polls_per_second_bounded check (polls_per_second between 0.0001 and 1000000),
    add constraint lanes_current_rate_bounded check (current_rate between 0.0001 and 1000000),
    add constraint lanes_rate_floor_bounded check (rate_floor between 0.0001 and 1000000),
    add constraint lanes_rate_step_bounded check (rate_step between 0.0001 and 1000000),
    add constraint lanes_rate_interval_bounded check (rate_interval <= interval '1 day'),
    add constraint lanes_max_job_time_bounded check (max_job_time between interval '0' and interval '7 days'),
    add constraint lanes_ramp_start_bounded check (ramp_start between 1 and 1000000),
    add constraint lanes_ramp_step_bounded check (ramp_step between 1 and 10000),
    add constraint lanes_ramp_interval_bounded check (ramp_interval between interval '1 ms' and interval '1 day'),
    add constraint lanes_ramp_idle_reset_bounded check (ramp_idle_reset between interval '0' and interval '366 days');
