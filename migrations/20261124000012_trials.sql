-- What follows a pause that ends by itself: one submit is tried before the others leave.

comment on column imagemill.pauses.until    is 'When it ends by itself; null: when it is lifted. A row whose time is over lets one submit leave every 5 seconds, and remembers its strikes, until a submit succeeds.';
comment on column imagemill.pauses.probe_at is 'When one worker of the fleet may try again; whoever does moves it on: of auth and payment by upstream.probe_interval, of throttled and breaker, whose until is over, by 5 seconds.';

-- Answers of 429 that come whatever the rate is would lower it to where it is of no use; what is slower than this is left to the pauses.
alter table imagemill.lanes alter column rate_floor set default 1;
update imagemill.lanes set rate_floor = 1 where rate_floor = 0.1;
