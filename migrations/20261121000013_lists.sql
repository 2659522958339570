-- What makes lists and statistics of a million printers quick.

-- Outcomes know their release, so that its successes and failures are a sum.
alter table outcomes drop constraint outcomes_pkey;
alter table outcomes add column release uuid not null default '00000000-0000-0000-0000-000000000000';
alter table outcomes_log add column release uuid not null default '00000000-0000-0000-0000-000000000000';

comment on column outcomes.release is 'The release that was offered; the nil UUID when it was deleted before its attempt ended.';
comment on column outcomes_log.release is 'As in outcomes.';

create or replace function note_outcome(u update_history, sign integer) returns void
language plpgsql as $$
begin
    insert into outcomes_log (hour, version, platform, channel, outcome, reason, duration, count, release)
    select date_trunc('hour', coalesce(u.completed_at, now()), 'UTC'), u.firmware_version, coalesce(f.platform, 'unknown'),
        coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
        coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), sign, coalesce(f.id, '00000000-0000-0000-0000-000000000000')
    from (select) one left join firmware_versions f on f.id = u.firmware_version_id;
end $$;

-- Adding the column holds outcomes_log until the end, so nobody notes an outcome meanwhile.
delete from outcomes;
delete from outcomes_log;
insert into outcomes (hour, version, platform, channel, outcome, reason, duration, count, release)
select date_trunc(case when ended < date_trunc('day', now() - interval '48 hours', 'UTC') then 'day' else 'hour' end, ended, 'UTC'),
    u.firmware_version, coalesce(f.platform, 'unknown'), coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
    coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), count(*), coalesce(f.id, '00000000-0000-0000-0000-000000000000')
from (select *, coalesce(completed_at, started_at) as ended from update_history where not open) u
left join firmware_versions f on f.id = u.firmware_version_id
group by 1, 2, 3, 4, 5, 6, 7, 9;

alter table outcomes add primary key (hour, version, platform, channel, outcome, reason, duration, release);
create index outcomes_release on outcomes (release, outcome);
-- Those that ended by what the printer said, and wait for their proof.
create index update_history_unproved on update_history (firmware_version_id) where open and status = 'completed';

-- One column, so that PostgreSQL knows that its order is that of the rows.
create index update_history_failed on update_history (number) where status = 'failed';

-- Each order in which printers are listed.
create index printers_by_name on printers (coalesce(printer_name, ''), number);
create index printers_by_version on printers (version_key, number);
create index printers_by_last_connected on printers (coalesce(last_connected, '-infinity'), number);

-- The printers of an owner are told from the index alone.
drop index printers_user_id;
create index printers_user_id on printers (user_id, number) include (id);
