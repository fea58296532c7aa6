-- The time for which a cell's polls are refused is written while it grows, and not only when its worker hands it over: one that is killed does neither.
comment on column imagemill.attempts.reopened_at is 'When a retry took it up again, and later by as long as its polls were refused for the token of a worker (as its workers write now and then); poll limit and deadline count from here.';
