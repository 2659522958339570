-- Which printers are let in: each shows a key, its own or one that speaks for all printers of its user.
create table printer_keys (
    id uuid primary key,
    number bigint generated always as identity unique,
    user_id text not null check (char_length(user_id) between 1 and 64),
    printer_id text check (char_length(printer_id) between 1 and 64),
    secret_sha256 bytea not null check (length(secret_sha256) = 32),
    previous_sha256 bytea check (length(previous_sha256) = 32),
    previous_until timestamptz,
    enrolled boolean not null,
    created_at timestamptz not null,
    created_by text not null,
    check (not enrolled or printer_id is not null),
    check ((previous_sha256 is null) = (previous_until is null))
);
-- A printer has one key; a user may have several that speak for all of their printers.
create unique index printer_keys_printer on printer_keys (printer_id) where printer_id is not null;
create index printer_keys_user on printer_keys (user_id, secret_sha256);
create index printer_keys_shared on printer_keys (user_id, previous_sha256) where printer_id is null;

comment on table printer_keys is 'Keys that printers show when they subscribe.';
comment on column printer_keys.id is 'UUID v7.';
comment on column printer_keys.number is 'The order of lists.';
comment on column printer_keys.user_id is 'The owner of the printer, or of the printers: the key opens nothing under another user.';
comment on column printer_keys.printer_id is 'The printer whose key it is; null: it speaks for every printer of the user that has none of its own.';
comment on column printer_keys.secret_sha256 is 'SHA-256 of a fixed word, the user_id and the key, each behind its length.';
comment on column printer_keys.previous_sha256 is 'The same of the key before the last rotation.';
comment on column printer_keys.previous_until is 'Until then that one opens as well.';
comment on column printer_keys.enrolled is 'Whether the printer brought it with its first subscribe; false: an operator made it.';
comment on column printer_keys.created_at is 'When it was made or brought.';
comment on column printer_keys.created_by is 'Who made it, as in api_keys.created_by; `printer` when it was brought.';

alter table printers
    add column shared_key boolean not null default false,
    add column blocked_at timestamptz;
comment on column printers.shared_key is 'Whether the key that it showed last speaks for other printers as well.';
comment on column printers.blocked_at is 'Since then it is kept out; null: it is not.';
alter table update_history add column shared_key boolean not null default false;
comment on column update_history.shared_key is 'Whether the printer showed a key that speaks for others as well: what it says weighs less.';

create table dead_printer_keys (
    user_id text not null,
    secret_sha256 bytea not null check (length(secret_sha256) = 32),
    primary key (user_id, secret_sha256)
);
comment on table dead_printer_keys is 'Keys that spoke for all printers of a user, and were deleted: none of them is bound to a printer that shows it.';
comment on column dead_printer_keys.user_id is 'As in printer_keys.';
comment on column dead_printer_keys.secret_sha256 is 'As in printer_keys.';
