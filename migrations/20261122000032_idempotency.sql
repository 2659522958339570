create table idempotency_keys (
    caller text not null,
    key bytea not null check (octet_length(key) = 32),
    request uuid not null,
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    operation text not null,
    created_at timestamptz not null default now(),
    status smallint check (status between 200 and 299),
    location text,
    body bytea check (octet_length(body) <= 1048576),
    primary key (caller, key)
);
create index idempotency_keys_created_at on idempotency_keys (created_at);

comment on table idempotency_keys is 'Requests with an Idempotency-Key that changed something, and their answers, for a day.';
comment on column idempotency_keys.caller is 'Whose request it was: the same words as the identity in the trail.';
comment on column idempotency_keys.key is 'SHA-256 of the header''s value.';
comment on column idempotency_keys.request is 'Made up for each request, so that it knows its own row again.';
comment on column idempotency_keys.fingerprint is 'SHA-256 of what was asked: path, query and body; of an upload its fields and its file.';
comment on column idempotency_keys.operation is 'Its name in the OpenAPI document.';
comment on column idempotency_keys.created_at is 'When the change was made.';
comment on column idempotency_keys.status is 'HTTP status of the answer; null until it is known, and for ever when the replica died before.';
comment on column idempotency_keys.location is 'The answer''s Location; null when it had none.';
comment on column idempotency_keys.body is 'The answer''s body, JSON; null when it held a secret, which is told once.';
