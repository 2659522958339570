-- Keys that see a part of the fleet, and rollouts that reach no further than the key that made them.
alter table api_keys
    add column user_ids text[] check (cardinality(user_ids) > 0),
    add column channels text[] check (cardinality(channels) > 0 and channels <@ array['stable', 'beta', 'canary']),
    add column platforms text[] check (cardinality(platforms) > 0);
comment on column api_keys.user_ids is 'Only the printers of these users, and what is about them; null: of all.';
comment on column api_keys.channels is 'Only these channels; null: all.';
comment on column api_keys.platforms is 'Only these platforms; null: all.';

alter table update_rollouts
    add column target_platforms text[] check (cardinality(target_platforms) > 0),
    add column target_owners text[] check (cardinality(target_owners) > 0),
    add column reach_users text[],
    add column reach_channels text[],
    add column reach_platforms text[],
    add column created_by text,
    add column creator text;
comment on column update_rollouts.target_platforms is 'Narrows the target to these platforms; null when not given.';
comment on column update_rollouts.target_owners is 'Narrows the target to printers of these users, whoever the lists name: the scope of the key that made it; null without one.';
comment on column update_rollouts.reach_users is 'Whose printers it can reach at most; null: anybody''s. A key sees a rollout that reaches no further than itself.';
comment on column update_rollouts.reach_channels is 'The same for channels.';
comment on column update_rollouts.reach_platforms is 'The same for platforms.';
comment on column update_rollouts.created_by is 'Who made it, as in api_keys.created_by; `server` for what undoes another; null before this was known.';

comment on column update_rollouts.creator is 'The same for ever, where created_by is what they were called: whoever made it does not approve it.';

-- A target that names users alone reaches nobody else, and so on.
update update_rollouts
set reach_users = case when not target_all and target_printer_ids is null then target_user_ids end, reach_channels = target_channels;

create or replace function rollout_names(r update_rollouts, user_id text, printer_id text, installed_rollout uuid, previous_version text)
returns boolean language sql immutable as $$
    select (r.target_all or (r.target_user_ids is null and r.target_printer_ids is null)
            or coalesce($2 = any(r.target_user_ids), false) or coalesce($3 = any(r.target_printer_ids), false))
        and (r.target_owners is null or coalesce($2 = any(r.target_owners), false))
        and (r.target_installed_by is null or coalesce($4 = r.target_installed_by, false))
        and (r.target_previous_version is null or coalesce($5 = r.target_previous_version, false))
$$;
