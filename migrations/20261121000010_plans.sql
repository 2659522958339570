-- Rollouts that run by themselves: steps, limits, thresholds, windows, an end, an approval; and counters that cost the
-- same for ten printers and ten million.

-- What installed the version that a printer runs, known when one of our updates was proved.
alter table printers
    add column installed_release uuid,
    add column installed_rollout uuid references update_rollouts (id),
    add column previous_version text;
create index printers_installed_rollout on printers (installed_rollout) where installed_rollout is not null;

comment on column printers.installed_release is 'The release that it runs, when an update of ours installed it; it may be deleted by now.';
comment on column printers.installed_rollout is 'The rollout whose update installed what it runs; null for a forced update, or when it was flashed by hand.';
comment on column printers.previous_version is 'What it ran before that update.';

alter table update_rollouts
    add column allow_downgrade boolean not null default false,
    add column target_installed_by uuid references update_rollouts (id),
    add column target_previous_version text,
    add column template text,
    add column steps jsonb check (jsonb_typeof(steps) = 'array'),
    add column step integer not null default 0 check (step >= 0),
    add column stage integer not null default 0,
    add column stage_started_at timestamptz,
    add column judged_from integer not null default 0,
    add column abort_on jsonb check (jsonb_typeof(abort_on) = 'object'),
    add column confirm_within integer not null default 600 check (confirm_within > 0),
    add column stuck_after integer check (stuck_after > 0),
    add column max_in_flight integer check (max_in_flight > 0),
    add column rate_per_minute jsonb check (jsonb_typeof(rate_per_minute) = 'object'),
    add column windows jsonb check (jsonb_typeof(windows) = 'object'),
    add column ends_at timestamptz,
    add column on_end text not null default 'stop' check (on_end in ('stop', 'cancel')),
    add column status_reason text,
    add column status_detail text,
    add column approval text not null default 'not_required'
        check (approval in ('not_required', 'waiting', 'approved', 'denied')),
    add column approval_comment text,
    add column approval_at timestamptz,
    add column rolls_back uuid references update_rollouts (id),
    add check (approval <> 'waiting' or status in ('pending', 'cancelled'));

comment on column update_rollouts.allow_downgrade is 'Whether printers that run a newer version are taken down to this one.';
comment on column update_rollouts.target_installed_by is 'Narrows the target to printers whose version was installed by this rollout.';
comment on column update_rollouts.target_previous_version is 'Narrows the target to printers that ran this version before their last update.';
comment on column update_rollouts.template is 'The template that the steps came from.';
comment on column update_rollouts.steps is 'The steps, as src/rollouts/plan.rs describes them; null without.';
comment on column update_rollouts.step is 'Index of the current step.';
comment on column update_rollouts.stage is 'Raised with every step and every resume: what is judged together.';
comment on column update_rollouts.stage_started_at is 'When the stage began; its soak counts from here.';
comment on column update_rollouts.judged_from is 'The first stage that the abort rule looks at: an operator who resumes has seen what was before.';
comment on column update_rollouts.abort_on is 'The abort rule; null without.';
comment on column update_rollouts.confirm_within is 'Seconds of silence after which an open update weighs against the release.';
comment on column update_rollouts.stuck_after is 'Seconds of silence after which an open update fails; null: as the server is configured.';
comment on column update_rollouts.max_in_flight is 'Most updates that may be open at once; null without a bound.';
comment on column update_rollouts.rate_per_minute is 'Most offers within any minute, constant or growing; null without a bound.';
comment on column update_rollouts.windows is 'Maintenance windows; null without.';
comment on column update_rollouts.ends_at is 'When it ends by itself.';
comment on column update_rollouts.on_end is 'What that means: stop (pause) or cancel.';
comment on column update_rollouts.status_reason is 'Why it is paused or cancelled, as a word: operator, failures, silence, ended, rolled_back, denied.';
comment on column update_rollouts.status_detail is 'The same as a sentence.';
comment on column update_rollouts.approval is 'Whether a second person has to agree, and what they said.';
comment on column update_rollouts.approval_comment is 'Their words.';
comment on column update_rollouts.approval_at is 'When they said so.';
comment on column update_rollouts.rolls_back is 'The rollout that this one undoes.';

