-- Maintenance windows: where printers stand, and when their owners let updates begin.
alter table printers add column time_zone text check (length(time_zone) between 1 and 64);

comment on column printers.time_zone is 'IANA time zone that its last subscribe message said; null when it said none, or an unknown one.';

create sequence owner_revisions as bigint;

create table owners (
    user_id text primary key check (length(user_id) between 1 and 64),
    time_zone text check (length(time_zone) between 1 and 64),
    windows jsonb check (jsonb_typeof(windows) = 'object'),
    revision bigint not null default nextval('owner_revisions'),
    updated_at timestamptz not null
);

comment on sequence owner_revisions is 'Numbers the changes of owners, so that a row that was deleted and made again has another number.';
comment on table owners is 'What was said about the owners of printers. A user without a row has the defaults.';
comment on column owners.user_id is 'The owner, as in printers.user_id.';
comment on column owners.time_zone is 'IANA time zone of the owner''s printers that say none themselves; null when unknown.';
comment on column owners.windows is 'When updates of the owner''s printers may begin (see src/windows); null when always.';
comment on column owners.revision is 'Counts changes; the entity tag that If-Match is compared with.';
comment on column owners.updated_at is 'Last change of the row, by the server''s clock.';
