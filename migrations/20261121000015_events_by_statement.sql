-- Many attempts change in one statement, so what is told of them is written by one as well.
create function tell_changes() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, data)
    select case when n.open then 'update.changed' else 'update.ended' end, n.rollout_id, r.number,
        jsonb_build_object('id', n.id, 'number', n.number, 'rollout_id', n.rollout_id, 'rollout_number', r.number,
            'printer_id', p.printer_id, 'firmware_version', n.firmware_version, 'from_version', n.from_version,
            'attempt', n.attempt, 'status', n.status, 'open', n.open, 'reason', n.reason,
            'error_message', left(n.error_message, 200))
    from new_rows n join old_rows o using (id) join printers p on p.id = n.printer
        left join update_rollouts r on r.id = n.rollout_id
    where (o.status, o.open, o.reason, o.error_message, o.completed_at, o.confirmed_at, o.started_at)
        is distinct from (n.status, n.open, n.reason, n.error_message, n.completed_at, n.confirmed_at, n.started_at)
    order by n.number;
    insert into outcomes_log (hour, version, platform, channel, outcome, reason, duration, count, release)
    select date_trunc('hour', coalesce(u.completed_at, now()), 'UTC'), u.firmware_version, coalesce(f.platform, 'unknown'),
        coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
        coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), sum(u.sign),
        coalesce(f.id, '00000000-0000-0000-0000-000000000000')
    from (
        select -1 as sign, * from old_rows where not open
        union all
        select 1, * from new_rows where not open
    ) u left join firmware_versions f on f.id = u.firmware_version_id
    group by 1, 2, 3, 4, 5, 6, 7, 9 having sum(u.sign) <> 0;
    return null;
end $$;

drop trigger tell_updated on update_history;
create trigger tell_updated after update on update_history referencing old table as old_rows new table as new_rows
    for each statement execute function tell_changes();
drop function tell_change();
