-- Short links of our own, for printers that cannot take a presigned URL, and what they tell about downloads.
alter table printers
    add column max_url_length integer check (max_url_length between 1 and 100000),
    add column follows_redirects boolean not null default false;

comment on column printers.max_url_length is 'Longest URL that it can take, in characters, when its subscribe message says so.';
comment on column printers.follows_redirects is 'Whether it follows a redirect when it downloads.';

alter table update_history
    add column download_started_at timestamptz,
    add column download_ended_at timestamptz,
    add column download_bytes bigint check (download_bytes >= 0);

comment on column update_history.download_started_at is 'When its image was first asked for through one of our links.';
comment on column update_history.download_ended_at is 'When the last byte that went through one of our links left.';
comment on column update_history.download_bytes is 'Most bytes that one download through our links sent; the image''s size when it was whole.';

create table download_links (
    token_hash bytea primary key check (length(token_hash) = 32),
    printer uuid not null references printers (id),
    firmware_version_id uuid not null references firmware_versions (id) on delete cascade,
    update_id uuid not null references update_history (id) on delete cascade,
    created_at timestamptz not null,
    expires_at timestamptz not null
);

create index download_links_expiry on download_links (expires_at);
create index download_links_update on download_links (update_id);
create index download_links_release on download_links (firmware_version_id);

comment on table download_links is 'Links that were handed out. The token itself is nowhere; what an expired one named is forgotten soon after.';
comment on column download_links.token_hash is 'SHA-256 of the token.';
comment on column download_links.printer is 'The printer that it was handed to.';
comment on column download_links.firmware_version_id is 'The release that it downloads.';
comment on column download_links.update_id is 'The attempt that it belongs to.';
comment on column download_links.created_at is 'When it was handed out.';
comment on column download_links.expires_at is 'From then on it downloads nothing.';
