-- Rollouts: which printers are to get which version, and how far that may go now.
create table update_rollouts (
    id uuid primary key,
    number bigint generated always as identity unique,
    firmware_version_id uuid not null references firmware_versions (id),
    firmware_version text not null,
    channel text check (channel in ('stable', 'beta', 'canary')),
    target_all boolean not null default false,
    target_user_ids text[] check (cardinality(target_user_ids) > 0),
    target_printer_ids text[] check (cardinality(target_printer_ids) > 0),
    target_channels text[] check (cardinality(target_channels) > 0),
    min_version text,
    min_version_key text collate "C",
    max_version text,
    max_version_key text collate "C",
    rollout_type text not null check (rollout_type in ('immediate', 'gradual', 'scheduled')),
    rollout_percentage integer not null check (rollout_percentage between 0 and 100),
    scheduled_for timestamptz,
    max_attempts integer not null check (max_attempts between 1 and 100),
    status text not null default 'pending' check (status in ('pending', 'active', 'paused', 'completed', 'cancelled')),
    epoch bigint not null default 1,
    revision bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,
    deleted_at timestamptz,
    check ((min_version is null) = (min_version_key is null)),
    check ((max_version is null) = (max_version_key is null)),
    check (rollout_type <> 'scheduled' or scheduled_for is not null),
    check ((status = 'cancelled') = (ended_at is not null))
);

create index update_rollouts_status on update_rollouts (status, number desc) where deleted_at is null;
create index update_rollouts_due on update_rollouts (scheduled_for) where status = 'pending' and deleted_at is null;

comment on table update_rollouts is 'Rollouts. A target is a predicate over printers, never a list of rows.';
comment on column update_rollouts.id is 'UUID v7.';
comment on column update_rollouts.number is 'The small sequential number that people type.';
comment on column update_rollouts.firmware_version_id is 'The release that the rollout names: on its channel, else the most stable one. A printer gets the one for its own channel and platform.';
comment on column update_rollouts.firmware_version is 'The version that printers are to run.';
comment on column update_rollouts.channel is 'Only releases of this channel are offered; null: that of the printer, else the most stable.';
comment on column update_rollouts.target_all is 'Everyone, whatever the two lists say.';
comment on column update_rollouts.target_user_ids is 'Printers of these users; null when not given.';
comment on column update_rollouts.target_printer_ids is 'These printers; null when not given.';
comment on column update_rollouts.target_channels is 'Narrows the target to these channels; null when not given.';
comment on column update_rollouts.min_version is 'Narrows the target to printers that run this version or a higher one.';
comment on column update_rollouts.min_version_key is 'min_version in byte-ordered form.';
comment on column update_rollouts.max_version is 'Narrows the target to printers that run this version or a lower one.';
comment on column update_rollouts.max_version_key is 'max_version in byte-ordered form.';
comment on column update_rollouts.rollout_type is 'immediate, gradual or scheduled.';
comment on column update_rollouts.rollout_percentage is 'Printers whose bucket is below it are offered the release.';
comment on column update_rollouts.scheduled_for is 'When a pending rollout becomes active by itself.';
comment on column update_rollouts.max_attempts is 'How often one printer is tried before it counts as failed.';
comment on column update_rollouts.status is 'pending, active, paused, completed (rests while nobody is pending) or cancelled (final).';
comment on column update_rollouts.epoch is 'Raised whenever the rollout narrows (pause, cancel, lower percentage): claims and frames of an older epoch are void.';
comment on column update_rollouts.revision is 'Raised by every change that an operator makes; the entity tag of If-Match.';
comment on column update_rollouts.created_at is 'When it was created.';
comment on column update_rollouts.updated_at is 'Last change of the row.';
comment on column update_rollouts.started_at is 'When it first became active.';
comment on column update_rollouts.ended_at is 'When it was cancelled.';
comment on column update_rollouts.deleted_at is 'When it was deleted; its updates stay readable.';