alter table update_history
    add column last boolean not null default true,
    add column tries integer not null default 1 check (tries >= 1),
    add column stage integer not null default 0,
    add column stone boolean not null default false,
    drop constraint update_history_sends_check,
    add constraint update_history_sends_check check (sends >= 0);

update update_history set tries = attempt;
update update_history u set last = false
where u.status = 'cancelled' or exists (select 1 from update_history later
    where later.rollout_id = u.rollout_id and later.printer = u.printer and later.attempt > u.attempt and later.status <> 'cancelled');

drop index update_history_rollout;
create index update_history_rollout on update_history (rollout_id, printer, attempt desc);
create index update_history_last on update_history (printer) where last;
create index update_history_targets on update_history (rollout_id, number desc) where last;
create index update_history_offered on update_history (rollout_id, started_at desc);
create index update_history_in_flight on update_history (rollout_id, last_activity_at) where open;

comment on column update_history.last is 'Whether this is how the rollout stands with the printer: its newest attempt, unless that was cancelled, forgiven, or a stepping stone that was taken.';
comment on column update_history.tries is 'Counts tries as attempt does, but from 1 again after a stepping stone or when failures were forgiven: this is what max_attempts bounds.';
comment on column update_history.stage is 'The stage of the rollout under which it was offered.';
comment on column update_history.stone is 'Whether this is a lower release on the way to the rollout''s, which the printer cannot take yet.';
comment on column update_history.sends is 'How often the offer went out: 0 for a forced update that waits for its printer, more than once when the process that sent it died.';

-- The census: how many printers are alike in everything that counts, in the fleet and among those that a rollout has
-- dealt with. Rows are only added, by statement triggers, so writers never wait for one another; the counts are sums.
create table census (
    rollout_id uuid,
    named boolean not null default true,
    platform text not null,
    firmware_version text not null,
    version_key text collate "C" not null,
    auto_update boolean not null,
    update_channel text not null,
    installed_release uuid,
    installed_rollout uuid,
    stage integer not null default 0,
    state text check (state in ('open', 'completed', 'confirmed', 'declined', 'failed', 'used_up')),
    n bigint not null,
    check ((rollout_id is null) = (state is null))
);
create index census_rollout on census (rollout_id);

comment on table census is 'A log of changes of counts, folded now and then. Sums over it are exact at every commit.';
comment on column census.rollout_id is 'Counts the printers that this rollout has an attempt with; null: counts all printers.';
comment on column census.named is 'Whether the rollout''s lists name these printers; channel and version are judged when counting.';
comment on column census.platform is 'Chip family of these printers.';
comment on column census.firmware_version is 'What they run.';
comment on column census.version_key is 'The same in byte-ordered form.';
comment on column census.auto_update is 'Whether they accept updates that are not mandatory.';
comment on column census.update_channel is 'The channel that they follow.';
comment on column census.installed_release is 'The release that they run, when an update of ours installed it.';
comment on column census.installed_rollout is 'The rollout that installed it.';
comment on column census.stage is 'The stage of their last attempt.';
comment on column census.state is 'How their last attempt stands; used_up: failed for good.';
comment on column census.n is 'How many more, or fewer.';

create function rollout_names(r update_rollouts, user_id text, printer_id text, installed_rollout uuid, previous_version text)
returns boolean language sql immutable as $$
    select (r.target_all or (r.target_user_ids is null and r.target_printer_ids is null)
            or coalesce($2 = any(r.target_user_ids), false) or coalesce($3 = any(r.target_printer_ids), false))
        and (r.target_installed_by is null or coalesce($4 = r.target_installed_by, false))
        and (r.target_previous_version is null or coalesce($5 = r.target_previous_version, false))
$$;
comment on function rollout_names is 'Whether a rollout''s target names a printer. src/rollouts/target.rs says the same.';

create function update_state(status text, open boolean, tries integer, max_attempts integer)
returns text language sql immutable as $$
    select case when $1 = 'completed' and $2 then 'completed'
                when $1 = 'completed' then 'confirmed'
                when $2 then 'open'
                when $1 = 'declined' then 'declined'
                when $3 >= $4 then 'used_up'
                else 'failed' end
$$;
comment on function update_state is 'How an attempt that is the last one stands, for the census.';

create function census_of_new_printers() returns trigger language plpgsql as $$
begin
    insert into census (platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout, n)
    select platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout, count(*)
    from new_rows group by 1, 2, 3, 4, 5, 6, 7;
    return null;
end $$;

create function census_of_changed_printers() returns trigger language plpgsql as $$
begin
    if not exists (
        select 1 from old_rows o join new_rows n using (id)
        where (o.platform, o.firmware_version, o.auto_update, o.update_channel, o.installed_release, o.installed_rollout,
               o.previous_version, o.user_id)
           is distinct from (n.platform, n.firmware_version, n.auto_update, n.update_channel, n.installed_release,
               n.installed_rollout, n.previous_version, n.user_id)
    ) then
        return null;
    end if;
    insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
        installed_rollout, stage, state, n)
    with sides as (
        select -1 as n, id, user_id, printer_id, platform, firmware_version, version_key, auto_update, update_channel,
            installed_release, installed_rollout, previous_version from old_rows
        union all
        select 1, id, user_id, printer_id, platform, firmware_version, version_key, auto_update, update_channel,
            installed_release, installed_rollout, previous_version from new_rows
    )
    select null, true, platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout,
        0, null, sum(n)
    from sides group by 3, 4, 5, 6, 7, 8, 9 having sum(n) <> 0
    union all
    select r.id, rollout_names(r, s.user_id, s.printer_id, s.installed_rollout, s.previous_version), s.platform, s.firmware_version,
        s.version_key, s.auto_update, s.update_channel, s.installed_release, s.installed_rollout, u.stage,
        update_state(u.status, u.open, u.tries, r.max_attempts), sum(s.n)
    from sides s join update_history u on u.printer = s.id and u.last join update_rollouts r on r.id = u.rollout_id
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 having sum(s.n) <> 0;
    return null;
end $$;

create function census_of_updates() returns trigger language plpgsql as $$
begin
    -- Whoever changes an update's state holds its printer's row, so what is joined here is what counts.
    if tg_op = 'INSERT' then
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, n)
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), count(*)
        from new_rows s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        where s.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
    elsif tg_op = 'DELETE' then
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, n)
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), -count(*)
        from old_rows s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        where s.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
    else
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, n)
        with sides as (
            select -1 as n, o.rollout_id, o.printer, o.status, o.open, o.tries, o.stage
            from old_rows o where o.last and o.rollout_id is not null
            union all
            select 1, n.rollout_id, n.printer, n.status, n.open, n.tries, n.stage
            from new_rows n where n.last and n.rollout_id is not null
        ),
        moved as (
            select rollout_id, printer, stage, status, open, tries, sum(n) as n from sides
            group by 1, 2, 3, 4, 5, 6 having sum(n) <> 0
        )
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), sum(s.n)
        from moved s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 having sum(s.n) <> 0;
    end if;
    return null;
end $$;

comment on function census_of_new_printers is 'Counts printers that appear.';
comment on function census_of_changed_printers is 'Moves printers from one count to another, in the fleet and in every rollout that has an attempt with them.';
comment on function census_of_updates is 'Moves printers between the states of a rollout.';

create trigger census_of_new_printers after insert on printers
    referencing new table as new_rows for each statement execute function census_of_new_printers();
create trigger census_of_changed_printers after update on printers
    referencing old table as old_rows new table as new_rows for each statement execute function census_of_changed_printers();
create trigger census_of_new_updates after insert on update_history
    referencing new table as new_rows for each statement execute function census_of_updates();
create trigger census_of_changed_updates after update on update_history
    referencing old table as old_rows new table as new_rows for each statement execute function census_of_updates();
create trigger census_of_deleted_updates after delete on update_history
    referencing old table as old_rows for each statement execute function census_of_updates();

insert into census (platform, firmware_version, version_key, auto_update, update_channel, n)
select platform, firmware_version, version_key, auto_update, update_channel, count(*) from printers group by 1, 2, 3, 4, 5;

insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, stage, state, n)
select r.id, rollout_names(r, p.user_id, p.printer_id, null, null), p.platform, p.firmware_version, p.version_key, p.auto_update,
    p.update_channel, 0, update_state(u.status, u.open, u.tries, r.max_attempts), count(*)
from update_history u join update_rollouts r on r.id = u.rollout_id join printers p on p.id = u.printer
where u.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9;
